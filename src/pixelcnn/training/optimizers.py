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
    return [torch.optim.AdamW(by_adamw, lr=rate, betas=(beta1, beta2), fused=True), *muon]


class Muon(torch.optim.Optimizer):
    """For kernels (O, I, ...); `products` is the dtype of the matrix products, for which bfloat16 suffices."""

    def __init__(
        self, kernels: Iterable[nn.Parameter], lr: float, momentum: float, weight_decay: float, products: torch.dtype
    ):
        super().__init__(kernels, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.products = products

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update, of kernels that have a gradient."""
        assert closure is None
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = {}
            for kernel in group["params"]:
                if kernel.grad is not None:
                    by_shape.setdefault(kernel.shape, []).append(kernel)
            for kernels in by_shape.values():
                self._update(kernels, group["lr"], group["momentum"], group["weight_decay"])

    def _update(self, kernels: list[nn.Parameter], lr: float, momentum: float, weight_decay: float) -> None:
        """One update of kernels of one shape."""
        ahead = torch.stack([self._lookahead(kernel, momentum).flatten(1) for kernel in kernels])  # (N, O, I*r*c)
        updates = orthogonalised(ahead.to(self.products)).to(ahead.dtype)
        size = 0.2 * max(updates.shape[1:]) ** 0.5
        for kernel, update in zip(kernels, updates, strict=True):
            kernel.mul_(1 - lr * weight_decay).sub_(update.view(kernel.shape), alpha=lr * size)

    def _lookahead(self, kernel: nn.Parameter, momentum: float) -> Tensor:
        """The momentum of a kernel's gradients, brought up to date, with Nesterov's look-ahead."""
        assert kernel.grad is not None
        state = self.state[kernel]
        if not state:
            state["momentum"] = torch.zeros_like(kernel)
        average: Tensor = state["momentum"].lerp_(kernel.grad, 1 - momentum)
        return kernel.grad.lerp(average, momentum)


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
