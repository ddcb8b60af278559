"""Functions recorded as CUDA graphs: kernels that are launched together, by one call.

A recorded function is of tensors at fixed addresses, which the caller fills before a replay, and returns tensors at
fixed addresses. It must not wait for the device. The numbers of Python that it uses are those of the recording;
random generators are read at the replay.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")


class Recorder:
    """Runs and records functions on a stream of its own: autograd goes on in the stream that it met first."""

    def __init__(self, device: torch.device):
        self.device, self.stream = device, torch.cuda.Stream(device)

    def run(self, function: Callable[[], T]) -> T:
        """Call a function, as a warm-up: compilers, cuDNN's trials and lazy initialisation need a call or two."""
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            result = function()
        current.wait_stream(self.stream)
        return result

    def record(self, function: Callable[[], T], generators: Iterable[torch.Generator] = ()) -> Callable[[], T]:
        """Record a function, which computes nothing; calls of what is returned replay it.

        generators: of its random numbers, beside the device's default one. Raises what `function` raises where it does
        something that cannot be recorded; nothing has changed then but Python's own objects.
        """
        graph = torch.cuda.CUDAGraph()
        for generator in generators:
            graph.register_generator_state(generator)
        # Other threads may go on meanwhile: those that read batches, and autograd's
        recording = torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local")
        with _restoring_after_failure(self.device), recording:
            result = function()

        def replay() -> T:
            graph.replay()
            return result

        return replay


@contextmanager
def _restoring_after_failure(device: torch.device) -> Iterator[None]:
    """After a failed recording: the stream and the default generator, which torch leaves as during a recording."""
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
