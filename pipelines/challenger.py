"""A DVC repository of its own for training a run again with another seed: a challenger of the registered champion.

The checkout's model, reports and dvc.lock stay as they are; the registry and DVC's cache are shared. A retraining that
was killed continues in the same folder.
"""

import json
import shutil
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from pipelines import graph
from pixelcnn.config import NUM_SEEDS, read_yaml
from pixelcnn.params import Run
from pixelcnn.tracking import registry, store

FOLDER = Path(".dvc/tmp/challengers")  # ignored by git and by DVC, as the folders of its own experiments
FILES = ("dvc.yaml", ".dvcignore")


def new_seed(run: Run) -> int:
    """One more than the run's seed in params.yaml and those of all versions of its registered model.

    The smallest that is not among them where that would be no seed any more.
    """
    used = {run.train.seed, *registry.seeds(run.dataset + run.model.task)}
    highest = max(used)
    return highest + 1 if highest + 1 < NUM_SEEDS else next(seed for seed in count() if seed not in used)


def prepare(name: str, seed: int, target: str) -> Path:
    """Create, or complete, the folder in which `dvc repro TARGET` trains run `name` with this seed."""
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
    """Remove the folders of finished retrainings: their models are in the registry, their outs in DVC's cache."""
    for folder in folders:
        shutil.rmtree(folder)


def _params(name: str, seed: int) -> str:
    """params.yaml with another seed for one run, as JSON, which is valid YAML 1.2.

    A relative path to images that leads out of the project would lead elsewhere from the challenger's folder, so it is
    made absolute, as is that of their class names: DVC then imports these images anew.
    """
    params = read_yaml(Path("params.yaml"))
    params["runs"][name]["train"]["seed"] = seed
    for images in params["images"].values():
        if not Path(images["path"]).is_absolute() and not Path(images["path"]).resolve().is_relative_to(Path.cwd()):
            for section in filter(None, (images, images["class_names"])):
                section["path"] = str(Path(section["path"]).resolve())
    return json.dumps(params, indent=2) + "\n"


def _copy(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.rmtree(to, ignore_errors=True)
        shutil.copytree(path, to, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(path, to)
