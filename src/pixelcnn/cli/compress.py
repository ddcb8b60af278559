"""`pixelcnn compress`: images to a lossless archive, as small as the model's NLL.

Images of any size; larger ones are coded in tiles of the model's size. The pixels are kept to the bit, as 8-bit grey or
RGB; names are kept without their endings, and metadata not at all. The same model is needed to decompress.
"""

import argparse
from pathlib import Path

from torch import Tensor

from pixelcnn import checkpoint
from pixelcnn.cli import operands
from pixelcnn.cli.sample import note_if_slow
from pixelcnn.generation import compression as coding
from pixelcnn.model import Model
from pixelcnn.progress import progress


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("model", metavar="MODEL", help=operands.MODEL)
    parser.add_argument("images", metavar="IMAGES", nargs="+", help=operands.IMAGES)
    parser.add_argument("-o", "--out", type=Path, required=True, help="the archive, such as archive.pxc")
    parser.add_argument("--label", help="the class of all images, by name or number, for a class-conditional model")
    parser.add_argument(
        "--batch-size", type=operands.count, default=64, help="tiles coded together (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> None:
    """Write the archive and say how large it is."""
    model = operands.load_model(args.model)
    label = _label(model, args.label)
    images = _by_stem(operands.read_images(args.images, model))
    note_if_slow(model)
    total = coding.num_rows(model, [(image.shape[1], image.shape[2]) for image in images.values()], args.batch_size)
    with progress("compress", total, "rows") as bar:
        archive = coding.compress(model, images, args.batch_size, label, lambda _: bar.update(1))
    checkpoint.write_atomically(args.out, archive)
    _, payload = coding.unpack(archive)
    raw = sum(image.numel() for image in images.values())
    print(
        f"{args.out}: {len(images):,} images of {raw:,} bytes in {len(archive):,} bytes, of which the pixels "
        f"{len(payload):,}: {8 * len(payload) / raw:.4f} bits/dim"
    )


def _label(model: Model, text: str | None) -> int | None:
    """The label of all images; None for an unconditional model."""
    if text is not None:
        return operands.label(model, text)
    if model.given == "label":
        raise ValueError("--label: missing; this model is class-conditional, so an archive is of one class")
    return None


def _by_stem(given: operands.Images) -> dict[str, Tensor]:
    """Images by the names that the archive gives them, without endings."""
    images: dict[str, Tensor] = {}
    for name, image in zip(given.names, given.images, strict=True):
        if Path(name).stem in images:
            raise ValueError(f"{name}: a second image of the name {Path(name).stem}; rename it, or make two archives")
        images[Path(name).stem] = image
    return images
