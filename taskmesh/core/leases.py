"""What the hub knows of one chunk, and of the leases on it.

For each chunk two disjoint sets of ranges say what is `ready` and what is `leased`; together they are what has not
ended. Pieces in the ready queue and ranges in leases may be out of date (a late success ended them): they are
intersected with these sets before they are used. That makes every order of events safe.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import msgpack

from ..errors import LocalProtocolError
from . import messages as m
from .chunk import Chunk
from .credit import Pace
from .lifecycle import State, Step, next_state
from .ranges import Ranges, add, count, overlap, subtract, union, within, without

MACHINE_LOST: bytes = msgpack.packb(
    {"kind": "lost", "why": "its worker machine was lost, and it must not be started twice (at_most_once)"}
)
HUB_LOST: bytes = msgpack.packb(
    {"kind": "lost", "why": "the hub was restarted, and it must not be started twice (at_most_once)"}
)
"""Reports of outcomes of form LOST that no daemon could write."""

SPEC_BYTES = 1024  # that the books of a function are counted as


@dataclass(slots=True)
class SpecState:
    """A function of one session. `submitted`: every task below this number has come; `retired`: no more will."""

    session: int
    number: int
    name: str
    digest: bytes
    init: bytes
    priority: int
    limits: m.Limits = m.NO_LIMITS
    pace: Pace = field(default_factory=Pace)
    chunks: dict[int, ChunkState] = field(default_factory=dict)
    submitted: int = 0
    retired: bool = False

    @property
    def weight(self) -> int:
        """How many bytes it is counted as, besides its body and its tasks."""
        return SPEC_BYTES + 4 * len(self.name)


class Piece(NamedTuple):
    """A range of a chunk in the ready queue. `solo`: run it one task at a time, one of these killed a runner."""

    state: ChunkState
    lo: int
    hi: int
    attempt: int
    solo: bool


@dataclass(slots=True, eq=False)
class ChunkState:
    """A chunk that has not ended.

    `given`: daemons that something of it was leased to. `again`: it was offered before this hub knew of it, so others
    may have it as well.
    """

    spec: SpecState
    chunk: Chunk
    ready: Ranges
    leased: Ranges = field(default_factory=list)
    cancelling: Ranges = field(default_factory=list)
    strikes: dict[int, int] = field(default_factory=dict)
    leases: dict[int, Lease] = field(default_factory=dict)
    given: set[int] = field(default_factory=set)
    again: bool = False

    def heeds(self, daemon: int) -> bool:
        """Whether what this daemon says of it counts: something of it was leased to the daemon, or may have been."""
        return self.again or daemon in self.given

    def move(self, ranges: Ranges, step: Step) -> Ranges:
        """Apply `step` to those of `ranges` that it can still apply to.

        A dispatch applies to what is ready, a return or failure to what is leased, a success to either.

        Returns
        -------
        Ranges
            What has moved.
        """
        moved: Ranges = []
        for state, target in _MOVES[step]:
            held = self.ready if state is State.READY else self.leased
            if not held:
                continue
            if held == ranges:  # as they nearly always are: all that is there
                fresh, held = ranges, []
            else:
                fresh = within(held, ranges)
                held = without(held, ranges) if fresh else held
            if state is State.READY:
                self.ready = held
            else:
                self.leased = held
            self._enter(target, fresh)
            moved += fresh
        return moved

    def _enter(self, target: State, ranges: Ranges) -> None:
        if not ranges:
            return
        if target is State.LEASED:
            self.leased = union(self.leased, ranges)
        elif target is State.READY:
            self.ready = union(self.ready, ranges)
        elif self.cancelling:
            self.cancelling = without(self.cancelling, ranges)

    @property
    def left(self) -> Ranges:
        """What has not ended."""
        if not self.ready or not self.leased:
            return self.ready or self.leased
        return union(self.ready, self.leased)

    @property
    def ended(self) -> bool:
        """Whether every task of the chunk has ended."""
        return not self.ready and not self.leased

    def check(self) -> None:
        """Cross-check the sets.

        Raises
        ------
        LocalProtocolError
            They overlap, or reach outside the chunk.
        """
        for lo, hi in self.ready:
            if overlap(self.leased, lo, hi):
                raise LocalProtocolError(f"chunk {self.chunk.first}: {lo}..{hi} is both ready and leased")
        for lo, hi in (*self.ready, *self.leased, *self.cancelling):
            if not 0 <= lo < hi <= self.chunk.count:
                raise LocalProtocolError(f"chunk {self.chunk.first}: {lo}..{hi} is outside it")


_APPLIES: dict[Step, tuple[State, ...]] = {
    Step.DISPATCHED: (State.READY,),
    Step.SUCCEEDED: (State.READY, State.LEASED),
    Step.FAILED: (State.LEASED,),
    Step.CANCELLED: (State.READY, State.LEASED),
    Step.RETURNED: (State.LEASED,),
    Step.LOST: (State.READY, State.LEASED),
}
_MOVES = {step: [(state, next_state(state, step)) for state in states] for step, states in _APPLIES.items()}


@dataclass(slots=True, eq=False)
class Lease:
    """Ranges of a chunk that are with a daemon.

    `price_s`: what each task was counted as when it was handed out, at `given_at`. `asked_at`: when its tail was last
    asked back for a daemon that idles.
    """

    fence: int
    daemon: int
    state: ChunkState
    ranges: Ranges
    attempt: int
    solo: bool
    price_s: float
    given_at: float = 0.0
    asked_at: float = 0.0

    def take(self, lo: int, hi: int) -> Ranges:
        """Remove `[lo, hi)`; returns what of it was here."""
        found = overlap(self.ranges, lo, hi)
        self.ranges = subtract(self.ranges, lo, hi)
        return found

    def take_all(self, ranges: Ranges) -> Ranges:
        """Remove all of `ranges`; returns what of them was here."""
        found = within(self.ranges, ranges)
        self.ranges = without(self.ranges, ranges)
        return found

    def speaks_of(self, session: int, spec: int, first: int) -> bool:
        """Whether this is a lease of that chunk."""
        state = self.state
        return (state.spec.session, state.spec.number, state.chunk.first) == (session, spec, first)


class Loads:
    """Which daemons have a slot free, and which hold more than they run: noted at each change, so that nobody has to
    look at every daemon.
    """

    __slots__ = ("crowded", "roomy")

    def __init__(self) -> None:
        self.roomy: set[int] = set()
        self.crowded: set[int] = set()

    def note(self, daemon: DaemonState) -> None:
        """What a daemon holds, or can run, has changed."""
        instance, spare = daemon.instance, daemon.slots - daemon.tasks_out
        if spare > 0:
            self.roomy.add(instance)
        else:
            self.roomy.discard(instance)
        if spare < 0:
            self.crowded.add(instance)
        else:
            self.crowded.discard(instance)

    def forget(self, instance: int) -> None:
        """A daemon is gone."""
        self.roomy.discard(instance)
        self.crowded.discard(instance)


@dataclass(slots=True, eq=False)
class DaemonState:
    """What the scheduler knows of a daemon: its slots, its leases, and the sum of what it holds.

    `local`: it shares the hub's process, and keeps no outcomes. `settled`: outcomes that it may forget, to be told.
    `stale`: leases from before its last registration, of which its inventory will speak. `repaired`: when it was last
    sent functions that it had lost.
    """

    instance: int
    slots: int
    local: bool = False
    loads: Loads = field(default_factory=Loads)
    leases: dict[int, Lease] = field(default_factory=dict)
    tasks_out: int = 0
    load_s: float = 0.0
    bodies: set[bytes] = field(default_factory=set)
    stale: set[int] = field(default_factory=set)
    finished: int = 0
    busy_s: float = 0.0
    strikes: int = 0
    repaired: dict[bytes, float] = field(default_factory=dict)
    settled: list[tuple[int, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.loads.note(self)

    def resize(self, slots: int) -> None:
        """It can run so many tasks at once from now on."""
        self.slots = slots
        self.loads.note(self)

    def add(self, lease: Lease) -> None:
        """A new lease, or more of one that is here."""
        known = self.leases.setdefault(lease.fence, lease)
        lease.state.leases[lease.fence] = known
        self._hold(known, count(lease.ranges))
        if known is not lease:
            known.ranges = union(known.ranges, lease.ranges)

    def extend(self, lease: Lease, lo: int, hi: int) -> None:
        """Offsets `[lo, hi)` are part of a lease that is here, too."""
        lease.ranges = add(lease.ranges, lo, hi)
        self._hold(lease, hi - lo)

    def _hold(self, lease: Lease, tasks: int) -> None:
        self.load_s += tasks * lease.price_s
        self.tasks_out += tasks
        self.loads.note(self)

    def account(self, lease: Lease, found: Ranges) -> int:
        """`found` was removed from `lease`: balance the books. Returns how many tasks that was."""
        tasks = count(found)
        self.tasks_out -= tasks
        self.load_s -= tasks * lease.price_s
        self.loads.note(self)
        if not lease.ranges:
            del self.leases[lease.fence]
            lease.state.leases.pop(lease.fence, None)
        if not self.leases:
            self.load_s = 0.0  # no rounding error outlives an empty book
        return tasks


__all__ = ["ChunkState", "DaemonState", "Lease", "Loads", "Piece", "SpecState"]
