"""What is attacked, as an attacker sees it: addresses, ports, perhaps a ticket; and for how long."""

from __future__ import annotations

import contextlib
import random
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import psutil
import zmq

from taskmesh.security.ticket import Ticket
from taskmesh.transport.sockets import Context

CONNECT_S = 5.0


@dataclass
class Target:
    """A hub.

    Attributes
    ----------
    hub
        Its process.
    address
        Its control channel.
    tickets
        By role.
    context
        Of the attacker's sockets.
    seconds
        How long one kind goes on at most.
    scale
        1 in a real run; counts shrink with it.
    largest
        What the hub takes in a message, bytes.
    """

    hub: psutil.Process
    address: str
    tickets: dict[str, Ticket]
    context: Context
    random: random.Random
    seconds: float
    scale: float
    largest: int
    until: float = field(default=float("inf"))

    def began(self) -> None:
        """A kind begins: its time runs."""
        self.until = time.monotonic() + self.seconds

    @property
    def over(self) -> bool:
        """Whether its time is over."""
        return time.monotonic() > self.until

    def times(self, full: int) -> Iterator[int]:
        """Count up to `full`, shrunk by the scale, or until the time is over; once at least, as a hub may be busy."""
        for n in range(max(1, round(full * self.scale))):
            if n and self.over:
                return
            yield n

    @property
    def ports(self) -> list[int]:
        """Every port on which the hub listens now: control, submit, sink and all lanes."""
        return sorted({c.laddr.port for c in self.hub.net_connections("inet") if c.status == psutil.CONN_LISTEN})

    @property
    def port(self) -> int:
        """Of control."""
        return int(self.address.rpartition(":")[2])

    def connect(self, port: int) -> socket.socket | None:
        """A plain connection; None: it was not taken in time."""
        try:
            return socket.create_connection(("127.0.0.1", port), CONNECT_S)
        except OSError:
            return None

    def say(self, port: int, *parts: bytes) -> bool:
        """Connect, say something, and hang up."""
        connection = self.connect(port)
        if connection is None:
            return False
        with connection, contextlib.suppress(OSError):
            for part in parts:
                connection.sendall(part)
        return True


class Kind(NamedTuple):
    """A kind of hostile input. `throw` returns how many it has thrown."""

    name: str
    throw: Callable[[Target], int]


def curve(sock: zmq.Socket[bytes], server_key: str, public: str, secret: str) -> None:
    """Give a socket keys."""
    sock.curve_serverkey = server_key.encode()
    sock.curve_publickey = public.encode()
    sock.curve_secretkey = secret.encode()
