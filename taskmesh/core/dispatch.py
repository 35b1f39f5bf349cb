"""Dispatch: what waits meets who has room.

The piece that should run next goes to the least loaded daemon, a dose for each of its slots at a time, until nothing
waits or nobody has room. A daemon without room is not looked at again before it has said something: so the work here
is in proportion to what is dispatched, and not to the number of daemons or of waiting tasks.
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


def dispatch(scheduler: Scheduler, now: float) -> list[Action]:
    """Lease out what can be leased; returns the messages that say so."""
    actions: list[Action] = []
    ready = scheduler.ready
    hungry = scheduler.hungry
    hungry.sort()
    while (head := ready.peek()) and (daemon := hungry.least(now)) is not None:
        priority, session, piece = head
        live = overlap(piece.chunk.ready, piece.lo, piece.hi)
        if not live:
            ready.pop(priority, session, 0.0)
            continue
        tasks = _portion(daemon, piece)
        if tasks <= 0:
            hungry.full(daemon)
            continue
        lo, hi = live[0]
        rest = min(hi, lo + tasks)
        if rest < hi and piece.chunk.chunk.grain == 1:
            rest = piece.chunk.chunk.whole_leaves(lo, rest)
        served_s = _lease(scheduler, daemon, piece, lo, rest, now, actions)
        if rest >= live[-1][1]:
            ready.pop(priority, session, served_s)
        else:
            ready.charge(priority, session, served_s)
            ready.replace_first(priority, session, piece._replace(lo=rest))
        hungry.leased(daemon)
    return actions


def _portion(daemon: DaemonState, piece: Piece) -> int:
    """How many tasks of a piece to give to a daemon at once: a dose for each of its slots, if it has room."""
    pace = piece.chunk.spec.pace
    tasks = room(daemon.slots, daemon.tasks_out, daemon.load_s, pace)
    if tasks <= 0:
        return 0
    tasks = min(tasks, max(1, pace.dose()) * daemon.slots)
    grain = piece.chunk.chunk.grain
    return max(grain, tasks - tasks % grain)


def _lease(
    scheduler: Scheduler, daemon: DaemonState, piece: Piece, lo: int, hi: int, now: float, actions: list[Action]
) -> float:
    """Lease offsets `[lo, hi)` to a daemon; returns their price in seconds."""
    state, spec = piece.chunk, piece.chunk.spec
    state.move([(lo, hi)], Step.DISPATCHED)
    if spec.pace.tiny and (last := _last(daemon, piece, lo, actions)) is not None:
        return _extend(daemon, last, hi, actions)
    price_s = spec.pace.price_s()
    fence = scheduler.next_fence()
    while fence in daemon.leases or fence in state.leases:  # a daemon said in its inventory that it has this one
        fence = scheduler.next_fence()
    state.given.add(daemon.instance)
    daemon.add(Lease(fence, daemon.instance, state, [(lo, hi)], piece.attempt, piece.solo, price_s, now))
    for digest in (spec.digest, spec.init):
        body = scheduler.bodies.give(digest, daemon)
        if body is not None:
            actions.append(Send(daemon.instance, m.Body(digest, body)))
    message = m.Dispatch(
        fence, spec.session, spec.number, spec.name, spec.digest, spec.init, piece.attempt, piece.solo,
        lo, hi, spec.limits, state.chunk.cut(lo, hi),
    )  # fmt: skip
    actions.append(Send(daemon.instance, message))
    return (hi - lo) * price_s


def _last(daemon: DaemonState, piece: Piece, lo: int, actions: list[Action]) -> m.Dispatch | None:
    """The message of the lease that was made last, if the daemon has it and it ends where the next one begins."""
    action = actions[-1] if actions else None
    if not isinstance(action, Send) or action.instance != daemon.instance or not isinstance(action.message, m.Dispatch):
        return None
    lease = daemon.leases[action.message.fence]
    same = lease.state is piece.chunk and (lease.attempt, lease.solo) == (piece.attempt, piece.solo)
    return action.message if same and action.message.hi == lo else None


def _extend(daemon: DaemonState, message: m.Dispatch, hi: int, actions: list[Action]) -> float:
    """Let a lease of tiny tasks go on to `hi`: one message, and fewer doses, instead of several."""
    lease = daemon.leases[message.fence]
    daemon.add(lease.more(message.hi, hi))
    actions[-1] = Send(daemon.instance, message._replace(hi=hi, chunk=lease.state.chunk.cut(message.lo, hi)))
    return (hi - message.hi) * lease.price_s
