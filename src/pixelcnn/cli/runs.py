"""`pixelcnn runs sync`: add to the MLflow store what it lacks of the records in mlruns/records; delete nothing.

The store is MLFLOW_TRACKING_URI, or mlflow.db here.
"""

import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("sync", help="add to the store what it lacks of the records here")


def run(_: argparse.Namespace) -> None:
    """Run the one ACTION."""
    from pixelcnn.tracking import store  # MLflow takes seconds

    with store.answering():
        sent = store.sync()
    print(f"{store.address()}: {sent} records completed")
