"""`pixelcnn score`: bits/dim of images under a model, and where in them the bits are.

Shapes: N images, T tiles of the model's size, C channels, H rows, W columns of the model's images, h, w those of one.
"""

import argparse
from pathlib import Path

import pandas as pd
import torch

from pixelcnn import files
from pixelcnn.cli import operands, output
from pixelcnn.data.dataset import Split
from pixelcnn.evaluation.nll import nll
from pixelcnn.evaluation.scores import score
from pixelcnn.generation.compression import cut, join
from pixelcnn.generation.grids import save_grid
from pixelcnn.generation.maps import beside
from pixelcnn.likelihoods.base import bits_per_dim, bits_per_pixel
from pixelcnn.model import Model
from pixelcnn.progress import progress

MAX_ROWS = 20  # printed on the terminal
BRIGHTEST = 0.99  # of all pixels have fewer bits than the brightest colour of --map says


def run(args: argparse.Namespace) -> None:
    """Score the images, write or print the table, and print the mean."""
    model = operands.load_model(args.model, args.device)
    given = operands.read_images(args, model, of_any_size=args.tiles)
    _check_map(args.map, model, given)
    each = [cut(image, model, name) for image, name in zip(given.images, given.names, strict=True)]  # (T, C, H, W) each
    tiles = operands.Images(
        [name for name, parts in zip(given.names, each, strict=True) for _ in parts],
        list(torch.cat(each)),
        given.labels,  # those of a data set, whose images are one tile each
        given.embeddings,
    )
    split, counts = operands.as_split(tiles, model, args.label), [len(parts) for parts in each]
    with progress("score", len(split.images), "tiles" if args.tiles else "images") as bar:
        nats = torch.stack(
            [part.sum() for part in nll(model, split, args.batch_size, bar.update).split(counts)]
        )  # (N,)
    dims = torch.tensor([image.numel() for image in given.images])
    total = score(nats / dims, 1)  # refuses what are no NLLs before anything is written
    table = pd.DataFrame({"image": given.names, "nats": nats, "bits_per_dim": bits_per_dim(nats / dims, 1)})
    if split.labels is not None and not args.tiles:
        table["label"] = [model.data.classes[n] for n in split.labels] if model.data.classes else split.labels
    if args.map:
        _write_maps(args.map, model, given, split, counts, table)
    _show(table, args.out)
    error = "" if total.standard_error is None else f" +- {total.standard_error:.4f}"
    bound = "" if model.network.exact and not args.tiles else "≤ "
    print(f"{bound}{total.bits_per_dim:.4f}{error} bits/dim, the mean of {total.num_images:,} image(s)")


def _show(table: pd.DataFrame, out: Path | None) -> None:
    """Write the table, or print its first rows."""
    if out is None:
        print(table[:MAX_ROWS].to_string(index=False, float_format="{:.4f}".format))
        if len(table) > MAX_ROWS:
            print(f"... and {len(table) - MAX_ROWS:,} more; -o scores.parquet writes them all")
        return
    with files.atomic(out) as file:
        if out.suffix == ".csv":
            table.to_csv(file, index=False)
        else:
            table.to_parquet(file, index=False)
    print(f"{out}: {len(table):,} rows")


def _check_map(out: Path | None, model: Model, given: operands.Images) -> None:
    """Before any work: raise ValueError where there is no map, it cannot be written, or would overwrite a file."""
    if out is None:
        return
    if not model.network.has_nll_map:
        raise ValueError(f"--map: the NLL of {model.config.name} is not a sum over pixels")
    if out.suffix and len({image.shape for image in given.images}) > 1:
        raise ValueError("--map: images of several sizes share no grid; name a folder, without a dot, for a PNG each")
    if not out.suffix:
        operands.check_stems(given.stems, given.names)
        output.check_new(out, given.stems)


def _write_maps(
    out: Path, model: Model, given: operands.Images, split: Split, counts: list[int], table: pd.DataFrame
) -> None:
    """Each image beside its bits per pixel, all on one scale."""
    cond, maps = model.conditions(split), []
    unit = "tiles" if len(split.images) > len(counts) else "images"
    with torch.inference_mode(), progress("map", len(split.images), unit) as bar:
        for n in range(len(split.images)):
            part = slice(n, n + 1)
            on_device = None if cond is None else cond[part].to(model.device)
            maps.append(model.nll_map(split.images[part].to(model.device), on_device).cpu())
            bar.update(1)
    parts = torch.cat(maps).split(counts)  # (T, C, H, W) each
    bits = [
        bits_per_pixel(join(tiles, *image.shape[1:])) for tiles, image in zip(parts, given.images, strict=True)
    ]  # (h, w) each
    most = max(float(torch.cat([each.flatten() for each in bits]).quantile(BRIGHTEST)), 1.0)
    pairs = [
        beside(image, each, model.data.levels, most) for image, each in zip(given.images, bits, strict=True)
    ]  # (2, 3, h, w) each
    names = [f"{files.excerpt(name)}: {b:.3f}" for name, b in zip(given.names, table.bits_per_dim, strict=True)]
    if out.suffix:
        save_grid(out, torch.cat(pairs), 2, 256, names)
    else:
        with output.all_or_none() as made:
            for stem, pair in zip(given.stems, pairs, strict=True):
                made.append(out / f"{stem}.png")
                save_grid(made[-1], pair, 2, 256)
    print(f"{out}: each image, and its bits per pixel from 0 (black) to {most:.1f} or more (white)")
