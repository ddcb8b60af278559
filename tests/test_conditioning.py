"""Conditions as maps: a vector adds the same at every position (equation 4), a map a value of its own (equation 5)."""

import pytest
import torch

from pixelcnn.model import build
from pixelcnn.nn.conditioning import MapCondition, VectorCondition
from tests.conftest import Build


def test_vectors_are_standardised_by_buffers_that_are_saved() -> None:
    vectors = torch.tensor([[1.0, 10.0, 5.0], [3.0, 30.0, 5.0]])
    condition = VectorCondition(3, "an embedding")
    condition.standardise(vectors)
    expected = torch.tensor([[-1.0, -1.0, 0.0], [1.0, 1.0, 0.0]])  # a constant feature is only centred
    torch.testing.assert_close(condition(vectors)[:, :, 0, 0], expected)
    loaded = VectorCondition(3, "an embedding")
    loaded.load_state_dict(condition.state_dict())
    torch.testing.assert_close(loaded(vectors), condition(vectors))


@pytest.mark.parametrize(
    "cond", [None, torch.zeros(2), torch.zeros(2, 4), torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 3, 1)]
)
def test_a_missing_or_invalid_vector_is_rejected(cond: torch.Tensor | None) -> None:
    with pytest.raises(ValueError, match="cond: this model needs an embedding per image"):
        VectorCondition(3, "an embedding")(cond)


@pytest.mark.parametrize("size", [(1, 1), (3, 8), (5, 7), (32, 32)])
def test_a_map_has_the_size_of_the_image_and_differs_at_every_position(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    made = MapCondition(VectorCondition(3, "a code"), 6, *size)(torch.randn(2, 3))
    assert made.shape == (2, 6, *size)
    assert len(made[0, 0].flatten().unique()) == size[0] * size[1]


def test_a_label_adds_the_same_at_every_position_and_a_label_map_does_not(small_model: Build) -> None:
    maps = {}
    for condition in ("label", "label-map"):
        network = small_model(1, condition).network
        maps[condition], _ = network.layers[0].biases(network.condition(torch.tensor([1])))  # type: ignore[index,operator,union-attr]
    assert maps["label"].shape[2:] == (1, 1)
    assert (maps["label-map"].std((2, 3)) > 0).all()


@pytest.mark.parametrize("condition", ["embedding", "embedding-map"])
def test_an_embedding_conditional_model_of_data_without_embeddings_is_rejected(
    small_model: Build, condition: str
) -> None:
    plain = small_model(1)
    section = plain.config.model_copy(update={"condition": condition})
    with pytest.raises(ValueError, match="needs embeddings, but noise has none"):
        build(section, plain.likelihood_config, plain.data)
