"""The models that come with pixelcnn: whole, in order, and as good on an archive as they claim."""

import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML
from torch import Tensor

import pixelcnn
from pixelcnn import checkpoint, config, pretrained
from pixelcnn.cli import main
from pixelcnn.generation import compression as coding
from pixelcnn.generation import grids as pictures
from pixelcnn.generation.sampling import begin, in_float64, sample, walk
from pixelcnn.likelihoods.categorical import bits_per_dim
from pixelcnn.model import Model
from pixelcnn.tracking import model_package as candidate

FOLDERS = pretrained.folders()
MODELS = pytest.mark.parametrize("name", FOLDERS)


def test_there_is_one_of_cifar10() -> None:
    assert "cifar10" in FOLDERS


@MODELS
def test_each_is_whole_and_small_enough_to_come_along(name: str) -> None:
    packed = candidate.unpack(FOLDERS[name])
    assert {path.name for path in FOLDERS[name].iterdir()} == {
        "model.safetensors", "config.json", "run.json", "README.md", packed.nll.name, packed.samples.name,
        f"{packed.run}.csv",
    }  # fmt: skip
    assert sum(path.stat().st_size for path in FOLDERS[name].iterdir()) < 16 * 2**20
    assert f"| test | {packed.scores['test']['bits_per_dim']:.4f} |" in packed.card
    run = config.check(config.Run, json.loads((FOLDERS[name] / "run.json").read_text())["params"]["run"], "run.json")
    assert checkpoint.load(FOLDERS[name]).config == run.model


@MODELS
def test_a_name_is_enough_and_needs_no_mlflow(name: str) -> None:
    script = f"import sys, pixelcnn; pixelcnn.load({name!r}); sys.exit('mlflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


def image_of(model: Model) -> Tensor:
    """An image that the model draws, since on noise its gates might be shut."""
    return sample(model, 1, torch.Generator().manual_seed(0))


@MODELS
def test_trained_weights_see_all_that_precedes_nearby_and_nothing_that_follows(name: str) -> None:
    model = in_float64(pixelcnn.load(name))
    image = image_of(model).double()
    _, _, height, width = image.shape
    for i, j in ((0, 0), (0, 5), (7, 0), (height // 2, width // 2 + 1), (height - 1, width - 1)):
        x = image.clone().requires_grad_()
        outputs = model.network(x)[:, :, i, j]
        outputs.sum().backward()
        assert x.grad is not None
        seen = (x.grad[0] != 0).any(0).flatten()
        here = i * width + j
        assert not seen[here:].any()
        assert seen[max(i * width, here - 3) : here].all()
        above = [r * width + c for r in range(max(0, i - 2), i) for c in range(max(0, j - 2), min(width, j + 3))]
        assert seen[above].all()


@MODELS
def test_it_is_the_suite_s_run(name: str) -> None:
    run = json.loads((FOLDERS[name] / "run.json").read_text())
    suite = YAML(typ="safe").load(files("pixelcnn") / "suites" / f"{run['run']}.yaml")
    assert run["params"]["run"] == suite["runs"][run["run"]]
    assert run["params"]["preprocess"] == suite["datasets"][suite["runs"][run["run"]]["dataset"]]["preprocess"]


def test_the_verbs_take_its_name(
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
    assert [pictures.read(path, 3, 256).tolist() for path in drawn] == [
        pictures.read(path, 3, 256).tolist() for path in restored
    ]


@MODELS
def test_its_samples_surprise_it_as_much_as_it_expects(name: str) -> None:
    """E[-log p(x_i | x_<i)] = E[H(x_i | x_<i)] where x is drawn from p; drawn from anything else, they part."""
    model = pixelcnn.load(name)
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
    # Each is of mean 0 given those before, so their sum's variance is the sum of their squares.
    total = torch.stack(surplus)
    assert total.sum().abs() < 4 * total.square().sum().sqrt()


@MODELS
def test_an_archive_is_as_large_as_the_nll_and_decodes(name: str) -> None:
    model = pixelcnn.load(name)
    images = sample(model, 4, torch.Generator().manual_seed(1))
    archive = coding.compress(model, {str(n): image for n, image in enumerate(images)}, batch_size=4)
    restored = coding.decompress(model, archive)
    assert all(torch.equal(restored[str(n)], image) for n, image in enumerate(images))
    _, payload = coding.unpack(archive)
    with torch.inference_mode():
        nll = bits_per_dim(model.nll(images).mean(), model.dims)
    assert 8 * len(payload) / images.numel() == pytest.approx(float(nll), rel=0.002)


def test_the_package_holds_data_only() -> None:
    root = next(iter(FOLDERS.values())).parent
    assert [path.name for path in root.glob("*.py")] == ["__init__.py"]
    assert {path.suffix for path in root.rglob("*/*")} <= {".safetensors", ".json", ".parquet", ".csv", ".png", ".md"}
    assert not (Path(pixelcnn.__file__).parent / "pretrained").exists()
