"""Download the publisher's archives of one data set and verify them.

python -m pixelcnn.stages.download NAME --out data/raw/NAME

Interrupted transfers lie in data/partial/NAME until the next run resumes them: outside the stage's outs, which DVC
deletes before it runs a stage.
"""

from pixelcnn.data.download import download
from pixelcnn.stages import parse, parser, read_params, run


def main() -> None:
    args = parse(parser(__doc__, "an entry of `datasets`", out="folder for the archives and manifest.json"))
    settings, out = read_params().dataset(args.name).download, args.out.resolve()
    download(settings, out, partial=out.parent.parent / "partial" / out.name)


if __name__ == "__main__":
    run(main)
