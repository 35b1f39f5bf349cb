"""W7: how long a script waits for its first result, and what a pool costs while it does nothing.

The script is `benchmarks/first_result.py`, in a fresh interpreter. It is timed from outside, because much
of a start happens before a script could look at a clock.
"""

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.first_result import SENTINEL
from benchmarks.workloads.base import Metric, Outcome, Setting, Workload

FIRST_RESULT_WITHIN_S = 120.0
STOPPED_WITHIN_S = 30.0
IDLE_S = 1.0


def measure(setting: Setting) -> Outcome:
    """From spawn to the line that says the first result is there; then memory, after IDLE_S of idleness."""
    from benchmarks import (
        processes,
    )  # here, because it imports psutil, and every workload's client imports this module

    processes.adopt_orphans()  # or what the peer starts as a daemon would not be found below us
    began = time.perf_counter()
    with script(setting) as process:
        wait_for_sentinel(process)
        first_result = time.perf_counter()
        time.sleep(IDLE_S)  # the one sleep that is part of a definition: memory "after one second idle"
        family = processes.descendants()
        return Outcome(
            {
                "first_result_ms": (first_result - began) * 1e3,
                "idle_pss_mib": processes.pss_mib(family),
                "processes": float(len(family)),
            },
            client_peak_mib=processes.peak_rss_mib(process.pid),
        )


@contextmanager
def script(setting: Setting) -> Iterator[subprocess.Popen[bytes]]:
    """The script, running; the end of its standard input ends it. The driver kills what that leaves."""
    command = [sys.executable, "-m", "benchmarks.first_result", setting.peer.module, str(setting.workers)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield process
        process.communicate(timeout=STOPPED_WITHIN_S)
    finally:
        process.kill()
        process.wait()


def wait_for_sentinel(process: subprocess.Popen[bytes]) -> None:
    """Return as soon as the script has printed that its first result is there.

    Raises
    ------
    RuntimeError
        It ended instead.
    TimeoutError
        It did not within FIRST_RESULT_WITHIN_S.
    """
    assert process.stdout is not None
    deadline = time.monotonic() + FIRST_RESULT_WITHIN_S
    said = b""
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([process.stdout], [], [], left)[0]:
            break
        piece = os.read(process.stdout.fileno(), 4096)
        if not piece:
            raise RuntimeError("the script ended before its first result")
        said += piece
        if SENTINEL.encode() in said:
            return
    raise TimeoutError(f"no first result within {FIRST_RESULT_WITHIN_S:g} s")


W7 = Workload(
    name="W7",
    title="a fresh script: time to its first result, then memory when idle",
    metrics=(
        Metric("first_result_ms", "first result ms", higher_is_better=False),
        Metric("idle_pss_mib", "idle MiB (PSS)", higher_is_better=False, decimals=1),
        Metric("processes", "processes", higher_is_better=False, compared=False),
    ),
    measure=measure,
    amount=1,
    least_amount=1,
    unit="starts",
    base_peer="ProcessPoolExecutor",
    remark=lambda _workers, _scale: (
        "Memory and processes are the script's and all below it, one second after the result."
    ),
)
