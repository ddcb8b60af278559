"""`pixelcnn decompress`: restore the images of an archive."""

import argparse

import torch

from pixelcnn import files
from pixelcnn.cli import operands, output
from pixelcnn.generation import compression
from pixelcnn.progress import progress


def run(args: argparse.Namespace) -> None:
    """Decode the archive, on the kind of device that encoded it if there is one, and write the images."""
    archive = files.read_bytes(args.archive, compression.MAX_BYTES)
    header, _ = compression.unpack(archive)
    output.check_new(args.out, header.names)
    has_device = header.device == "cpu" or torch.cuda.is_available()
    model = operands.load_model(args.model, args.device or (header.device if has_device else "cpu"))
    output.note_if_slow(model, coding=True)
    with progress("decompress", compression.num_rows(model, header.sizes, header.batch_size), "rows") as bar:
        images = compression.decompress(model, archive, lambda _: bar.update(1))
    output.write_images(args.out, images, model.data.levels)
    print(f"{args.out}: {len(images):,} images, identical to those compressed")
