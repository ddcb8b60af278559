"""Recording what a device does, so that it can be repeated without Python: CUDA graphs.

A training step or a row of pixels is hundreds or thousands of small kernels. Launched one by one from Python they keep
a GPU waiting; a recorded graph of them is launched at once. A recorded function reads and writes tensors at fixed
addresses, which its caller fills before a replay, and waits for nothing. The numbers of Python that it uses are those
of the recording; random generators are read at the replay.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Protocol, TypeVar

import torch

T = TypeVar("T")


class Recorder(Protocol):
    """What records functions on a device."""

    def run(self, function: Callable[[], T]) -> T:
        """Call a function that is to be recorded later, so that all that happens once only has happened."""

    def record(self, function: Callable[[], T], generators: Iterable[torch.Generator] = ()) -> Callable[[], T]:
        """Record a function without computing anything; what is returned repeats it.

        generators: of its random numbers, beside the device's default one. Raises what `function` raises where it does
        something that cannot be recorded.
        """


@cache
def side_stream(device: torch.device) -> torch.cuda.Stream:
    """The one stream of a device for recordings: cuBLAS keeps a workspace for each stream that it was on."""
    return torch.cuda.Stream(device)


class CudaGraphs:
    """Records CUDA graphs, on another stream than the default one, which cannot be recorded.

    The graphs share one pool of memory: what a function allocates is lost when the next one is replayed.
    """

    def __init__(self, device: torch.device):
        self.device, self.stream, self.pool = device, side_stream(device), torch.cuda.graph_pool_handle()

    def run(self, function: Callable[[], T]) -> T:
        """Call a function on the stream of the recordings."""
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            result = function()
        current.wait_stream(self.stream)
        return result

    def record(self, function: Callable[[], T], generators: Iterable[torch.Generator] = ()) -> Callable[[], T]:
        """Capture a graph. Other threads may use the device meanwhile: those that read batches, and autograd's."""
        graph = torch.cuda.CUDAGraph()
        for generator in generators:
            graph.register_generator_state(generator)
        capture = torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local")
        with _restoring_after_failure(self.device), capture:
            result = function()

        def repeat() -> T:
            graph.replay()
            return result

        return repeat


@contextmanager
def _restoring_after_failure(device: torch.device) -> Iterator[None]:
    """After a failed capture: the stream and the default generator, which torch leaves as they are during one."""
    current, default = torch.cuda.current_stream(device), torch.cuda.default_generators[device.index or 0]
    spare = torch.Generator(device)
    spare.set_state(default.get_state())
    try:
        yield
    except Exception:
        torch.cuda.set_stream(current)
        default.graphsafe_set_state(spare.graphsafe_get_state())
        torch.cuda.empty_cache()
        raise


def recorder(device: torch.device) -> Recorder | None:
    """The recorder of a device; None where there is nothing to gain by recording."""
    return CudaGraphs(device) if device.type == "cuda" else None


def say_not_recorded(error: Exception) -> None:
    """Print the one line after which work goes on without a recording."""
    reason = str(error).strip().splitlines() or [type(error).__name__]
    print(f"CUDA graph: {reason[0]}; continuing without it", flush=True)


class Recordings:
    """Functions by key: run at their first call, recorded at their second and repeated from then on.

    Without a recorder, and after a recording that failed (one line says why), each call runs its function.
    """

    def __init__(self, recorder: Recorder | None):
        self.recorder = recorder
        self.warm: set[Hashable] = set()
        self.repeat: dict[Hashable, Callable[[], None]] = {}

    def __call__(self, key: Hashable, run: Callable[[], None]) -> None:
        """Do what `run` does; it is the same function at each call with this key."""
        if self.recorder is None:
            run()
        elif key not in self.warm:
            self.recorder.run(run)
            self.warm.add(key)
        else:
            self._repeat(self.recorder, key, run)

    def _repeat(self, recorder: Recorder, key: Hashable, run: Callable[[], None]) -> None:
        if key not in self.repeat:
            try:
                self.repeat[key] = recorder.record(run)
            except Exception as error:
                say_not_recorded(error)
                self.recorder, self.repeat = None, {}
                return run()
        return self.repeat[key]()
