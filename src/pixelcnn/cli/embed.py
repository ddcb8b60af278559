"""`pixelcnn embed`: embeddings of images, for a model that is conditioned on them.

Images that no training has seen become conditions: `pixelcnn embed MODEL photo.png -o photo.npy`, and then
`pixelcnn sample MODEL --embedding photo.npy -o drawn.png` draws more of the kind. The embedder is the classifier that
the stage embed trained (`embeddings:` in params.yaml with `source: classifier`).
"""

import argparse

import numpy as np

import pixelcnn
from pixelcnn import device, files
from pixelcnn.cli import operands, places
from pixelcnn.progress import progress

MODEL = (
    "the folder of a model that was trained on embeddings by a classifier, models:/NAME@ALIAS of one, or the folder of "
    "a data set with such embeddings, below data/prepared"
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("model", metavar="MODEL", help=MODEL)
    parser.add_argument("images", metavar="IMAGES", nargs="+", help=operands.IMAGES)
    parser.add_argument("-o", "--out", type=places.out, required=True, help="a .npy file: float32, a row per image")


def run(args: argparse.Namespace) -> None:
    """Embed the images and write the embeddings."""
    if args.out.suffix != ".npy":
        raise ValueError(f"--out: {args.out} does not end in .npy")
    embedder = pixelcnn.load_embedder(args.model, str(device.default()))
    given = operands.read_images(args.images, embedder)
    with progress("embed", len(given.images), "images") as bar:
        vectors = embedder(given.images, bar.update).numpy()
    with files.atomic(args.out) as file:
        np.save(file, vectors)
    made_by = f"{embedder.config.network} trained on the labels of {embedder.data.dataset}"
    print(f"{args.out}: {len(vectors)} embeddings of {embedder.dims} numbers, {made_by}")
