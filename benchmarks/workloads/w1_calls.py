"""W1: how many individually tracked calls a second: one client submits all, then gathers all results."""

import time

from benchmarks import tasks
from benchmarks.workloads.base import Metric, Outcome, Setting, Workload, expect_count, running


def measure(setting: Setting) -> Outcome:
    """Time from the first submit to the last result."""
    with running(setting) as peer:
        submit, nothing = peer.submit, tasks.nothing
        began = time.perf_counter()
        handles = [submit(nothing) for _ in range(setting.amount)]
        submitted = time.perf_counter()
        results = peer.gather(handles)
        ended = time.perf_counter()
    expect_count(results, setting.amount)
    return Outcome({"rate": setting.amount / (ended - began), "submit_rate": setting.amount / (submitted - began)})


METRICS = (
    Metric("rate", "tasks/s", higher_is_better=True),
    Metric("submit_rate", "submits/s", higher_is_better=True, shown=False),
)

W1 = Workload(
    name="W1",
    title="100,000 individually tracked no-op calls: submit all, then gather all",
    metrics=METRICS,
    measure=measure,
    amount=100_000,
    slow_amount=5_000,
    base_peer="mp.Pool",
)

W1M = Workload(
    name="W1M",
    title="a million individually tracked no-op calls: submit all, then gather all; mind the client's memory",
    metrics=METRICS,
    measure=measure,
    amount=1_000_000,
    base_peer="mp.Pool",
    only_peers=frozenset({"taskmesh", "mp.Pool"}),
)
