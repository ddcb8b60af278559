"""`pixelcnn runs`: sync records of trainings to the MLflow store; prune the files of removed runs and data sets."""

import argparse
from pathlib import Path

from tabulate import tabulate

from pixelcnn import params
from pixelcnn.cli import leftovers


def run(args: argparse.Namespace) -> None:
    """Run the one ACTION."""
    if args.action == "sync":
        _sync()
    else:
        _prune(args.remove)


def _sync() -> None:
    from pixelcnn.tracking import store  # MLflow takes seconds

    with store.answering():
        sent = store.sync()
    print(f"{store.address()}: {sent} records completed")


def _prune(remove: bool) -> None:
    found = leftovers.find(params.load(Path("params.yaml")))
    rows = [(each.path, _in_words(each.num_bytes)) for each in found]
    if not found:
        print("nothing to prune: all files belong to entries of params.yaml")
        return
    print(tabulate(rows, ["left over", "size"], colalign=("left", "right")))
    total = _in_words(sum(each.num_bytes for each in found))
    if not remove:
        print(f"\n{total} of entries that params.yaml no longer has; `pixelcnn runs prune --remove` deletes them")
        return
    holders = {each.path: leftovers.remove(each) for each in found}
    for path, holder in holders.items():
        if holder:
            print(f"{path}: kept, since process {holder} is still training this run")
    print(f"\n{sum(not holder for holder in holders.values())} removed; `dvc gc --workspace` also clears DVC's cache")


def _in_words(num_bytes: int) -> str:
    """A size as people say it: 1.5 MB."""
    size, units = float(num_bytes), ["bytes", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.0f} {units[0]}" if units[0] == "bytes" else f"{size:.1f} {units[0]}"
