"""`pixelcnn embed`: embeddings of images, for a model that is conditioned on them."""

import argparse

import numpy as np

import pixelcnn
from pixelcnn import files
from pixelcnn.cli import operands
from pixelcnn.progress import progress


def run(args: argparse.Namespace) -> None:
    """Embed the images and write the embeddings."""
    embedder = pixelcnn.load_embedder(args.model, str(operands.chosen_device(args.device)))
    given = operands.read_images(args, embedder)
    with progress("embed", len(given.images), "images") as bar:
        vectors = embedder(given.images, bar.update).numpy()
    with files.atomic(args.out) as file:
        np.save(file, vectors)
    made_by = f"{embedder.config.network} trained on the labels of {embedder.data.dataset}"
    print(f"{args.out}: {len(vectors)} embeddings of {embedder.dims} numbers, {made_by}")
