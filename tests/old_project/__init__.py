"""A small project as the first release left it on disk, packed by make.py: what every later version has to live with.

    params.yaml dvc.yaml dvc.lock .dvc/ data/ models/ reports/   four trained runs, registered
    mlflow.sql, mlruns/                                          MLflow's store, with four versions of three models
    checkpoints/                                                 a training that a signal has interrupted
    digits.pxc                                                   40 test digits, compressed with models/digits-gated
    expected.json                                                what its models said of those digits, and more
    src/                                                         the sources of that day, which its dvc.yaml names

Text files name the project's own folder as ROOT; `restore` puts the folder that it unpacks into there.
"""

import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

ARCHIVE, ROOT = Path(__file__).with_name("first_release.tar.xz"), "@OLD-PROJECT@"
DATABASE = "mlflow.db"
TEXT = {".sql", ".yaml", ".yml", ".json", ".lock", "", ".jsonl"}  # endings of files in which paths may stand


def restore(folder: Path) -> Path:
    """Unpack the old project into a new folder, as if it had been made there."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    for path in texts(folder):
        content = path.read_bytes()
        if ROOT.encode() in content:
            path.write_bytes(content.replace(ROOT.encode(), str(folder.resolve()).encode()))
    dump = folder / "mlflow.sql"
    with closing(sqlite3.connect(folder / DATABASE)) as database:
        database.execute("pragma journal_mode=wal")
        database.executescript(dump.read_text())
    dump.unlink()
    return folder


def texts(folder: Path) -> list[Path]:
    """The files in which the project's own path may stand."""
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix in TEXT]
