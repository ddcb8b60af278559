"""Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon): a kernel's step is its momentum, orthogonalised.

A kernel is taken as the matrix O x (I rows columns) of a linear map. Of the singular value decomposition U S V' of its
momentum the step keeps U V', so that directions which gradients seldom point to are followed as far as the common ones.
Five steps of a polynomial in products of matrices come near enough; no decomposition is computed.

A step is scaled by 0.2 sqrt(max(O, I rows columns)), which gives its numbers the root mean square of AdamW's steps (Liu
et al. 2025, arXiv:2502.16982, section 2.2), so that one learning rate and one weight decay serve both. torch.optim.Muon
takes matrices only, one by one; here kernels of one shape go together.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

# a x + b x^3 + c x^5, which takes singular values from (0, 1] to about 0.7 ... 1.2 in five steps (Jordan et al.)
POLYNOMIAL = (3.4445, -4.7750, 2.0315)
NUM_STEPS = 5


class Muon(torch.optim.Optimizer):
    """For kernels (O, I, ...); `products` is the type of the products of matrices, for which bfloat16 suffices."""

    def __init__(
        self, kernels: Iterable[nn.Parameter], lr: float, momentum: float, weight_decay: float, products: torch.dtype
    ):
        super().__init__(kernels, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.products = products

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step, of kernels that have a gradient."""
        assert closure is None
        for group in self.param_groups:
            alike: dict[torch.Size, list[nn.Parameter]] = {}
            for kernel in group["params"]:
                if kernel.grad is not None:
                    alike.setdefault(kernel.shape, []).append(kernel)
            for kernels in alike.values():
                self._step(kernels, group["lr"], group["momentum"], group["weight_decay"])

    def _step(self, kernels: list[nn.Parameter], lr: float, momentum: float, weight_decay: float) -> None:
        """One step of kernels of one shape."""
        ahead = torch.stack([self._ahead(kernel, momentum).flatten(1) for kernel in kernels])
        steps = orthogonalised(ahead.to(self.products)).to(ahead.dtype)
        size = 0.2 * max(steps.shape[1:]) ** 0.5
        for kernel, step in zip(kernels, steps, strict=True):
            kernel.mul_(1 - lr * weight_decay).sub_(step.view(kernel.shape), alpha=lr * size)

    def _ahead(self, kernel: nn.Parameter, momentum: float) -> Tensor:
        """The average of a kernel's gradients, brought up to date, then looked ahead of by Nesterov's half step."""
        assert kernel.grad is not None
        state = self.state[kernel]
        if not state:
            state["momentum"] = torch.zeros_like(kernel)
        average: Tensor = state["momentum"].lerp_(kernel.grad, 1 - momentum)
        return kernel.grad.lerp(average, momentum)


def orthogonalised(matrices: Tensor) -> Tensor:
    """Matrices (N, R, K) of nearly the same singular vectors, with singular values of about 1."""
    a, b, c = POLYNOMIAL
    wide = matrices.shape[1] <= matrices.shape[2]
    x = matrices if wide else matrices.mT  # the products are then of the smaller side
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    for _ in range(NUM_STEPS):
        squares = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(squares, squares, squares, beta=b, alpha=c), x, beta=a)
    return x if wide else x.mT
