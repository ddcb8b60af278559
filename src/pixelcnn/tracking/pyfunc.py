"""The MLflow face of a model: `mlflow.pyfunc.load_model(...).predict(images)` returns bits/dim of each image.

MLflow keeps this file as the model's code ("models from code"), so loading a version unpickles nothing: the weights are
safetensors and the rest is JSON. What it refuses is an answer 400 of `mlflow models serve`, with the same words.
"""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import torch
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from pixelcnn import checkpoint
from pixelcnn.likelihoods.categorical import bits_per_dim

BATCH = 64  # images evaluated together


class BitsPerDim(PythonModel):
    """uint8 images (N, C, H, W) -> float32 bits/dim (N,).

    p(x) of a class-conditional model is the mean over classes of p(x | class), so that its number compares with that of
    an unconditional one. That of an auto-encoder is given each image's own code, so it does not.
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Load the model from the version's folder, onto a GPU if there is one."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = checkpoint.load(Path(context.artifacts["model"]), device)

    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002
        model_input: np.ndarray,
        params: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> np.ndarray:
        """Bits/dim of each image. MLflow has compared type and shape with the signature before."""
        self._refuse(model_input)
        x = torch.from_numpy(np.array(model_input, dtype=np.uint8)).to(self.model.device)
        with torch.inference_mode():
            nats = torch.cat([self._nll(part) for part in x.split(BATCH)])
        return np.asarray(bits_per_dim(nats, self.model.dims).cpu(), dtype=np.float32)  # type: ignore[union-attr]

    def _refuse(self, images: np.ndarray) -> None:
        highest = self.model.data.levels - 1
        if self.model.given == "embedding":
            raise MlflowException.invalid_parameter_value(
                "this model needs an embedding of each image, which MLflow's interface does not pass on; "
                "pixelcnn.load gives the model itself"
            )
        if not len(images):
            raise MlflowException.invalid_parameter_value("images: there are none")
        if images.max() > highest:
            raise MlflowException.invalid_parameter_value(
                f"images: values are 0 ... {highest}, but {images.max()} is among them"
            )

    def _nll(self, x: torch.Tensor) -> torch.Tensor:
        if self.model.given != "label":
            return self.model.nll(x)
        classes = range(len(self.model.data.classes))
        nats = torch.stack([self.model.nll(x, torch.full((len(x),), label, device=x.device)) for label in classes])
        return -(torch.logsumexp(-nats, 0) - np.log(len(classes)))


mlflow.models.set_model(BitsPerDim())
