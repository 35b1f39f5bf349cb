"""One file per workload, and the registry. To add one: write the file, and name its Workload here."""

from benchmarks.workloads import (
    w1_calls,
    w2_latency,
    w3_map,
    w6_makespan,
    w7_startup,
    w8_killed_worker,
    w9_hub_alone,
    w10_payload,
)
from benchmarks.workloads.base import Workload

WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        w1_calls.W1,
        w1_calls.W1M,
        w2_latency.W2,
        w3_map.W3,
        w3_map.W3L,
        w6_makespan.W6,
        w7_startup.W7,
        w8_killed_worker.W8,
        w9_hub_alone.W9,
        w10_payload.W10,
    )
}
