"""Reconstructions are samples given the image's own code; interpolations go linearly from one vector to another."""

import pytest
import torch

from pixelcnn.generation.interpolation import interpolate, reconstruct
from pixelcnn.generation.sampling import sample
from tests.test_architectures import flat_images, model_of


def test_reconstructions_are_samples_given_the_images_own_code() -> None:
    model, x = model_of("pixelcnn_autoencoder", 1), flat_images(1).images[:3]
    model.network.double().eval()
    drawn = reconstruct(model, x, 2, seed=7)
    assert drawn.shape == (3, 2, 1, 4, 6)
    codes = model.network.encode(x).detach().repeat_interleave(2, 0)
    assert torch.equal(drawn.flatten(0, 1), sample(model, 6, torch.Generator().manual_seed(7), codes))


def test_a_deterministic_decoder_gives_its_one_reconstruction() -> None:
    model, x = model_of("squared_error_autoencoder", 1), flat_images(1).images[:3]
    drawn = reconstruct(model, x, 5, seed=7)
    assert drawn.shape == (3, 1, 1, 4, 6)
    assert torch.equal(drawn[:, 0], model.decode(model.network.encode(x)))  # type: ignore[arg-type]


def test_only_an_auto_encoder_reconstructs() -> None:
    with pytest.raises(ValueError, match="GatedPixelCNN has no encoder"):
        reconstruct(model_of("gated_pixelcnn", 1), flat_images(1).images, 1, seed=0)


def test_an_interpolation_goes_from_one_vector_to_the_other_with_the_same_noise() -> None:
    model, data = model_of("gated_pixelcnn", 1, "embedding"), flat_images(1)
    model.network.double().eval()
    assert data.embeddings is not None
    first, last = data.embeddings[:2].double(), data.embeddings[2:4].double()
    line = interpolate(model, first, last, 5, seed=3)
    assert line.shape == (2, 5, 1, 4, 6)
    for step, vectors in ((0, first), (2, (first + last) / 2), (4, last)):
        assert torch.equal(line[:, step], sample(model, 2, torch.Generator().manual_seed(3), vectors))
    assert torch.equal(
        interpolate(model, first, first, 3, seed=3)[:, 0], interpolate(model, first, first, 3, seed=3)[:, 2]
    )
    with pytest.raises(ValueError, match="steps: 1 is not at least 2"):
        interpolate(model, first, last, 1, seed=3)
