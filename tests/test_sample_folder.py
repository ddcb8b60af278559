"""Batches of samples are written while a GPU draws the next ones."""

from collections.abc import Iterator

import pytest
import torch

from pixelcnn.generation.sample_folder import one_ahead


@pytest.mark.parametrize(("device", "ahead"), [("cpu", 0), ("cuda", 1)])
@pytest.mark.parametrize("num", [0, 1, 2, 4])
def test_batches_come_in_order_and_a_gpu_has_begun_the_next_one(device: str, ahead: int, num: int) -> None:
    begun = []

    def batches() -> Iterator[torch.Tensor]:
        for n in range(num):
            begun.append(n)
            yield torch.tensor([n])

    seen = []
    for batch in one_ahead(batches(), torch.device(device)):
        seen.append(int(batch))
        assert len(begun) == min(num, len(seen) + ahead)
    assert seen == list(range(num))
