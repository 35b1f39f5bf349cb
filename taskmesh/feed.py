"""The events channel: what happens at a hub, told at once to whoever may know everything.

A PUB socket that lets in the keys of admin tickets alone. Its events are what the audit log has, where there is one,
and who has left. A hub waits for no reader: who is slow, or away, misses events, and sees that in their numbers.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import zmq

from .core.access import EVENTS
from .errors import AddressError
from .security.audit import entry
from .transport.sockets import Context, Socket, bind, close, make, put

if TYPE_CHECKING:
    from .door import Door
    from .transport.loop import Loop

log = logging.getLogger("taskmesh.hub")

AGAIN_S, AGAIN_AT_MOST_S = 0.01, 1.0
SUBSCRIPTION = 4096  # bytes: ZeroMQ keeps a tree with a level for each, and walks through it recursively
NEVER = float("inf")


class Feed:
    """A hub's events channel, bound. Attribute `endpoint` is where.

    Parameters
    ----------
    endpoint
        Where to bind it.
    context, loop
        Of the hub's sockets.
    door
        Says who is let in.

    Raises
    ------
    AddressError
        It cannot be bound there.
    """

    def __init__(self, endpoint: str, context: Context, loop: Loop, door: Door) -> None:
        self._context = context
        self._loop = loop
        self._door = door
        self._number = 0
        self._open_at = NEVER
        self._again_s = AGAIN_S
        self._sock: Socket | None = None
        self.endpoint = endpoint
        self._open()

    def _open(self) -> None:
        sock = make(self._context, zmq.PUB)
        sock.setsockopt(zmq.MAXMSGSIZE, SUBSCRIPTION)
        self._door.guard(sock, EVENTS)
        try:
            self.endpoint = bind(sock, self.endpoint)  # port 0 became one
            if self.endpoint.startswith("tcp:"):
                self._door.watch(sock, EVENTS)
        except AddressError:
            close(sock)
            raise
        self._sock = sock
        self._loop.watch(sock, lambda: self._read(sock))

    def _read(self, sock: Socket) -> None:
        """Have ZeroMQ take in subscriptions also while there are no events."""
        sock.get(zmq.EVENTS)

    def publish(self, event: str, **fields: object) -> None:
        """Tell whoever reads.

        Parameters
        ----------
        event
            What happened, in a word or two.
        fields
            Its circumstances; what JSON has no form for is written as text.
        """
        self._number += 1
        if self._sock is not None:
            told = {"number": self._number, **entry(event, fields)}
            put(self._sock, json.dumps(told, default=str).encode())

    def renew(self) -> None:
        """End all connections, because a ticket is good no more: who has a good one is let in again at once."""
        self._close(linger_ms=0)
        self._open_at = self._loop.now()

    def on_time(self, now: float) -> None:
        """Open again. The port is free as soon as ZeroMQ's thread has closed what was bound to it."""
        if now < self._open_at:
            return
        try:
            self._open()
        except AddressError as error:
            longer_s = min(2 * self._again_s, AGAIN_AT_MOST_S)
            if longer_s == AGAIN_AT_MOST_S > self._again_s:  # somebody else has it
                log.error("no events are told: %s; trying again", error)
            self._again_s = longer_s
            self._open_at = now + self._again_s
        else:
            self._open_at, self._again_s = NEVER, AGAIN_S

    def next_deadline(self) -> float:
        """When `on_time` is due if nothing arrives."""
        return self._open_at

    def close(self) -> None:
        """Tell nothing more."""
        self._open_at = NEVER
        self._close(linger_ms=100)

    def _close(self, linger_ms: int) -> None:
        if self._sock is not None:
            self._door.unwatch(self._sock)
            self._loop.forget(self._sock)
            close(self._sock, linger_ms)
            self._sock = None
