"""The bundled models: complete, causal, calibrated, and their archives as large as their NLL."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import pixelcnn
from pixelcnn import checkpoint, config, params, pretrained
from pixelcnn.cli import main
from pixelcnn.data import image_files
from pixelcnn.generation import compression
from pixelcnn.generation.sampling import begin, in_float64, sample, walk
from pixelcnn.likelihoods.base import bits_per_dim
from pixelcnn.migrations import FORMAT, migrated
from pixelcnn.model import Model
from pixelcnn.tracking import model_package

FOLDERS = pretrained.folders()
MODELS = pytest.mark.parametrize("name", FOLDERS)
LARGE = "cifar10-large"
SAMPLED = pytest.mark.parametrize(  # sampling takes a CPU minutes in the case of the large one
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == LARGE else name for name in FOLDERS]
)


def test_a_model_of_cifar10_comes_with_the_package() -> None:
    assert "cifar10" in FOLDERS


def todays(run: dict[str, Any]) -> dict[str, Any]:
    """A run's params in the terms of today's params.yaml; those of the first release name no likelihood."""
    run = run | {"train": {"schedule": {"name": "cosine"}, "initial": None} | run["train"]}
    if "likelihood" in run:
        return run
    return {key: value for key, value in migrated(run, "run.json").items() if key != "format"}


def packed_run(name: str) -> dict[str, Any]:
    """What run.json holds."""
    content: dict[str, Any] = json.loads((FOLDERS[name] / "run.json").read_text())
    return content


@MODELS
def test_each_folder_is_complete_and_below_32_mebibytes(name: str) -> None:
    packed = model_package.unpack(FOLDERS[name])
    assert {path.name for path in FOLDERS[name].iterdir()} == {
        "model.safetensors", "config.json", "run.json", "README.md", packed.nll.name, packed.samples.name,
        f"{packed.run}.csv",
    }  # fmt: skip
    assert sum(path.stat().st_size for path in FOLDERS[name].iterdir()) < 32 * 2**20
    assert f"| test | {packed.scores.test.bits_per_dim:.4f} |" in packed.card
    run = config.check(params.Run, todays(packed_run(name)["params"]["run"]), "run.json")
    loaded = checkpoint.load(FOLDERS[name])
    assert (loaded.config, loaded.likelihood_config) == (run.model, run.likelihood)


def test_the_folder_of_cifar10_is_of_the_first_format_and_is_migrated() -> None:
    content = json.loads((FOLDERS["cifar10"] / "config.json").read_text())
    assert "format" not in content
    described = checkpoint.read_config(FOLDERS["cifar10"])
    assert described.format == FORMAT
    assert (described.model.name, described.likelihood.name) == ("pixelcnnpp", "logistic_mixture")
    assert described.weights_sha256 == content["weights_sha256"]


@MODELS
def test_loading_by_name_imports_no_mlflow(name: str) -> None:
    script = f"import sys, pixelcnn; pixelcnn.load({name!r}); sys.exit('mlflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


def image_of(model: Model) -> Tensor:
    """A sample of the model: on noise the gates of a trained network may be saturated, and gradients zero."""
    return sample(model, 1, torch.Generator().manual_seed(0))


@MODELS
def test_trained_outputs_depend_on_all_pixels_shortly_before_and_on_none_from_their_own_on(name: str) -> None:
    model = in_float64(pixelcnn.load(name).inner)
    image = image_of(model).double()
    _, _, height, width = image.shape
    for i, j in ((0, 0), (0, 5), (7, 0), (height // 2, width // 2 + 1), (height - 1, width - 1)):
        x = image.clone().requires_grad_()
        outputs = model.network(x)[..., i, j]
        outputs.sum().backward()
        assert x.grad is not None
        seen = (x.grad[0] != 0).any(0).flatten()
        here = i * width + j
        assert not seen[here:].any()
        assert seen[max(i * width, here - 3) : here].all()
        above = [r * width + c for r in range(max(0, i - 2), i) for c in range(max(0, j - 2), min(width, j + 3))]
        assert seen[above].all()


@MODELS
def test_its_params_are_those_of_the_suite(name: str) -> None:
    packed = packed_run(name)
    suite = params.load(Path(pixelcnn.__file__).parent / "suites" / f"{packed['run']}.yaml")
    run = suite.run(packed["run"])
    assert config.check(params.Run, todays(packed["params"]["run"]), "run.json") == run
    preprocess = suite.datasets[run.dataset].preprocess.model_dump(exclude={"class_names"})  # a path of that project
    assert packed["params"]["preprocess"] == preprocess


def test_the_verbs_accept_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    main(["sample", "cifar10", "--num", "2", "-o", "drawn"])
    main(["score", "cifar10", "drawn"])
    main(["compress", "cifar10", "drawn", "-o", "drawn.pxc"])
    main(["decompress", "cifar10", "drawn.pxc", "-o", "restored"])
    assert "bits/dim" in capsys.readouterr().out
    drawn, restored = (sorted(Path(folder).glob("*.png")) for folder in ("drawn", "restored"))
    assert [path.name for path in drawn] == [path.name for path in restored]
    assert [image_files.read(path, 3, 256).tolist() for path in drawn] == [
        image_files.read(path, 3, 256).tolist() for path in restored
    ]


@SAMPLED
def test_the_nll_of_its_samples_is_its_entropy(name: str) -> None:
    """E[-log p(x_i | x_<i)] = E[H(x_i | x_<i)] where x is drawn from p, and not where it is drawn otherwise."""
    model = pixelcnn.load(name).inner
    images = sample(model, 16, torch.Generator().manual_seed(5))
    surplus = []

    def choose(i: int, j: int, c: int, outputs: Tensor) -> Tensor:
        log_pmf = model.likelihood.log_pmf_of(c, outputs, images[:, :c, i, j]).log_softmax(1)
        drawn = log_pmf.gather(1, images[:, c, i, j, None].long()).squeeze(1)
        entropy = -(log_pmf.exp() * log_pmf.clamp(min=-700)).sum(1)
        surplus.append(-drawn - entropy)
        return images[:, c, i, j]

    with torch.inference_mode():
        for _ in walk(begin(model, len(images)), choose):
            pass
    # A martingale: each has mean 0 given those before, so the variance of their sum is about the sum of their squares
    total = torch.stack(surplus)
    assert total.sum().abs() < 4 * total.square().sum().sqrt()


@SAMPLED
def test_an_archive_is_as_large_as_the_nll_and_decodes(name: str) -> None:
    model = pixelcnn.load(name).inner
    images = sample(model, 4, torch.Generator().manual_seed(1))
    archive = compression.compress(model, {str(n): image for n, image in enumerate(images)}, batch_size=4)
    restored = compression.decompress(model, archive)
    assert all(torch.equal(restored[str(n)], image) for n, image in enumerate(images))
    _, payload = compression.unpack(archive)
    with torch.inference_mode():
        nll = bits_per_dim(model.nll(images).mean(), model.dims)
    assert 8 * len(payload) / images.numel() == pytest.approx(float(nll), rel=0.002)


def test_the_package_holds_data_only() -> None:
    root = next(iter(FOLDERS.values())).parent
    assert [path.name for path in root.glob("*.py")] == ["__init__.py"]
    assert {path.suffix for path in root.rglob("*/*")} <= {".safetensors", ".json", ".parquet", ".csv", ".png", ".md"}
    assert not (Path(pixelcnn.__file__).parent / "pretrained").exists()
