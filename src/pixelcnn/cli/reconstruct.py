"""`pixelcnn reconstruct`: draw images from an auto-encoder's codes of images."""

import argparse

from pixelcnn.cli import operands, output
from pixelcnn.generation.interpolation import reconstruct
from pixelcnn.generation.sampling import in_float64
from pixelcnn.progress import progress


def run(args: argparse.Namespace) -> None:
    """Draw the reconstructions and write them."""
    models = [operands.load_model(text, args.device) for text in [*args.beside, args.model]]
    model = models[-1]
    given = operands.read_images(args, model)
    output.check_rows(args.out, given.stems, given.names)
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
