"""W2: how long one call takes, there and back, when nothing else is going on."""

import statistics
import time

from benchmarks import tasks
from benchmarks.workloads.base import Metric, Outcome, Setting, Workload, running

WARM_UPS = 200


def measure(setting: Setting) -> Outcome:
    """One call at a time; the warm-ups before are not counted."""
    times_ms: list[float] = []
    with running(setting) as peer:
        for _ in range(setting.scaled(WARM_UPS, least=10)):
            peer.result(peer.submit(tasks.nothing))
        for _ in range(setting.amount):
            began = time.perf_counter()
            peer.result(peer.submit(tasks.nothing))
            times_ms.append((time.perf_counter() - began) * 1e3)
    percentiles = statistics.quantiles(times_ms, n=100, method="inclusive")
    return Outcome({"p50_ms": percentiles[49], "p99_ms": percentiles[98]})


W2 = Workload(
    name="W2",
    title="one no-op call at a time: round trip",
    metrics=(
        Metric("p50_ms", "p50 ms", higher_is_better=False, decimals=3),
        Metric("p99_ms", "p99 ms", higher_is_better=False, decimals=3),
    ),
    measure=measure,
    amount=2_000,
    unit="calls",
    base_peer="ProcessPoolExecutor",
)
