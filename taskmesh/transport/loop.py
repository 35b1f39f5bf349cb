"""The poll loop that every shell runs on: read what is readable, then act on time.

Everything readable is drained (bounded) before time is acted on, or queued heartbeats look like deaths. A loop that was
late, because the process was stopped or starved, does not count the lost time: its clock leaves it out, so that no
peer is declared dead for our own sleep.

The loop waits on file descriptors alone. `zmq_poll` asks every socket for its state, with several system calls each,
which cost more than the messages did. A socket's descriptor says only that something has changed since its state was
last read; so a reader reads until its socket is empty, and one that stops before that, or sends on the socket that it
reads, says so with `again`.
"""

from __future__ import annotations

import os
import selectors
from collections.abc import Callable
from time import monotonic
from typing import Protocol

import zmq

from .sockets import Socket

LATE_S = 0.5
LONGEST_WAIT_S = 1.0
SPIN_S = 0.0004  # for private meshes: about one round trip
PASSES = 3  # of the parts in one round, while they still have something for each other


class Part(Protocol):
    """Something that acts on time: a hub, a daemon, a client."""

    def on_time(self, now: float) -> None:
        """Everything readable has been read: act."""

    def next_deadline(self) -> float:
        """When `on_time` is due if nothing arrives; 0: now, because another part has just sent something."""


class Loop:
    """Sockets and file descriptors with their readers, and the parts that act on time.

    Parameters
    ----------
    spin_s
        While waits turn out shorter than this, in seconds, look again and again instead of sleeping: waking a
        sleeping processor takes longer than a small task does. It stops with the first wait that is longer, and
        yields to whoever else could run.
    lone
        Tells whether so little is going on that somebody probably waits for it. With more, others have a better use for
        the processor.
    """

    def __init__(self, spin_s: float = 0.0, lone: Callable[[], bool] = lambda: True) -> None:
        self._spin_s = spin_s
        self.lone = lone
        self._expect_soon = False
        self._selector = selectors.DefaultSelector()
        self._readers: dict[Socket | int, tuple[int, Callable[[], None]]] = {}
        self._again: set[Socket | int] = set()
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
        events = selectors.EVENT_READ | selectors.EVENT_WRITE if writable else selectors.EVENT_READ
        known = self._readers.get(source)
        fd = known[0] if known is not None else source if isinstance(source, int) else int(source.get(zmq.FD))
        self._readers[source] = (fd, reader)
        if known is not None:
            self._selector.modify(fd, events, source)
            return
        self._selector.register(fd, events, source)
        if not isinstance(source, int):
            self._again.add(source)  # it may hold something already

    def forget(self, source: Socket | int) -> None:
        """Stop watching. Before the source is closed."""
        known = self._readers.pop(source, None)
        if known is not None:
            self._selector.unregister(known[0])
            self._again.discard(source)

    def again(self, source: Socket | int) -> None:
        """Call the reader of `source` in the next round, whatever its descriptor says."""
        if source in self._readers:
            self._again.add(source)

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
        again = self._again
        if again:
            wait, self._again = 0.0, set()
        ready = self._select(wait)
        readers = self._readers
        for source in again.union(ready) if again else ready:
            reader = readers.get(source)
            if reader is not None:
                reader[1]()
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

    def _select(self, wait: float) -> list[Socket | int]:
        """What is ready within `wait` seconds. After a short wait the next one is expected to be short as well."""
        select, spin_s = self._selector.select, self._spin_s
        ready = select(0.0)
        if not ready and wait > 0.0:
            began = monotonic()
            if self._expect_soon and self.lone():
                until = began + min(wait, spin_s)
                while not ready and monotonic() < until:
                    os.sched_yield()
                    ready = select(0.0)
            if not ready:
                ready = select(wait)
            self._expect_soon = monotonic() - began < spin_s
        return [key.data for key, _ in ready]

    def close(self) -> None:
        """Let go of the selector."""
        self._selector.close()
