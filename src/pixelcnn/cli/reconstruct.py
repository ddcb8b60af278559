"""`pixelcnn reconstruct`: draw images from an auto-encoder's codes of images.

A row per image: the image, the reconstructions of the models given with --beside, and those of MODEL. An auto-encoder
with a squared error has one reconstruction of each code, a PixelCNN auto-encoder as many as it is asked to draw.
"""

import argparse

from pixelcnn.cli import operands, output
from pixelcnn.generation.interpolation import reconstruct
from pixelcnn.generation.sampling import in_float64
from pixelcnn.progress import progress


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("model", metavar="MODEL", help=f"an auto-encoder: {operands.MODEL}")
    parser.add_argument("images", metavar="IMAGES", nargs="+", help=operands.IMAGES)
    parser.add_argument(
        "--num", type=operands.count, default=4, help="reconstructions per image (default: %(default)s)"
    )
    parser.add_argument("--beside", metavar="MODEL", action="append", default=[], help="another auto-encoder, first")
    output.drawing_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Draw the reconstructions and write them."""
    output.check_out(args.out)
    models = [operands.load_model(text) for text in [*args.beside, args.model]]
    model = models[-1]
    given = operands.read_images(args.images, model)
    output.check_stems(args.out, given.stems, given.names)
    images = operands.as_split(given, model, None).images
    with progress("reconstruct", len(models) * model.shape[1], "rows") as bar:
        drawn = [
            reconstruct(in_float64(each), images, args.num, args.seed, args.temperature, lambda _: bar.update(1))
            for each in models
        ]  # (N, num, C, H, W) each
    columns = [images.unsqueeze(1), *drawn]
    output.write_rows(args.out, columns, drawn[-1], given.names, given.stems, model.data.levels)
    if args.out.suffix:
        print("columns: the image, then the reconstructions")
    print(f"{args.out}: {len(images)} images, {drawn[-1].shape[1]} reconstructions of each")
