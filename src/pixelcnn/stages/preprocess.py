"""Preprocess the archives of one data set into Parquet shards in three splits, and a card that describes them.

python -m pixelcnn.stages.preprocess NAME --archives data/raw/NAME --out data/prepared/NAME --report FILE
"""

import os

from pixelcnn.data import sources
from pixelcnn.data.dataset import write_info
from pixelcnn.data.preprocess import preprocess
from pixelcnn.stages import parse, parser, read_params, run


def main() -> None:
    args = parse(
        parser(
            __doc__,
            "an entry of `datasets`",
            archives="folder that the stage download has written",
            out="folder for the shards and card.json",
            report="a copy of the card, for the report",
        )
    )
    settings = read_params().dataset(args.name)
    source = sources.load(settings.download.source)
    write_info(preprocess(args.name, source, settings, args.archives, args.out, os.cpu_count() or 1), args.report)


if __name__ == "__main__":
    run(main)
