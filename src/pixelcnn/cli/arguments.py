"""What each verb takes: a function for each, whose docstring is the verb's help. No torch here, nor pydantic.

The types of the arguments refuse what is wrong before anything is loaded or drawn.
"""

import argparse
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from pixelcnn import pretrained
from pixelcnn.cli import places
from pixelcnn.spelling import hint

MODEL = (
    f"a bundled one ({', '.join(pretrained.folders()) or 'none here'}), a folder with "
    "model.safetensors and config.json, or models:/NAME@ALIAS or models:/NAME/VERSION"
)
IMAGES = (
    "image files, folders of image files, or a split of a prepared data set as data/prepared/cifar10:test[:N] "
    "(its first N images)"
)
EMBEDDER = (
    "the folder of a model that was trained on embeddings by a classifier, models:/NAME@ALIAS of one, or the folder of "
    "a data set with such embeddings, below data/prepared"
)
REGISTERED = "NAME (its champion), NAME@ALIAS or NAME/VERSION"
SPLITS = ("train", "validation", "test")  # of a prepared data set
HALVES = ("top-half", "left-half", "right-half")
SHELLS = ("bash", "zsh", "fish")


class Formatter(argparse.HelpFormatter):
    """Paragraphs stay apart, filled to the terminal's width; those with two spaces in a row are laid out by hand."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        parts = text.split("\n\n")
        fill = super()._fill_text
        return "\n\n".join(each if "  " in each else fill(each, width, indent) for each in parts)


class Parser(argparse.ArgumentParser):
    """An argument parser that suggests the option that was meant."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, with a suggestion for an option that there is not."""
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint(unknown[0], self._option_string_actions)}")
        return parsed

    def error(self, message: str) -> NoReturn:
        """End with this message and exit code 2, without the whole usage, which hides it."""
        self.exit(2, f"error: {self.prog}: {message} (`{self.prog} --help`)\n")


def parser(verb: str) -> Parser:
    """The parser of a verb's arguments."""
    declare: Callable[[Parser], None] = globals()[verb]
    made = Parser(f"pixelcnn {verb}", description=inspect.getdoc(declare), formatter_class=Formatter)
    declare(made)
    return made


# The project in this folder


def suite(parser: Parser) -> None:
    """Replace params.yaml by a ready-made suite, or add a suite's data sets and runs to it.

    A params.yaml with changes of yours is kept as params.yaml.bak. --add changes none of your runs: each added run
    writes out the values that differ from your `shared:`. Without a name, lists the suites.
    """
    parser.add_argument("name", nargs="?", help="a name that --list prints")
    parser.add_argument("--list", action="store_true", help="list the suites and what they are for")
    parser.add_argument("--add", action="store_true", help="add the suite to params.yaml, instead of replacing it")
    parser.add_argument(
        "--origin",
        type=places.origin,
        help="a folder with the archives, or its URL (default: the publisher's); for the suite images: your images",
    )
    parser.add_argument(
        "--verify",
        choices=("publisher", "any"),
        default="publisher",
        help="any: accept archives that differ from the publisher's; the report says so (default: publisher)",
    )


def train(parser: Parser) -> None:
    """Train a run of params.yaml: the command of dvc.yaml's stage `train`, without DVC around it.

    Interrupted by Ctrl-C it saves, and the same command resumes from there. DVC does not know of it: `dvc commit -f
    train@RUN` records what it made, and without that `dvc repro` trains the run again.
    """
    parser.add_argument("run", metavar="RUN", help="an entry of params.yaml's runs")
    parser.add_argument("--measure", type=minutes, metavar="MINUTES", help="only measure how many steps fit here")
    _device(parser)


def results(parser: Parser) -> None:
    """The NLL tables of what has been evaluated, what is missing yet, and where to look further."""
    parser.add_argument("--next-steps", action="store_true", help="also print the commands to try next")


def models(parser: Parser) -> None:
    """List, show and download registered models; pack finished runs and register them.

    A registered model is NAME, which means its champion, NAME@ALIAS or NAME/VERSION.
    """
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("list", help="every version of every registered model, and the bundled models")
    show = actions.add_parser("show", help="the model card of a version: system, data, scores, licence")
    show.add_argument("model", metavar="MODEL", help=REGISTERED)
    download = actions.add_parser("download", help="a version as a folder, which is used without registry and network")
    download.add_argument("model", metavar="MODEL", help=REGISTERED)
    download.add_argument("-o", "--out", type=places.new_folder, help="the folder (default: NAME-VERSION, here)")
    pack = actions.add_parser("pack", help="a finished run of this project as a folder, to be registered elsewhere")
    pack.add_argument("entry", metavar="RUN", help="a finished entry of params.yaml's runs")
    pack.add_argument("-o", "--out", type=places.new_folder, required=True, help="a new folder")
    register = actions.add_parser("register", help="a folder that `pack` made, a run, or a model that is bundled")
    bundled = ", ".join(pretrained.folders()) or "none"
    register.add_argument("model", metavar="FOLDER", help=f"a folder that `pack` made, models/RUN, or {bundled}")


def runs(parser: Parser) -> None:
    """Sync records of trainings to the MLflow store; prune the files of runs and data sets that were removed.

    sync   adds to the store what it lacks of the records in mlruns/records, and deletes nothing. The store is
           MLFLOW_TRACKING_URI, or mlflow.db here.
    prune  lists files of runs, data sets and embeddings that are no longer in params.yaml; --remove deletes them.
           MLflow's runs and versions, the records and DVC's cache stay.
    """
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("sync", help="add what is missing in the MLflow store, from the records here")
    prune = actions.add_parser("prune", help="list files of runs and data sets that are no longer in params.yaml")
    prune.add_argument("--remove", action="store_true", help="delete what is listed")


def ui(parser: Parser) -> None:
    """MLflow's pages of this project, with the addresses to begin at."""
    parser.add_argument("--port", type=count, default=5000, help="(default: %(default)s)")


# With a model


def sample(parser: Parser) -> None:
    """Draw images from a model.

    The same seed gives the same images, whatever the batch size. A folder is written batch by batch, and one that is
    not finished is continued by the same command. A class-conditional model without --label gets a row for each class,
    an embedding-conditional model a row for each embedding; --num is then rounded up to whole rows.
    """
    _model(parser)
    parser.add_argument("--num", type=count, default=64, help="how many images (default: %(default)s)")
    _drawing(parser)
    parser.add_argument(
        "--film", type=places.file, metavar="FILE", help="a .gif or .webp that shows the images of a grid being drawn"
    )
    given = parser.add_mutually_exclusive_group()
    given.add_argument("--label", action="append", help="a class, by name or number; repeat it for more rows")
    given.add_argument(
        "--embedding",
        action="append",
        metavar="FILE",
        help="a .npy file of one embedding (D,) or several (N, D), a row each; repeat it for more",
    )


def complete(parser: Parser) -> None:
    """Draw the missing pixels of images, several times.

    A row per image: the image, its known pixels, and the completions. A drawn pixel depends on the pixels above it and
    left of it, known or drawn, and on none that follow. So completions of a top half are exact draws from
    p(rest | known). With other masks known pixels keep their values, but those that follow a drawn pixel do not
    influence it. In a bottom half none would, so it is not among the choices.
    """
    _model(parser)
    _images(parser)
    known = parser.add_mutually_exclusive_group(required=True)
    known.add_argument("--keep", choices=HALVES, help="the half that is known; exact: top-half")
    known.add_argument("--mask", type=Path, help="a PNG of the images' size: white is known, black is drawn")
    parser.add_argument("--num", type=count, default=4, help="completions per image (default: %(default)s)")
    _label(parser)
    _drawing(parser)
    _resize(parser)


def embed(parser: Parser) -> None:
    """Embeddings of images, for a model that is conditioned on them.

    Images that no training has seen become conditions: after `pixelcnn embed MODEL photo.png -o photo.npy`,
    `pixelcnn sample MODEL --embedding photo.npy -o drawn.png` draws more of the kind. The embedder is the classifier
    that the stage embed trained (`embeddings:` in params.yaml with `source: classifier`).
    """
    parser.add_argument("model", metavar="MODEL", help=EMBEDDER)
    _images(parser)
    parser.add_argument(
        "-o", "--out", type=places.embeddings, required=True, help="a .npy file: float32, a row per image"
    )
    _resize(parser)
    _device(parser)


def reconstruct(parser: Parser) -> None:
    """Draw images from an auto-encoder's codes of images.

    A row per image: the image, the reconstructions of the models given with --beside, and those of MODEL. An
    auto-encoder with a squared error has one reconstruction of each code, a PixelCNN auto-encoder as many as it is
    asked to draw.
    """
    _model(parser, "an auto-encoder: ")
    _images(parser)
    parser.add_argument("--num", type=count, default=4, help="reconstructions per image (default: %(default)s)")
    parser.add_argument("--beside", metavar="MODEL", action="append", default=[], help="another auto-encoder, first")
    _drawing(parser)
    _resize(parser)


def interpolate(parser: Parser) -> None:
    """Draw images between two images, along an auto-encoder's codes or along embeddings.

    A row for each two images: the first, images drawn at equal steps from its code or embedding to the other's, the
    second. The noise is the same along a row, so that what changes is due to the code or embedding. Embeddings come
    from a prepared data set that has them (`embeddings:` in params.yaml).
    """
    _model(parser, "an auto-encoder or embedding-conditional: ")
    _images(parser, "an even number of images: ")
    parser.add_argument("--steps", type=count, default=8, help="images on a line (default: %(default)s)")
    _drawing(parser)
    _resize(parser)


def score(parser: Parser) -> None:
    """Bits/dim of images under a model, lower is better; their mean and its standard error.

    Of an auto-encoder: bits/dim given each image's own code, whose bits are not counted. A ≤ marks upper bounds: of
    models whose NLL is not exact, and of images in tiles.

    --tiles scores images of any size as `compress` codes them: in tiles of the model's size, each by itself, those at
    the right and bottom edge filled up by repeating the last column and row. The sum of the tiles' NLLs is that of the
    filled-up image, if tiles are independent. The image itself is at least as probable, since it could be filled up in
    other ways too: its NLL is at most that sum, and equal where its sides are multiples of the model's. A model that
    saw across the borders of tiles would need fewer bits as a rule; of such a model this is no bound.
    """
    _model(parser)
    _images(parser)
    parser.add_argument("-o", "--out", type=places.table, help="the table as a .parquet or .csv file")
    parser.add_argument(
        "--map", type=places.pictures, help="each image beside its bits per pixel: a .png, or a folder for a PNG each"
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--tiles", action="store_true", help="score images of any size in tiles of the model's size")
    _resize(size)
    _label(parser)
    _batch_size(parser, "images evaluated together")
    _device(parser)


def compress(parser: Parser) -> None:
    """Compress images losslessly, to about the size of their NLL.

    Images may have any size; larger ones are coded in tiles of the model's size. Pixels are restored bit by bit, as
    8-bit grey or RGB; names lose their suffixes, and metadata is not stored. Decompressing needs the same model.
    """
    _model(parser)
    _images(parser)
    parser.add_argument("-o", "--out", type=places.file, required=True, help="the archive, such as archive.pxc")
    parser.add_argument("--label", help="the class of all images, by name or number, for a class-conditional model")
    _batch_size(parser, "tiles coded together")
    _device(parser)


def decompress(parser: Parser) -> None:
    """Restore the images of an archive that `pixelcnn compress` wrote.

    Pixels are restored exactly or not at all: a damaged archive, another model, or a machine whose arithmetic differs
    is an error.
    """
    parser.add_argument("model", metavar="MODEL", help=f"{MODEL}; the one that compressed")
    parser.add_argument("archive", metavar="ARCHIVE", type=Path, help="a file that `pixelcnn compress` wrote")
    parser.add_argument("-o", "--out", type=places.folder, required=True, help="a folder for a PNG of each image")
    _device(parser, "the kind of device that compressed")


# The shell


def completion(parser: Parser) -> None:
    """Print a script that completes pixelcnn's commands, options, models, runs, suites and splits.

    bash:  eval "$(pixelcnn completion bash)"      in ~/.bashrc
    zsh:   eval "$(pixelcnn completion zsh)"       in ~/.zshrc, after compinit
    fish:  pixelcnn completion fish | source       in ~/.config/fish/config.fish
    """
    parser.add_argument("shell", choices=SHELLS, help="the shell to print it for")
    parser.add_argument("--line", help=argparse.SUPPRESS)  # how the scripts ask for the completions of a line


# What verbs have in common


def _model(parser: Parser, kind: str = "") -> None:
    parser.add_argument("model", metavar="MODEL", help=f"{kind}{MODEL}")


def _images(parser: Parser, which: str = "") -> None:
    parser.add_argument("images", metavar="IMAGES", nargs="+", help=f"{which}{IMAGES}")
    parser.add_argument(
        "--skip-bad", action="store_true", help="leave out files that cannot be used, instead of doing nothing"
    )


def _label(parser: Parser) -> None:
    parser.add_argument("--label", help="the images' class, by name or number; a prepared split has its own labels")


def _resize(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--resize",
        action="store_true",
        help="images of any size: their centre of the model's proportions, resized to its size (a Lanczos filter)",
    )


def _drawing(parser: Parser) -> None:
    """What every verb takes that draws images."""
    parser.add_argument(
        "-o", "--out", type=places.pictures, required=True, help="a .png for a grid, or a folder for a PNG each"
    )
    parser.add_argument("--seed", type=seed, default=0, help="(default: %(default)s)")
    parser.add_argument(
        "--temperature",
        type=temperature,
        default=1.0,
        help="below 1: likelier, less diverse images (default: %(default)s)",
    )
    _batch_size(parser, "images drawn together")
    _device(parser)


def _batch_size(parser: Parser, what: str) -> None:
    parser.add_argument("--batch-size", type=batch, default=64, help=f"{what} (default: %(default)s)")


def _device(parser: Parser, default: str = "a GPU if there is one") -> None:
    parser.add_argument("--device", type=device, help=f"cpu, cuda or cuda:N (default: {default})")


# Types of arguments


def count(text: str) -> int:
    """A whole number of at least 1."""
    return _whole(text, 10**9)


def batch(text: str) -> int:
    """Images at a time, as many as in params.yaml."""
    return _whole(text, 2**16)


def _whole(text: str, most: int, least: int = 1) -> int:
    if not text.isdecimal() or len(text) > 20 or not least <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of {least} ... {most:,}")
    return int(text)


def seed(text: str) -> int:
    """A whole number of 0 ... 2**31 - 1, as in params.yaml."""
    return _whole(text, 2**31 - 1, least=0)


def temperature(text: str) -> float:
    """A temperature at which images can be drawn."""
    from pixelcnn.config import COLDEST, HOTTEST  # imports pydantic, which no help needs

    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not COLDEST <= value <= HOTTEST:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from {COLDEST:g} to {HOTTEST:g}")
    return value


def minutes(text: str) -> float:
    """A duration of more than nothing and less than a year."""
    if not re.fullmatch(r"[0-9]{1,5}(\.[0-9]+)?", text) or not float(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of minutes")
    return float(text)


def device(text: str) -> str:
    """The name of a kind of device; whether this machine has it is asked when the model is loaded."""
    if not re.fullmatch(r"cpu|cuda(:[0-9]+)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is none of cpu, cuda, cuda:0, cuda:1, ...")
    return text
