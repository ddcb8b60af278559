"""The flow `drift`: test by their likelihoods whether new images come from what a registered champion was trained on.

    python -m pipelines.drift NAME FOLDER [--add-to FOLDER]

Beyond the level the images are added to the champion's data set, and what that makes stale is trained again.
"""

import argparse
import hashlib
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed
from torch import Tensor

from pipelines import artifacts, work
from pipelines.reproduce import run
from pipelines.retrain import retrain
from pixelcnn import params
from pixelcnn.config import read_yaml
from pixelcnn.data import image_files
from pixelcnn.data.layouts import is_image
from pixelcnn.evaluation.drift import FEWEST, DriftTest
from pixelcnn.files import atomic, check_kept, excerpt, sha256_of
from pixelcnn.tracking import drift as tests
from pixelcnn.tracking.drift import Champion

PARAMS, PREPARED = Path("params.yaml"), Path("data/prepared")
ALPHA = 0.05  # the probability of a false alarm in all tests of one champion together


@dataclass(frozen=True)
class Incoming:
    """The images of a folder that a champion can score, (M, C, H, W), their files, and why others were left out."""

    files: list[Path]
    images: Tensor
    refused: list[str] = field(default_factory=list)

    @property
    def sha256(self) -> str:
        """Of the images' contents, whatever their names."""
        return hashlib.sha256("".join(sorted(map(sha256_of, self.files))).encode()).hexdigest()

    def __str__(self) -> str:
        refused = f", {len(self.refused):,} left out (the first: {excerpt(self.refused[0])})" if self.refused else ""
        return f"{len(self.files):,} images{refused}"


def read_folder(folder: Path, champion: Champion) -> Incoming:
    """The images of a folder and those below it. One that cannot be read, or is of another size, is left out."""
    channels, height, width = champion.model.shape
    paths, images, refused = [], [], []
    for path in sorted(p for p in folder.rglob("*") if is_image(p.name)):
        try:
            images.append(image_files.read(path, channels, champion.model.levels, (height, width)))
            paths.append(path)
        except (ValueError, OSError) as error:
            refused.append(str(error))
    empty = torch.empty(0, channels, height, width, dtype=torch.uint8)
    return Incoming(paths, torch.stack(images) if images else empty, refused)


def _run_name() -> str:
    given = flow_run.parameters
    return work.run_name("drift of", [given["folder"]]) + f" from {given['name']}"


@flow(name="drift", flow_run_name=_run_name)
def drift(name: str, folder: str, add_to: str = "", alpha: float = ALPHA) -> State[None]:
    """Test whether images come from what a champion was trained on; beyond the level add them to its data and retrain.

    Args:
        name: a registered model, such as digits
        folder: of the new images, and of no others: what was tested before is taken out first
        add_to: where they are added; empty for the path of the entry of params.yaml's `images` that the champion is of
        alpha: the probability of a false alarm in all tests of one champion together, however many
    """
    log = get_run_logger()
    with work.started():
        champion = _checked(name, folder, add_to, alpha)
        incoming = read_folder(Path(folder), champion)
        log.info("%s: %s", folder, incoming)
        if reason := _untestable(incoming, champion):
            return Completed(message=reason)
        found, picture = tests.look(champion, incoming.images, PREPARED, alpha)
        place = _place(champion, add_to) if found.drifted else None
        done = _add(incoming, place) if place else NOWHERE.format(champion.dataset)  # before the test is counted:
        tests.keep(champion, found, picture, incoming.sha256)  # the same images are not tested, nor added, again
        create_markdown_artifact(page(champion, found, incoming, picture), key=f"drift-{name}", description=str(found))
        log.info("%s", found)
        if not found.drifted:
            return Completed(message=str(found))
        runs = _runs_on(place) if place else []
        log.warning("%s", done)
    if runs:  # outside of the lock, which the retraining takes
        retrain(runs, return_state=True)  # whose failure is its own
    return Completed(name="Drift", message=f"{found}; {done}")


def _runs_on(place: Path) -> list[str]:
    """The runs on those of params.yaml's `images` that a folder belongs to, with embeddings or without."""
    known, folder = params.load(PARAMS), place.resolve()
    grown = {name for name, images in known.images.items() if folder.is_relative_to(Path(images.path).resolve())}
    return [name for name, run in known.runs.items() if known.images_of(run.dataset) in grown]


def page(champion: Champion, found: DriftTest, incoming: Incoming, picture: bytes) -> str:
    """A test as Markdown, with its histogram."""
    lines = [f"# {champion.name} version {champion.version}: {'drift' if found.drifted else 'no drift'}", ""]
    lines += [f"{found}.", "", f"{incoming}.", "", artifacts.embedded(picture, "Bits/dim of test images and new ones")]
    return "\n".join(lines)


NOWHERE = (
    "no image is added, since {0} is no entry of params.yaml's `images` with a folder; --add-to FOLDER (add_to of a "
    "deployment) names one"
)


def _checked(name: str, folder: str, add_to: str, alpha: float) -> Champion:
    """The champion. ValueError for an unknown name or folder, a place where images cannot stay, and another alpha."""
    if not 0 < alpha < 1:
        raise ValueError(f"--alpha: {alpha:g} is not a probability between 0 and 1")
    source, place = Path(folder).resolve(), Path(add_to).resolve()
    if not source.is_dir():
        raise ValueError(f"{folder}: no such folder; it should hold the images to test")
    if add_to:
        check_kept(Path(add_to))
        if place == source or place in source.parents or source in place.parents:
            raise ValueError(f"--add-to: {add_to} and {folder} hold each other's images; choose another folder")
    return tests.champion(name)


def _untestable(incoming: Incoming, champion: Champion) -> str:
    """Why images are not tested, which spends no error; "" if they are."""
    if len(incoming.files) < FEWEST:
        return f"not tested: {incoming}, and a test needs {FEWEST} at least"
    if champion.knows(incoming.sha256):
        return f"not tested: {incoming}, the same as in test {champion.num_tests} of {champion.name} {champion.version}"
    return ""


def _place(champion: Champion, add_to: str) -> Path | None:
    """The folder that new images are added to: its train/, where it has one, so that the test images stay the same."""
    entry = read_yaml(PARAMS).get("images", {}).get(champion.dataset, {})
    path = Path(add_to or entry.get("path", ""))
    if not add_to and not (entry and path.is_dir()):
        return None
    return path / "train" if (path / "train").is_dir() else path


def _add(incoming: Incoming, place: Path) -> str:
    """Copy the images into a folder, each once, under names by their contents; returns what was done."""
    place.mkdir(parents=True, exist_ok=True)
    added = 0
    for path in incoming.files:
        target = place / f"{sha256_of(path)[:32]}{path.suffix.lower()}"
        added += not target.exists()
        with atomic(target) as file, path.open("rb") as source:
            shutil.copyfileobj(source, file)
    return f"{added:,} images are added to {place}, and runs on them are trained"


def main() -> None:
    """Start the flow, or with --look test without it; print the verdict."""
    parser = argparse.ArgumentParser(prog="pipelines.drift", description=__doc__.splitlines()[0])
    parser.add_argument("name", help="a registered model, such as digits")
    parser.add_argument("folder", help="of the new images")
    parser.add_argument("--add-to", default="", metavar="FOLDER", help="where they are added (default: the data set's)")
    parser.add_argument(
        "--alpha", type=float, default=ALPHA, help="probability of a false alarm in all tests (default: %(default)s)"
    )
    parser.add_argument("--look", action="store_true", help="print the verdict alone; counts as no test")
    args = parser.parse_args()

    def call() -> Any:
        champion = _checked(args.name, args.folder, args.add_to, args.alpha)
        if args.look:
            print(look(champion, Path(args.folder), args.alpha))
            return None
        state = drift(args.name, args.folder, args.add_to, args.alpha, return_state=True)
        print(state.message)
        return state

    run(call)


def look(champion: Champion, folder: Path, alpha: float) -> str:
    """The verdict on a folder's images as the champion's next test, which is not kept."""
    incoming = read_folder(folder, champion)
    if reason := _untestable(incoming, champion):
        return reason
    found, _ = tests.look(champion, incoming.images, PREPARED, alpha)
    return f"{found}\n{folder}: {incoming}\na look, not a test: nothing is kept or trained"


if __name__ == "__main__":
    main()
