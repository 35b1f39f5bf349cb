"""What the scheduler knows of one client."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from .leases import SpecState
from .outbox import Outbox

SESSION_GRACE_S = 60.0


@dataclass(slots=True, eq=False)
class Session:
    """One client's tasks. `gone_at`: since when it is dead or cut off; its work goes on for a while.

    `stale`: numbers of specs, rising, that were here when its link began anew and that it has not named since. It names
    those that it still has in rising order: what it passes over it has retired, and that word was lost with the link.
    `proof`: a digest of its secret. `ticket`: with which it came last. `queued`: bytes of its functions'
    books, and of its chunks that have not ended.
    """

    instance: int
    name: str = ""
    host: str = ""
    pid: int = 0
    joined_at: float = 0.0
    gone_at: float | None = None
    specs: dict[int, SpecState] = field(default_factory=dict)
    outbox: Outbox = field(default_factory=Outbox)
    stale: deque[int] = field(default_factory=deque)
    proof: bytes = b""
    ticket: str = ""
    queued: int = 0


@dataclass(slots=True)
class Totals:
    """Counters over the hub's life, in tasks."""

    submitted: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0


__all__ = ["SESSION_GRACE_S", "Session", "Totals"]
