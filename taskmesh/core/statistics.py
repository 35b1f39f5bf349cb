"""The hub's statistics: frozen, and the only thing that the command line and later monitors read."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


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
