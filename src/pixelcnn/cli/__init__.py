"""The command `pixelcnn`: one module for each verb, imported only when that verb is used.

A verb's module has `arguments(parser)`, which declares its arguments, and `run(args)`. Its docstring is its help.
"""

import argparse
import importlib
import sys

from pixelcnn.files import message

VERBS = {
    "results": "the NLL tables, and where samples and curves lie",
    "ui": "MLflow's pages: compare runs, see registered models",
    "suite": "switch params.yaml to CIFAR-10 or ImageNet",
    "sample": "draw images from a model",
    "complete": "draw the missing pixels of images, several times",
    "embed": "embeddings of images, for a model that is conditioned on them",
    "reconstruct": "draw images from an auto-encoder's codes of images",
    "interpolate": "draw images between two images, along their codes or embeddings",
    "models": "the registered models, and finished runs: list, show, download, pack, register",
    "runs": "complete the MLflow store from the records here; clear away what removed runs have left",
    "score": "bits/dim of images under a model",
    "compress": "compress images losslessly, to about the size of their NLL",
    "decompress": "restore the images of an archive",
}


def main(arguments: list[str] | None = None) -> None:
    """Run one verb. An error that the user can correct is one message on stderr and exit code 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    args = _parser(arguments[:1]).parse_args(arguments)
    try:
        args.run(args)
    except (ValueError, OSError, MemoryError) as error:
        print(f"error: {message(error)}", file=sys.stderr)
        sys.exit(2)


def _parser(used: list[str]) -> argparse.ArgumentParser:
    """The parser of all verbs with their help lines; those in `used` also have their arguments."""
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
