"""A function over batches, shared by worker processes, with the results in the batches' order."""

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import chain, islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
IN_PROCESS = 4  # with fewer batches than this no worker is started, which would take longer than the work


def in_batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """The items in lists of `size`, the last of which may be shorter."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def map_in_order(
    work: Callable[[list[Item]], list[Result]], batches: Iterator[list[Item]], workers: int
) -> Iterator[list[Result]]:
    """`map(work, batches)`, in worker processes where there are enough batches."""
    head = list(islice(batches, IN_PROCESS))
    if workers == 1 or len(head) < IN_PROCESS:
        yield from map(work, chain(head, batches))
        return
    # spawned, not forked: forking a process that has threads (pyarrow's) is unsafe
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield from _windowed(pool, work, chain(head, batches), 2 * workers)


def _windowed(
    pool: ProcessPoolExecutor,
    work: Callable[[list[Item]], list[Result]],
    batches: Iterable[list[Item]],
    window: int,
) -> Iterator[list[Result]]:
    """The results in the batches' order, with at most `window` batches in flight, which bounds the memory."""
    pending: deque[Future[list[Result]]] = deque()
    for batch in batches:
        pending.append(pool.submit(work, batch))
        if len(pending) == window:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
