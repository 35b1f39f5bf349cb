"""Complaints: what peers did that they may not, counted by kind, and logged now and then.

A flood of nonsense must not become a flood of log lines: of each kind one is logged every few seconds, with how many
there were since.
"""

from __future__ import annotations

import logging
from collections import Counter
from enum import StrEnum

SAY_EVERY_S = 5.0
NEVER = float("inf")
log = logging.getLogger("taskmesh.hub")


class Complaint(StrEnum):
    """What it was; the values are keys of the status document."""

    FRAME = "dropped_frames"  # malformed, or of no live registration
    REQUEST = "refused_requests"  # on control: malformed, or not for this role
    CONNECTION = "refused_connections"  # a key that may not connect there
    PEER = "refused_peers"  # a registration


_WORDS = {
    Complaint.FRAME: "dropped", Complaint.REQUEST: "refused", Complaint.CONNECTION: "refused a connection:",
    Complaint.PEER: "refused",
}  # fmt: skip


class Complaints:
    """Counts them, over the hub's life."""

    def __init__(self) -> None:
        self.counts: Counter[Complaint] = Counter(dict.fromkeys(Complaint, 0))
        self._said_at = dict.fromkeys(Complaint, -NEVER)
        self._said = dict.fromkeys(Complaint, 0)

    def add(self, kind: Complaint, what: str, now: float) -> bool:
        """One more; `what` says who did what. Returns whether it was logged."""
        self.counts[kind] += 1
        if now - self._said_at[kind] < SAY_EVERY_S:
            return False
        unsaid = self.counts[kind] - self._said[kind] - 1
        more = f" (and {unsaid:,} more since the last such line)" if unsaid else ""
        log.warning("%s %s%s", _WORDS[kind], what, more)
        self._said_at[kind], self._said[kind] = now, self.counts[kind]
        return True
