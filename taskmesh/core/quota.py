"""Quotas: how much a hub takes in. What is over them is refused in words, and nothing that was accepted is lost."""

from __future__ import annotations

from typing import NamedTuple

NEVER = float("inf")
BESIDE = 4096  # bytes of a message beside its largest part
BURST_S = 5.0  # registrations that were not used for so long are saved up: a fleet starts all at once


class Quotas(NamedTuple):
    """Limits on what peers may ask of a hub.

    Attributes
    ----------
    peers
        How many clients and daemons may be registered at a time.
    registrations_per_s
        How many may register per second, on average, with one ticket.
    queued_bytes
        How many bytes of calls and unfetched outcomes one session may have at the hub.
    message_bytes
        How long a message may be.
    """

    peers: float = 1000
    registrations_per_s: float = 200.0
    queued_bytes: float = 1 << 30
    message_bytes: int = 1 << 30


DEFAULT = Quotas()
UNLIMITED = Quotas(NEVER, NEVER, NEVER, 1 << 33)
"""Of a private mesh, which belongs to one script."""


def largest_part(message_bytes: int) -> int:
    """How many bytes a call's arguments, or a result, may have where messages may have `message_bytes`."""
    return max(0, message_bytes - BESIDE)


class Bucket:
    """A token bucket: so many per second on average, with a burst of `burst_s` seconds' worth. Times in seconds."""

    def __init__(self, per_s: float, now: float, burst_s: float = BURST_S) -> None:
        self._per_s = per_s
        self._most = max(1.0, per_s * burst_s)
        self._tokens = self._most
        self._at = now

    def take(self, now: float) -> bool:
        """Take one, if there is one."""
        if self._per_s == NEVER:
            return True
        self._tokens = min(self._most, self._tokens + (now - self._at) * self._per_s)
        self._at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
