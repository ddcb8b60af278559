"""A checkout beside the checkout, in which a run is trained again with another seed.

The checkout keeps its model, its reports and its dvc.lock; the registry and DVC's cache are shared. A retraining that
was killed finds its folder again, with what was done, and goes on.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from pipelines import graph
from pixelcnn import config
from pixelcnn.tracking import registry, store

FOLDER = Path(".dvc/tmp/challengers")  # out of sight of git and of DVC, as its own experiments
FILES = ("dvc.yaml", ".dvcignore")


def new_seed(run: config.Run) -> int:
    """One more than any seed that this run's registered model, or params.yaml, has seen."""
    return max([run.train.seed, *registry.seeds(run.dataset + config.task(run.model.model_dump()))]) + 1


def prepare(name: str, seed: int, target: str) -> Path:
    """The folder in which `dvc repro TARGET` trains run `name` with this seed."""
    folder = FOLDER / f"{name}-seed-{seed}"
    fresh = not (folder / "dvc.lock").exists()
    (folder / ".dvc").mkdir(parents=True, exist_ok=True)
    settings = f"[core]\n    no_scm = true\n    analytics = false\n[cache]\n    dir = {graph.cache(Path())}\n"
    (folder / ".dvc" / "config").write_text(settings + "    type = reflink,hardlink,symlink,copy\n")
    for file in FILES:
        shutil.copy(file, folder / file)
    for path in (store.LOCAL_STORE, store.LOCAL_ARTIFACTS):
        if not (folder / path).is_symlink():
            (folder / path).symlink_to(path.resolve())
    for path in graph.sources([target], Path()):
        if fresh or not path.is_relative_to("reports"):
            _copy(path, folder / path)
    (folder / "params.yaml").write_text(_params(name, seed))
    if fresh:
        shutil.copy("dvc.lock", folder / "dvc.lock")
        graph.restore([target], folder)
    return folder


def remove(folders: Sequence[Path]) -> None:
    """Forget what these retrainings left: the registry has their models, DVC's cache their outs."""
    for folder in folders:
        shutil.rmtree(folder)


def _params(name: str, seed: int) -> str:
    """params.yaml with another seed for one run, as JSON, which YAML 1.2 includes."""
    params = config.read_yaml(Path("params.yaml"))
    params["runs"][name]["train"]["seed"] = seed
    return json.dumps(params, indent=2) + "\n"


def _copy(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.rmtree(to, ignore_errors=True)
        shutil.copytree(path, to, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(path, to)
