"""Move the registry's alias `champion` back to the previous champion, or to any version.

python -m pipelines.rollback NAME [--to VERSION]
"""

import argparse

from pipelines.reproduce import run
from pixelcnn.tracking import registry


def main() -> None:
    """Move the alias and print the version that it points to."""
    parser = argparse.ArgumentParser(prog="pipelines.rollback", description=__doc__.splitlines()[0])
    parser.add_argument("name", help="a registered model, such as digits")
    parser.add_argument("--to", type=int, metavar="VERSION", help="(default: the previous champion)")
    args = parser.parse_args()

    def call() -> None:
        report = registry.rollback(args.name, args.to)
        print(f"{report.name}: champion is version {report.version}")

    run(call)


if __name__ == "__main__":
    main()
