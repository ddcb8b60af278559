"""The model card, in Markdown: results and what they mean, how to use the model, its data and licence."""

from typing import TYPE_CHECKING

from pixelcnn.config import Given
from pixelcnn.data.dataset import DatasetInfo
from pixelcnn.reporting.reports import cost, si
from pixelcnn.schemas import EvaluateReport, Score, TrainReport

if TYPE_CHECKING:
    from pixelcnn.checkpoint import ModelConfig

# What the bits/dim of a card are of, by what the model is conditioned on
MEANING = {
    Given.NONE: "Bits/dim of an image: -log2 p(x) per sub-pixel; lower is better.",
    Given.LABEL: "Bits/dim of an image given its class. `predict` takes no class: it uses the mean of p(x | class).",
    Given.EMBEDDING: "Bits/dim of an image given its embedding, which `predict` does not take: use `pixelcnn.load`.",
    Given.CODE: "Bits/dim of an image given its own code, which is not counted: not p(x), and not comparable with it.",
}
BOUND = "≤ marks an upper bound on the exact value."


def model_card(
    what: str, described: "ModelConfig", info: DatasetInfo, scores: EvaluateReport, train: TrainReport
) -> str:
    """The card of the model that `described` (its config.json) and the run's reports describe; `what` is the title."""
    mark = "" if train.exact else "≤ "
    # The first line is plain, since MLflow's list of versions shows the source
    lines = [f"{what} ({described.model.name}), trained on {info.title}.", ""]
    lines += ["| split | bits/dim | standard error | images |", "|---|---|---|---|"]
    lines += [
        f"| {split} | {mark}{score.bits_per_dim:.4f} | {_error(score)} | {score.num_images} |"
        for split, score in scores.scores.items()
    ]
    lines += ["", MEANING[described.model.given]] + ([BOUND] if mark else [])
    lines += ["", f"{si(train.num_parameters)} parameters. Training: {cost(train)}.", ""]
    lines += _use(described)
    lines += [
        "",
        f"Data: {info.licence or 'no licence stated'}.{f' Cite: {info.citation}' if info.citation else ''}",
        f"Weights: safetensors, sha256 {described.weights_sha256}",
    ]
    return "\n".join(lines)


def _error(score: Score) -> str:
    return "" if score.standard_error is None else f"{score.standard_error:.4f}"


def _use(described: "ModelConfig") -> list[str]:
    """How to load the registered model, and to score images with `predict` where that needs no embeddings."""
    name = described.registered_name
    lines = ["```python", "import pixelcnn", ""]
    lines += [f'model = pixelcnn.load("models:/{name}@champion")  # to sample and to score', "```"]
    if described.model.given is not Given.EMBEDDING:
        shape = ", ".join(map(str, described.data.shape))
        lines += ["", "```python", "import mlflow", ""]
        lines += [f'model = mlflow.pyfunc.load_model("models:/{name}@champion")']
        lines += [f"model.predict(images)  # uint8 (N, {shape}) -> bits/dim (N,)", "```"]
    return lines
