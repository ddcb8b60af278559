"""Serving a model by MLflow, in Python and by HTTP: it returns the model's bits/dim, or the reason of a refusal."""

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from pixelcnn import api, checkpoint
from pixelcnn.likelihoods.base import bits_per_dim
from pixelcnn.model import Model
from tests.conftest import images
from tests.servers import free_port
from tests.test_models_command import registered

with warnings.catch_warnings():  # MLflow 3.17 warns of its own type hints when it is imported
    warnings.simplefilter("ignore")
    import mlflow
    from fastapi.testclient import TestClient
    from mlflow.pyfunc import PyFuncModel, scoring_server

    from pixelcnn.tracking import registry

Pair = tuple[Model, PyFuncModel]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Pair]]:
    """By what they are conditioned on: models, and the same models loaded by MLflow."""
    with registered(tmp_path_factory.mktemp("serving")) as receipts:
        yield {
            given: (checkpoint.load(registry.fetch(receipt.uri)), mlflow.pyfunc.load_model(receipt.uri))
            for given, receipt in receipts.items()
        }


def bits(model: Model, x: torch.Tensor, cond: torch.Tensor | None = None) -> np.ndarray:
    with torch.inference_mode():
        return np.asarray(bits_per_dim(model.nll(x, cond), model.dims))


@pytest.mark.parametrize("given", ["none", "code"])
def test_predict_returns_the_bits_per_dim_of_each_image(models: dict[str, Pair], given: str) -> None:
    model, served = models[given]
    x = images(model, 70)  # more than one batch
    np.testing.assert_allclose(served.predict(x.numpy()), bits(model, x), rtol=1e-5)


def test_a_class_conditional_model_returns_the_mean_over_classes(models: dict[str, Pair]) -> None:
    model, served = models["label"]
    x, classes = images(model, 5), len(model.data.classes)
    nats = np.stack([bits(model, x, torch.full((5,), n)) * model.dims * np.log(2) for n in range(classes)])
    mean = -np.log(np.exp(-nats.astype(np.float64)).mean(0)) / (model.dims * np.log(2))
    np.testing.assert_allclose(served.predict(x.numpy()), mean, rtol=1e-5)


def test_an_embedding_conditional_model_refuses_and_names_pixelcnn_load(models: dict[str, Pair]) -> None:
    model, served = models["embedding"]
    with pytest.raises(mlflow.MlflowException, match=r"needs an embedding of each image.*pixelcnn\.load"):
        served.predict(images(model, 1).numpy())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.astype(np.float32), "images: float32 (2, 1, 4, 6) is not uint8 (N, 1, 4, 6) with integers 0"),
        (lambda x: x[:, :, :-1], "images: uint8 (2, 1, 3, 6) is not uint8 (N, 1, 4, 6)"),
        (lambda x: x[:0], "holds no pixels"),
        (lambda x: x + np.uint8(100), "images: values must be 0 ... 7, but there is 1"),
    ],
)
def test_images_of_another_dtype_shape_or_range_are_refused(
    models: dict[str, Pair], change: object, message: str
) -> None:
    model, served = models["none"]
    assert callable(change)
    with pytest.raises(mlflow.MlflowException) as refused:
        served.predict(change(images(model, 2).numpy()))
    assert message in str(refused.value)


def test_samples_are_those_of_the_model_by_seed_label_and_temperature(models: dict[str, Pair]) -> None:
    model, served = models["label"]
    user = api.Model(model)
    drawn = served.predict([], params={"task": "sample", "num": 3, "seed": 5, "label": "dog", "temperature": 0.5})
    assert drawn.dtype == np.uint8
    np.testing.assert_array_equal(drawn, user.sample(3, seed=5, label="dog", temperature=0.5))
    x = images(model, 2)
    given_dog = served.predict(x.numpy(), params={"label": "1"})
    np.testing.assert_allclose(given_dog, user.bits_per_dim(x, label="dog"), rtol=1e-5)


def test_an_auto_encoder_draws_images_given_the_codes_of_images(models: dict[str, Pair]) -> None:
    model, served = models["code"]
    x = images(model, 2)
    drawn = served.predict(x.numpy(), params={"task": "sample", "num": 3, "seed": 1})
    codes = model.network.encode(x).detach().repeat_interleave(3, dim=0)
    np.testing.assert_array_equal(drawn, api.Model(model).sample(6, seed=1, cond=codes))


@pytest.mark.parametrize(
    ("given", "params", "message"),
    [
        ("none", {"task": "paint"}, "task: 'paint' is neither score nor sample"),
        ("none", {"task": "sample", "num": 0}, "num: 0 is not in 1 ... 1024"),
        ("none", {"task": "sample", "num": 10**6}, "num: 1000000 is not in"),
        ("none", {"task": "sample", "seed": -1}, "seed: -1 is not one of"),
        ("none", {"task": "sample", "temperature": 0.0}, "temperature"),
        ("none", {"task": "sample", "label": "dog"}, "label: this model is not class-conditional"),
        ("label", {"task": "sample", "label": "emu"}, "label: 'emu' is neither of 0 ... 1 nor one of cat, dog"),
        ("none", {"num": "many"}, "Invalid parameters found"),
    ],
)
def test_parameters_out_of_range_are_refused(
    models: dict[str, Pair], given: str, params: dict[str, object], message: str
) -> None:
    with pytest.raises(mlflow.MlflowException) as refused:
        models[given][1].predict([], params=params)
    assert message in str(refused.value)
    assert refused.value.get_http_status_code() == 400


# By HTTP


@pytest.fixture(scope="module")
def client(models: dict[str, Pair]) -> Iterator[TestClient]:
    """A client of the application that `mlflow models serve` runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "true")  # which the application sets and never restores
        with TestClient(scoring_server.init(models["none"][1])) as made:
            yield made


def nested(value: object, model: Model) -> list[object]:
    """An image of one value, as nested lists."""
    channels, height, width = model.shape
    return [[[[value] * width] * height] * channels]


def test_a_request_returns_a_number_per_image(client: TestClient, models: dict[str, Pair]) -> None:
    model, x = models["none"][0], images(models["none"][0], 3)
    answer = client.post("/invocations", json={"inputs": x.tolist()})
    assert answer.status_code == 200
    np.testing.assert_allclose(answer.json()["predictions"], bits(model, x), rtol=1e-5)


@pytest.mark.parametrize(
    ("value", "message"),
    [(8, "images: values must be 0 ... 7, but there is 8"), (300, "the value 300 is not a byte"),
     (-1, "the value -1 is not a byte"), (1.5, "images: float64"), ("3", "images: <U1"), (None, "images: object"),
     (True, "images: bool"), (2**70, "images: object")],
)  # fmt: skip
def test_values_out_of_range_are_a_bad_request(
    client: TestClient, models: dict[str, Pair], value: object, message: str
) -> None:
    answer = client.post("/invocations", json={"inputs": nested(value, models["none"][0])})
    assert answer.status_code == 400
    assert message in answer.json()["message"]


@pytest.mark.parametrize(
    ("body", "message"),
    [({"inputs": [1, 2, 3]}, "images: uint8 (3,) is not uint8 (N, 1, 4, 6)"), ({"inputs": []}, "list is not a tensor"),
     ({"inputs": [[1], [2, 3]]}, "inhomogeneous shape"), ({"images": []}, "exactly one of the input fields")],
)  # fmt: skip
def test_a_body_without_a_batch_of_images_is_a_bad_request(client: TestClient, body: object, message: str) -> None:
    answer = client.post("/invocations", json=body)
    assert answer.status_code == 400
    assert message in answer.json()["message"]


def test_a_request_draws_samples(client: TestClient, models: dict[str, Pair]) -> None:
    body = {"inputs": [], "params": {"task": "sample", "num": 2, "seed": 3}}
    answer = client.post("/invocations", json=body)
    assert answer.status_code == 200, answer.text
    np.testing.assert_array_equal(answer.json()["predictions"], api.Model(models["none"][0]).sample(2, seed=3))


@pytest.mark.parametrize("where", ['{"inputs": %s}', '{"inputs": [], "params": {"label": %s}}', '{"other": %s}', "%s"])
@pytest.mark.parametrize("depth", [60, 70, 900, 100_000])
def test_json_nested_to_any_depth_is_a_bad_request(client: TestClient, where: str, depth: int) -> None:
    answer = client.post(
        "/invocations", content=where % ("[" * depth + "]" * depth), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 400
    assert len(answer.text) < 20_000


@pytest.mark.parametrize(("body", "kind"), [('{"inputs": [' + "9" * 5000 + "]}", "application/json"), ("{}", "")])
def test_what_cannot_be_read_is_a_bad_request(client: TestClient, body: str, kind: str) -> None:
    answer = client.post("/invocations", content=body, headers={"Content-Type": kind} if kind else {})
    assert answer.status_code in (400, 415)


@pytest.mark.slow
def test_mlflow_models_serve_answers(models: dict[str, Pair]) -> None:
    model, port = models["none"][0], free_port()
    address, name = f"http://127.0.0.1:{port}", models["none"][0].data.dataset
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", f"models:/{name}@champion"]
    command += ["--env-manager", "local", "-h", "127.0.0.1", "-p", str(port)]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # MLflow calls uvicorn by name
    env = os.environ | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "PATH": path}
    child = subprocess.Popen(command, env=env)
    try:
        while child.poll() is None:
            with contextlib.suppress(urllib.error.URLError), urllib.request.urlopen(f"{address}/ping"):
                break
            time.sleep(0.2)
        assert child.poll() is None, "the server has ended"
        body = json.dumps({"inputs": nested(3, model)}).encode()
        request = urllib.request.Request(f"{address}/invocations", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            (found,) = json.load(answer)["predictions"]
    finally:
        child.terminate()
        child.wait()
    assert found == pytest.approx(float(bits(model, torch.full((1, *model.shape), 3, dtype=torch.uint8))[0]), rel=1e-5)
    assert not list(Path.cwd().glob("*.pkl"))
