"""`pixelcnn interpolate`: draw images between two images."""

import argparse

import torch

from pixelcnn.cli import operands, output
from pixelcnn.config import Given
from pixelcnn.generation.interpolation import interpolate
from pixelcnn.generation.sampling import in_float64
from pixelcnn.progress import progress


def run(args: argparse.Namespace) -> None:
    """Draw the interpolations and write them."""
    model = in_float64(operands.load_model(args.model, args.device))
    if model.given not in (Given.EMBEDDING, Given.CODE):
        raise ValueError(
            f"MODEL: {model.config.name} with condition {model.config.condition!r} has no codes or embeddings to "
            "interpolate"
        )
    given = operands.read_images(args, model)
    split = operands.as_split(given, model, None)
    if len(split.images) % 2:
        raise ValueError(f"IMAGES: {len(split.images)} images are not pairs; give an even number")
    names = [f"{a} to {b}" for a, b in zip(given.names[0::2], given.names[1::2], strict=True)]
    stems = [f"{a}-{b}" for a, b in zip(given.stems[0::2], given.stems[1::2], strict=True)]
    output.check_rows(args.out, stems, names)
    with torch.inference_mode():
        encodes = model.given is Given.CODE
        vectors = model.network.encode(split.images.to(model.device)) if encodes else model.conditions(split)
    assert vectors is not None
    with progress("interpolate", args.steps * model.shape[1], "rows") as bar:
        drawn = interpolate(
            model, vectors[0::2], vectors[1::2], args.steps, args.seed, args.temperature, lambda _: bar.update(1)
        )  # (N / 2, steps, C, H, W)
    first, last = split.images[0::2].unsqueeze(1), split.images[1::2].unsqueeze(1)
    output.write_rows(args.out, (first, drawn, last), drawn, names, stems, model.data.levels)
    if args.out.suffix:
        print("columns: the first image, the interpolation, the second image")
    print(f"{args.out}: {len(names)} interpolations of {args.steps} images")
