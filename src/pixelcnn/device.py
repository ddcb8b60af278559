"""How the mathematics is arranged on a device: precision, memory format, compilation. No result changes by it beyond
rounding. docs/training.md has the measurements, benchmarks/train_throughput.py repeats them.

CPU: channels-last for convolutions of images of some size, which is 2 to 20% faster at 32x32 but 4% slower at 8x8. No
torch.compile, which gains at most 5% there over eager convolutions and costs a minute or more of start.
CUDA: channels-last, which the tensor cores' convolutions want, and torch.compile, which fuses the gates, additions and
pads between them, and the likelihood. PyTorch caches what it compiled between runs (TORCHINDUCTOR_CACHE_DIR).
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

VARIANTS = 64  # kinds and shapes of regions that a network may have
LARGE = 16 * 16  # positions of an image, from which convolutions on a CPU are faster in channels-last

# Dense matrix products per second by the vendors' data sheets, of names as torch.cuda.get_device_name has them
PEAKS = {
    "bfloat16": {"H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "B200": 2250e12},
    "float32": {"H200": 67e12, "H100 PCIe": 51e12, "H100": 67e12, "A100": 19.5e12, "L40S": 91.6e12, "B200": 75e12},
}


def default() -> torch.device:
    """A GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def named(device: torch.device | str) -> torch.device:
    """The device of this name. Raises ValueError for one that PyTorch does not know or find here."""
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, TypeError) as error:  # AssertionError: PyTorch without CUDA
        raise ValueError(f"device: {device!r:.50}: {str(error).splitlines()[0]}") from None
    return found


def prepare(device: torch.device) -> None:
    """Set up this process's convolutions. float32 means float32: cuDNN's default, TF32, has 10 bits of mantissa of 23.

    Shapes never change, so one trial of cuDNN's algorithms finds the fastest for all steps.
    """
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = True


def arrange(network: nn.Module, memory_format: torch.memory_format, positions: int, device: torch.device) -> None:
    """Move a network to a device, in its memory format where that is faster for images of so many positions."""
    network.to(device)
    if memory_format == torch.channels_last and (device.type == "cuda" or positions >= LARGE):
        network.to(memory_format=memory_format)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """bfloat16 for convolutions where the settings ask for it and the hardware has it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype(device, precision) == torch.bfloat16)


def dtype(device: torch.device, precision: str) -> torch.dtype:
    """The dtype of matrix products, by the settings and the hardware."""
    return torch.bfloat16 if precision == "bfloat16" and has_bfloat16(device) else torch.float32


def has_bfloat16(device: torch.device) -> bool:
    """Whether the hardware computes bfloat16 rather than emulating it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported()


class CompiledObjective:
    """A network's objective with its regions and its likelihood by torch.compile; eager for good where that fails.

    Regions of one kind and shape are compiled once (`Network.regions`). Compilation happens in the first calls. Out of
    memory is raised as it is: the compiler is not at fault.
    """

    def __init__(self, network: Any, backend: str | Callable[..., Any]):
        # One entry for each kind and shape of region; torch's limit of 8 is meant to detect mistakes
        torch._dynamo.config.recompile_limit = max(VARIANTS, torch._dynamo.config.recompile_limit)
        self.network, self.regions, self.likelihood = network, list(network.regions()), network.likelihood
        for region in self.regions:
            region.compile(backend=backend, dynamic=False)
        network.likelihood = copy.copy(self.likelihood)
        network.likelihood.nll = torch.compile(self.likelihood.nll, backend=backend, dynamic=False)
        self.compiled = True

    def __call__(self, x: Tensor, cond: Tensor | None, generator: torch.Generator) -> Tensor:
        """Nats per image, (B,)."""
        try:
            return cast(Tensor, self.network.objective(x, cond, generator))
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            if not self.compiled:
                raise
            reason = str(error).strip().splitlines() or [type(error).__name__]
            print(f"torch.compile: {reason[0]}; continuing without it", flush=True)
            self.compiled, self.network.likelihood = False, self.likelihood
            for region in self.regions:
                region._compiled_call_impl = None
            return cast(Tensor, self.network.objective(x, cond, generator))


def objective(network: Any, device: torch.device) -> Callable[[Tensor, Tensor | None, torch.Generator], Tensor]:
    """The network's objective, compiled where that pays."""
    return CompiledObjective(network, "inductor") if device.type == "cuda" else network.objective


def side_by_side(works: Sequence[Callable[[], None]], streams: Sequence[torch.cuda.Stream]) -> None:
    """Do work of which no part needs another: each on a stream of a GPU, or one after the other without streams."""
    if not streams:
        for work in works:
            work()
        return
    current = torch.cuda.current_stream(streams[0].device)
    for stream in streams:
        stream.wait_stream(current)
    for work, stream in zip(works, streams, strict=True):
        with torch.cuda.stream(stream):
            work()
    for stream in streams:
        current.wait_stream(stream)


def peak(device_name: str, precision: str) -> float | None:
    """Floating point operations per second that a device has at best, where its data sheet is known here."""
    return next((flops for name, flops in PEAKS[precision].items() if name in device_name), None)
