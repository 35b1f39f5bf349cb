"""Virtual time: a heap of what is going to happen, and a trace of what did."""

from __future__ import annotations

import heapq
import zlib
from collections import Counter
from collections.abc import Callable
from random import Random


class Violation(AssertionError):
    """Something happened that must not, or did not happen that must."""


class World:
    """Time in seconds, random numbers, and everything that is scheduled.

    Entries of equal time run in the order of `rank`, which names who scheduled them: so nothing depends on the order
    in which a role walks through a set of its own objects.
    """

    def __init__(self, seed: int, *, traced: bool = False) -> None:
        self.now = 0.0
        self.seed = seed
        self.random = Random(seed)
        self.steps = 0
        self.faults: Counter[str] = Counter()
        self.trace: list[str] | None = [] if traced else None
        self.digest = 0
        self._heap: list[tuple[float, int, int, Callable[[], None]]] = []
        self._count = 0
        self._ranks = 0

    def rank(self) -> int:
        """A number for somebody who schedules things."""
        self._ranks += 1
        return self._ranks

    def at(self, when: float, rank: int, what: Callable[[], None]) -> None:
        """Let `what` happen at `when`."""
        self._count += 1
        heapq.heappush(self._heap, (when, rank, self._count, what))

    def after(self, seconds: float, rank: int, what: Callable[[], None]) -> None:
        """Let `what` happen in so many seconds."""
        self.at(self.now + seconds, rank, what)

    def run(self, until: float) -> None:
        """Let everything happen up to `until`."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            when, rank, _, what = heapq.heappop(heap)
            self.now = when
            self.steps += 1
            self.digest = zlib.crc32(b"%d %d" % (int(when * 1e9), rank), self.digest)
            what()
        self.now = until

    def log(self, who: str, text: str) -> None:
        """Remember what happened, for people."""
        if self.trace is not None:
            self.trace.append(f"{self.now:10.4f}  {who:<10} {text}")

    def fault(self, kind: str, who: str, text: str = "") -> None:
        """Count a fault, and remember it."""
        self.faults[kind] += 1
        self.log(who, f"*** {kind} {text}".rstrip())
