"""`pixelcnn compress`: compress images losslessly, to about the size of their NLL.

Images may have any size; larger ones are coded in tiles of the model's size. Pixels are restored bit by bit, as 8-bit
grey or RGB; names lose their suffixes, and metadata is not stored. Decompressing needs the same model.
"""

import argparse

from pixelcnn import files
from pixelcnn.cli import operands, output, places
from pixelcnn.config import Given
from pixelcnn.generation import compression
from pixelcnn.model import Model
from pixelcnn.progress import progress


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("model", metavar="MODEL", help=operands.MODEL)
    parser.add_argument("images", metavar="IMAGES", nargs="+", help=operands.IMAGES)
    parser.add_argument("-o", "--out", type=places.out, required=True, help="the archive, such as archive.pxc")
    parser.add_argument("--label", help="the class of all images, by name or number, for a class-conditional model")
    parser.add_argument(
        "--batch-size", type=operands.count, default=64, help="tiles coded together (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> None:
    """Write the archive and print its size."""
    model = operands.load_model(args.model)
    label = _label(model, args.label)
    given = operands.read_images(args.images, model, of_any_size=True)
    operands.check_stems(given.stems, given.names)
    images = dict(zip(given.stems, given.images, strict=True))
    output.note_if_slow(model, coding=True)
    sizes = [(image.shape[1], image.shape[2]) for image in images.values()]
    with progress("compress", compression.num_rows(model, sizes, args.batch_size), "rows") as bar:
        archive = compression.compress(model, images, args.batch_size, label, lambda _: bar.update(1))
    files.write_bytes(args.out, archive)
    _, payload = compression.unpack(archive)
    raw = sum(image.numel() for image in images.values())
    print(
        f"{args.out}: {len(images):,} images of {raw:,} bytes in {len(archive):,} bytes, of which the pixels "
        f"{len(payload):,}: {8 * len(payload) / raw:.4f} bits/dim"
    )


def _label(model: Model, text: str | None) -> int | None:
    """The label of all images; None for an unconditional model."""
    if text is not None:
        return operands.label(model, text)
    if model.given is Given.LABEL:
        raise ValueError("--label: missing; this model is class-conditional, so an archive holds images of one class")
    return None
