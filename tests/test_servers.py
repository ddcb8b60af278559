"""The setups of docs/servers.md: MLflow on PostgreSQL with artifacts behind its server, and DVC on a disk and on S3."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import pytest

from tests.servers import free_port, mlflow_server, postgres, why_no_postgres
from tests.test_tracking import start

MODULES = ("moto", "dvc_s3")
NO_S3 = ", ".join(name for name in MODULES if importlib.util.find_spec(name) is None)


@pytest.mark.slow
@pytest.mark.skipif(bool(why_no_postgres()), reason=why_no_postgres())
def test_a_training_is_logged_to_postgresql_with_artifacts_behind_the_server(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "go").touch()
    with postgres(free_port()) as database, mlflow_server(tmp_path / "server", port, database):
        uri = f"http://127.0.0.1:{port}"
        child = start(tmp_path, "a-run", 50, 0.0, uri)
        said = child.communicate()[1]
        assert child.returncode == 0, said
        client = mlflow.MlflowClient(uri)
        experiment = client.get_experiment_by_name("noise")
        (run,) = client.search_runs([experiment.experiment_id])
        assert len(client.get_metric_history(run.info.run_id, "training/a")) == 50
        assert run.info.status == "FINISHED"
        assert run.info.artifact_uri.startswith("mlflow-artifacts:/")
        assert {item.path for item in client.list_artifacts(run.info.run_id, "environment")} == {
            "environment/config.json", "environment/requirements.txt",
        }  # fmt: skip


@contextmanager
def s3() -> Iterator[str]:
    """The address of an S3-compatible server with a bucket `pixelcnn`."""
    import boto3
    from moto.server import ThreadedMotoServer

    port = free_port()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port)
    server.start()
    address = f"http://127.0.0.1:{port}"
    secrets = {"aws_access_key_id": "any", "aws_secret_access_key": "any", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=address, **secrets).create_bucket(Bucket="pixelcnn")
    try:
        yield address
    finally:
        server.stop()


def push_lose_and_pull(folder: Path, remote: str, *settings: str) -> None:
    """A file of a DVC repository is restored from this remote with the same bytes."""
    env = os.environ | {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "DVC_NO_ANALYTICS": "true"}

    def dvc(*arguments: str) -> None:
        subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=folder, env=env, check=True)

    content = os.urandom(100_000)
    (folder / "weights").write_bytes(content)
    dvc("init", "--no-scm", "--quiet")
    dvc("remote", "add", "--default", "store", remote)
    if settings:
        dvc("remote", "modify", "store", *settings)
    dvc("add", "--quiet", "weights")
    dvc("push")
    subprocess.run(["rm", "-rf", ".dvc/cache", "weights"], cwd=folder, check=True)
    dvc("pull")
    assert (folder / "weights").read_bytes() == content


@pytest.mark.slow
def test_a_folder_is_a_dvc_remote(tmp_path: Path) -> None:
    (tmp_path / "repo").mkdir()
    push_lose_and_pull(tmp_path / "repo", str(tmp_path / "store"))


@pytest.mark.slow
@pytest.mark.skipif(bool(NO_S3), reason=f"not installed: {NO_S3}")
def test_s3_is_a_dvc_remote(tmp_path: Path) -> None:
    with s3() as address:
        push_lose_and_pull(tmp_path, "s3://pixelcnn/store", "endpointurl", address)
