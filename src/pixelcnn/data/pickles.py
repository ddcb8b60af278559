"""A safe unpickler for batches of images: dictionaries of arrays, lists and numbers, pickled by Python 2 or 3.

A pickle is a program that calls the functions it names. Here each allowed name resolves to a placeholder that only
stores its arguments, and any other name is refused, so a file can execute neither numpy's code nor any other.
"""

import pickle
from typing import IO, Any

import numpy as np
import numpy.typing as npt

TYPES = ("u1", "i4", "i8", "f4", "f8")  # what the publishers' batches hold


def load_batch(stream: IO[bytes]) -> dict[str, Any]:
    """Unpickle a dictionary: keys as str, arrays as numpy arrays; other strings of Python 2 stay bytes.

    Raises pickle.UnpicklingError for a name that no array needs, and anything that unpickling damaged bytes raises.
    """
    content = _SafeUnpickler(stream, encoding="bytes").load()
    if not isinstance(content, dict):
        raise pickle.UnpicklingError(f"it holds a {type(content).__name__}, expected a dictionary")
    return {_text(key): value.array() if isinstance(value, _Array) else value for key, value in content.items()}


def _text(value: str | bytes) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else value


class _Type:
    """A placeholder for numpy.dtype."""

    def __init__(self, code: str | bytes, *_: object) -> None:
        self.code, self.order = _text(code), "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = _text(state[1])

    def numpy(self) -> np.dtype[Any]:
        if self.code not in TYPES or self.order not in ("|", "<", ">", "="):
            raise pickle.UnpicklingError(f"it holds an array of type {self.order + self.code!r}, expected {TYPES}")
        return np.dtype(self.order + self.code)


class _Array:
    """A placeholder for numpy.ndarray: stores the pickled state; `array` makes the array from it without a copy."""

    def __init__(self, *_: object) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def array(self) -> npt.NDArray[Any]:
        _, shape, kind, is_fortran, content = self.state
        return np.frombuffer(content, kind.numpy()).reshape(shape, order="F" if is_fortran else "C")


def _scalar(kind: _Type, content: bytes) -> Any:
    return np.frombuffer(content, kind.numpy())[0].item()


def _latin1(text: str, encoding: str | bytes) -> bytes:
    if _text(encoding) != "latin1":
        raise pickle.UnpicklingError(f"it holds bytes encoded as {encoding!r}")
    return text.encode("latin1")


_PLACEHOLDERS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): "numpy.ndarray",  # an argument of _reconstruct, never called
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _latin1,  # how Python 3 writes bytes for Python 2
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
}


class _SafeUnpickler(pickle.Unpickler):
    """Resolves only the names that pickled arrays consist of."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _PLACEHOLDERS:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no batch of images needs; nothing was run")
        return _PLACEHOLDERS[module, name]
