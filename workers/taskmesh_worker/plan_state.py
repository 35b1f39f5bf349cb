"""What the plan knows: leases, pieces of them that wait, and runners with what they were handed."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from taskmesh.core import messages as m
from taskmesh.core.credit import DOSE_S, Pace
from taskmesh.core.ranges import Ranges
from taskmesh.wire.pipe import Reason

CLAIM_SETTLE_S = 0.001  # how long a lowered limit takes to be seen for certain
PIPELINE_BELOW_S = DOSE_S / 2  # of tasks longer than this, only one is handed ahead of need
NEVER = float("inf")


@dataclass(slots=True, eq=False)
class Work:
    """A lease as the daemon holds it. `wanted`: the hub still wants outcomes."""

    dispatch: m.Dispatch
    pace: Pace
    wanted: bool = True

    @property
    def at_most_once(self) -> bool:
        """Whether none of its tasks may start twice."""
        return self.dispatch.limits.at_most_once


class Piece(NamedTuple):
    """Offsets `[lo, hi)` of a lease that wait for a runner."""

    work: Work
    lo: int
    hi: int
    attempt: int
    solo: bool


@dataclass(slots=True, eq=False)
class Handed:
    """Part of a dose that a runner has not accounted for: positions `[at, at + hi - lo)`."""

    at: int
    piece: Piece
    lo: int
    hi: int
    price_s: float

    @property
    def end(self) -> int:
        """The position behind it."""
        return self.at + self.hi - self.lo


class Phase(Enum):
    """Where a runner is."""

    STARTING = 1
    READY = 2
    RECALLING = 3  # its limit was lowered; nothing more until it has accounted for everything


@dataclass(slots=True, eq=False)
class Doom:
    """The task at `position` has to end: it was interrupted, and when that does not help its runner is killed.

    `about` goes into its outcome then.
    """

    position: int
    reason: Reason
    grace_s: float
    again_at: float
    kill_at: float
    about: dict[str, Any]


@dataclass(slots=True, eq=False)
class Runner:
    """A runner as the plan knows it.

    `handed` is what it may still run. `next_at` is where its next dose will begin, `spoken` up to where it has told
    us what became of its tasks: a tail that was taken back is still in its pipe until it says that it skipped it.
    `certain`: its claim was read after its limit was lowered, so what is left in `handed` has started.
    `retiring`: it gets nothing new and is ended when it is empty; `ending`: it was killed, or told to end (by
    `end_at`). `cancels`: positions that are to be interrupted; `doom`: the one that was. `revoked`: positions that it
    had claimed when the hub wanted them back; those that do not start after all go there. `ran`: how many tasks it has
    reported.
    """

    number: int
    phase: Phase = Phase.STARTING
    handed: deque[Handed] = field(default_factory=deque)
    next_at: int = 0
    spoken: int = 0
    limit: int = 0
    handed_at: float = 0.0
    peek_at: float = NEVER
    certain: bool = False
    bodies: OrderedDict[bytes, None] = field(default_factory=OrderedDict)
    retiring: bool = False
    ending: bool = False
    end_at: float = NEVER
    doom: Doom | None = None
    cancels: Ranges = field(default_factory=list)
    revoked: Ranges = field(default_factory=list)
    look_at: float = NEVER
    look_gap_s: float = 0.0
    sample_at: float = NEVER
    ran: int = 0

    @property
    def open(self) -> bool:
        """Whether it may be handed more."""
        return self.phase is Phase.READY and not self.retiring and not self.ending and self.doom is None

    def load_s(self) -> float:
        """Seconds of work that it has not accounted for, by price."""
        return sum((h.hi - h.lo) * h.price_s for h in self.handed)

    def tasks(self) -> int:
        """How many tasks it has not accounted for."""
        return sum(h.hi - h.lo for h in self.handed)

    def has_tail(self) -> bool:
        """Whether it holds more than the task that it runs, and could be asked for the rest."""
        handed = self.handed
        return self.phase is Phase.READY and (len(handed) > 1 or (bool(handed) and handed[0].hi - handed[0].lo > 1))

    def has_room(self, work: Work) -> bool:
        """One task ahead, so that it does not wait between two; more only of those known to be very short.

        None ahead of those that may start at most once and are not that short: they could not be taken back.
        """
        handed, pace = self.handed, work.pace
        if not handed:
            return True
        if pace.mean_s is None:
            return False
        if len(handed) == 1 and handed[0].hi - handed[0].lo == 1 and not work.at_most_once:
            return True
        return pace.peak_s < PIPELINE_BELOW_S and self.load_s() < DOSE_S and self.tasks() < pace.trusted()
