"""The hub's statistics: frozen, and the only thing that the command line and later monitors read."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from .ranges import count

if TYPE_CHECKING:
    from .leases import DaemonState
    from .scheduler import Scheduler
    from .sessions import Session

RATE_WINDOW_S = 5.0


@dataclass(frozen=True, slots=True)
class DaemonStatistics:
    """One daemon. Times are seconds; `busy` is the part of its runners' time that tasks took since it joined."""

    name: str
    host: str
    pid: int
    slots: int
    tasks_out: int
    finished: int
    busy: float
    runners_lost: int
    joined_s_ago: float
    heard_s_ago: float
    suspected: bool
    ticket: str


@dataclass(frozen=True, slots=True)
class SessionStatistics:
    """One client. `unfetched`: outcomes that it has not acknowledged; `held`: too many, so nothing of it is started."""

    name: str
    host: str
    pid: int
    connected: bool
    functions: int
    waiting: int
    running: int
    unfetched: int
    held: bool
    joined_s_ago: float
    ticket: str


@dataclass(frozen=True, slots=True)
class Statistics:
    """The whole mesh. `full`: why no new tasks are taken. `rate_per_s`: tasks ended per second, over a few seconds."""

    uptime_s: float
    draining: bool
    waiting: int
    out: int
    submitted: int
    done: int
    failed: int
    cancelled: int
    rate_per_s: float
    slots: int
    full: str | None
    daemons: tuple[DaemonStatistics, ...]
    sessions: tuple[SessionStatistics, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


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
