"""The images of a prepared data set with an embedding each: a data set again, for embedding-conditional models.

python -m pixelcnn.stages.embed NAME --data data/prepared/DATASET --out data/prepared/NAME --report FILE
"""

import argparse
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pixelcnn import config
from pixelcnn.data.dataset import (
    CARD,
    Card,
    EmbeddingsCard,
    SplitName,
    embeddings_file,
    read_card,
    read_split,
    write_card,
)  # fmt: skip
from pixelcnn.progress import progress
from pixelcnn.stages import run

Vectors = dict[SplitName, npt.NDArray[np.float32]]  # (N, D) of each split
SPLITS: tuple[SplitName, ...] = get_args(SplitName)
COLUMNS = ("split", "image", "embedding")


def main() -> None:
    args = _arguments()
    entries = config.load(Path("params.yaml")).embeddings
    if args.name not in entries:
        raise ValueError(f"params.yaml: embeddings: {args.name!r} is not one of {', '.join(entries) or '(none)'}")
    settings, card = entries[args.name], read_card(args.data)
    if isinstance(settings, config.Classifier):
        vectors, report = from_classifier(settings, card, args.data)
        origin = f"{settings.network} trained on the labels of {card.title}"
    else:
        vectors, report = from_file(settings, card), {}
        origin = Path(settings.path).name
    embeddings = write(vectors, card, args.data, args.out, origin)
    args.report.parent.mkdir(parents=True, exist_ok=True)
    args.report.write_text(json.dumps(embeddings.model_dump() | report, indent=2) + "\n")
    print(f"{args.name}: {embeddings.dims} numbers per image, {origin} {report or ''}")


def from_classifier(settings: config.Classifier, card: Card, data: Path) -> tuple[Vectors, dict[str, float]]:
    """Embeddings of all splits by a network trained on the train split, and how well it classifies the test split."""
    import torch

    from pixelcnn.data.embedder import accuracy, embed, train_classifier

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    splits = {name: read_split(data, name) for name in SPLITS}
    network = train_classifier(settings, card, splits["train"], device)
    with progress("embeddings", sum(len(split.images) for split in splits.values()), "images") as bar:
        vectors = {name: embed(network, split.images, bar.update) for name, split in splits.items()}
    labels = splits["test"].labels
    assert labels is not None
    return {name: v.numpy() for name, v in vectors.items()}, {
        "test_accuracy": accuracy(network, vectors["test"], labels)
    }


def from_file(settings: config.EmbeddingsFile, card: Card) -> Vectors:
    """Embeddings of all splits from the user's file, in the order of the prepared images.

    Raises ValueError for a file that is not the one of `sha256`, lacks a column or does not name every image once.
    """
    path = Path(settings.path).expanduser()
    if not path.is_file():
        raise ValueError(f"embeddings: path: {path}: no such file")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != settings.sha256:
        raise ValueError(f"embeddings: sha256: {settings.sha256} is not that of {path}, which is {found}")
    try:
        table = pq.read_table(path)
    except pa.ArrowException as error:
        raise ValueError(f"{path}: is not a Parquet file: {' '.join(str(error).split())}") from None
    missing = [column for column in COLUMNS if column not in table.column_names]
    if missing:
        raise ValueError(f"{path}: lacks {', '.join(missing)}: its columns are split, image (row there) and embedding")
    return {name: _of_split(table, name, card.splits[name].num_images, path) for name in SPLITS}


def _of_split(table: pa.Table, name: SplitName, num: int, path: Path) -> npt.NDArray[np.float32]:
    rows = table.filter(pa.compute.equal(table["split"], name))
    images = rows["image"].to_numpy()
    if not np.array_equal(np.sort(images), np.arange(num)):
        raise ValueError(
            f"{path}: split {name}: {len(images):,} rows, which are not images 0 ... {num - 1:,} once each"
        )
    vectors = np.asarray(rows["embedding"].to_pylist() if num else [], np.float32).reshape(num, -1)
    if not np.isfinite(vectors).all():
        raise ValueError(f"{path}: split {name}: embeddings hold numbers that are not finite")
    return vectors[np.argsort(images)]


def write(vectors: Vectors, card: Card, data: Path, out: Path, origin: str) -> EmbeddingsCard:
    """The shards of `data` again (as links where the disk allows it), the embeddings beside them, then the card."""
    out.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    for name, rows in vectors.items():
        for shard in card.splits[name].shards:
            _link(data / shard, out / shard)
        flat = pa.array(np.ascontiguousarray(rows, np.float32).ravel())
        column = pa.FixedSizeListArray.from_arrays(flat, rows.shape[1])
        pq.write_table(pa.table({"embedding": column}), out / embeddings_file(name))
        digest.update(rows.astype("<f4").tobytes())
    dims = vectors["train"].shape[1]
    embeddings = EmbeddingsCard(dims=dims, origin=origin, sha256=digest.hexdigest())
    write_card(card.model_copy(update={"embeddings": embeddings}), out / CARD)
    return embeddings


def _link(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="pixelcnn.stages.embed", description=__doc__.splitlines()[0])
    parser.add_argument("name", help="an entry of params.yaml's embeddings")
    parser.add_argument("--data", type=Path, required=True, help="the prepared data set whose images are embedded")
    parser.add_argument("--out", type=Path, required=True, help="the folder of the data set with embeddings")
    parser.add_argument("--report", type=Path, required=True, help="where to say how well the classifier does")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
