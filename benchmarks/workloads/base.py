"""What a workload is, and the few things that most of them do alike.

A workload is a description (what it measures, in which units, against whom) and one function that measures
once, in a process that does nothing else. Nothing here may import heavy modules: it is part of the client
whose memory is reported.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from benchmarks import tasks
from benchmarks.peers.base import Peer
from benchmarks.peers.registry import PeerInfo, create

WORKERS_UP_WITHIN_S = 60.0
SMALLEST_COUNT = 20


class Metric(NamedTuple):
    """One number that a workload reports."""

    key: str
    label: str
    higher_is_better: bool
    decimals: int = 0
    compared: bool = True
    """Whether the table has its ratio to the base peer."""
    shown: bool = True
    """Whether the table has it at all; the JSON always has."""


CLIENT_PEAK = Metric("client_peak_mib", "client MiB", higher_is_better=False)
"""Peak memory of the client: what every workload reports beside its own metrics."""


class Setting(NamedTuple):
    """What one measurement is told."""

    peer: PeerInfo
    workers: int
    amount: int
    scale: float
    """1 in a real run; below 1, counts were shrunk for a quick try."""

    def scaled(self, full: int, least: int = 1) -> int:
        """Shrink a number like the task count was shrunk."""
        return max(least, round(full * self.scale))


class Outcome(NamedTuple):
    """What one measurement found."""

    values: dict[str, float]
    """By Metric.key, in the unit that the metric's label names."""
    client_peak_mib: float | None = None
    """Peak memory of the client, where the client is not the measuring process itself."""


class Workload(NamedTuple):
    """A question, and how to ask it."""

    name: str
    title: str
    metrics: tuple[Metric, ...]
    measure: Callable[[Setting], Outcome]
    amount: int
    unit: str = "tasks"
    """What is counted."""
    slow_amount: int | None = None
    """For slow peers, where only rates are compared."""
    least_amount: int = SMALLEST_COUNT
    base_peer: str | None = None
    """Whom the ratios are against; None if the metrics are ratios already."""
    only_peers: frozenset[str] | None = None
    """None: all of them."""
    remark: Callable[[int, float], str] | None = None
    """Given workers and scale, a line for below the table."""

    def applies_to(self, peer: PeerInfo) -> bool:
        return self.only_peers is None or peer.name in self.only_peers

    def amount_for(self, peer: PeerInfo, scale: float) -> int:
        full = self.slow_amount if peer.slow and self.slow_amount is not None else self.amount
        return max(min(self.least_amount, full), round(full * scale))


@contextmanager
def running(setting: Setting) -> Iterator[Peer[Any]]:
    """A started peer whose workers are all up; stopped on every path."""
    peer = create(setting.peer)
    try:
        peer.start(setting.workers)
        wait_for_workers(peer, setting.workers)
        yield peer
    finally:
        peer.stop()


def wait_for_workers(peer: Peer[Any], workers: int) -> None:
    """Run short sleeps until as many processes as there should be have answered.

    Pools start workers on demand, or in the background: without this, the first workload to run would pay
    for it.

    Raises
    ------
    TimeoutError
        Fewer processes answered within WORKERS_UP_WITHIN_S.
    """
    deadline = time.monotonic() + WORKERS_UP_WITHIN_S
    pids: set[object] = set()
    while len(pids) < workers:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(pids)} of {workers} workers answered within {WORKERS_UP_WITHIN_S:g} s")
        pids.update(peer.gather([peer.submit(tasks.pid_after, 0.01) for _ in range(4 * workers)]))


def wake_map(peer: Peer[Any], workers: int) -> None:
    """Let a peer start whatever its map needs beside the pool (Ray starts actors).

    With a function that no workload measures: a peer that learns how long a function takes must not learn
    it here.
    """
    expect_count(peer.map(tasks.pid_after, [0.0] * workers, 1), workers)


def expect_count(results: list[object], count: int) -> None:
    """A peer that loses results must not look fast."""
    if len(results) != count:
        raise AssertionError(f"{count} tasks gave {len(results)} results")
