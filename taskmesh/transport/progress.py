"""Progress: whether frames still get through, while heartbeats do.

Heartbeats have a connection of their own. Another one can be half open: one side's frames vanish without an error, for
half a minute or longer. Each reply to a heartbeat says what the hub has sent and received, so both ends of the link
can be compared; when more was sent and nothing arrives, the peer registers again and gets new connections.
"""

from __future__ import annotations

from ..core.link import Link
from ..core.messages import HeartbeatReply

STUCK_AFTER_S = 10.0  # a frame of 256 KiB may take that long on a line of 26 kB/s


class Progress:
    """Watches one registration."""

    def __init__(self) -> None:
        self._sent = 0  # by the hub, as of the reply before
        self._seen = 0
        self._received = 0  # by the hub
        self._since: float | None = None

    def stuck(self, link: Link, reply: HeartbeatReply, now: float) -> bool:
        """Whether more was sent, in either direction, and for `STUCK_AFTER_S` nothing of it has arrived."""
        waits = link.seen < self._sent or reply.received < link.last
        moved = link.seen != self._seen or reply.received != self._received
        self._sent, self._seen, self._received = reply.last, link.seen, reply.received
        if moved or not waits:
            self._since = None
            return False
        if self._since is None:
            self._since = now
        return now - self._since >= STUCK_AFTER_S
