"""`pixelcnn reconstruct`: draw images from what an auto-encoder keeps of them.

A row per image: the image, the reconstructions of the models given with --beside, and those of MODEL. An auto-encoder
with a squared error has one reconstruction of each code, a PixelCNN auto-encoder as many as it is asked to draw.
"""

import argparse
from pathlib import Path

import torch

from pixelcnn.cli import operands
from pixelcnn.cli.sample import check_out, drawing, write_each
from pixelcnn.generation.grids import save_grid
from pixelcnn.generation.interpolation import reconstruct
from pixelcnn.generation.sampling import in_float64
from pixelcnn.progress import progress


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("model", metavar="MODEL", help=f"an auto-encoder: {operands.MODEL}")
    parser.add_argument("images", metavar="IMAGES", nargs="+", help=operands.IMAGES)
    parser.add_argument("-o", "--out", type=Path, required=True, help="a .png for a grid, or a folder for a PNG each")
    parser.add_argument(
        "--num", type=operands.count, default=4, help="reconstructions per image (default: %(default)s)"
    )
    parser.add_argument("--beside", metavar="MODEL", action="append", default=[], help="another auto-encoder, first")
    drawing(parser)


def run(args: argparse.Namespace) -> None:
    """Draw the reconstructions and write them."""
    check_out(args.out)
    models = [operands.load_model(text) for text in [*args.beside, args.model]]
    given = operands.read_images(args.images, models[-1])
    images = operands.as_split(given, models[-1], None).images
    with progress("reconstruct", len(models) * models[-1].shape[1], "rows") as bar:
        drawn = [
            reconstruct(in_float64(model), images, args.num, args.seed, args.temperature, lambda _: bar.update(1))
            for model in models
        ]
    if args.out.suffix:
        rows = torch.cat([images.unsqueeze(1), *drawn], dim=1)
        save_grid(args.out, rows.flatten(0, 1), rows.shape[1], models[-1].data.levels, given.names)
        print("columns: the image, then the reconstructions")
    else:
        stems = [Path(name).stem for name in given.names]
        each = {f"{stem}-{n}": image for stem, row in zip(stems, drawn[-1], strict=True) for n, image in enumerate(row)}
        write_each(args.out, each, models[-1])
    print(f"{args.out}: {len(images)} images, {drawn[-1].shape[1]} reconstructions of each")
