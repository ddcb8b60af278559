"""Make first_release.tar.xz: `python -m tests.old_project.make CHECKOUT`, the checkout being of the first release.

That was commit a51893e; a later release gets an archive of its own. Takes some minutes, and needs what CHECKOUT needs.
"""

import argparse
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.old_project import ARCHIVE, DATABASE, ROOT, texts

SIZES = {"num_layers": 2, "hidden_channels": 8, "kernel_size": 3, "first_kernel_size": 3, "head_channels": 8}
GATED = {"name": "gated_pixelcnn", "condition": "none", "dropout": 0.1} | SIZES
MODELS: dict[str, dict[str, Any]] = {
    "digits-gated": GATED,
    "digits-gated-label": GATED | {"condition": "label"},
    "digits-plus": {
        "name": "pixelcnn++", "condition": "none", "hidden_channels": 6, "num_resnets": 1, "num_resolutions": 2,
        "num_mixtures": 2, "dropout": 0.0,
    },
    "digits-autoencoder": {"name": "pixelcnn_autoencoder", "condition": "code-map", "code": 3, "encoder_channels": 4}
    | {key: GATED[key] for key in ("dropout", *SIZES)},
}  # fmt: skip
INTERRUPTED = "digits-plus"  # trained once, then with more steps, which a signal has ended
STEPS, MORE_STEPS = 30, 400
LEFT_OUT = {"__pycache__", "tmp", "pixelcnn_pretrained"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="of the release that the project is to be of")
    checkout = parser.parse_args().checkout.resolve()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch).resolve() / "project"
        shutil.copytree(checkout / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        shutil.copy(checkout / "dvc.yaml", folder)
        write_params(folder, checkout, MORE_STEPS)
        run(folder, "-m", "dvc", "init", "--no-scm", "-q")
        (folder / ".dvc" / "config").write_text(
            "[core]\n    analytics = false\n    check_update = false\n    no_scm = true\n"
        )
        uninterrupted = train_to_the_end(folder)
        write_params(folder, checkout, STEPS)
        run(folder, "-m", "dvc", "repro", "-q")
        expected = ask(folder)
        interrupt(folder, checkout)
        expected["interrupted"] = {"run": INTERRUPTED, "steps": MORE_STEPS, "weights_sha256": uninterrupted}
        (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
        pack(folder)
    print(f"{ARCHIVE}: {ARCHIVE.stat().st_size:,} bytes")


def write_params(folder: Path, checkout: Path, steps: int) -> None:
    """Four tiny runs; the interrupted one has so many steps."""
    params = YAML(typ="safe").load(checkout / "params.yaml")
    train = params["runs"]["digits-gated"]["train"] | {"batch_size": 16, "warmup_steps": 2, "validate_every": 10}
    params["runs"] = {
        name: {"description": name, "dataset": "digits", "model": model, "train": train | {"steps": STEPS}}
        for name, model in MODELS.items()
    }
    params["runs"][INTERRUPTED]["train"]["steps"] = steps
    params["train"] = {"log_every": 5, "checkpoint_every": 0.01, "pictures_every": 1000, "processes": 1}
    params["evaluate"] |= {"num_train_images": 50, "samples_per_class": 2}
    with (folder / "params.yaml").open("w") as handle:
        YAML().dump(params, handle)


def train_to_the_end(folder: Path) -> str:
    """The interrupted run's weights had nobody interrupted it; leaves nothing but the prepared data behind."""
    run(folder, "-m", "dvc", "repro", "-q", f"train@{INTERRUPTED}")
    description = json.loads((folder / "models" / INTERRUPTED / "config.json").read_text())
    for left in (folder / "models", folder / "reports" / "train", folder / "mlruns"):
        shutil.rmtree(left)
    for left in (*folder.glob(f"{DATABASE}*"), folder / "dvc.lock"):
        left.unlink()
    sha256: str = description["weights_sha256"]
    return sha256


def ask(folder: Path) -> dict[str, Any]:
    """What the models say of 40 test digits, by `predict` of the registered versions and by an archive."""
    run(
        folder, "-c", "from pixelcnn.cli import main; main()",
        "compress", "models/digits-gated", "data/prepared/digits:test:40", "-o", "digits.pxc",
    )  # fmt: skip
    script = """if True:
        import hashlib, json, mlflow
        from pathlib import Path
        from pixelcnn.data.dataset import read_split
        mlflow.set_tracking_uri("sqlite:///mlflow.db")
        images = read_split(Path("data/prepared/digits"), "test").images[:40].numpy()
        names = [model.name for model in mlflow.MlflowClient().search_registered_models()]
        answers = {
            f"{name}/{version.version}": mlflow.pyfunc.load_model(f"models:/{name}/{version.version}").predict(images)
            for name in names
            for version in mlflow.MlflowClient().search_model_versions(f"name = '{name}'")
        }
        print(json.dumps({
            "images_sha256": hashlib.sha256(images.tobytes()).hexdigest(),
            "bits_per_dim": {name: answer.tolist() for name, answer in answers.items()},
        }))
    """
    answer: dict[str, Any] = json.loads(run(folder, "-c", script).splitlines()[-1])
    return answer


def interrupt(folder: Path, checkout: Path) -> None:
    """Train the run with more steps, and end that by SIGTERM at about its middle."""
    write_params(folder, checkout, MORE_STEPS)
    stage = ["-m", "pixelcnn.stages.train", INTERRUPTED, "--data", "data/prepared/digits"]
    command = [sys.executable, *stage, "--out", f"models/{INTERRUPTED}", "--report", f"reports/train/{INTERRUPTED}"]
    with subprocess.Popen(command, cwd=folder, env=environment(folder), stdout=subprocess.PIPE, text=True) as training:
        assert training.stdout is not None
        for line in training.stdout:
            print(line, end="")
            if f"step {MORE_STEPS // 2} " in line:
                training.send_signal(signal.SIGTERM)
        time.sleep(1)
    assert training.returncode == 128 + signal.SIGTERM, training.returncode


def pack(folder: Path) -> None:
    """Write the archive: the database as SQL, text files with ROOT for the folder, owners and times left out."""
    with closing(sqlite3.connect(folder / DATABASE)) as database:
        lines = [line for line in database.iterdump() if "sqlite_sequence" not in line]
    (folder / "mlflow.sql").write_text("\n".join(lines) + "\n")
    for left in folder.glob(f"{DATABASE}*"):
        left.unlink()
    for path in texts(folder):
        path.write_bytes(path.read_bytes().replace(str(folder).encode(), ROOT.encode()))

    def anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        if LEFT_OUT & set(Path(member.name).parts):
            return None
        member.uid = member.gid = member.mtime = 0
        member.uname = member.gname = ""
        return member

    with tarfile.open(ARCHIVE, "w:xz", preset=9) as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, path.name, filter=anonymous)


def run(folder: Path, *arguments: str) -> str:
    """Run this Python in the folder, with the folder's own sources."""
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment(folder), stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}"
    return done.stdout


def environment(folder: Path) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {
        "PYTHONPATH": str(folder / "src"),
        "PATH": path,
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }


if __name__ == "__main__":
    main()
