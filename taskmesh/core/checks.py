"""The cross-check of the scheduler's indexes: tests call it after every event."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import LocalProtocolError
from .leases import ChunkState
from .ranges import Ranges, count, normal, overlap

if TYPE_CHECKING:
    from .scheduler import Scheduler


def check(scheduler: Scheduler) -> None:
    """Compare every index of the scheduler with every other.

    Raises
    ------
    LocalProtocolError
        Two of them disagree.
    """
    scheduler.hungry.check()
    leased: dict[int, Ranges] = {}
    for daemon in scheduler.daemons.values():
        held = sum(count(lease.ranges) for lease in daemon.leases.values())
        if held != daemon.tasks_out:
            raise LocalProtocolError(f"daemon {daemon.instance:x}: {held} leased, {daemon.tasks_out} on the books")
        free, over = daemon.slots > held, daemon.slots < held
        if (free, over) != (daemon.instance in scheduler.loads.roomy, daemon.instance in scheduler.loads.crowded):
            raise LocalProtocolError(f"daemon {daemon.instance:x}: {held} on {daemon.slots} slots is not noted so")
        for lease in daemon.leases.values():
            if lease.state.leases.get(lease.fence) is not lease:
                raise LocalProtocolError(f"lease {lease.fence} is not in the index of its chunk")
            leased.setdefault(id(lease.state), []).extend(lease.ranges)
    queued: dict[int, Ranges] = {}
    offered = (piece for pieces in scheduler.recovery.held.values() for piece in pieces)
    waiting = [(0, piece.state.spec.session, piece) for piece in offered]
    for _, session, piece in [*scheduler.ready.pieces(), *waiting]:
        if session not in scheduler.sessions:
            raise LocalProtocolError(f"work of session {session:x}, which is over, is queued")
        queued.setdefault(id(piece.state), []).append((piece.lo, piece.hi))
    for owner in scheduler.sessions.values():
        weight = sum(spec.weight for spec in owner.specs.values())
        weight += sum(state.chunk.weight for spec in owner.specs.values() for state in spec.chunks.values())
        if weight != owner.queued:
            raise LocalProtocolError(f"session {owner.instance:x}: {weight} bytes queued, {owner.queued} on the books")
        if owner.outbox.bytes != owner.outbox.weigh():
            raise LocalProtocolError(f"session {owner.instance:x}: its outbox has lost count of its bytes")
        if (owner.outbox.bytes > scheduler.quotas.queued_bytes) != (owner.instance in scheduler.ready.held):
            raise LocalProtocolError(f"session {owner.instance:x} has {owner.outbox.bytes} bytes, and is held or not")
        for spec in owner.specs.values():
            for state in spec.chunks.values():
                _check_chunk(state, queued.get(id(state), []), leased.get(id(state), []))


def _check_chunk(state: ChunkState, queued: Ranges, leased: Ranges) -> None:
    state.check()
    name = f"chunk {state.chunk.first} of spec {state.spec.number}"
    if state.ended:
        raise LocalProtocolError(f"{name} has ended and is still kept")
    # What a daemon's inventory took from the queue and gave back is queued a second time; whoever is next takes both.
    for kind, expected, actual in (("ready", state.ready, normal(queued)), ("leased", state.leased, leased)):
        for lo, hi in expected:
            if count([part for a, b in actual for part in overlap([(a, b)], lo, hi)]) != hi - lo:
                raise LocalProtocolError(f"{name}: {lo}..{hi} is {kind}, but not in the {kind} index once")
