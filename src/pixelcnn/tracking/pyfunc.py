"""The MLflow pyfunc of a model: bits/dim of images, or images drawn from it.

    mlflow.pyfunc.load_model(...).predict(images)                                          # bits/dim of each
    mlflow.pyfunc.load_model(...).predict([], params={"task": "sample", "num": 4, "seed": 0})    # uint8 (4, C, H, W)

MLflow stores this file as the model's code ("models from code"), so loading a version unpickles nothing: the weights
are safetensors and the rest is JSON. Images that `predict` refuses are answered by `mlflow models serve` with status
400 and the same message. The signature has parameters but no inputs: MLflow would convert by it (1.5 to 1, "3" to 3),
and refuse an empty list. A registered version may run this file on a later release of pixelcnn, so it uses
`pixelcnn.load` and the documented attributes of a model only.
"""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import torch
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import scoring_server
from mlflow.pyfunc.model import PythonModel, PythonModelContext

import pixelcnn

MOST = 1024  # images drawn for one request


class BitsPerDim(PythonModel):
    """uint8 images (N, C, H, W) -> float32 bits/dim (N,); or, with `task: sample`, nothing -> images.

    p(x) of a class-conditional model without a `label` is the mean over classes of p(x | class), and so comparable with
    an unconditional model's. An auto-encoder's is of p(x | code) with each image's own code, and not comparable; it
    draws `num` images for the code of each image that it is given.
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Load the model from the version's folder, onto a GPU if there is one."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = pixelcnn.load(Path(context.artifacts["model"]), device)
        _refuse_what_cannot_be_parsed()

    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002
        model_input: np.ndarray,  # or [], to draw samples
        params: dict[str, Any] | None = None,
    ) -> np.ndarray:
        """Bits/dim of each image, or images. MLflow has already compared the types of params with the signature."""
        if self.model.given == "embedding":
            raise MlflowException.invalid_parameter_value(
                "this model needs an embedding of each image, which MLflow's interface does not pass on; "
                "pixelcnn.load gives the model itself"
            )
        settings = params or {}
        try:
            match settings.get("task", "score"):
                case "score":
                    bits = self.model.bits_per_dim(_images(model_input), label=settings.get("label") or None)
                    return np.asarray(bits, dtype=np.float32)
                case "sample":
                    return self._sample(model_input, settings)
                case task:
                    raise ValueError(f"task: {task!r} is neither score nor sample")
        except ValueError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error

    def _sample(self, model_input: np.ndarray, settings: dict[str, Any]) -> np.ndarray:
        num, cond = int(settings["num"]), None
        if self.model.given == "code":
            codes = self.model.encode(_images(model_input))
            cond = codes.repeat_interleave(max(num, 0), dim=0)
        elif len(model_input):
            raise ValueError("inputs: task: sample takes no images; send []")
        total = num if cond is None else len(cond)
        if num < 1 or total > MOST:
            raise ValueError(f"num: {num} is not in 1 ... {MOST}, the images that one request may draw")
        if not 0 <= settings["seed"] < 2**31:
            raise ValueError(f"seed: {settings['seed']} is not one of 0 ... {2**31 - 1}")
        label, temperature = settings["label"] or None, settings["temperature"]
        return self.model.sample(total, settings["seed"], label, cond, temperature).numpy()


def _images(given: Any) -> Any:
    """What JSON has made integers of int64 as uint8, if none is lost; anything else as it is, for the model's check."""
    if isinstance(given, np.ndarray) and given.dtype == np.int64 and given.size:
        low, high = int(given.min()), int(given.max())
        if low < 0 or high > 255:
            raise ValueError(f"images: the value {low if low < 0 else high} is not a byte")
        return given.astype(np.uint8)
    return given


def _refuse_what_cannot_be_parsed() -> None:
    """Make MLflow's server answer 400 where it would answer 500: JSON nested beyond Python's stack, endless numbers.

    What fails in `predict` it reports as MlflowException; any other exception is of reading the request.
    """
    answer = scoring_server.invocations
    if hasattr(answer, "refuses"):
        return

    def invocations(*request: Any) -> Any:
        try:
            return answer(*request)
        except MlflowException:
            raise
        except Exception as error:
            raise MlflowException.invalid_parameter_value(f"the request cannot be read: {error!r:.200}") from None

    invocations.refuses = True  # type: ignore[attr-defined]
    scoring_server.invocations = invocations


mlflow.models.set_model(BitsPerDim())
