"""W6: how well uneven tasks are spread over workers. A chunk cut too big leaves the other worker idle.

The tasks sleep, so this measures scheduling even where cores are few or busy.
"""

import heapq
import random
import time
from collections.abc import Sequence

from benchmarks import tasks
from benchmarks.workloads.base import Metric, Outcome, Setting, Workload, expect_count, running, wake_map

COUNT = 200
LONGEST_S = 0.531
SIGMA = 1.5
SEED = 28
"""With this seed a longest of 531 ms and a mean of 20.0 ms fit together; with most they do not."""


def durations(count: int) -> list[float]:
    """Seconds to sleep: lognormal, the same in every run; the longest is LONGEST_S, the mean 20 ms.

    A quick try takes the first `count` of them.
    """
    generator = random.Random(SEED)
    drawn = [generator.lognormvariate(0.0, SIGMA) for _ in range(COUNT)]
    factor = LONGEST_S / max(drawn)
    return [factor * seconds for seconds in drawn[:count]]


def ideal(seconds: Sequence[float], workers: int) -> float:
    """The makespan of a queue without costs: in order of submission, the next task to the first free worker.

    No order of work on that many workers beats the longest task, so neither does the ideal.
    """
    free_at = [0.0] * workers
    for duration in seconds:
        heapq.heapreplace(free_at, free_at[0] + duration)
    return max(max(free_at), max(seconds))


def measure(setting: Setting) -> Outcome:
    """The same sleeps twice, by submit and by map as the peer cuts it when nobody says anything."""
    sleeps = durations(setting.amount)
    best = ideal(sleeps, setting.workers)
    with running(setting) as peer:
        wake_map(peer, setting.workers)
        began = time.perf_counter()
        by_submit = peer.gather([peer.submit(tasks.sleep_for, seconds) for seconds in sleeps])
        submitted = time.perf_counter()
        by_map = peer.map(tasks.sleep_for, sleeps)
        ended = time.perf_counter()
    expect_count(by_submit, setting.amount)
    expect_count(by_map, setting.amount)
    return Outcome(
        {
            "submit_s": submitted - began,
            "submit_ratio": (submitted - began) / best,
            "map_s": ended - submitted,
            "map_ratio": (ended - submitted) / best,
        }
    )


def remark(workers: int, scale: float) -> str:
    """Say what the ratios are against."""
    sleeps = durations(max(W6.least_amount, round(COUNT * scale)))
    mean_ms, longest_ms = 1e3 * sum(sleeps) / len(sleeps), 1e3 * max(sleeps)
    return (
        f"Ideal: {ideal(sleeps, workers):.3f} s on {workers} workers, by list scheduling in order of "
        f"submission ({len(sleeps)} sleeps, mean {mean_ms:.1f} ms, longest {longest_ms:.0f} ms)."
    )


W6 = Workload(
    name="W6",
    title="200 uneven sleeps: makespan against the ideal",
    metrics=(
        Metric("submit_ratio", "submit: × ideal", higher_is_better=False, decimals=3),
        Metric("submit_s", "submit: s", higher_is_better=False, decimals=3, shown=False),
        Metric("map_ratio", "map: × ideal", higher_is_better=False, decimals=3),
        Metric("map_s", "map: s", higher_is_better=False, decimals=3, shown=False),
    ),
    measure=measure,
    amount=COUNT,
    unit="sleeps",
    remark=remark,
)
