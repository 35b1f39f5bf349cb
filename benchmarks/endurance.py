"""What ten million tasks through one mesh leave behind: `python -m benchmarks.endurance --tasks 10000000`.

Calls are submitted in batches, each by one of the ways in which a script works them off: futures dropped unseen,
`as_completed`, `result` of each, `map`. After each million the resident memory of the client and of every process of
the mesh is printed, and at the end the growth since the first million. Memory that follows what was ever submitted,
instead of what is outstanding, shows as a slope. The exit code is 1 when a process has grown by more than a tenth.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time

import psutil

from taskmesh import Mesh, as_completed

MILLION = 1_000_000
BATCH = 50_000
ALLOWED = 1.10


def nothing(x: int) -> int:
    """The smallest task."""
    return x


def work_off(mesh: Mesh, batch: int, size: int) -> None:
    """One batch, in one of four ways."""
    way = batch % 4
    if way == 0:
        for n in range(size):
            mesh.submit(nothing, n)
    elif way == 1:
        for future in as_completed([mesh.submit(nothing, n) for n in range(size)]):
            future.result()
    elif way == 2:
        for future in [mesh.submit(nothing, n) for n in range(size)]:
            future.result()
    else:
        for _ in mesh.map(nothing, range(size)):
            pass


def resident() -> dict[str, float]:
    """MiB of each process, by what it is and its pid."""
    client = psutil.Process()
    found = {f"client {client.pid}": client.memory_info().rss / 2**20}
    for process in client.children(recursive=True):
        depth = len([parent for parent in process.parents() if parent.pid != client.pid]) - len(client.parents())
        role = {0: "hub and daemon", 1: "nursery"}.get(depth, "runner")
        found[f"{role} {process.pid}"] = process.memory_info().rss / 2**20
    return found


def main() -> int:
    """Run, print, and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=10 * MILLION)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    first: dict[str, float] = {}
    last: dict[str, float] = {}
    began = time.monotonic()
    with Mesh(workers=given.workers) as mesh:
        for batch in range(-(-given.tasks // BATCH)):
            work_off(mesh, batch, BATCH)
            done = (batch + 1) * BATCH
            if done % MILLION == 0:
                gc.collect()
                last = resident()
                first = first or last
                sizes = ", ".join(f"{name} {size:.1f}" for name, size in last.items())
                print(f"{done:>11,} tasks, {time.monotonic() - began:6.1f} s; MiB: {sizes}", flush=True)
    grown = {name: last[name] / first[name] for name in last if name in first}
    print("growth since the first million: " + ", ".join(f"{name} x{ratio:.3f}" for name, ratio in grown.items()))
    return int(any(ratio > ALLOWED for ratio in grown.values()))


if __name__ == "__main__":
    sys.exit(main())
