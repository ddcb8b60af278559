"""The command `pixelcnn`: what its verbs take is declared in `pixelcnn.cli.arguments`, what they do in a module each.

A verb's module has `run(args)` and is imported when the verb is run, so that help, completion and errors in the
arguments wait for nothing that a model needs.
"""

import importlib
import platform
import sys
import textwrap
from importlib import metadata

import pixelcnn
from pixelcnn import console
from pixelcnn.cli import arguments
from pixelcnn.spelling import hint

GROUPS = {
    "The project in this folder": {
        "suite": "switch params.yaml to CIFAR-10, ImageNet, ...; add a suite to it",
        "train": "train a run of params.yaml, without DVC",
        "results": "the NLL tables, what is missing, and where samples and curves lie",
        "models": "the registered models, and finished runs: list, show, download, pack, register",
        "runs": "sync records of trainings to MLflow; prune the files of removed runs",
        "ui": "MLflow's pages: compare runs, see registered models",
    },
    "With a model": {
        "sample": "draw images",
        "complete": "draw the missing pixels of images, several times",
        "embed": "embeddings of images, for a model that is conditioned on them",
        "reconstruct": "draw images from an auto-encoder's codes of images",
        "interpolate": "draw images between two images, along their codes or embeddings",
        "score": "bits/dim of images, and where in them the bits are",
        "compress": "compress images losslessly, to about the size of their NLL",
        "decompress": "restore the images of an archive",
    },
    "The shell": {
        "completion": "a script that completes these commands in bash, zsh or fish",
    },
}
VERBS = {verb: line for group in GROUPS.values() for verb, line in group.items()}


def main(given: list[str] | None = None) -> None:
    """Run one verb. An error that the user can correct is one message on stderr and exit code 2."""
    console.run(lambda: _main(sys.argv[1:] if given is None else given))


def _main(given: list[str]) -> None:
    match given:
        case [] | ["-h" | "--help", *_]:
            print(_overview())
        case ["--version", *_]:
            versions = f"torch {metadata.version('torch')}, Python {platform.python_version()}"
            print(f"pixelcnn {pixelcnn.__version__} ({versions})")
        case [verb, *rest] if verb in VERBS:
            args = arguments.parser(verb).parse_args(rest)
            importlib.import_module(f"pixelcnn.cli.{verb}").run(args)
        case [word, *_]:
            remedy = hint(word, [*VERBS, "--help", "--version"]) or "; `pixelcnn` lists its commands"
            raise ValueError(f"pixelcnn {word}: no such command{remedy}")


def _overview() -> str:
    """Every verb with its line, in groups."""
    parts = ["usage: pixelcnn COMMAND ...", (pixelcnn.__doc__ or "").partition("\n")[0]]
    for title, verbs in GROUPS.items():
        lines = "\n".join(f"{verb:12} {line}" for verb, line in verbs.items())
        parts.append(f"{title}:\n{textwrap.indent(lines, '  ')}")
    return "\n\n".join([*parts, "`pixelcnn COMMAND --help` says what it takes; `pixelcnn --version`."])
