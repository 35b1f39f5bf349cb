"""One measurement in a process of its own: `python -m benchmarks.measure ORDER OUTCOME`.

Called by drive.py with an order in JSON and the path to write the outcome to. A fresh process makes peak
memory a peer's own, and leaves nothing behind for the next one: no threads, no warm caches, no grown heap.
Imports stay few, because all of this is part of the client whose memory is reported.
"""

import json
import os
import resource
import signal
import sys
import traceback
from types import FrameType

from benchmarks.peers.registry import PEERS
from benchmarks.workloads import WORKLOADS
from benchmarks.workloads.base import CLIENT_PEAK, Setting


def main(order: str, outcome_path: str) -> None:
    """Measure once and write what came out."""
    fields = json.loads(order)
    stop_cleanly_on_signals(os.getpid(), deadline_s=fields["deadline_s"])
    workload, peer = WORKLOADS[fields["workload"]], PEERS[fields["peer"]]
    amount = workload.amount_for(peer, fields["scale"])
    outcome = workload.measure(Setting(peer, fields["workers"], amount, fields["scale"]))
    signal.alarm(0)
    peak_mib = own_peak_mib() if outcome.client_peak_mib is None else outcome.client_peak_mib
    found = {"amount": amount, "values": outcome.values | {CLIENT_PEAK.key: peak_mib}}
    with open(outcome_path, "w", encoding="utf-8") as file:
        json.dump(found, file)


def stop_cleanly_on_signals(pid: int, deadline_s: int) -> None:
    """Turn SIGTERM and the deadline into SystemExit, so that the adapter stops what it started.

    The deadline is kept here as well as by the driver: its traceback shows where a peer hung, and it still
    rings if the driver is gone. SystemExit, because libraries do not swallow it: multiprocessing takes a
    TimeoutError, which is an OSError, for "no such child" and waits on.

    Peers fork with these handlers in place, and end their workers by SIGTERM. In a forked child that must be
    the plain signal again: Python's handler does not run while the child waits for a semaphore, and a signal
    that came just before is then lost (multiprocessing.Pool hung in one of twenty stops).
    """

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() != pid:  # forked, and not yet at reset()
            reset()
            os.kill(os.getpid(), number)
        elif number == signal.SIGALRM:
            traceback.print_stack(frame)
            sys.exit(f"no outcome within the deadline of {deadline_s} s")
        else:
            sys.exit(128 + number)

    def reset() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGALRM, handle)
    os.register_at_fork(after_in_child=reset)
    signal.alarm(deadline_s)


def own_peak_mib() -> float:
    """The most memory that this process has held at once.

    On Linux from VmHWM: ru_maxrss survives exec there, so it starts with the driver's memory instead of
    with nothing.
    """
    if sys.platform == "linux":
        with open("/proc/self/status", encoding="ascii") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:")) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
