"""A recorder for tests: it repeats a row by running it again, and holds it to the rules of a CUDA graph."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pixelcnn.generation.sampling import Sampler

Run = Callable[[], None]


def tensors(thing: Any, path: str = "sampler", seen: set[int] | None = None) -> Iterator[tuple[str, Tensor]]:
    """Every tensor that can be reached from an object by attributes and containers, with the way to it."""
    seen = set() if seen is None else seen
    if isinstance(thing, Tensor):
        yield path, thing
        return
    if id(thing) in seen or isinstance(thing, str | int | float | type | torch.dtype | torch.device):
        return
    seen.add(id(thing))
    if isinstance(thing, partial):
        thing = [thing.func, *thing.args, thing.keywords]
    if isinstance(thing, list | tuple):
        thing = dict(enumerate(thing))
    parts: Mapping[Any, Any] = thing if isinstance(thing, Mapping) else getattr(thing, "__dict__", {})
    for key, part in list(parts.items()):
        yield from tensors(part, f"{path}.{key}", seen)


class PretendedGraphs:
    """What a row makes anew is lost when it ends (NaN); what stays must stay where it was when a row was recorded."""

    def __init__(self) -> None:
        self.fixed: dict[str, Tensor] = {}
        self.recorded = self.repeated = 0

    def run(self, run: Run) -> None:
        """Run the row."""
        self._run(run)

    def record(self, run: Run, generators: Any = ()) -> Run:  # noqa: ARG002
        """Keep the row with its arguments, which are those of the recording for ever."""
        self.recorded += 1
        (kind,) = run.args  # type: ignore[attr-defined]
        assert kind < self._sampler(run).stepper.period, "the number of a row reached the recording"

        def repeat() -> None:
            self.repeated += 1
            self._run(run)

        return repeat

    def _sampler(self, run: Run) -> Sampler:
        sampler: Sampler = run.func.__self__  # type: ignore[attr-defined]
        return sampler

    def _run(self, run: Run) -> None:
        sampler = self._sampler(run)
        before = dict(tensors(sampler))  # keeps them alive, so that nothing new can take their places
        moved = [path for path, tensor in self.fixed.items() if before.get(path) is not tensor]
        assert not moved, f"not where they were recorded: {moved}"
        places = {path: tensor.data_ptr() for path, tensor in before.items()}
        run()
        after = dict(tensors(sampler))
        kept = {path: tensor for path, tensor in after.items() if before.get(path) is tensor}
        assert all(tensor.data_ptr() == places[path] for path, tensor in kept.items())
        storages = {tensor.untyped_storage().data_ptr() for tensor in kept.values()}
        for path, tensor in after.items():
            if path not in kept and tensor.is_floating_point() and tensor.untyped_storage().data_ptr() not in storages:
                tensor.fill_(torch.nan)
        if self.fixed:
            assert kept.keys() >= self.fixed.keys(), f"made anew: {self.fixed.keys() - kept.keys()}"
        else:
            self.fixed = kept
