"""Check params.yaml as a whole, so that a mistake in it is reported before anything is downloaded or trained.

python -m pixelcnn.stages.check --out reports/check/params.txt

The output never changes, so that what comes after this stage does not become stale with it.
"""

from pathlib import Path

from pixelcnn import files
from pixelcnn.config import Given, quoted
from pixelcnn.data import sources
from pixelcnn.data.layouts import find
from pixelcnn.params import Params
from pixelcnn.stages import parse, parser, read_params, run


def main() -> None:
    args = parse(parser(__doc__, None, out="text file to write"))
    params = read_params()
    for name, images in params.images.items():
        if not Path(images.path).exists():
            raise ValueError(f"params.yaml: images.{name}.path: {quoted(images.path)}: no such file or folder")
    _check_labels(params)
    files.write_text(args.out, "params.yaml is valid.\n")


def _check_labels(params: Params) -> None:
    """Raise ValueError for a class-conditional run, or a classifier, on images without classes."""
    needs = {
        f"runs.{name}.model.condition: {quoted(entry.model.condition)}": params.images_of(entry.dataset)
        for name, entry in params.runs.items()
        if entry.model.given is Given.LABEL
    }
    needs |= {
        f"embeddings.{name}.source: {quoted(entry.source)}": entry.dataset
        for name, entry in params.embeddings.items()
        if entry.source == "classifier"
    }
    for key, dataset in needs.items():
        if not _has_classes(params, dataset):
            where = ": no sub-folders, no labels in a file" if dataset in params.images else ""
            raise ValueError(f"params.yaml: {key} needs labels, but {dataset} has none{where}; change or delete it")


def _has_classes(params: Params, dataset: str) -> bool:
    if dataset in params.datasets:
        return bool(sources.load(params.dataset(dataset).download.source).classes)
    images = params.images[dataset]
    return bool(find(Path(images.path), images.labels == "read").classes)


if __name__ == "__main__":
    run(main)
