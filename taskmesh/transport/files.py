"""Whether this process may open as many files as another peer takes.

A hub that runs into its limit cannot even accept the connections of peers that it has taken in, so it says no before
that, while it still can say why.
"""

from __future__ import annotations

import logging
import os
import resource

log = logging.getLogger("taskmesh.hub")

PER_PEER = 8  # its connections to control and inbox; its lane with listener, connection and monitor
RESERVE = 48  # for those that only ask, and for what the process itself opens
SAY_EVERY_S = 5.0
NEVER = float("inf")


class Room:
    """For other peers."""

    def __init__(self) -> None:
        self._said_at = -NEVER

    def lacks(self, now: float) -> str | None:
        """Why there is no room for another peer, which the log says too, now and then; None if there is."""
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if open_files(limit) + PER_PEER + RESERVE <= limit:
            return None
        why = (
            f"the hub has no room for another peer: it may have {limit} open files (ulimit -n), and each peer takes "
            f"about {PER_PEER}"
        )
        if now - self._said_at >= SAY_EVERY_S:
            self._said_at = now
            log.error("%s; refusing newcomers", why)
        return why


def open_files(limit: int) -> int:
    """How many files this process has open; `limit` if not even one more can be opened to find out."""
    try:
        return len(os.listdir("/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"))
    except OSError:
        return limit
