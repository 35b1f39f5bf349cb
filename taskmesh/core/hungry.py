"""Who may have room: daemons that have said something since they were last found full, the least loaded first.

A heap whose entries are put in order when they are looked at: what a daemon holds changes with every outcome, and to
dispatch a task must cost no look at every daemon. An entry is void when its daemon has another one since. A daemon
that takes no work for now, because it is silent or was only just welcomed, is set aside until it is heard.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping

from ..errors import LocalProtocolError
from .leases import DaemonState
from .roster import Roster

Entry = tuple[float, int]
SPARE = 64  # void entries that are not worth being swept out


class Hungry:
    """The daemons that may have room.

    Parameters
    ----------
    daemons, roster
        Those of the scheduler.
    """

    def __init__(self, daemons: Mapping[int, DaemonState], roster: Roster) -> None:
        self._daemons = daemons
        self._peers = roster.peers
        self._said: set[int] = set()  # have said something since the last `sort`
        self._heap: list[Entry] = []  # (load, instance)
        self._load: dict[int, float] = {}  # with which each is in the heap
        self._aside: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self._said or self._load)

    def add(self, instance: int) -> None:
        """A daemon has said something: it may have room."""
        self._said.add(instance)

    def heard(self, instance: int) -> None:
        """A daemon is there: if it was set aside, it is looked at again."""
        if instance in self._aside:
            self._aside.discard(instance)
            self._said.add(instance)

    def discard(self, instance: int) -> None:
        """A daemon is gone."""
        self._said.discard(instance)
        self._aside.discard(instance)
        self._load.pop(instance, None)

    def sort(self) -> None:
        """Put those that have said something where they belong now."""
        for instance in self._said:
            self._put(self._daemons[instance])
        self._said.clear()
        if len(self._heap) > 2 * len(self._load) + SPARE:
            self._heap = [(load, instance) for instance, load in self._load.items()]
            heapq.heapify(self._heap)

    def _put(self, daemon: DaemonState) -> None:
        load = daemon.tasks_out / daemon.slots if daemon.slots > 0 else 0.0
        if self._load.get(daemon.instance) != load:
            self._load[daemon.instance] = load
            heapq.heappush(self._heap, (load, daemon.instance))

    def least(self, now: float) -> DaemonState | None:
        """The least loaded daemon that takes work, or None."""
        while self._heap:
            load, instance = self._heap[0]
            if self._load.get(instance) == load:
                if self._daemons[instance].slots > 0:
                    if self._peers[instance].takes_work(now):
                        return self._daemons[instance]
                    self._aside.add(instance)
                del self._load[instance]
            heapq.heappop(self._heap)
        return None

    def full(self, daemon: DaemonState) -> None:
        """The daemon that `least` named has no room."""
        del self._load[daemon.instance]
        heapq.heappop(self._heap)

    def leased(self, daemon: DaemonState) -> None:
        """The daemon that `least` named holds more than before."""
        load = self._load[daemon.instance] = daemon.tasks_out / daemon.slots
        heapq.heapreplace(self._heap, (load, daemon.instance))

    def check(self) -> None:
        """Cross-check the books.

        Raises
        ------
        LocalProtocolError
            They disagree.
        """
        entries = set(self._heap)
        for instance in (*self._said, *self._aside, *self._load):
            if instance not in self._daemons:
                raise LocalProtocolError(f"daemon {instance:x} is gone, and is still looked at for room")
        for instance, load in self._load.items():
            if (load, instance) not in entries:
                raise LocalProtocolError(f"daemon {instance:x} may have room, and is not in the heap")
