"""PixelCNN++: receptive field by gradients in both directions, sizes, and training and sampling of a small network."""

import math

import pytest
import torch
from torch import Tensor, nn

from pixelcnn.architectures.pixelcnnpp.network import PixelCNNPlusPlus
from pixelcnn.likelihoods.base import bits_per_dim, draw
from pixelcnn.likelihoods.logistic_mixture.likelihood import LogisticMixture
from pixelcnn.nn.conditioning import Condition, LabelCondition
from tests.conftest import network_of

LEVELS = 4


def network(
    channels: int, condition: Condition | None = None, num_outputs: int = 5, **changed: int | float
) -> PixelCNNPlusPlus:
    """A small float64 network in evaluation mode, with five outputs per pixel."""
    sizes = {"hidden_channels": 4, "num_resnets": 1, "num_resolutions": 2, "dropout": 0.0} | changed
    net = network_of({"name": "pixelcnnpp"} | sizes, (channels, 8, 8), LEVELS, condition, num_outputs)
    made: PixelCNNPlusPlus = net.double().eval()
    return made


def images(num: int, channels: int, height: int = 8, width: int = 8, seed: int = 0) -> Tensor:
    """Random integer images (num, C, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, LEVELS, (num, channels, height, width), generator=generator, dtype=torch.uint8)


def dependencies(net: PixelCNNPlusPlus, channels: int, height: int = 8, width: int = 8) -> Tensor:
    """(HW, C, HW) booleans: does any output at pixel k depend on each input?

    By gradients; the union over four random images. The batch has a copy of the image for every pixel k, so that one
    backward pass gives the gradients of all outputs.
    """
    pixels = height * width
    mix = torch.randn(5, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    seen = []
    for image in images(4, channels, height, width):
        x = image.double().expand(pixels, -1, -1, -1).clone().requires_grad_()
        mixed = (net(x).flatten(2) * mix).sum(1)
        (gradient,) = torch.autograd.grad(mixed.diagonal().sum(), x)
        seen.append(gradient.flatten(2) != 0)
    return torch.stack(seen).any(0)


def receptive_field(channels: int, height: int, width: int, num_resnets: int) -> Tensor:
    """(HW, C, HW) booleans, for one resolution: the receptive field of both streams, counted by hand.

    The two convolutions of a block add two columns on each side and two rows above; there are 2n blocks. The first
    layer adds one column on each side and, in the rows above, two rows. What comes from `u` also passes through the
    last convolution of `ul`, which adds a row above and a column on the left.
    """
    reach = 4 * num_resnets + 1
    row, column = (torch.arange(height * width) // width), (torch.arange(height * width) % width)
    up, left = row[:, None] - row[None, :], column[:, None] - column[None, :]
    same_row = (up == 0) & (left > 0) & (left <= reach)
    above = (up > 0) & (up <= reach + 2) & (left <= reach + 1) & (left >= -reach)
    return (same_row | above)[:, None].expand(-1, channels, -1)


@pytest.mark.parametrize("channels", [1, 3])
def test_outputs_depend_on_exactly_the_earlier_pixels_in_their_receptive_field(channels: int) -> None:
    net = network(channels, num_resolutions=1)
    assert torch.equal(dependencies(net, channels, 9, 14), receptive_field(channels, 9, 14, num_resnets=1))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("num_resolutions", [1, 2, 3])
def test_a_network_deep_enough_depends_on_every_earlier_pixel_and_not_on_its_own(
    channels: int, num_resolutions: int
) -> None:
    seen = dependencies(network(channels, num_resolutions=num_resolutions, num_resnets=2), channels)
    place = torch.arange(64)
    assert torch.equal(seen, (place[None, :] < place[:, None])[:, None].expand(-1, channels, -1))


@pytest.mark.parametrize("num_resolutions", [1, 2, 3])
def test_outputs_up_to_a_pixel_do_not_depend_on_it_or_on_later_pixels(num_resolutions: int) -> None:
    net = network(3, num_resolutions=num_resolutions)
    x, other = images(1, 3), images(1, 3, seed=9)
    for k in range(64):
        later = torch.cat([x.flatten(2)[..., :k], other.flatten(2)[..., k:]], dim=2).view_as(x)
        before, after = net(x).flatten(2), net(later).flatten(2)
        assert torch.equal(before[..., : k + 1], after[..., : k + 1])


def test_a_label_changes_every_output() -> None:
    net = network(3, LabelCondition(3))
    one, other = (net(images(1, 3), torch.tensor([label])) for label in (0, 2))
    assert ((one - other).abs() > 0).all()


def test_a_condition_map_acts_at_each_position_of_every_resolution() -> None:
    net = network(1, GivenMap(), num_resolutions=3)
    generator = torch.Generator().manual_seed(2)
    cond = torch.randn(1, 2, 8, 8, dtype=torch.float64, generator=generator, requires_grad=True)
    (gradient,) = torch.autograd.grad(net(images(1, 1), cond)[..., 0, 0].sum(), cond)
    assert (gradient[..., 0, 0] != 0).all()
    flat = torch.ones(1, 2, 1, 1, dtype=torch.float64)
    torch.testing.assert_close(net(images(1, 1), flat), net(images(1, 1), flat.expand(-1, -1, 8, 8)))


class GivenMap(Condition):
    """A condition (B, 2, 1, 1) or (B, 2, H, W) that is a map already."""

    channels = 2

    def forward(self, cond: Tensor | None) -> Tensor | None:
        return cond


def test_an_unconditional_network_rejects_a_condition() -> None:
    with pytest.raises(ValueError, match="unconditional"):
        network(1)(images(1, 1), torch.tensor([0]))


def test_outputs_of_an_image_do_not_depend_on_its_batch_in_training() -> None:
    net = network(3).train()
    x = images(4, 3)
    torch.testing.assert_close(net(x)[:1], net(x[:1]), rtol=0, atol=1e-12)


def test_dropout_acts_in_training_only() -> None:
    net, x = network(3, dropout=0.5), images(1, 3)
    assert torch.equal(net(x), net(x))
    net.train()
    assert not torch.equal(net(x), net(x))


def test_the_number_of_parameters_is_that_counted_by_hand() -> None:
    net = network(1, LabelCondition(3), hidden_channels=2, num_outputs=6)  # 1 resnet per stage, 2 resolutions
    # a normalised convolution: kernel, and a bias and a gain per output; an image of 1 channel and the ones
    first = (2 * 2 * 6 + 4) + (2 * 2 * 3 + 4) + (2 * 2 * 2 + 4)
    # two convolutions of elu(x) and elu(-x), from 4 inputs to 2 features and from 4 to 4, and V from 3 classes to 4
    u = (4 * 2 * 6 + 4) + (4 * 4 * 6 + 8) + 3 * 4
    ul = (4 * 2 * 4 + 4) + (4 * 4 * 4 + 8) + 3 * 4
    link = 4 * 2 + 4  # 1x1; twice as many inputs cost 8 more
    down = u + ul + link
    up = (u + link) + (ul + link + 8)
    halve_and_double = 2 * ((2 * 2 * 6 + 4) + (2 * 2 * 4 + 4))
    # the downsampling pass has a block per resolution, the upsampling pass one at the lower and two at the higher
    expected = first + 2 * down + halve_and_double + 3 * up + (2 * 6 + 12)
    assert sum(p.numel() for p in net.parameters()) == expected


def test_every_parameter_has_a_gradient() -> None:
    net = network(3, LabelCondition(2), num_resolutions=3)
    net(images(2, 3), torch.tensor([0, 1])).square().sum().backward()
    assert all(p.grad is not None and (p.grad != 0).any() for p in net.parameters())


def test_outputs_do_not_depend_on_the_norm_of_a_kernel() -> None:
    net, x = network(3), images(1, 3)
    expected = net(x)
    with torch.no_grad():
        for name, p in net.named_parameters():
            if name.endswith("weight"):
                p.mul_(3)
    torch.testing.assert_close(net(x), expected)


def test_padding_differs_from_a_grey_image() -> None:
    grey = torch.full((1, 3, 8, 8), (LEVELS - 1) / 2)
    net = network(3)
    for stream in net.first(net.inputs(grey)):
        assert ((stream[..., 0, 0] - stream[..., 4, 4]).abs() > 0).all()


def test_features_have_about_unit_variance_at_initialisation() -> None:
    net = network(3, hidden_channels=64, num_resnets=2, num_resolutions=3)
    _, ul = net.trunk(net.first(net.inputs(images(4, 3, 16, 16))), None)
    assert 0.3 < ul.std().item() < 3


@pytest.mark.parametrize(("height", "width"), [(6, 8), (8, 10), (7, 7)])
def test_sizes_that_cannot_be_halved_are_rejected(height: int, width: int) -> None:
    message = f"num_resolutions: 3 needs images with sides that are multiples of 4, not {height}x{width}"
    with pytest.raises(ValueError, match=message):
        network(1, num_resolutions=3)(images(1, 1, height, width))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5), (7, 3)])
def test_one_resolution_accepts_images_of_any_size(height: int, width: int) -> None:
    assert network(1, num_resolutions=1)(images(2, 1, height, width)).shape == (2, 5, 1, height, width)


def test_under_autocast_the_last_convolution_and_the_nll_are_float32() -> None:
    likelihood = LogisticMixture(LEVELS, 2, 3)
    net, x = network(3, num_outputs=likelihood.num_outputs).float(), images(2, 3)
    with torch.autocast("cpu", torch.bfloat16):
        output = net(x)
    assert output.dtype == torch.float32
    assert not torch.equal(output, net(x))  # the other convolutions did compute in bfloat16
    torch.testing.assert_close(output, net(x), rtol=0.1, atol=0.1)
    assert likelihood.nll(output, x).dtype == torch.float32


@pytest.fixture(scope="module")
def overfitted() -> tuple[PixelCNNPlusPlus, LogisticMixture, Tensor]:
    """A network overfitted to eight images, its likelihood, and the images: noise, enlarged by 2.

    Noise of full resolution can be overfitted too, but slowly: the NLL of a narrow logistic grows with each level that
    its mean is off.
    """
    likelihood, x = LogisticMixture(LEVELS, 2, 3), images(8, 3, 4, 4).repeat_interleave(2, 2).repeat_interleave(2, 3)
    net = network(3, num_outputs=likelihood.num_outputs, hidden_channels=24).float().train()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, STEPS)
    for _ in range(STEPS):
        optimizer.zero_grad()
        likelihood.nll(net(x), x).mean().div(192).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return net.eval(), likelihood, x


STEPS = 250
Overfitted = tuple[PixelCNNPlusPlus, LogisticMixture, Tensor]


def test_eight_images_can_be_overfitted(overfitted: Overfitted) -> None:
    net, likelihood, x = overfitted
    bits = float(bits_per_dim(likelihood.nll(net(x), x).mean().detach(), 192))
    least = math.log2(8) / 192  # the bits that identify one of the eight images
    assert least - 1e-4 < bits < 0.1  # 0.038 when this was written


@torch.no_grad()
def test_overfitted_images_are_completed_from_their_upper_half(overfitted: Overfitted) -> None:
    net, likelihood, x = overfitted
    drawn = x.clone()
    drawn[:, :, 4:] = 0
    noise = torch.rand(8, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for i in range(4, 8):
        for j in range(8):
            output = net(drawn)[:, :, 0, i, j]
            for c in range(3):
                log_pmf = likelihood.log_pmf_of(c, output, drawn[:, :c, i, j])
                drawn[:, c, i, j] = draw(log_pmf, noise[:, c, i, j]).to(torch.uint8)
    whole = (drawn == x).flatten(1).all(1)
    assert int(whole.sum()) >= 6  # after an improbable draw, the rest of the image differs too
