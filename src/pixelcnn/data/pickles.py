"""A safe unpickler for batches of images: dictionaries of arrays, lists and numbers, pickled by Python 2 or 3.

A pickle is a program: it calls the functions it names, and six bytes of it can ask for gigabytes. So the program is
read before it is run (`_check`): opcodes that no batch needs are refused, and so are deep nesting, shared containers,
and more opcodes than a batch has. What remains is run by Python's own unpickler, in which each allowed name resolves to
a placeholder that only stores its arguments: a file can execute neither numpy's code nor any other.
"""

import io
import pickle
import pickletools
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

TYPES = ("u1", "i4", "i8", "f4", "f8")  # what the publishers' batches hold
BYTES_PER_OPCODE = 64  # at least, on the average: most of a batch is the bytes of its pixels
DEEPEST = 8  # dictionary, list, number, its arguments, its type, the type's arguments
PLAIN = {
    "PROTO", "FRAME", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1",
    "BINFLOAT", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BINUNICODE",
    "SHORT_BINUNICODE", "BINUNICODE8", "GLOBAL", "STACK_GLOBAL",
}  # fmt: skip
FILLING = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "BUILD"}
CONTAINERS = {"EMPTY_LIST", "EMPTY_DICT"}
MAKING = {"EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "REDUCE"}
GETTING, PUTTING = {"BINGET", "LONG_BINGET"}, {"BINPUT", "LONG_BINPUT", "MEMOIZE"}


def load_batch(content: bytes, limit: int) -> dict[str, Any]:
    """Unpickle a dictionary: keys as str, arrays as numpy arrays; other strings of Python 2 stay bytes.

    limit: bytes that a batch has at most. Raises pickle.UnpicklingError for what no batch needs, and anything that
    unpickling damaged bytes raises.
    """
    _check(content, limit // BYTES_PER_OPCODE)
    batch = _SafeUnpickler(io.BytesIO(content), encoding="bytes").load()
    if not isinstance(batch, dict):
        raise pickle.UnpicklingError(f"it holds a {type(batch).__name__}, expected a dictionary")
    return {_text(key): value.array() if isinstance(value, _Array) else value for key, value in batch.items()}


@dataclass
class _Object:
    """What is known of an object before it is built: how deep it nests, whether it grows, whether it was used twice."""

    depth: int = 0
    grows: bool = False
    is_shared: bool = False


def _check(content: bytes, most: int) -> None:
    """Raise pickle.UnpicklingError for a program that no batch of images needs. Builds nothing.

    Containers may not be shared, and what is shared may not be filled any more: so the depth of each object is known
    when it is made.
    """
    stack: list[_Object | None] = []  # None is a mark
    memo: dict[int, _Object] = {}
    for number, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        name = opcode.name
        if number > most:
            raise pickle.UnpicklingError(f"it has more than {most:,} opcodes, as no batch of images has")
        if name in PUTTING:
            place = len(memo) if name == "MEMOIZE" else cast(int, argument)
            if place > number:
                raise pickle.UnpicklingError(f"it stores an object at place {place:,}, beyond all others")
            memo[place] = _top(stack)
        elif name in GETTING:
            found = memo[cast(int, argument)]
            if found.grows:
                raise pickle.UnpicklingError("it uses a list or dictionary twice")
            found.is_shared = True
            stack.append(found)
        elif name == "MARK":
            stack.append(None)
        elif name in CONTAINERS:
            stack.append(_Object(1, grows=True))
        elif name in MAKING:
            stack.append(_Object(_deeper(_taken(stack, opcode))))
        elif name in FILLING:
            items = _taken(stack, opcode, but=1)
            if name.startswith("SETITEM") and any(key.depth for key in items[::2]):
                raise pickle.UnpicklingError("it has a container as a key")
            filled = _top(stack)
            if filled.is_shared:
                raise pickle.UnpicklingError("it fills what it uses elsewhere")
            filled.depth = max(filled.depth, _deeper(items))
        elif name in PLAIN:
            _taken(stack, opcode)
            stack += [_Object()] * len(opcode.stack_after)
        else:
            raise pickle.UnpicklingError(f"it has the opcode {name}, which no batch of images needs")


def _top(stack: list[_Object | None]) -> _Object:
    if not stack or stack[-1] is None:
        raise pickle.UnpicklingError("it takes an object where there is none")
    return stack[-1]


def _taken(stack: list[_Object | None], opcode: pickletools.OpcodeInfo, but: int = 0) -> list[_Object]:
    """Take from the stack what an opcode takes, but for the first objects, and return it."""
    if pickletools.markobject in opcode.stack_before:
        if None not in stack:
            raise pickle.UnpicklingError("it looks for a mark where there is none")
        mark = len(stack) - 1 - stack[::-1].index(None)
        taken = stack[mark + 1 :]
        del stack[mark:]
    else:
        start = len(stack) - len(opcode.stack_before) + but
        if start < 0:
            raise pickle.UnpicklingError("it takes an object where there is none")
        taken = stack[start:]
        del stack[start:]
    if None in taken:
        raise pickle.UnpicklingError("it takes a mark for an object")
    return [each for each in taken if each is not None]


def _deeper(items: list[_Object]) -> int:
    depth = 1 + max((item.depth for item in items), default=0)
    if depth > DEEPEST:
        raise pickle.UnpicklingError(f"it nests objects deeper than {DEEPEST}")
    return depth


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
