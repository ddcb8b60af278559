"""AdamW and Muon, by the settings of a run.

Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon): the update of a kernel is its momentum, orthogonalised by
a Newton-Schulz iteration. A kernel is taken as the matrix O x (I rows columns) of a linear map. Of the singular value
decomposition U S V' of its momentum the update keeps U V', so that directions which gradients seldom have are followed
as far as common ones. Five Newton-Schulz steps, which are matrix products, come near enough; no decomposition is
computed.

An update is scaled by 0.2 sqrt(max(O, I rows columns)), which gives it the root mean square of AdamW's updates (Liu et
al. 2025, arXiv:2502.16982, section 2.2), so that one learning rate and one weight decay serve both. torch.optim.Muon
takes matrices only, one by one; here kernels of one shape are stacked.

Shapes: N kernels of one shape, O output features, I input features.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pixelcnn import device
from pixelcnn.model import Model
from pixelcnn.params import Train

# a x + b x^3 + c x^5, which takes singular values from (0, 1] to about 0.7 ... 1.2 in five steps (Jordan et al.)
POLYNOMIAL = (3.4445, -4.7750, 2.0315)
NUM_STEPS = 5


def make_optimizers(model: Model, settings: Train) -> list[torch.optim.Optimizer]:
    """AdamW and, where the settings say so, Muon for the kernels. Biases and gains have no weight decay."""
    kernels = [p for p in model.network.parameters() if p.ndim > 1]
    others = [p for p in model.network.parameters() if p.ndim <= 1]
    rate, decay, (beta1, beta2) = settings.learning_rate, settings.weight_decay, settings.betas
    by_adamw = [{"params": others, "weight_decay": 0.0}]
    if settings.optimizer == "muon":
        muon = [Muon(kernels, rate, beta1, decay, products=device.dtype(model.device, settings.precision))]
    else:
        muon = []
        by_adamw.insert(0, {"params": kernels, "weight_decay": decay})
    on_gpu = model.device.type == "cuda"
    adamw = torch.optim.AdamW(by_adamw, lr=rate, betas=(beta1, beta2), fused=True, capturable=on_gpu)
    # Not a mistake: it is recorded, but not in the first steps (pixelcnn.training.update)
    adamw._warned_capturable_if_run_uncaptured = True
    return [adamw, *muon]


class Muon(torch.optim.Optimizer):
    """For kernels (O, I, ...); `products` is the dtype of the matrix products, for which bfloat16 suffices.

    The first step moves the weights into stacks, where they stay: a step is then a fixed number of operations for each
    shape, not for each kernel.
    """

    def __init__(
        self, kernels: Iterable[nn.Parameter], lr: float, momentum: float, weight_decay: float, products: torch.dtype
    ):
        super().__init__(kernels, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.products = products
        self.stacked: list[nn.Parameter] = []  # the kernels that the stacks hold
        self.stacks: list[Stack] = []
        self.streams: list[torch.cuda.Stream] = []  # one for each stack, on a GPU

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the momenta of a `state_dict`."""
        super().load_state_dict(state_dict)
        self.stacked, self.stacks = [], []

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update, of kernels that have a gradient. The group's `lr` is a number, or a tensor of the device."""
        assert closure is None
        (group,) = self.param_groups
        kernels = [kernel for kernel in group["params"] if kernel.grad is not None]
        if len(kernels) != len(self.stacked) or any(a is not b for a, b in zip(kernels, self.stacked, strict=True)):
            self._stack(kernels)
        given = group["lr"], group["momentum"], group["weight_decay"], self.products
        # The products of one shape are too small to fill a GPU
        device.side_by_side([partial(stack.update, *given) for stack in self.stacks], self.streams)

    def _stack(self, kernels: list[nn.Parameter]) -> None:
        by_shape: dict[tuple[torch.Size, tuple[int, ...]], list[nn.Parameter]] = {}
        for kernel in kernels:
            by_shape.setdefault((kernel.shape, kernel.stride()), []).append(kernel)
        self.stacked, self.stacks = kernels, []
        for same in by_shape.values():
            saved = [self.state[kernel].get("momentum") for kernel in same]
            momenta = [torch.zeros_like(k) if m is None else m for k, m in zip(same, saved, strict=True)]
            stack = Stack(same, momenta)
            self.stacks.append(stack)
            for kernel, momentum in zip(same, stack.views(stack.momentum), strict=True):
                self.state[kernel]["momentum"] = momentum
        on = kernels[0].device
        self.streams = [torch.cuda.Stream(on) for _ in self.stacks] if on.type == "cuda" else []


class Stack:
    """The N kernels of one shape and memory format: their weights lie one after the other, and so do their momenta.

    `weights` and `momentum` (N, ...) have the kernels' dimensions in the order of memory, so that they are contiguous.
    """

    def __init__(self, kernels: list[nn.Parameter], momenta: list[Tensor]):
        self.kernels, first = kernels, kernels[0]
        self.order = sorted(range(first.ndim), key=first.stride, reverse=True)  # of the dimensions, in memory
        self.back = [1 + self.order.index(d) for d in range(first.ndim)]  # the kernels' order again, after N
        self.weights, self.momentum = self.together([kernel.data for kernel in kernels]), self.together(momenta)
        for kernel, weights in zip(kernels, self.views(self.weights), strict=True):
            kernel.data = weights

    def together(self, tensors: list[Tensor]) -> Tensor:
        """Tensors of the kernels' shape, stacked in the order of memory."""
        return torch.stack([tensor.permute(self.order) for tensor in tensors])

    def as_kernels(self, stack: Tensor) -> Tensor:
        """A stack with the dimensions of the kernels, (N, O, I, ...)."""
        return stack.permute(0, *self.back)

    def views(self, stack: Tensor) -> tuple[Tensor, ...]:
        """The parts of a stack, in the kernels' shape."""
        return self.as_kernels(stack).unbind()

    def update(self, rate: float | Tensor, momentum: float, weight_decay: float, products: torch.dtype) -> None:
        """One update of all kernels, by their momenta with Nesterov's look-ahead."""
        gradients = self.together([kernel.grad for kernel in self.kernels if kernel.grad is not None])
        self.momentum.lerp_(gradients, 1 - momentum)
        updates = self.orthogonalised(gradients.lerp_(self.momentum, momentum).to(products)).to(self.weights.dtype)
        size = 0.2 * max(len(updates[0]), updates[0, 0].numel()) ** 0.5
        self.weights.mul_(1 - rate * weight_decay)
        if isinstance(rate, Tensor):
            self.weights.addcmul_(updates, rate, value=-size)
        else:
            self.weights.sub_(updates, alpha=rate * size)

    def orthogonalised(self, stack: Tensor) -> Tensor:
        """A stack (N, O, ...) with each of its kernels orthogonalised, as the matrix O x (I*r*c).

        The order of a matrix's columns does not matter but for rounding: on a GPU it is that of memory, which saves two
        copies; on a CPU it is that of the kernels, whatever their memory format.
        """
        if stack.device.type == "cuda" and self.order[0] == 0:
            return orthogonalised(stack.flatten(2)).view(stack.shape)
        kernels = self.as_kernels(stack)
        return orthogonalised(kernels.flatten(2)).view(kernels.shape).permute(0, *(1 + d for d in self.order))


def orthogonalised(matrices: Tensor) -> Tensor:
    """Newton-Schulz: matrices (N, R, K) with nearly the same singular vectors and singular values of about 1."""
    a, b, c = POLYNOMIAL
    wide = matrices.shape[1] <= matrices.shape[2]
    x = matrices if wide else matrices.mT  # the products are then of the smaller side
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    for _ in range(NUM_STEPS):
        squares = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(squares, squares, squares, beta=b, alpha=c), x, beta=a)
    return x if wide else x.mT
