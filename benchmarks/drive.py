"""The driver: puts measurements in order, runs each in a process of its own, and cleans up behind it.

The rule it keeps: when `measured` returns or raises, nothing that the measurement started is running,
whatever happened: an error, a deadline, Ctrl-C.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import processes
from benchmarks.peers.registry import PeerInfo
from benchmarks.workloads.base import Workload

ROOT = Path(__file__).resolve().parent.parent
GRACE_S = 2.0
STOP_WITHIN_S = 15.0
LOG_LINES = 20


class Settings(NamedTuple):
    """What holds for a whole run."""

    workers: int
    repeats: int
    scale: float
    deadline_s: int
    """For one measurement, in seconds."""


class Order(NamedTuple):
    """One measurement to be made."""

    workload: str
    peer: str
    repeat: int
    """From 1."""


class Sample(NamedTuple):
    """One measurement made, or the reason why there is none."""

    order: Order
    amount: int = 0
    values: dict[str, float] = {}  # noqa: RUF012  (never written to)
    error: str | None = None
    log: str = ""
    """Of a failed measurement: the last LOG_LINES lines that it and the peer wrote."""
    left_running: int = 0
    """Processes that the peer's own stop had not ended GRACE_S after the measurement; they were killed."""


def plan(workloads: Sequence[Workload], peers: Sequence[PeerInfo], repeats: int) -> Iterator[Order]:
    """Every measurement, in the order in which it is made: repeat 1 of every peer, repeat 2 of every peer, …

    A machine has slow minutes. Interleaved, they hit all peers alike; one peer after the other, they would
    hit one. Each round starts with another peer, so that nobody always follows the same neighbour.
    """
    for workload in workloads:
        takers = [peer for peer in peers if workload.applies_to(peer)]
        for repeat in range(1, repeats + 1):
            first = (repeat - 1) % len(takers) if takers else 0
            for peer in takers[first:] + takers[:first]:
                yield Order(workload.name, peer.name, repeat)


def measured(order: Order, settings: Settings) -> Sample:
    """Make one measurement, in a fresh process with a temporary folder of its own."""
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as scratch:
        child = start(order, settings, Path(scratch))
        try:
            child.wait(settings.deadline_s + STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            pass  # it kept its own deadline badly; end_child is not so patient
        finally:
            left_running = end_child(child)
        return sample(order, child.returncode, Path(scratch), left_running)


def start(order: Order, settings: Settings, scratch: Path) -> "subprocess.Popen[bytes]":
    """Start the measuring process, in a session of its own: Ctrl-C is for the driver, which then ends it."""
    fields = order._asdict() | settings._asdict()
    search = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with (scratch / "log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "benchmarks.measure", json.dumps(fields), str(scratch / "outcome.json")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # Compiled, as what is installed is: where that is not wanted (PYTHONDONTWRITEBYTECODE), a checkout would be
            # compiled anew at each start, and its start-up measured with it.
            env=os.environ | {"PYTHONPATH": search, "TMPDIR": str(scratch), "PYTHONDONTWRITEBYTECODE": ""},
            start_new_session=True,
        )


def end_child(child: "subprocess.Popen[bytes]") -> int:
    """End the measuring process and everything below it; return how many others had to be killed."""
    grace_s = 0.0  # none for the family of a process that had to be ended itself
    try:
        if child.poll() is not None:
            grace_s = GRACE_S
        else:
            child.terminate()
            child.wait(STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    finally:  # also when Ctrl-C is pressed again while we wait
        left_running = processes.end_descendants(grace_s)
    return left_running


def sample(order: Order, code: int, scratch: Path, left_running: int) -> Sample:
    """Read what the measuring process wrote; an error if it ended badly, even with an outcome."""
    outcome_path = scratch / "outcome.json"
    if code or not outcome_path.exists():
        said = (scratch / "log").read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
        return Sample(order, error=why(code, said), log="\n".join(said), left_running=left_running)
    found = json.loads(outcome_path.read_text(encoding="utf-8"))
    return Sample(order, found["amount"], found["values"], left_running=left_running)


def why(code: int, said: Sequence[str]) -> str:
    """The last thing that a failed measurement said, and how it ended; a negative code is a signal."""
    ended = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    last = next((line.strip() for line in reversed(said) if line.strip()), "it said nothing")
    return f"{last} ({ended})"
