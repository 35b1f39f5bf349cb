"""Dispatch: what waits meets daemons that have room.

The piece that should run next goes to the least loaded daemon, a dose for each of its slots at a time, until nothing
waits or nobody has room. What follows on what the same daemon was given just before is part of that lease. A daemon
without room is not looked at again before it has said something: so the work here is in proportion to what is
dispatched, and not to the number of daemons or of waiting tasks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import messages as m
from .actions import Action, Send
from .credit import room
from .leases import DaemonState, Lease, Piece
from .lifecycle import Step
from .ranges import overlap

if TYPE_CHECKING:
    from .scheduler import Scheduler


class Grant:
    """A lease that is being made, of offsets `[lo, hi)` of a chunk.

    One message says all of it, however many portions it was given out in.
    """

    __slots__ = ("daemon", "hi", "lease", "lo")

    def __init__(self, daemon: DaemonState, lease: Lease, lo: int, hi: int) -> None:
        self.daemon = daemon
        self.lease = lease
        self.lo = lo
        self.hi = hi

    def goes_on(self, daemon: DaemonState, piece: Piece, lo: int) -> bool:
        """Whether what begins at `lo` of a piece can be part of this lease."""
        lease = self.lease
        return (
            lo == self.hi
            and daemon is self.daemon
            and piece.state is lease.state
            and (piece.attempt, piece.solo) == (lease.attempt, lease.solo)
            and piece.state.spec.pace.mean_s is not None  # what is unknown is handed out little by little
        )

    def extend(self, hi: int) -> None:
        """Let it go on to `hi`."""
        self.daemon.extend(self.lease, self.hi, hi)
        self.hi = hi

    def message(self) -> m.Dispatch:
        """What tells its daemon."""
        lease, spec, chunk = self.lease, self.lease.state.spec, self.lease.state.chunk
        return m.Dispatch(
            lease.fence, spec.session, spec.number, spec.name, spec.digest, spec.init, lease.attempt, lease.solo,
            self.lo, self.hi, spec.limits, chunk.cut(self.lo, self.hi),
        )  # fmt: skip


def dispatch(scheduler: Scheduler, now: float) -> list[Action]:
    """Lease out what can be leased; returns the messages that say so."""
    grants: list[Grant] = []
    ready = scheduler.ready
    hungry = scheduler.hungry
    hungry.sort()
    while (head := ready.peek()) and (daemon := hungry.least(now)) is not None:
        priority, session, piece = head
        live = overlap(piece.state.ready, piece.lo, piece.hi)
        if not live:
            ready.pop(priority, session, 0.0)
            continue
        tasks = _portion(daemon, piece)
        if tasks <= 0:
            hungry.full(daemon)
            continue
        lo, hi = live[0]
        rest = min(hi, lo + tasks)
        if rest < hi and piece.state.chunk.grain == 1:
            rest = piece.state.chunk.whole_leaves(lo, rest)
        served_s = _lease(scheduler, daemon, piece, lo, rest, now, grants)
        if rest >= live[-1][1]:
            ready.pop(priority, session, served_s)
        else:
            ready.charge(priority, session, served_s)
            ready.replace_first(priority, session, piece._replace(lo=rest))
        hungry.leased(daemon)
    return [action for grant in grants for action in _announce(scheduler, grant)]


def _portion(daemon: DaemonState, piece: Piece) -> int:
    """How many tasks of a piece to give to a daemon at once: a dose for each of its slots, if it has room."""
    pace, grain = piece.state.spec.pace, piece.state.chunk.grain
    tasks = room(daemon.slots, daemon.tasks_out, daemon.load_s, pace, grain)
    if tasks <= 0:
        return 0
    tasks = min(tasks, max(1, pace.dose()) * daemon.slots)
    return max(grain, tasks - tasks % grain)


def _lease(
    scheduler: Scheduler, daemon: DaemonState, piece: Piece, lo: int, hi: int, now: float, grants: list[Grant]
) -> float:
    """Lease offsets `[lo, hi)` to a daemon; returns their price in seconds."""
    state = piece.state
    state.move([(lo, hi)], Step.DISPATCHED)
    if grants and grants[-1].goes_on(daemon, piece, lo):
        grants[-1].extend(hi)
        return (hi - lo) * grants[-1].lease.price_s
    fence = scheduler.next_fence()
    while fence in daemon.leases or fence in state.leases:  # a daemon said in its inventory that it has this one
        fence = scheduler.next_fence()
    price_s = state.spec.pace.price_s()
    lease = Lease(fence, daemon.instance, state, [(lo, hi)], piece.attempt, piece.solo, price_s, now)
    state.given.add(daemon.instance)
    daemon.add(lease)
    grants.append(Grant(daemon, lease, lo, hi))
    return (hi - lo) * price_s


def _announce(scheduler: Scheduler, grant: Grant) -> list[Action]:
    """Tell a daemon of a lease, and before that the functions that it needs and has not been sent."""
    spec, instance = grant.lease.state.spec, grant.daemon.instance
    actions: list[Action] = []
    for digest in (spec.digest, spec.init):
        body = scheduler.bodies.give(digest, grant.daemon)
        if body is not None:
            actions.append(Send(instance, m.Body(digest, body)))
    actions.append(Send(instance, grant.message()))
    return actions
