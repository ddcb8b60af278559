"""Drift tests of a registered model's champion, kept in MLflow: their number, and what each one found.

A version has one run in the experiment DATASET-drift: p-value, level, distance and mean over the number of the test,
and a histogram of each. Its tags say how many tests there were and which images the last one was of: the error is spent
over all tests of one version, and the same images are not tested twice.
"""

import io
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mlflow.entities import Metric
from PIL import Image
from torch import Tensor

from pixelcnn import api, checkpoint, files
from pixelcnn.config import Given
from pixelcnn.data.dataset import chosen, read_info, read_rows
from pixelcnn.device import default, prepare
from pixelcnn.evaluation.drift import DriftTest, ks_test
from pixelcnn.progress import progress
from pixelcnn.reporting import histogram
from pixelcnn.tracking import registry, store
from pixelcnn.tracking.model_package import prepared_data

COUNT_TAG, IMAGES_TAG = "drift_tests", "drift_images"  # of a version
RUN_TAG = "drift_of"  # of a run: NAME/VERSION
MEASURED = "test_images.json"  # the run's artifact with the test images' scores, where they are measured here
MOST_MEASURED = 2000  # of these images


@dataclass(frozen=True)
class Champion:
    """A version that new images are tested with."""

    name: str
    version: int
    model: api.Model
    tags: Mapping[str, str]

    @property
    def dataset(self) -> str:
        """The data set that it was trained on."""
        return self.model.inner.data.dataset

    @property
    def num_tests(self) -> int:
        """How many tests of this version there were."""
        return int(self.tags.get(COUNT_TAG, 0))

    def knows(self, images_sha256: str) -> bool:
        """Whether the last test was of these images."""
        return self.tags.get(IMAGES_TAG) == images_sha256


def champion(name: str) -> Champion:
    """The champion of a registered model. Raises ValueError for an unknown name, and for a model that needs more than
    images.
    """
    uri = f"models:/{name}@champion"
    described, client = registry.describe(uri), store.existing()
    device = default()
    prepare(device)
    model = api.Model(checkpoint.load(registry.fetch(uri), device))
    if model.given is Given.EMBEDDING:
        raise ValueError(f"{uri}: needs an embedding of each image, and new images come alone")
    return Champion(name, described.version, model, client.get_model_version(name, str(described.version)).tags)


def look(champion: Champion, images: Tensor, prepared: Path, alpha: float) -> tuple[DriftTest, bytes]:
    """Test images (M, C, H, W) as the champion's next test, without keeping it; the test and its histogram, a PNG."""
    of_test = _of_test(champion, prepared)
    new = _bits(champion.model, images, "new images")
    found = ks_test(of_test, new, champion.num_tests + 1, alpha)
    title = f"{champion.name} version {champion.version}, test {found.number}: p = {found.p_value:.2g}"
    return found, histogram.draw(of_test, new, title)


def keep(champion: Champion, found: DriftTest, picture: bytes, images_sha256: str) -> None:
    """Log a test and its histogram, and then count it."""
    client, run_id = store.existing(), _run(champion)
    values = {
        "p_value": found.p_value,
        "level": found.level,
        "distance": found.distance,
        "mean_bits_per_dim": found.mean,
        "num_images": found.num_images,
    }
    now = time.time_ns() // 1_000_000  # ms
    client.log_batch(run_id, [Metric(key, value, now, found.number) for key, value in values.items()])
    with Image.open(io.BytesIO(picture)) as image:
        image.load()
    client.log_image(run_id, image, key="histogram", step=found.number, timestamp=now, synchronous=True)
    for key, text in ((IMAGES_TAG, images_sha256), (COUNT_TAG, str(found.number))):
        client.set_model_version_tag(champion.name, str(champion.version), key, text)


def _of_test(champion: Champion, prepared: Path) -> np.ndarray:
    """Bits/dim (N,) of the champion's test images by the function that scores new ones.

    Those of its registration, unless it is class-conditional: they are given labels then, which new images lack. So
    they are measured without, once.
    """
    if champion.model.given is not Given.LABEL:
        return registry.test_bits(f"models:/{champion.name}/{champion.version}")
    client, run_id = store.existing(), _run(champion)
    if not any(item.path == MEASURED for item in client.list_artifacts(run_id)):
        client.log_dict(run_id, {"bits_per_dim": _measure(champion, prepared).tolist()}, MEASURED)
    path = Path(client.download_artifacts(run_id, MEASURED))
    return np.array(files.read_json(path, f"{path}: no such file")["bits_per_dim"])


def _measure(champion: Champion, prepared: Path) -> np.ndarray:
    """Bits/dim (N,) of the champion's test images, at most MOST_MEASURED. ValueError where `prepared` lacks them."""
    data = prepared_data(champion.model.inner.data, prepared)
    if data is None:
        raise ValueError(
            f"{champion.name} version {champion.version}: its test scores are given labels, which new images lack, and "
            f"no data set in {prepared} has its test images to measure them without; `dvc repro` prepares it"
        )
    rows = chosen(read_info(data).splits["test"].num_images, MOST_MEASURED, seed=0)
    return _bits(champion.model, read_rows(data, "test", rows).images, "test images, once")


def _bits(model: api.Model, images: Tensor, title: str) -> np.ndarray:
    """Bits/dim (N,) float64 of images (N, C, H, W), on their own."""
    parts = []
    with progress(f"NLL of {title}", len(images), "images") as bar:
        for part in images.split(api.BATCH_SIZE):
            parts.append(model.bits_per_dim(part).double())
            bar.update(len(part))
    return torch.cat(parts).numpy()


def _run(champion: Champion) -> str:
    """The MLflow run of a version's tests, a new one where there is none or somebody has deleted it."""
    client, experiment = store.open_experiment(f"{champion.dataset}-drift")
    found = client.search_runs([experiment], f"tags.{RUN_TAG} = '{champion.name}/{champion.version}'", max_results=1)
    if found:
        return found[0].info.run_id
    tags = {
        RUN_TAG: f"{champion.name}/{champion.version}",
        "mlflow.runName": f"{champion.name} version {champion.version}",
    }
    run_id: str = client.create_run(experiment, tags=tags).info.run_id
    client.set_terminated(run_id)
    return run_id
