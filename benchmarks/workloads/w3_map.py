"""W3: map over a million items that cost nothing, where the caller of taskmesh gives no chunk size."""

import time
from collections.abc import Callable, Iterable

from benchmarks import tasks
from benchmarks.workloads.base import Metric, Outcome, Setting, Workload, expect_count, running, wake_map


def measure(setting: Setting, items_of: Callable[[int], Iterable[int]]) -> Outcome:
    """Time from the call of map to the full list of results.

    A peer's expert chunk size shrinks with the item count, so that a quick try has as many chunks as a real
    run.
    """
    chunksize = setting.peer.map_chunksize
    if chunksize is not None:
        chunksize = setting.scaled(chunksize)
    with running(setting) as peer:
        wake_map(peer, setting.workers)
        items = items_of(setting.amount)
        began = time.perf_counter()
        results = peer.map(tasks.nothing_with, items, chunksize)
        ended = time.perf_counter()
    expect_count(results, setting.amount)
    return Outcome({"rate": setting.amount / (ended - began)})


def _workload(name: str, of: str, items_of: Callable[[int], Iterable[int]]) -> Workload:
    return Workload(
        name=name,
        title=f"map of 1,000,000 no-op items of a {of}",
        metrics=(Metric("rate", "items/s", higher_is_better=True),),
        measure=lambda setting: measure(setting, items_of),
        amount=1_000_000,
        unit="items",
        base_peer="mp.Pool",
        remark=lambda _workers, _scale: (
            "Chunk size 10,000 for mp.Pool, ProcessPoolExecutor, loky and dask (a bag's partitions); "
            "none given to taskmesh and to ray (its Pool)."
        ),
    )


W3 = _workload("W3", "range", range)
W3L = _workload("W3L", "list", lambda amount: list(range(amount)))
