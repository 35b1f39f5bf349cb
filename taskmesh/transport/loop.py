"""The poll loop that every shell runs on: read what is readable, then act on time.

Everything readable is drained (bounded) before time is acted on, or queued heartbeats look like deaths. A loop that was
late, because the process was stopped or starved, does not count the lost time: its clock leaves it out, so that no
peer is declared dead for our own sleep.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Protocol

import zmq

from .sockets import Socket

LATE_S = 0.5
LONGEST_WAIT_S = 1.0
PASSES = 3  # of the parts in one round, while they still have something for each other


class Part(Protocol):
    """Something that acts on time: a hub, a daemon, a client."""

    def on_time(self, now: float) -> None:
        """Everything readable has been read: act."""

    def next_deadline(self) -> float:
        """When `on_time` is due if nothing arrives; 0: now, because another part has just sent something."""


class Loop:
    """Sockets and file descriptors with their readers, and the parts that act on time."""

    def __init__(self) -> None:
        self._poller = zmq.Poller()
        self._readers: dict[Socket | int, Callable[[], None]] = {}
        self._parts: list[Part] = []
        self._lost_s = 0.0
        self.stopping = False

    def now(self) -> float:
        """Monotonic seconds, without the time in which this process did not run."""
        return monotonic() - self._lost_s

    def add_part(self, part: Part) -> None:
        """Let `part` act on time."""
        self._parts.append(part)

    def watch(self, source: Socket | int, reader: Callable[[], None], writable: bool = False) -> None:
        """Call `reader` when `source` can be read (or, if asked for, written). A second call changes the first."""
        self._readers[source] = reader
        self._poller.register(source, zmq.POLLIN | zmq.POLLOUT if writable else zmq.POLLIN)

    def forget(self, source: Socket | int) -> None:
        """Stop watching."""
        if self._readers.pop(source, None) is not None:
            self._poller.unregister(source)

    def run(self) -> None:
        """Serve until `stopping`."""
        while not self.stopping:
            self.step()

    def step(self) -> None:
        """One round: wait, read, act."""
        now = self.now()
        wait = LONGEST_WAIT_S
        for part in self._parts:
            left = part.next_deadline() - now
            if left < wait:
                wait = left if left > 0.0 else 0.0
        readers = self._readers
        for source, _ in self._poller.poll(wait * 1000 + 0.5 if wait else 0):
            reader = readers.get(source)
            if reader is not None:
                reader()
        after = self.now()
        late = after - now - wait
        if late > LATE_S:
            self._lost_s += late
            after -= late
        for _ in range(PASSES):
            for part in self._parts:
                part.on_time(after)  # cheap for a part that nothing happened to
            if not any([part.next_deadline() <= 0.0 for part in self._parts]):
                return
