"""`pixelcnn compress`: compress images losslessly."""

import argparse
from pathlib import Path

from pixelcnn import files
from pixelcnn.cli import operands, output
from pixelcnn.config import Given
from pixelcnn.generation import compression
from pixelcnn.model import Model
from pixelcnn.progress import progress


def run(args: argparse.Namespace) -> None:
    """Write the archive and print its size."""
    _check_no_image(args.out)
    model = operands.load_model(args.model, args.device)
    label = _label(model, args.label)
    given = operands.read_images(args, model, of_any_size=True)
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
        f"{args.out}: {len(images):,} images of {raw:,} bytes in {len(archive):,} bytes ("
        f"{len(payload):,} of pixels): {8 * len(payload) / raw:.4f} bits/dim"
    )


def _check_no_image(out: Path) -> None:
    """Raise ValueError for a file that is no archive, as where `-o` was given one of the images."""
    if out.exists() and files.read_bytes(out, compression.MAX_BYTES)[: len(compression.MAGIC)] != compression.MAGIC:
        raise ValueError(f"--out: {out} already exists and is not an archive; choose another name")


def _label(model: Model, text: str | None) -> int | None:
    """The label of all images; None for an unconditional model."""
    if text is not None:
        return operands.label(model, text)
    if model.given is Given.LABEL:
        raise ValueError("--label: missing; this model is class-conditional, so an archive holds images of one class")
    return None
