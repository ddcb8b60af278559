"""Register a run's model in the MLflow registry; it becomes champion if significantly better than the current one.

python -m pixelcnn.stages.register RUN --model models/RUN --reports reports --out reports/register/RUN.json

Running it again with the same weights adds no version and repeats the first decision. A DVC experiment registers
nothing: of many trials, compared on one test split, some would become champion by luck.
"""

from pixelcnn import checkpoint, stages
from pixelcnn.schemas import RegisterReport
from pixelcnn.tracking import registry, store
from pixelcnn.tracking.model_package import ModelPackage, of_run


def main() -> None:
    """Register, and write the report."""
    args = stages.parse(
        stages.parser(
            __doc__, "an entry of `runs`", model="the model's folder", reports="the reports' folder", out="the report"
        )
    )
    params = stages.read_params()
    package = of_run(args.name, params, args.model, args.reports)
    if stages.experiment():
        report = _not_registered(package, stages.experiment())
        print(f"{args.name}: not registered: {report.reason}")
    else:
        with store.answering():
            report = registry.register(package, params.promotion.min_gain, params.promotion.confidence)
        aliases = ", ".join(report.aliases) or "no alias"
        print(f"{args.name}: {report.name} version {report.version} ({aliases}): {report.reason}")
    report.write(args.out)


def _not_registered(package: ModelPackage, experiment: str) -> RegisterReport:
    described = checkpoint.read_config(package.folder)
    reason = (
        f"the experiment {experiment} registers nothing; after `dvc exp apply {experiment}`, "
        f"`pixelcnn models register {package.folder}` registers it"
    )
    return RegisterReport(
        registered=False, name=described.registered_name, weights_sha256=described.weights_sha256, reason=reason
    )


if __name__ == "__main__":
    stages.run(main)
