"""Looking at the scheduler from outside: its statistics, and the cross-check of its indexes."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from ..errors import LocalProtocolError
from .leases import ChunkState, DaemonState
from .ranges import Ranges, count, normal, overlap
from .statistics import DaemonStatistics, SessionStatistics, Statistics

if TYPE_CHECKING:
    from .scheduler import Scheduler
    from .sessions import Session

RATE_WINDOW_S = 5.0


class Rate:
    """Tasks ended per second over the last few seconds, from samples one second apart."""

    def __init__(self, now: float) -> None:
        self._samples: deque[tuple[float, int]] = deque([(now, 0)], maxlen=int(RATE_WINDOW_S) + 1)

    def sample(self, now: float, ended: int) -> None:
        """Note how many tasks have `ended`, if it is time for that."""
        if now - self._samples[-1][0] >= 1.0:
            self._samples.append((now, ended))

    def per_second(self, now: float, ended: int) -> float:
        """The rate, as of `now`."""
        since, base = next((sample for sample in self._samples if now - sample[0] <= RATE_WINDOW_S), self._samples[-1])
        return (ended - base) / (now - since) if now > since else 0.0


def statistics(scheduler: Scheduler, now: float) -> Statistics:
    """Everything that there is to know, as of `now`."""
    totals = scheduler.totals
    sessions = tuple(_session(scheduler, session, now) for session in scheduler.sessions.values())
    daemons = tuple(_daemon(scheduler, daemon, now) for daemon in scheduler.daemons.values())
    return Statistics(
        uptime_s=now - scheduler.started_at,
        draining=scheduler.draining,
        waiting=sum(session.waiting for session in sessions),
        out=sum(daemon.tasks_out for daemon in daemons),
        submitted=totals.submitted,
        done=totals.done,
        failed=totals.failed,
        cancelled=totals.cancelled,
        rate_per_s=scheduler.rate.per_second(now, totals.done + totals.failed),
        slots=sum(daemon.slots for daemon in daemons),
        full=scheduler.full,
        daemons=daemons,
        sessions=sessions,
    )


def _session(scheduler: Scheduler, session: Session, now: float) -> SessionStatistics:
    chunks = [chunk for spec in session.specs.values() for chunk in spec.chunks.values()]
    return SessionStatistics(
        name=session.name,
        host=session.host,
        pid=session.pid,
        connected=session.gone_at is None,
        functions=len(session.specs),
        waiting=sum(count(chunk.ready) for chunk in chunks),
        running=sum(count(chunk.leased) for chunk in chunks),
        unfetched=len(session.outbox),
        held=session.instance in scheduler.ready.held,
        joined_s_ago=now - session.joined_at,
        ticket=session.ticket,
    )


def _daemon(scheduler: Scheduler, daemon: DaemonState, now: float) -> DaemonStatistics:
    peer = scheduler.roster.peers[daemon.instance]
    age = max(now - peer.joined_at, 1e-9)
    return DaemonStatistics(
        name=peer.name,
        host=peer.host,
        pid=peer.pid,
        slots=daemon.slots,
        tasks_out=daemon.tasks_out,
        finished=daemon.finished,
        busy=min(1.0, daemon.busy_s / (age * max(daemon.slots, 1))),
        runners_lost=daemon.strikes,
        joined_s_ago=age,
        heard_s_ago=max(0.0, now - peer.heard_at),
        suspected=peer.suspected(now),
        ticket=peer.ticket,
    )


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
    waiting = [(0, piece.chunk.spec.session, piece) for piece in offered]
    for _, session, piece in [*scheduler.ready.pieces(), *waiting]:
        if session not in scheduler.sessions:
            raise LocalProtocolError(f"work of session {session:x}, which is over, is queued")
        queued.setdefault(id(piece.chunk), []).append((piece.lo, piece.hi))
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
