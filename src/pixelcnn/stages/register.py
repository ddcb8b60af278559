"""Register a run's model in the MLflow registry; it becomes champion if it is surely better than the current champion.

python -m pixelcnn.stages.register RUN --model models/RUN --reports reports --out reports/register/RUN.json

Running it again with the same weights adds no version and repeats the first decision.
"""

from pixelcnn import stages
from pixelcnn.tracking import registry
from pixelcnn.tracking.model_package import of_run


def main() -> None:
    """Register, and write the report."""
    args = stages.parse(
        stages.parser(
            __doc__, "an entry of `runs`", model="the model's folder", reports="the reports' folder", out="the report"
        )
    )
    params = stages.read_params()
    package = of_run(args.name, params, args.model, args.reports)
    report = registry.register(package, params.promotion.min_gain, params.promotion.confidence)
    report.write(args.out)
    aliases = ", ".join(report.aliases) or "no alias"
    print(f"{args.name}: {report.name} version {report.version} ({aliases}): {report.reason}")


if __name__ == "__main__":
    stages.run(main)
