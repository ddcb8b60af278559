"""Recording what a device does, so that it can be repeated without Python: CUDA graphs.

A pixel of an incremental sampler is some 60 to 200 small kernels. Launched one by one from Python they keep a GPU
waiting; a graph of a whole row of pixels is launched at once. Recorded functions read and write tensors at fixed
addresses, take nothing from the host, and wait for nothing.
"""

from collections.abc import Callable, Hashable
from typing import Protocol

import torch

Run = Callable[[], None]


class Recorder(Protocol):
    """What records a function on a device."""

    def warm_up(self, run: Run) -> None:
        """Run a function that is to be recorded later, so that all that happens once only has happened."""

    def record(self, run: Run) -> Run:
        """Record a function without running it; what is returned repeats it."""


class CudaGraphs:
    """Records CUDA graphs, which share one pool of memory: what a function allocates is lost when it returns."""

    def __init__(self, device: torch.device):
        self.device, self.stream = device, torch.cuda.Stream(device)  # the default stream cannot be captured
        self.pool = torch.cuda.graph_pool_handle()

    def warm_up(self, run: Run) -> None:
        """Run the function on the stream of the recordings: cuDNN's trials and lazy handles are made there."""
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            run()
        current.wait_stream(self.stream)

    def record(self, run: Run) -> Run:
        """Capture a graph. Other threads may use the device meanwhile."""
        graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self.device)
        try:
            with torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"):
                run()
        finally:
            torch.cuda.set_stream(current)  # torch does not go back to it from a capture that fails
        return graph.replay


def recorder(device: torch.device) -> Recorder | None:
    """The recorder of a device; None where there is nothing to gain by recording."""
    return CudaGraphs(device) if device.type == "cuda" else None


class Recordings:
    """Functions by key: run at their first call, recorded at their second and repeated from then on.

    Without a recorder, and after a recording that failed (one line says why), each call runs its function.
    """

    def __init__(self, recorder: Recorder | None):
        self.recorder = recorder
        self.warm: set[Hashable] = set()
        self.repeat: dict[Hashable, Run] = {}

    def __call__(self, key: Hashable, run: Run) -> None:
        """Do what `run` does; it is the same function at each call with this key."""
        if self.recorder is None:
            run()
        elif key not in self.warm:
            self.recorder.warm_up(run)
            self.warm.add(key)
        else:
            self._repeat(self.recorder, key, run)

    def _repeat(self, recorder: Recorder, key: Hashable, run: Run) -> None:
        if key not in self.repeat:
            try:
                self.repeat[key] = recorder.record(run)
            except RuntimeError as error:
                reason = str(error).strip().splitlines() or [type(error).__name__]
                print(f"CUDA graph: {reason[0]}; going on without", flush=True)
                self.recorder, self.repeat = None, {}
                return run()
        return self.repeat[key]()
