"""`pixelcnn complete`: draw the missing pixels of images, several times.

Shapes: N images, C channels, H rows, W columns.
"""

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor

from pixelcnn.cli import operands, output
from pixelcnn.config import Given
from pixelcnn.data import image_files
from pixelcnn.data.dataset import Split
from pixelcnn.generation.completion import complete, is_prefix
from pixelcnn.generation.sampling import in_float64
from pixelcnn.model import Model
from pixelcnn.progress import progress


def run(args: argparse.Namespace) -> None:
    """Draw the completions and write them."""
    model = operands.load_model(args.model, args.device)
    given = operands.read_images(args, model)
    output.check_rows(args.out, given.stems, given.names)
    split = operands.as_split(given, model, args.label)
    known = _known(model, args.keep, args.mask)
    if not is_prefix(known):
        print("note: known pixels do not influence what is drawn before them, above or to the left", file=sys.stderr)
    drawn = _draw(model, split, known, args).unflatten(0, (len(given.names), args.num))  # (N, num, C, H, W)
    shown = torch.where(known, split.images, model.data.levels // 2)
    columns = split.images.unsqueeze(1), shown.unsqueeze(1), drawn
    output.write_rows(args.out, columns, drawn, given.names, given.stems, model.data.levels)
    if args.out.suffix:
        print("columns: the image, its known pixels, the completions")
    print(f"{args.out}: {args.num} completions of each of {len(given.names)} images")


def _draw(model: Model, split: Split, known: Tensor, args: argparse.Namespace) -> Tensor:
    """Completions (N * num, C, H, W), those of an image one after another."""
    if model.given is Given.CODE:
        raise ValueError("MODEL: an auto-encoder's code is of a whole image, so nothing would be left to complete")
    output.note_if_slow(model)
    each = split.part(torch.arange(len(split.images)).repeat_interleave(args.num))
    num_rows = -(-len(each.images) // args.batch_size) * model.shape[1]
    generator, cond = torch.Generator().manual_seed(args.seed), model.conditions(each)
    with progress("complete", num_rows, "rows") as bar:
        drawn = complete(
            in_float64(model), each.images, known, generator, cond, args.temperature, lambda _: bar.update(1),
            args.batch_size,
        )  # fmt: skip
    return drawn.cpu()


def _known(model: Model, half: str | None, mask: Path | None) -> Tensor:
    """Which pixels are known, (H, W) bool."""
    _, height, width = model.shape
    if mask is not None:
        return image_files.read(mask, channels=1, levels=2, size=(height, width))[0].bool()
    known = torch.zeros(height, width, dtype=torch.bool)
    match half:
        case "top-half":
            known[: height // 2] = True
        case "left-half":
            known[:, : width // 2] = True
        case "right-half":
            known[:, width // 2 :] = True
    return known
