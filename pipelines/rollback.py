"""Give the registry's alias `champion` back to the version that had it before, or to any other.

python -m pipelines.rollback NAME [--to VERSION]
"""

import argparse

from pipelines.reproduce import run
from pixelcnn.tracking import registry


def main() -> None:
    """Move the alias and say where it points."""
    parser = argparse.ArgumentParser(prog="pipelines.rollback", description=__doc__.splitlines()[0])
    parser.add_argument("name", help="a registered model, such as digits")
    parser.add_argument("--to", type=int, metavar="VERSION", help="(default: the champion before)")
    args = parser.parse_args()

    def call() -> None:
        receipt = registry.rollback(args.name, args.to)
        print(f"{receipt.name}: champion is version {receipt.version}")

    run(call)


if __name__ == "__main__":
    main()
