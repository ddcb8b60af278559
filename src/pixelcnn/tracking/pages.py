"""Addresses of MLflow's pages: each experiment's runs, sorted, with the columns that compare them, and the models."""

from pixelcnn.tracking.store import answering, existing

VIEW = "viewStateShareKey=results"  # as pixelcnn.tracking.store has set it up


def pages(server: str) -> dict[str, str]:
    """Titles and addresses, of a server of the project's store. ValueError where there is no store yet."""
    client = existing()
    with answering():
        experiments = {found.name: found.experiment_id for found in client.search_experiments()}
    experiments.pop("Default", None)  # MLflow's own, which is empty
    runs = {f"runs of {name}": f"{server}/#/experiments/{key}/runs?{VIEW}" for name, key in experiments.items()}
    return runs | {"registered models": f"{server}/#/models"}
