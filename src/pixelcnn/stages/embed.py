"""Embed the images of a prepared data set and write them as a data set with embeddings, for conditional models.

A classifier that is trained for it is saved with them, for other images: `pixelcnn embed data/prepared/NAME IMAGES`.

python -m pixelcnn.stages.embed NAME --data data/prepared/DATASET --out data/prepared/NAME --report FILE
"""

import shutil
from pathlib import Path

from pixelcnn.data import embeddings
from pixelcnn.data.config import Classifier
from pixelcnn.data.dataset import EMBEDDER, read_counted
from pixelcnn.files import write_json
from pixelcnn.stages import parse, parser, read_params, run


def main() -> None:
    args = parse(
        parser(
            __doc__,
            "an entry of `embeddings`",
            data="the prepared data set whose images are embedded",
            out="folder for the data set with embeddings",
            report="JSON file for the embeddings' description and the classifier's accuracy",
        )
    )
    entries = read_params().embeddings
    if args.name not in entries:
        raise ValueError(f"params.yaml: embeddings: {args.name!r} is not one of {', '.join(entries) or '(none)'}")
    settings, info = entries[args.name], read_counted(args.data)
    shutil.rmtree(args.out / EMBEDDER, ignore_errors=True)
    if isinstance(settings, Classifier):
        embedder, vectors, report = embeddings.from_classifier(settings, info, args.data)
        embedder.save(args.out / EMBEDDER)
        origin = f"{settings.network} trained on the labels of {info.title}"
    else:
        vectors, report = embeddings.from_file(settings, info), {}
        origin = Path(settings.path).name
    made = embeddings.write(vectors, info, args.data, args.out, origin)
    write_json(args.report, made.model_dump() | report)
    print(f"{args.name}: {made.dims} numbers per image, {origin} {report or ''}")


if __name__ == "__main__":
    run(main)
