"""Check params.yaml as a whole, so that a mistake in it is reported before anything is downloaded or trained.

python -m pixelcnn.stages.check --out reports/check/params.txt

The output never changes, so that what comes after this stage does not become stale with it.
"""

from pathlib import Path

from pixelcnn import files
from pixelcnn.config import quoted
from pixelcnn.stages import parse, parser, read_params, run


def main() -> None:
    args = parse(parser(__doc__, None, out="text file to write"))
    for name, images in read_params().images.items():
        if not Path(images.path).exists():
            raise ValueError(f"params.yaml: images.{name}.path: {quoted(images.path)}: no such file or folder")
    files.write_text(args.out, "params.yaml is valid.\n")


if __name__ == "__main__":
    run(main)
