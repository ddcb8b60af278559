"""Muon: steps have the singular vectors of the momentum, and singular values of about one (Newton-Schulz)."""

import pytest
import torch

from pixelcnn.training.optimizers import Muon, orthogonalised


def kernel(gradient: torch.Tensor) -> torch.nn.Parameter:
    weights = torch.nn.Parameter(torch.zeros_like(gradient))
    weights.grad = gradient.clone()
    return weights


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def step(*kernels: torch.nn.Parameter, lr: float = 1.0, weight_decay: float = 0.0) -> None:
    Muon(kernels, lr, momentum=0.9, weight_decay=weight_decay, products=torch.float32).step()


@pytest.mark.parametrize(("products", "off"), [(torch.float32, 1e-4), (torch.bfloat16, 0.15)])
@pytest.mark.parametrize("shape", [(3, 8, 20), (2, 20, 8), (1, 12, 12)])
def test_newton_schulz_brings_singular_values_to_about_one_and_preserves_singular_vectors(
    shape: tuple[int, int, int], products: torch.dtype, off: float
) -> None:
    u, s, v = torch.linalg.svd(random(*shape), full_matrices=False)
    s = torch.linspace(1, 0.05, s.shape[1]).expand_as(s)
    found = orthogonalised((u @ torch.diag_embed(s) @ v).to(products)).float()
    inner = u.mT @ found @ v.mT
    values = torch.diagonal(inner, dim1=1, dim2=2)
    assert values.min() > 0.6
    assert values.max() < 1.3
    torch.testing.assert_close(inner, torch.diag_embed(values), atol=off, rtol=0)


def test_steps_are_those_of_the_definition_with_nesterov_momentum_and_weight_decay() -> None:
    """The definition, one matrix at a time: weight decay, then Nesterov momentum, orthogonalised and scaled."""
    gradients = [random(6, 4, 2, 1, seed=n) for n in range(4)]
    weights = torch.nn.Parameter(torch.ones(6, 4, 2, 1))
    muon = Muon([weights], lr=0.1, momentum=0.8, weight_decay=0.5, products=torch.float32)
    expected, average = torch.ones(6, 8), torch.zeros(6, 8)
    for gradient in gradients:
        weights.grad = gradient.clone()
        muon.step()
        average = 0.8 * average + 0.2 * gradient.view(6, 8)
        ahead = 0.8 * average + 0.2 * gradient.view(6, 8)
        direction = orthogonalised(ahead.unsqueeze(0)).squeeze(0)
        expected = expected * (1 - 0.1 * 0.5) - 0.1 * 0.2 * 8**0.5 * direction
        torch.testing.assert_close(weights.detach().view(6, 8), expected, rtol=1e-4, atol=1e-5)


def test_the_size_of_a_step_does_not_depend_on_that_of_the_gradient() -> None:
    short, long = kernel(random(8, 6, 2, 3)), kernel(1000 * random(8, 6, 2, 3))
    step(short)
    step(long)
    torch.testing.assert_close(short, long, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shape", [(64, 32, 3, 3), (16, 64, 1, 1), (128, 64, 2, 2)])
def test_a_step_has_the_root_mean_square_of_an_adamw_step(shape: tuple[int, ...]) -> None:
    """0.2 for a random gradient: about that of AdamW's steps, whose moments keep it below 1."""
    weights = kernel(random(*shape))
    step(weights)
    assert 0.15 < weights.detach().square().mean().sqrt() < 0.25


def test_kernels_of_one_shape_are_updated_independently() -> None:
    gradients = [random(8, 4, 2, 2, seed=n) for n in range(3)]
    together, apart = ([kernel(gradient) for gradient in gradients] for _ in range(2))
    step(*together)
    for weights in apart:
        step(weights)
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_steps_do_not_depend_on_the_memory_format_of_a_kernel() -> None:
    gradient = random(8, 6, 2, 3)
    plain, channels_last = kernel(gradient), kernel(gradient.contiguous(memory_format=torch.channels_last))
    step(plain)
    step(channels_last)
    torch.testing.assert_close(plain, channels_last, rtol=1e-5, atol=1e-7)


def test_weights_decay_and_kernels_without_a_gradient_do_not_change() -> None:
    weights, idle = kernel(torch.zeros(4, 4, 1, 1)), kernel(torch.zeros(4, 4, 1, 1))
    idle.grad = None
    with torch.no_grad():
        weights.fill_(2.0)
        idle.fill_(2.0)
    step(weights, idle, lr=0.1, weight_decay=0.5)
    assert torch.allclose(weights, torch.tensor(1.9))
    assert torch.equal(idle, torch.full_like(idle, 2.0))
