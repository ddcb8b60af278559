"""What DVC knows, and the only door to it: which stages are stale, what each waits for, how dvc.yaml wants it run."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx as nx
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.stage import PipelineStage

from pixelcnn import config


class Treatment(config.Section):
    """A stage's `meta` in dvc.yaml. What is not said there is not done: no retry, no limit, no slot."""

    retries: int = 0  # runs after the first, where a failure may pass (child.StageError.may_pass)
    retry_after: float = 0.0  # seconds before the first retry; each further one waits twice as long
    minutes: float | None = None  # the stage is ended after so many, with its checkpoint
    slot: bool = False  # one of the machine's slots is needed: a GPU, or all of the CPU (slots.py)


@dataclass(frozen=True)
class Stage:
    """A stale stage: its name, the stale stages it waits for, what has changed, and the files it makes."""

    name: str
    needs: tuple[str, ...]
    why: str
    treatment: Treatment
    outs: tuple[Path, ...]


def stale(targets: Sequence[str], folder: Path) -> list[Stage]:
    """The stages that `dvc repro TARGETS` in `folder` would run, in an order that suits what each waits for.

    Pessimistic: what depends on a stale stage is stale, and DVC skips it when the time comes if nothing reached it.
    Raises ValueError for a target that is none, or for what else DVC refuses.
    """
    with _repo(folder) as repo:
        graph = repo.index.graph
        found: list[Stage] = []
        order = ancestry(repo, targets)
        changes = repo.status(targets=[stage.addressing for stage in order])
        for stage in order:
            needs = [s.name for s in found if s.name in [dep.name for dep in graph.successors(stage)]]
            change = changes.get(stage.addressing)
            if change or needs:
                why = describe(change) if change else f"after {', '.join(needs)}"
                found.append(Stage(stage.name, tuple(needs), why, _treatment(stage), _outs(stage)))
        return found


def sources(targets: Sequence[str], folder: Path) -> list[Path]:
    """What these targets need and DVC does not restore: deps that no stage makes, and outs that the cache lacks.

    As paths relative to `folder`; those that exist.
    """
    with _repo(folder) as repo:
        stages = ancestry(repo, targets)
        made = [Path(out.fs_path) for stage in repo.index.stages for out in stage.outs]
        deps = {Path(dep.fs_path) for stage in stages for dep in stage.deps}
        wanted = {dep for dep in deps if not any(dep in (out, *out.parents) for out in made)}
        wanted |= {Path(out.fs_path) for stage in stages for out in stage.outs if not out.use_cache}
        return sorted(path.relative_to(repo.root_dir) for path in wanted if path.exists())


def restore(targets: Sequence[str], folder: Path) -> None:
    """Take from DVC's cache into `folder` what dvc.lock records of the targets' ancestry, as links where possible."""
    with _repo(folder) as repo:
        repo.checkout([stage.addressing for stage in ancestry(repo, targets)], allow_missing=True)


def cache(folder: Path) -> Path:
    """Where DVC keeps the outs of the repository in `folder`."""
    with _repo(folder) as repo:
        return Path(repo.cache.local_cache_dir)


def ancestry(repo: Repo, targets: Sequence[str]) -> list[PipelineStage]:
    """The stages of these targets (all without any) and what they depend on, each after what it depends on."""
    graph = repo.index.graph  # an edge leads from a stage to one that it depends on
    roots = [stage for target in targets for stage in _named(graph, target)] if targets else list(graph)
    return list(dict.fromkeys(stage for root in roots for stage in nx.dfs_postorder_nodes(graph, root)))


def describe(changes: Sequence[Any]) -> str:
    """One line of DVC's own words: "changed deps: src/pixelcnn/model.py; params.yaml (runs.a.train.seed)"."""
    said = []
    for change in changes:
        if isinstance(change, str):
            said.append(change)
            continue
        for what, entries in change.items():
            named = [f"{k} ({', '.join(v)})" if isinstance(v, dict) else k for k, v in entries.items()]
            said.append(f"{what}: {', '.join(named)}")
    return "; ".join(said)


def _named(graph: nx.DiGraph, target: str) -> list[PipelineStage]:
    """The stage of that name, or those of a `foreach`; DVC's own search would look in the current folder."""
    found = [stage for stage in graph if target in (stage.name, stage.name.partition("@")[0])]
    if not found:
        raise ValueError(f"{target!r} is no stage of dvc.yaml, which has {', '.join(stage.name for stage in graph)}")
    return found


@contextmanager
def _repo(folder: Path) -> Iterator[Repo]:
    try:
        with Repo(str(folder)) as repo:
            yield repo
    except DvcException as error:
        raise ValueError(f"dvc: {' '.join(str(error).split())}") from error


def _treatment(stage: PipelineStage) -> Treatment:
    return config.check(Treatment, stage.meta or {}, f"dvc.yaml: {stage.name}: meta")


def _outs(stage: PipelineStage) -> tuple[Path, ...]:
    return tuple(Path(out.fs_path) for out in stage.outs)
