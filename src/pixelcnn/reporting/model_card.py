"""A model's card, Markdown: what it is, its numbers and what they mean, how to use it, its data and licence."""

from typing import Any

from pixelcnn import config
from pixelcnn.reporting.reports import cost, si

# What the bits/dim of a model's card are of, by what the model is given
MEANING = {
    "none": "Bits/dim of an image: -log2 p(x) per sub-pixel; lower is better.",
    "label": "Bits/dim of an image given its class. `predict` is given none: it takes the mean of p(x | class).",
    "embedding": "Bits/dim of an image given its embedding, which `predict` does not take: use `pixelcnn.load`.",
    "code": "Bits/dim of an image given its own code, which is not counted: no p(x), and not to be compared with one.",
}


def registered_name(description: dict[str, Any]) -> str:
    """The registered model that a config.json's model is a version of: its data set, and the task if it has one."""
    return str(description["data"]["dataset"]) + config.task(description["model"])


def model_card(
    what: str, description: dict[str, Any], data_card: dict[str, Any], scores: dict[str, Any], train: dict[str, Any]
) -> str:
    """The card of a model's config.json, its data's card, its scores by split and its training's summary."""
    lines = [f"**{what}** ({description['model']['name']}), trained on {data_card['title']}.", ""]
    lines += ["| split | bits/dim | standard error | images |", "|---|---|---|---|"]
    lines += [
        f"| {split} | {s['bits_per_dim']:.4f} | {s['standard_error']:.4f} | {s['num_images']} |"
        for split, s in scores.items()
    ]
    lines += ["", MEANING[config.given(description["model"]["condition"])]]
    lines += ["", f"{si(train['num_parameters'])} parameters. Training: {cost(train)}.", ""]
    lines += _use(registered_name(description), description)
    lines += [
        "",
        f"Data: {data_card['licence']}. Cite: {data_card['citation']}",
        f"Weights: safetensors, sha256 {description['weights_sha256']}",
    ]
    return "\n".join(lines)


def _use(name: str, description: dict[str, Any]) -> list[str]:
    lines = ["```python", "import pixelcnn", ""]
    lines += [f'model = pixelcnn.load("models:/{name}@champion")  # to sample and to score', "```"]
    if config.given(description["model"]["condition"]) != "embedding":
        shape = ", ".join(map(str, description["data"]["shape"]))
        lines += ["", "```python", "import mlflow", ""]
        lines += [f'model = mlflow.pyfunc.load_model("models:/{name}@champion")']
        lines += [f"model.predict(images)  # uint8 (N, {shape}) -> bits/dim (N,)", "```"]
    return lines
