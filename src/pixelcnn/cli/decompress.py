"""`pixelcnn decompress`: an archive of `pixelcnn compress` back to the same images.

To the bit, or not at all: a damaged archive, another model, or a machine whose arithmetic differs is an error.
"""

import argparse
from pathlib import Path

import torch

from pixelcnn.cli import operands
from pixelcnn.cli.sample import note_if_slow, write_each
from pixelcnn.generation import compression as coding
from pixelcnn.progress import progress


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("model", metavar="MODEL", help=operands.MODEL + "; the one that compressed")
    parser.add_argument("archive", metavar="ARCHIVE", type=Path, help="what `pixelcnn compress` wrote")
    parser.add_argument("-o", "--out", type=Path, required=True, help="a folder for a PNG of each image")


def run(args: argparse.Namespace) -> None:
    """Decode the archive where it was made, if there is such a device here, and write the images."""
    archive = args.archive.read_bytes()
    header, _ = coding.unpack(archive)
    _refuse_to_overwrite(args.out, header.names)
    has_device = header.device == "cpu" or torch.cuda.is_available()
    model = operands.load_model(args.model, header.device if has_device else "cpu")
    note_if_slow(model)
    with progress("decompress", coding.num_rows(model, header.sizes, header.batch_size), "rows") as bar:
        images = coding.decompress(model, archive, lambda _: bar.update(1))
    write_each(args.out, images, model)
    print(f"{args.out}: {len(images):,} images, the same as were compressed")


def _refuse_to_overwrite(folder: Path, names: tuple[str, ...]) -> None:
    for name in names:
        if Path(name).name != name or "\\" in name or "\0" in name:
            raise ValueError(f"archive: {name!r} is not the name of a file")
        if (folder / f"{name}.png").exists():
            raise ValueError(f"--out: {folder / f'{name}.png'} exists already")
