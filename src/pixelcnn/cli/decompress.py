"""`pixelcnn decompress`: restore the images of an archive that `pixelcnn compress` wrote.

Pixels are restored exactly or not at all: a damaged archive, another model, or a machine whose arithmetic differs is an
error.
"""

import argparse
from pathlib import Path

import torch

from pixelcnn import files
from pixelcnn.cli import operands, output, places
from pixelcnn.generation import compression
from pixelcnn.progress import progress


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("model", metavar="MODEL", help=operands.MODEL + "; the one that compressed")
    parser.add_argument("archive", metavar="ARCHIVE", type=Path, help="a file that `pixelcnn compress` wrote")
    parser.add_argument("-o", "--out", type=places.out, required=True, help="a folder for a PNG of each image")


def run(args: argparse.Namespace) -> None:
    """Decode the archive, on the kind of device that encoded it if there is one, and write the images."""
    archive = files.read_bytes(args.archive, compression.MAX_BYTES)
    header, _ = compression.unpack(archive)
    _check_free(args.out, header.names)
    has_device = header.device == "cpu" or torch.cuda.is_available()
    model = operands.load_model(args.model, header.device if has_device else "cpu")
    output.note_if_slow(model, coding=True)
    with progress("decompress", compression.num_rows(model, header.sizes, header.batch_size), "rows") as bar:
        images = compression.decompress(model, archive, lambda _: bar.update(1))
    output.write_images(args.out, images, model.data.levels)
    print(f"{args.out}: {len(images):,} images, the same as were compressed")


def _check_free(folder: Path, names: tuple[str, ...]) -> None:
    """Raise ValueError for files that would be overwritten."""
    for name in names:
        if (folder / f"{name}.png").exists():
            raise ValueError(f"--out: {folder / f'{name}.png'} exists already")
