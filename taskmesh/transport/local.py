"""Membership of a daemon that shares its hub's process: a private mesh.

Hub and daemon live and die together, so there is nothing to reconnect, resend or serialise: messages are handed over as
they are. (Over inproc sockets the same round trip cost twice the processor time, mostly in extra rounds of the loop.)
The machines on both sides are the same, and cannot tell the difference.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from ..core import messages as m
from .membership import Owner

NEVER = float("inf")


class LocalHub(Protocol):
    """What a hub offers to a daemon in its own process."""

    def join_local(self, register: m.Register, member: LocalMembership) -> m.Registered | m.Refused:
        """Take the daemon in; `member.deliver` gets what is sent to it."""

    def receive_local(self, instance: int, message: m.LinkMessage) -> None:
        """A message from the daemon."""


class LocalMembership:
    """See `Membership`, of which this has the methods that a daemon uses."""

    def __init__(self, hub: LocalHub, register: m.Register, owner: Owner) -> None:
        self._hub = hub
        self._instance = register.instance
        self._register = register
        self._owner = owner
        self._inbox: deque[m.LinkMessage] = deque()
        self.registered = False
        self.trouble: str | None = None  # nothing is between
        self.postponed: str | None = None
        self.touched = True

    def deliver(self, message: m.LinkMessage) -> None:
        """Called by the hub: to be read in this round or the next one."""
        self._inbox.append(message)
        self.touched = True

    def send(self, message: m.LinkMessage) -> None:
        """Hand a message to the hub."""
        self._hub.receive_local(self._instance, message)

    def join_again(self) -> None:
        """A hub in the same process does not forget."""

    def read(self) -> None:
        """Give the owner what was delivered."""
        if not self.registered:
            self.registered = True
            reply = self._hub.join_local(self._register, self)
            if isinstance(reply, m.Refused):
                self._owner.on_refused(reply.why)
            else:
                self._owner.on_welcome(reply)
        inbox = self._inbox
        while inbox:
            self._owner.on_message(inbox.popleft())

    @property
    def unacked(self) -> int:
        """Nothing is on the way."""
        return 0

    def on_time(self, now: float) -> None:
        """Nothing is ever due: a hub in the same process is never silent."""
        self.touched = False

    def pump(self, now: float) -> None:
        """Nothing waits to be sent."""

    def next_deadline(self) -> float:
        """Never."""
        return NEVER

    def close(self, linger_ms: int = 0) -> None:
        """Nothing is open."""
