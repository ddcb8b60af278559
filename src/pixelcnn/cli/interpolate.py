"""`pixelcnn interpolate`: draw what lies between two images, in an auto-encoder's codes or in embeddings.

A row for each two images: the first, images drawn at equal steps from its code or embedding to the other's, the second.
The noise is the same along a row, so what changes is due to the code. Embeddings come from a prepared data set that has
them (`embeddings:` in params.yaml).
"""

import argparse
from pathlib import Path

import torch

from pixelcnn.cli import operands
from pixelcnn.cli.sample import check_out, drawing, write_each
from pixelcnn.generation.grids import save_grid
from pixelcnn.generation.interpolation import interpolate
from pixelcnn.generation.sampling import in_float64
from pixelcnn.progress import progress


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("model", metavar="MODEL", help=f"an auto-encoder or embedding-conditional: {operands.MODEL}")
    parser.add_argument("images", metavar="IMAGES", nargs="+", help=f"an even number of images: {operands.IMAGES}")
    parser.add_argument("-o", "--out", type=Path, required=True, help="a .png for a grid, or a folder for a PNG each")
    parser.add_argument("--steps", type=operands.count, default=8, help="images on a line (default: %(default)s)")
    drawing(parser)


def run(args: argparse.Namespace) -> None:
    """Draw the lines and write them."""
    check_out(args.out)
    model = in_float64(operands.load_model(args.model))
    if model.given not in ("embedding", "code"):
        raise ValueError(
            f"MODEL: {model.config.name} with condition {model.config.condition!r} has no vectors to go along"
        )
    given = operands.read_images(args.images, model)
    split = operands.as_split(given, model, None)
    if len(split.images) % 2:
        raise ValueError(f"IMAGES: {len(split.images)} images are not pairs; give an even number")
    with torch.inference_mode():
        vectors = model.encode(split.images.to(model.device)) if model.given == "code" else model.conditions(split)
    assert vectors is not None
    with progress("interpolate", args.steps * model.shape[1], "rows") as bar:
        lines = interpolate(
            model, vectors[0::2], vectors[1::2], args.steps, args.seed, args.temperature, lambda _: bar.update(1)
        )
    pairs = [f"{first} to {last}" for first, last in zip(given.names[0::2], given.names[1::2], strict=True)]
    if args.out.suffix:
        rows = torch.cat([split.images[0::2, None], lines, split.images[1::2, None]], dim=1)
        save_grid(args.out, rows.flatten(0, 1), rows.shape[1], model.data.levels, pairs)
        print("columns: the first image, the line, the second image")
    else:
        stems = [f"{Path(a).stem}-{Path(b).stem}" for a, b in zip(given.names[0::2], given.names[1::2], strict=True)]
        each = {f"{stem}-{n}": image for stem, line in zip(stems, lines, strict=True) for n, image in enumerate(line)}
        write_each(args.out, each, model)
    print(f"{args.out}: {len(pairs)} lines of {args.steps} images")
