"""Auto-encoders: causality given a code, the squared error as a likelihood, codes, and sizes."""

import math

import pytest
import torch

from pixelcnn.likelihoods.categorical.likelihood import Categorical
from pixelcnn.model import Model
from pixelcnn.nn.conditioning import MapCondition, VectorCondition
from pixelcnn.nn.masked_conv import num_parameters
from tests.conftest import network_of
from tests.probes import Shape, earlier, log_pmf, measured_fields, noise
from tests.test_architectures import flat_images, model_of


class GivenCode(torch.nn.Module):
    """The decoder of a model, given one fixed code."""

    def __init__(self, model: Model):
        super().__init__()
        self.network = model.network
        self.code = torch.tensor([[0.3, -0.7]], dtype=torch.float64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x, self.code.expand(len(x), -1))


def of(name: str, channels: int) -> Model:
    model = model_of(name, channels)
    model.network.double().eval()
    return model


@pytest.mark.parametrize("channels", [1, 3])
def test_given_the_code_an_output_depends_on_earlier_sub_pixels_only(channels: int) -> None:
    shape: Shape = (channels, 4, 6)
    seen = measured_fields(GivenCode(of("pixelcnn_autoencoder", channels)), shape)
    assert any(seen.values())
    assert all(seen[p] <= earlier(shape)[p] for p in seen)


def test_a_squared_error_decoder_depends_on_the_code_alone() -> None:
    decoder = GivenCode(of("squared_error_autoencoder", 3))
    one, other = (decoder(noise((3, 4, 6), 2)[n : n + 1]) for n in (0, 1))
    assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["pixelcnn_autoencoder", "squared_error_autoencoder"])
def test_the_code_is_that_of_the_image_and_depends_on_every_sub_pixel(name: str) -> None:
    model = of(name, 3)
    x = flat_images(3).images[:2]
    codes = model.network.encode(x)
    assert codes.shape == (2, 2)
    torch.testing.assert_close(model.nll(x), model.nll(x, codes))
    jacobian = torch.autograd.functional.jacobian(lambda image: model.network.encode(image), x[:1].double())
    assert (jacobian.abs().sum((0, 1, 2)) > 0).all()
    torch.testing.assert_close(model.network.encode(x[:1]), codes[:1], rtol=0, atol=1e-12)


def test_the_squared_error_likelihood_is_a_discretised_gaussian_whose_mean_is_the_decoded_image() -> None:
    model = of("squared_error_autoencoder", 1)
    x = flat_images(1).images[:1]
    codes = model.network.encode(x).detach()
    log_p = log_pmf(model.likelihood, model.network(x), x)[0, :, 0, 0, 0].detach()
    deviation = math.exp(float(model.network.log_deviation.detach()))  # type: ignore[operator,union-attr]
    curvature = log_p.diff().diff() / (2 / 7) ** 2  # of a Gaussian's logarithm: the same everywhere
    torch.testing.assert_close(curvature, torch.full_like(curvature, -1 / deviation**2))
    decoded = model.decode(codes)
    assert decoded is not None
    assert int(decoded[0, 0, 0, 0]) == round(float((log_p.exp() * torch.arange(8)).sum()))


def test_a_squared_error_decoder_learns_the_mean_of_the_images_with_the_same_code() -> None:
    """Black and white images with the same code are decoded to grey, which none of them is."""
    model = model_of("squared_error_autoencoder", 1)
    x = torch.tensor([0, 0, 7, 0], dtype=torch.uint8).view(4, 1, 1, 1).expand(4, 1, 4, 6)
    code = torch.zeros(4, 2)
    optimizer = torch.optim.Adam(model.network.parameters(), 1e-2)
    for _ in range(200):
        loss = model.nll(x, code).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    mean = 7 / 4 * 2 / 7 - 1
    decoded = model.network.decode(code)  # type: ignore[operator]
    torch.testing.assert_close(decoded.detach(), torch.full((4, 1, 4, 6), mean), atol=0.08, rtol=0)


def test_only_auto_encoders_have_an_encoder() -> None:
    with pytest.raises(ValueError, match="GatedPixelCNN has no encoder"):
        of("gated_pixelcnn", 1).network.encode(flat_images(1).images)


def test_the_number_of_parameters_is_that_counted_by_hand() -> None:
    model = of("squared_error_autoencoder", 3)  # 4 features, code 2, decoder of 6 features, images 3x4x6
    encoder = (3 * 4 * 9 + 4) + (4 * 4 * 9 + 4) + (4 * 8 * 9 + 8) + (8 * 2 * 1 * 2 + 2)
    decoder = (2 * 6 * 1 * 2 + 6) + 2 * (6 * 6 * 16 + 6) + (6 * 3 * 9 + 3)
    assert num_parameters(model.network) == encoder + decoder + 1


def test_given_a_code_the_nll_can_fall_below_the_bits_that_identify_the_image() -> None:
    """log2(8) bits identify one of 8 images, but here the code does."""
    torch.manual_seed(0)
    condition = MapCondition(VectorCondition(3, "a code"), 24, 4, 4)
    section = {"name": "pixelcnn_autoencoder", "condition": "code-map", "code": 3, "encoder_channels": 8}
    sizes = {"num_layers": 2, "hidden_channels": 24, "kernel_size": 3, "first_kernel_size": 3, "head_channels": 24}
    network = network_of(section | sizes | {"dropout": 0.0}, (3, 4, 4), condition=condition)
    x = noise((3, 4, 4), 8)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(200):
        nats = Categorical(4).nll(network(x), x).mean()
        optimizer.zero_grad()
        nats.backward()
        optimizer.step()
    bits_that_identify = math.log2(8) / 48
    assert float(nats.detach()) / (48 * math.log(2)) < bits_that_identify / 2
