"""A toy latent-variable model trains, evaluates and is reported as an upper bound, by no line outside this file.

Its architecture is a folder that this test adds to a copy of the package: a section, and a network that overrides
`objective` and `nll` instead of being a softmax of a forward pass.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.conftest import DEMO

ROOT = Path(__file__).parent.parent
RUN = "digits-vae"

CONFIG = '''
"""`model: {name: toy_vae, ...}`."""

from typing import Literal

from pixelcnn.config import Architecture, Count


class Config(Architecture):
    """A variational auto-encoder with one layer each way (Kingma and Welling 2014, arXiv:1312.6114)."""

    name: Literal["toy_vae"]
    condition: Literal["none"]
    latents: Count
'''
NETWORK = '''
"""-log p(x) <= E_q(z|x)[-log p(x | z)] + KL(q(z | x) || p(z)), the negative ELBO."""

import torch
from torch import Tensor, nn

from pixelcnn.architectures.toy_vae.config import Config
from pixelcnn.nn.head import Scale
from pixelcnn.nn.interfaces import Network, Spec


class ToyVAE(Network):
    exact = False

    def __init__(self, config: Config, spec: Spec):
        super().__init__()
        self.shape, self.data_channels = spec.shape, spec.shape[0]
        self.likelihood, self.condition, self.scale = spec.likelihood, spec.condition, Scale(spec.levels)
        dims = spec.shape[0] * spec.shape[1] * spec.shape[2]
        self.encoder = nn.Linear(dims, 2 * config.latents)
        self.decoder = nn.Linear(config.latents, spec.likelihood.num_outputs * dims)
        self.register_buffer("averaged", torch.zeros(1))

    def objective(self, x: Tensor, cond: Tensor | None, generator: torch.Generator) -> Tensor:
        mean, log_variance = self.encoder(self.scale(x).flatten(1)).chunk(2, dim=1)
        noise = torch.randn(mean.shape, generator=generator, device=x.device)
        z = mean + noise * torch.exp(log_variance / 2)
        outputs = self.decoder(z).view(len(x), -1, *self.shape)
        kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(1)
        return self.likelihood.nll(outputs, x) + kl

    def nll(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        return self.objective(x, cond, torch.Generator(x.device).manual_seed(0))

    def forward(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """Outputs at z = 0: what samples are drawn from."""
        z = torch.zeros(len(x), self.decoder.in_features, device=x.device, dtype=self.decoder.weight.dtype)
        return self.decoder(z).view(len(x), -1, *self.shape)


def build(config: Config, spec: Spec) -> ToyVAE:
    return ToyVAE(config, spec)
'''


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """A copy of the package with one folder more, and params.yaml with one run of it."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    system = folder / "src/pixelcnn/architectures/toy_vae"
    system.mkdir()
    for name, content in (("__init__", ""), ("config", CONFIG), ("network", NETWORK)):
        (system / f"{name}.py").write_text(content)
    params = YAML(typ="safe").load(DEMO)
    run = params["runs"]["digits-gated"]
    run |= {"description": "Toy VAE", "model": {"name": "toy_vae", "condition": "none", "latents": 4}}
    run["train"] |= {"steps": 40, "batch_size": 32, "warmup_steps": 2, "validate_every": 20}
    params["runs"] = {RUN: run}
    params["train"] |= {"log_every": 10, "pictures_every": 1000}
    params["evaluate"] |= {"num_train_images": 50}
    params["sample"] |= {"per_class": 2}
    with (folder / "params.yaml").open("w") as file:
        YAML().dump(params, file)
    shutil.copy(empty_store, folder / "mlflow.db")
    return folder


SCRIPT = """
import importlib, json, sys
for name, *arguments in json.loads(sys.argv[1]):
    sys.argv = [name, *arguments]
    importlib.import_module(f"pixelcnn.stages.{name}").main()
"""


def run_stages(folder: Path, *commands: str) -> str:
    """Run stages in one process, which imports the packages once; what they print."""
    env = os.environ | {"PYTHONPATH": str(folder / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, json.dumps([line.split() for line in commands])]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_latent_variable_model_is_trained_evaluated_and_reported_as_a_bound(project: Path) -> None:
    data, model = "data/prepared/digits", f"models/{RUN}"
    said = run_stages(
        project,
        "download digits --out data/raw/digits",
        f"preprocess digits --archives data/raw/digits --out {data} --report reports/preprocess/digits.json",
        f"baseline digits --data {data} --out reports/baseline/digits.json",
        f"train {RUN} --data {data} --out {model} --report reports/train/{RUN}",
        f"evaluate {RUN} --model {model} --data {data} --out reports/evaluate/{RUN}",
        f"sample {RUN} --model {model} --data {data} --out reports/sample/{RUN}.png",
        "report --reports reports --out reports/report",
    )
    assert f"{RUN}: <= " in said
    assert json.loads((project / f"reports/train/{RUN}.json").read_text())["exact"] is False
    table = (project / "reports/report/nll-digits.md").read_text()
    (row,) = [line for line in table.splitlines() if "Toy VAE" in line]
    assert "≤ " in row
    assert "≤ " in (project / "reports/report/index.html").read_text()
