"""The MLflow face of a model: `mlflow.pyfunc.load_model(...).predict(images)` returns bits/dim of each image.

MLflow keeps this file as the model's code ("models from code"), so loading a version unpickles nothing: the weights are
safetensors and the rest is JSON.
"""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import torch
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from pixelcnn import checkpoint
from pixelcnn.likelihood import bits_per_dim


class BitsPerDim(PythonModel):
    """uint8 images (N, C, H, W) -> float32 bits/dim (N,); a class-conditional model is asked for every class.

    p(x) of a class-conditional model is the mean over classes of p(x | class), so that its number compares with that of
    an unconditional one.
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Load the model from the version's folder."""
        self.model = checkpoint.load(Path(context.artifacts["model"]))

    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002
        model_input: np.ndarray,
        params: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> np.ndarray:
        """Bits/dim of each image."""
        x = torch.from_numpy(np.array(model_input, dtype=np.uint8))
        if int(x.max()) >= self.model.data.levels:
            raise ValueError(f"images: values are 0 ... {self.model.data.levels - 1}, but {int(x.max())} is among them")
        with torch.inference_mode():
            nats = torch.cat([self._nll(part) for part in x.split(64)])
        return np.asarray(bits_per_dim(nats, self.model.dims), dtype=np.float32)

    def _nll(self, x: torch.Tensor) -> torch.Tensor:
        if self.model.config.condition == "none":
            return self.model.nll(x)
        classes = range(len(self.model.data.classes))
        nats = torch.stack([self.model.nll(x, torch.full((len(x),), label)) for label in classes])
        return -(torch.logsumexp(-nats, 0) - np.log(len(classes)))


mlflow.models.set_model(BitsPerDim())
