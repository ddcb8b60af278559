"""A version of one run's model in the MLflow registry, champion if it is surely better than the one that was.

Doing it again adds nothing and decides nothing anew: the weights' hash is the identity.

python -m pixelcnn.stages.register RUN --model models/RUN --reports reports --out reports/register/RUN.json
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pixelcnn import checkpoint, config, registry
from pixelcnn.stages import run

# What the bits/dim of a model's card are of, by what the model is given
MEANING = {
    "none": "Bits/dim of an image: -log2 p(x) per sub-pixel; lower is better.",
    "label": "Bits/dim of an image given its class. `predict` is given none: it takes the mean of p(x | class).",
    "embedding": "Bits/dim of an image given its embedding, which `predict` does not take: use `pixelcnn.load`.",
    "code": "Bits/dim of an image given its own code, which is not counted: no p(x), and not to be compared with one.",
}


def main() -> None:
    args = _arguments()
    params = config.load(Path("params.yaml"))
    scores = json.loads((args.reports / "evaluate" / f"{args.run}.json").read_text())
    description = checkpoint.read_config(args.model)
    data_card = json.loads((args.reports / "preprocess" / f"{description['data']['dataset']}.json").read_text())
    name = registry.registered_name(description)
    card = model_card(params.runs[args.run].description, name, description, data_card, scores)
    nll = args.reports / "evaluate" / f"{args.run}.parquet"
    candidate = registry.Candidate(args.model, args.run, params.runs[args.run].train.seed, card, scores, nll)
    receipt = registry.register(candidate, params.promotion.min_gain, params.promotion.confidence)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(asdict(receipt), indent=2) + "\n")
    aliases = ", ".join(receipt.aliases) or "no alias"
    print(f"{args.run}: {receipt.name} version {receipt.version} ({aliases}): {receipt.reason}")


def model_card(
    what: str, name: str, description: dict[str, Any], data_card: dict[str, Any], scores: dict[str, Any]
) -> str:
    """The version's page in the registry, Markdown: what, data, numbers, use, licence."""
    lines = [f"**{what}** ({description['model']['name']}), trained on {data_card['title']}.", ""]
    lines += ["| split | bits/dim | standard error | images |", "|---|---|---|---|"]
    lines += [
        f"| {split} | {s['bits_per_dim']:.4f} | {s['standard_error']:.4f} | {s['num_images']} |"
        for split, s in scores.items()
    ]
    lines += ["", MEANING[config.given(description["model"]["condition"])], "", "```python", "import pixelcnn"]
    lines += [f'model = pixelcnn.load("models:/{name}@champion")  # to sample and to score', "```"]
    if config.given(description["model"]["condition"]) != "embedding":
        shape = ", ".join(map(str, description["data"]["shape"]))
        lines += ["", "```python", "import mlflow"]
        lines += [f'model = mlflow.pyfunc.load_model("models:/{name}@champion")']
        lines += [f"model.predict(images)  # uint8 (N, {shape}) -> bits/dim (N,)", "```"]
    lines += [
        "",
        f"Data: {data_card['licence']}. Cite: {data_card['citation']}",
        f"Weights: safetensors, sha256 {description['weights_sha256']}",
    ]
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="pixelcnn.stages.register", description=__doc__.splitlines()[0])
    parser.add_argument("run", help="an entry of params.yaml's runs")
    parser.add_argument("--model", type=Path, required=True, help="the run's model")
    parser.add_argument("--reports", type=Path, required=True, help="the reports' folder")
    parser.add_argument("--out", type=Path, required=True, help="the receipt")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
