"""W3: map over a million items that cost nothing, where the caller of taskmesh gives no chunk size."""

import time

from benchmarks import tasks
from benchmarks.workloads.base import Metric, Outcome, Setting, Workload, expect_count, running, wake_map


def measure(setting: Setting) -> Outcome:
    """Time from the call of map to the full list of results.

    A peer's expert chunk size shrinks with the item count, so that a quick try has as many chunks as a real
    run.
    """
    chunksize = setting.peer.map_chunksize
    if chunksize is not None:
        chunksize = setting.scaled(chunksize)
    with running(setting) as peer:
        wake_map(peer, setting.workers)
        began = time.perf_counter()
        results = peer.map(tasks.nothing_with, range(setting.amount), chunksize)
        ended = time.perf_counter()
    expect_count(results, setting.amount)
    return Outcome({"rate": setting.amount / (ended - began)})


W3 = Workload(
    name="W3",
    title="map of 1,000,000 no-op items",
    metrics=(Metric("rate", "items/s", higher_is_better=True),),
    measure=measure,
    amount=1_000_000,
    unit="items",
    base_peer="mp.Pool",
    remark=lambda _workers, _scale: (
        "Chunk size 10,000 for mp.Pool, ProcessPoolExecutor, loky and dask (a bag's partitions); "
        "none given to taskmesh and to ray (its Pool)."
    ),
)
