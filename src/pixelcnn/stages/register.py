"""A version of one run's model in the MLflow registry, champion if it is surely better than the one that was.

Doing it again adds nothing and decides nothing anew: the weights' hash is the identity.

python -m pixelcnn.stages.register RUN --model models/RUN --reports reports --out reports/register/RUN.json
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from pixelcnn import config
from pixelcnn.stages import run
from pixelcnn.tracking import registry
from pixelcnn.tracking.model_package import of_run


def main() -> None:
    args = _arguments()
    params = config.load(Path("params.yaml"))
    candidate = of_run(args.run, params, args.model, args.reports)
    receipt = registry.register(candidate, params.promotion.min_gain, params.promotion.confidence)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(asdict(receipt), indent=2) + "\n")
    aliases = ", ".join(receipt.aliases) or "no alias"
    print(f"{args.run}: {receipt.name} version {receipt.version} ({aliases}): {receipt.reason}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="pixelcnn.stages.register", description=__doc__.splitlines()[0])
    parser.add_argument("run", help="an entry of params.yaml's runs")
    parser.add_argument("--model", type=Path, required=True, help="the run's model")
    parser.add_argument("--reports", type=Path, required=True, help="the reports' folder")
    parser.add_argument("--out", type=Path, required=True, help="the receipt")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
