"""DVC's graph: the stale stages, their order and dependencies, and their `meta` in dvc.yaml. The only import of dvc."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx as nx
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.stage import PipelineStage

from pixelcnn.config import Section, check


class Policy(Section):
    """How a stage is run: its `meta` in dvc.yaml. By default without retries, time limit and slot."""

    retries: int = 0  # after failures that a retry may fix (child.StageError.may_pass)
    retry_after: float = 0.0  # seconds before the first retry; doubled for each further one
    minutes: float | None = None  # time limit; a training ends with a checkpoint
    slot: bool = False  # needs one of the machine's slots: a GPU, or all of the CPU (locks.slot)
    constant: bool = False  # its outs are the same bytes whenever it succeeds


@dataclass(frozen=True)
class Stage:
    """A stale stage: its name, the stale stages it depends on, what has changed, how to run it, and its outs."""

    name: str
    needs: tuple[str, ...]
    why: str
    policy: Policy
    outs: tuple[Path, ...]

    @property
    def kind(self) -> str:
        """The name without the entry: `train` of train@digits-gated."""
        return self.name.partition("@")[0]

    @property
    def entry(self) -> str:
        """The entry of params.yaml: `digits-gated` of train@digits-gated; "" where a stage has none."""
        return self.name.partition("@")[2]


def stale(targets: Sequence[str], folder: Path) -> list[Stage]:
    """The stages that `dvc repro TARGETS` in `folder` would run, each after those that it depends on.

    Pessimistic: a stage that depends on a stale one counts as stale; DVC skips it if its deps turn out unchanged. Only
    after a stage whose outs are constant it does not, and what is stale waits for that stage. Raises ValueError for an
    unknown target, and for whatever DVC refuses.
    """
    with _repo(folder) as repo:
        graph = repo.index.graph
        found: list[Stage] = []
        order = ancestry(repo, targets)
        changes = repo.status(targets=[stage.addressing for stage in order])
        for stage in order:
            direct = {dep.name for dep in graph.successors(stage)}
            before = {dep.name for dep in nx.descendants(graph, stage)}
            causes = [s.name for s in found if s.name in direct and not s.policy.constant]
            needs = [s.name for s in found if s.name in direct or (s.policy.constant and s.name in before)]
            change = changes.get(stage.addressing)
            if change or causes:
                why = describe(change) if change else f"after {', '.join(causes)}"
                found.append(Stage(stage.name, tuple(needs), why, _policy(stage), _outs(stage)))
        return found


def sources(targets: Sequence[str], folder: Path) -> list[Path]:
    """The files of these targets that DVC does not restore: deps that no stage makes, and outs that are not cached.

    Paths relative to `folder`, of those in it that exist; images of the user's may lie elsewhere.
    """
    with _repo(folder) as repo:
        stages = ancestry(repo, targets)
        made = [Path(out.fs_path) for stage in repo.index.stages for out in stage.outs]
        deps = {Path(dep.fs_path) for stage in stages for dep in stage.deps}
        wanted = {dep for dep in deps if not any(dep in (out, *out.parents) for out in made)}
        wanted |= {Path(out.fs_path) for stage in stages for out in stage.outs if not out.use_cache}
        root = repo.root_dir
        return sorted(path.relative_to(root) for path in wanted if path.is_relative_to(root) and path.exists())


def restore(targets: Sequence[str], folder: Path) -> None:
    """Check out from DVC's cache what dvc.lock in `folder` records of the targets and all that they depend on."""
    with _repo(folder) as repo:
        repo.checkout([stage.addressing for stage in ancestry(repo, targets)], allow_missing=True)


def cache(folder: Path) -> Path:
    """The folder of DVC's cache for the repository in `folder`."""
    with _repo(folder) as repo:
        return Path(repo.cache.local_cache_dir)


def ancestry(repo: Repo, targets: Sequence[str]) -> list[PipelineStage]:
    """The stages of these targets (all if empty) and those they depend on, in topological order."""
    graph = repo.index.graph  # edges lead from a stage to those that it depends on
    roots = [stage for target in targets for stage in _named(graph, target)] if targets else list(graph)
    return list(dict.fromkeys(stage for root in roots for stage in nx.dfs_postorder_nodes(graph, root)))


def describe(changes: Sequence[Any]) -> str:
    """A line from DVC's status, such as "changed deps: src/pixelcnn/model.py; params.yaml (runs.a.train.seed)"."""
    parts = []
    for change in changes:
        if isinstance(change, str):
            parts.append(change)
            continue
        for what, entries in change.items():
            named = [f"{k} ({', '.join(v)})" if isinstance(v, dict) else k for k, v in entries.items()]
            parts.append(f"{what}: {', '.join(named)}")
    return "; ".join(parts)


def _named(graph: nx.DiGraph, target: str) -> list[PipelineStage]:
    """The stage of that name, or those of a `foreach`. (DVC's own search looks in the current folder.)"""
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


def _policy(stage: PipelineStage) -> Policy:
    return check(Policy, stage.meta or {}, f"dvc.yaml: {stage.name}: meta")


def _outs(stage: PipelineStage) -> tuple[Path, ...]:
    return tuple(Path(out.fs_path) for out in stage.outs)
