"""Import a user's own images as a prepared data set, like those that the stage preprocess makes.

python -m pixelcnn.stages.import NAME --out data/prepared/NAME --report FILE
"""

import os

from pixelcnn.data.dataset import write_info
from pixelcnn.data.importing import import_images
from pixelcnn.stages import parse, parser, read_params, run


def main() -> None:
    args = parse(
        parser(
            __doc__,
            "an entry of `images`",
            out="folder for the shards and card.json",
            report="a copy of the card, for the report",
        )
    )
    entries = read_params().images
    if args.name not in entries:
        raise ValueError(f"params.yaml: images: {args.name!r} is not one of {', '.join(entries) or '(none)'}")
    info, notes = import_images(args.name, entries[args.name], args.out, os.cpu_count() or 1)
    write_info(info, args.report)
    print("\n".join(f"{args.name}: {note}" for note in notes))


if __name__ == "__main__":
    run(main)
