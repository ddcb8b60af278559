"""`pixelcnn complete`: draw what is missing of images, several times.

A row per image: the image, what is kept of it, and the completions. A drawn pixel depends on the pixels above it and
left of it, kept or drawn, and on none that follow. So completions of a top half are exact draws from p(rest | kept).
With other masks kept pixels stay as they are, but those that follow a drawn pixel do not influence it. Of a bottom half
none would, so it is not among the choices.
"""

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor

from pixelcnn.cli import operands
from pixelcnn.cli.sample import check_out, drawing, note_if_slow, write_each
from pixelcnn.data.dataset import Split
from pixelcnn.generation import grids as pictures
from pixelcnn.generation.sampling import complete, in_float64, is_prefix
from pixelcnn.model import Model
from pixelcnn.progress import progress

KEEPS = ("top-half", "left-half", "right-half")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("model", metavar="MODEL", help=operands.MODEL)
    parser.add_argument("images", metavar="IMAGES", nargs="+", help=operands.IMAGES)
    kept = parser.add_mutually_exclusive_group(required=True)
    kept.add_argument("--keep", choices=KEEPS, help="what is kept; exact: top-half")
    kept.add_argument("--mask", type=Path, help="a PNG of the images' size: white is kept, black is drawn")
    parser.add_argument("-o", "--out", type=Path, required=True, help="a .png for a grid, or a folder for a PNG each")
    parser.add_argument("--num", type=operands.count, default=4, help="completions per image (default: %(default)s)")
    parser.add_argument("--label", help="the images' class, by name or number; those of a prepared split are known")
    drawing(parser)


def run(args: argparse.Namespace) -> None:
    """Draw the completions and write them."""
    check_out(args.out)
    model = operands.load_model(args.model)
    given = operands.read_images(args.images, model)
    split = operands.as_split(given, model, args.label)
    known = _known(model, args.keep, args.mask)
    if not is_prefix(known):
        print("note: kept pixels do not influence what is drawn before them, above or to the left", file=sys.stderr)
    drawn = _draw(model, split, known, args).unflatten(0, (len(given.names), args.num))
    if args.out.suffix:
        shown = torch.where(known, split.images, model.data.levels // 2)
        rows = torch.cat([split.images.unsqueeze(1), shown.unsqueeze(1), drawn], dim=1)
        pictures.save_grid(args.out, rows.flatten(0, 1), 2 + args.num, model.data.levels, given.names)
        print("columns: the image, what is kept, the completions")
    else:
        stems = [Path(name).stem for name in given.names]
        each = {f"{stem}-{n}": drawn[row, n] for row, stem in enumerate(stems) for n in range(args.num)}
        write_each(args.out, each, model)
    print(f"{args.out}: of each of {len(given.names)} images {args.num} completions")


def _draw(model: Model, split: Split, known: Tensor, args: argparse.Namespace) -> Tensor:
    """Completions (N * num, C, H, W), those of an image one after another."""
    if model.given == "code":
        raise ValueError("MODEL: an auto-encoder's code is of a whole image, so nothing would be left to complete")
    note_if_slow(model)
    each = split.part(torch.arange(len(split.images)).repeat_interleave(args.num))
    num_rows = -(-len(each.images) // args.batch_size) * model.shape[1]
    generator, cond = torch.Generator().manual_seed(args.seed), model.conditions(each)
    with progress("complete", num_rows, "rows") as bar:
        drawn = complete(
            in_float64(model), each.images, known, generator, cond, args.temperature, lambda _: bar.update(1),
            args.batch_size,
        )  # fmt: skip
    return drawn.cpu()


def _known(model: Model, keep: str | None, mask: Path | None) -> Tensor:
    """The pixels (H, W) that are kept, bool."""
    _, height, width = model.shape
    if mask is not None:
        known = pictures.read(mask, channels=1, levels=2)[0].bool()
        if known.shape != (height, width):
            raise ValueError(
                f"{mask}: is {known.shape[1]} x {known.shape[0]} pixels, the model's images are {width} x {height}"
            )
        return known
    known = torch.zeros(height, width, dtype=torch.bool)
    half = {
        "top-half": known[: height // 2],
        "left-half": known[:, : width // 2],
        "right-half": known[:, width // 2 :],
    }
    assert keep is not None, "argparse wants --keep or --mask"
    half[keep].fill_(True)
    return known
