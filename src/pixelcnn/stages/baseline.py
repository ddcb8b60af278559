"""Measure the baselines that need no network on one data set, on the splits that evaluation uses.

python -m pixelcnn.stages.baseline NAME --data data/prepared/NAME --out reports/baseline/NAME.json
"""

from pixelcnn.data import sources
from pixelcnn.data.dataset import read_counted, read_rows, read_split
from pixelcnn.evaluation.baselines import measure, spread
from pixelcnn.stages import parse, parser, read_params, run


def main() -> None:
    entry = "an entry of `datasets` or `images`"
    args = parse(parser(__doc__, entry, data="the prepared data set", out="JSON file to write"))
    params = read_params()
    params.preparation(args.name)  # refuses a name that is none
    info = read_counted(args.data)
    some = spread(info.splits["train"].num_images, params.baseline.max_train_images)
    train = read_rows(args.data, "train", some).images
    test = read_split(args.data, "test").images
    true_nll = sources.load(info.source).true_nll if info.source in sources.NAMES else None
    measure(train, test, info.levels, true_nll).write(args.out)


if __name__ == "__main__":
    run(main)
