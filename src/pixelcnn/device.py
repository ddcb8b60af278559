"""How the mathematics of a training is arranged on a device: precision, layout, compilation. No result changes by it
beyond rounding. docs/training.md has the measurements, benchmarks/train_throughput.py repeats them.

CPU: channels-last for convolutions of images of some size, which is 2 to 20% faster at 32x32, but 4% slower at 8x8.
Recurrent layers take their states as rows and diagonals, and copy what lies otherwise: 4% to 14% slower. No
torch.compile, which gains at most 5% there over eager convolutions and costs a minute or more of start.
CUDA: channels-last, which the tensor cores' convolutions want, and torch.compile, which fuses the gates, additions and
paddings between them. PyTorch caches what it compiles between runs (TORCHINDUCTOR_CACHE_DIR says where).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

LARGE = 16 * 16  # positions of an image, from which a CPU's convolutions want channels-last
Forward = Callable[[Tensor, Tensor | None], Tensor]

# Dense matrix products per second by the makers' data sheets, of names as torch.cuda.get_device_name has them
PEAKS = {
    "bfloat16": {"H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "B200": 2250e12},
    "float32": {"H200": 67e12, "H100 PCIe": 51e12, "H100": 67e12, "A100": 19.5e12, "L40S": 91.6e12, "B200": 75e12},
}


def prepare(device: torch.device) -> None:
    """Set up this process's convolutions. float32 means float32: TF32, which cuDNN would take, keeps 10 bits of 23.

    Shapes never change, so that trying cuDNN's algorithms once finds the fastest for all steps.
    """
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = True


def arrange(network: nn.Module, positions: int, device: torch.device) -> None:
    """Move a network to a device, in the layout that is fast there for images of so many positions."""
    network.to(device)
    recurrent = any(isinstance(module, nn.Conv1d) for module in network.modules())
    if not recurrent and (device.type == "cuda" or positions >= LARGE):
        network.to(memory_format=torch.channels_last)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """bfloat16 for convolutions where the settings ask for it and the hardware has it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype(device, precision) == torch.bfloat16)


def dtype(device: torch.device, precision: str) -> torch.dtype:
    """What products are computed in, by the settings and the hardware."""
    return torch.bfloat16 if precision == "bfloat16" and has_bfloat16(device) else torch.float32


def has_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is computed by the hardware rather than emulated."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported()


def forward(network: nn.Module, device: torch.device) -> Forward:
    """The network's forward pass, compiled where that pays."""
    return Compiled(network, "inductor") if device.type == "cuda" else network


class Compiled:
    """A network's forward pass by torch.compile; eager for good, after one line, where the compiler fails.

    A compiler is found wanting in its first call: what the device itself lacks (memory) is raised as it is.
    """

    def __init__(self, network: nn.Module, backend: str | Callable[..., Any]):
        self.network = network
        self.call: Callable[..., Any] = torch.compile(network, backend=backend, dynamic=False)

    def __call__(self, x: Tensor, cond: Tensor | None) -> Tensor:
        try:
            return self.call(x, cond)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            if self.call is self.network:
                raise
            reason = str(error).strip().splitlines() or [type(error).__name__]
            print(f"torch.compile: {reason[0]}; going on without", flush=True)
            self.call = self.network
            return self.network(x, cond)


def peak(device_name: str, precision: str) -> float | None:
    """Floating point operations per second that a device has at best, where its data sheet is known here."""
    return next((flops for name, flops in PEAKS[precision].items() if name in device_name), None)
