"""The MLflow pyfunc of a model: `mlflow.pyfunc.load_model(...).predict(images)` returns bits/dim of each image.

MLflow stores this file as the model's code ("models from code"), so loading a version unpickles nothing: the weights
are safetensors and the rest is JSON. Images that `predict` refuses are answered by `mlflow models serve` with status
400 and the same message. A registered version may run this file on a later release of pixelcnn, so it uses
`pixelcnn.load` and the documented attributes of a model only.
"""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import torch
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModel, PythonModelContext

import pixelcnn


class BitsPerDim(PythonModel):
    """uint8 images (N, C, H, W) -> float32 bits/dim (N,).

    p(x) of a class-conditional model is the mean over classes of p(x | class), and so comparable with an unconditional
    model's. An auto-encoder's is of p(x | code) with each image's own code, and not comparable.
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Load the model from the version's folder, onto a GPU if there is one."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = pixelcnn.load(Path(context.artifacts["model"]), device)

    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002
        model_input: np.ndarray,
        params: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> np.ndarray:
        """Bits/dim of each image. MLflow has already compared dtype and shape with the signature."""
        if self.model.given == "embedding":
            raise MlflowException.invalid_parameter_value(
                "this model needs an embedding of each image, which MLflow's interface does not pass on; "
                "pixelcnn.load gives the model itself"
            )
        try:
            return np.asarray(self.model.bits_per_dim(model_input), dtype=np.float32)
        except ValueError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error


mlflow.models.set_model(BitsPerDim())
