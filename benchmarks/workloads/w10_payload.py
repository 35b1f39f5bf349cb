"""W10: what payloads cost: calls with a large argument that return it."""

import time

from benchmarks import tasks
from benchmarks.workloads.base import Metric, Outcome, Setting, Workload, running

PAYLOAD_BYTES = 100_000


def measure(setting: Setting) -> Outcome:
    """Time from the first submit to the last result. A payload is counted once, although it travels there and back."""
    payload = bytes(range(256)) * (PAYLOAD_BYTES // 256) + bytes(PAYLOAD_BYTES % 256)
    with running(setting) as peer:
        peer.gather([peer.submit(tasks.same, payload) for _ in range(2 * setting.workers)])
        began = time.perf_counter()
        results = peer.gather([peer.submit(tasks.same, payload) for _ in range(setting.amount)])
        ended = time.perf_counter()
    if results != [payload] * setting.amount:
        raise AssertionError("what came back is not what was sent")
    return Outcome({"megabytes_per_s": setting.amount * PAYLOAD_BYTES / 1e6 / (ended - began)})


W10 = Workload(
    name="W10",
    title="100 KB payloads: calls that return their argument of 100,000 bytes; submit all, then gather all",
    metrics=(Metric("megabytes_per_s", "MB/s", higher_is_better=True, decimals=1),),
    measure=measure,
    amount=2_000,
    slow_amount=500,
    unit="calls",
    base_peer="mp.Pool",
)
