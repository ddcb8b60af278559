"""The command `pixelcnn`: the table of its verbs. A verb's module is imported only when that verb is used."""

import argparse
import importlib
import sys

VERBS = {
    "results": "the NLL tables, and where samples and curves lie",
    "suite": "switch params.yaml to CIFAR-10 or ImageNet",
    "sample": "draw images from a model",
    "complete": "draw what is missing of images, several times",
    "reconstruct": "images from what an auto-encoder keeps of them",
    "interpolate": "images between two images, along their codes or embeddings",
    "models": "the registered models, and finished runs: list, show, download, pack, register",
    "score": "bits/dim of images under a model",
    "compress": "images to a lossless archive, as small as the model's NLL",
    "decompress": "an archive back to the same images",
}


def main(arguments: list[str] | None = None) -> None:
    """Run one verb; what a user can mend is one clear message and exit code 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    args = _parser(arguments[:1]).parse_args(arguments)
    try:
        args.run(args)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _parser(used: list[str]) -> argparse.ArgumentParser:
    """The verbs with their help lines; those that are used, with their arguments."""
    parser = argparse.ArgumentParser(prog="pixelcnn", description="Exact-likelihood autoregressive image models.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for verb, line in VERBS.items():
        command = commands.add_parser(verb, help=line)
        if verb in used:
            module = importlib.import_module(f"pixelcnn.cli.{verb}")
            command.description = (module.__doc__ or "").partition(": ")[2]
            command.formatter_class = argparse.RawDescriptionHelpFormatter
            module.arguments(command)
            command.set_defaults(run=module.run)
    return parser


if __name__ == "__main__":
    main()
