"""CURVE: keys on sockets, and the ZAP handler that asks whether a key may connect (ZeroMQ RFCs 26 and 27).

Keys travel and are compared as 32 raw bytes; in files, and for ZeroMQ's options, they are Z85 text of 40 characters.
The handler is a reader on its owner's loop, so a decision is a look at a dictionary, and holds from the next handshake
on. What it names as `User-Id` ZeroMQ puts on every message of that connection: here it is the key, in hexadecimal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import zmq
from zmq.utils import z85

from .loop import Loop
from .sockets import NOBLOCK, Context, Socket, close, get_message, make

ENDPOINT = "inproc://zeromq.zap.01"
ROUND = 64

Admit = Callable[[str, bytes, str], bool]
"""Whether a key may connect to a channel: its domain, the raw key, and the address it comes from."""


class Credentials(NamedTuple):
    """What a peer needs to connect: the hub's public key, and a key pair of its own, in Z85. `name`: of its ticket."""

    hub_key: str
    public_key: str
    secret_key: str
    name: str = ""

    def __repr__(self) -> str:
        return f"Credentials(public_key={self.public_key!r})"


def fresh(hub_key: str) -> Credentials:
    """A new key pair, for the hub with this public key."""
    public, secret = zmq.curve_keypair()
    return Credentials(hub_key, public.decode(), secret.decode())


def raw(key: str) -> bytes:
    """A key as 32 bytes."""
    data: bytes = z85.decode(key)
    return data


def present(sock: Socket, credentials: Credentials | None) -> None:
    """Have a socket connect with these keys. None: without any."""
    if credentials is not None:
        sock.setsockopt(zmq.CURVE_SERVERKEY, credentials.hub_key.encode())
        sock.setsockopt(zmq.CURVE_PUBLICKEY, credentials.public_key.encode())
        sock.setsockopt(zmq.CURVE_SECRETKEY, credentials.secret_key.encode())


def guard(sock: Socket, secret_key: str, domain: str) -> None:
    """Have a socket that is going to be bound let in only whom the ZAP handler of its context admits."""
    sock.setsockopt(zmq.CURVE_SERVER, 1)
    sock.setsockopt(zmq.CURVE_SECRETKEY, secret_key.encode())
    sock.setsockopt(zmq.ZAP_DOMAIN, domain.encode())
    sock.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # without a handler nobody gets in


class Arrival(NamedTuple):
    """A frame, the raw key of the connection that it came by, and the address at the other end."""

    frame: bytes
    key: bytes
    address: str

    def where(self, ticket: str = "") -> str:
        """Where it came from, for the log; `ticket`: the name of the one that it came by, if that is known."""
        by = f" with ticket {ticket!r}" if ticket else ""
        return f" from {self.address}{by}" if self.address else by


def get_from(sock: Socket) -> Arrival | None:
    """As `sockets.get`, with the key that the connection was authenticated by."""
    got = get_message(sock)
    if got is None:
        return None
    message, frame = got
    return Arrival(frame, bytes.fromhex(str(message.get("User-Id"))), str(message.get("Peer-Address")))


class Zap:
    """Answers ZeroMQ's question whether a key may connect. Made before the first socket is bound.

    Parameters
    ----------
    context, loop
        Of the sockets that are guarded.
    admit
        Decides.
    """

    def __init__(self, context: Context, loop: Loop, admit: Admit) -> None:
        self._loop = loop
        self._admit = admit
        self._sock = make(context, zmq.REP)
        self._sock.bind(ENDPOINT)
        loop.watch(self._sock, self._read)

    def _read(self) -> None:
        for _ in range(ROUND):
            try:
                request = self._sock.recv_multipart(NOBLOCK)
            except zmq.Again:
                return
            self._sock.send_multipart(self._answer(request))
        self._loop.again(self._sock)

    def _answer(self, request: list[bytes]) -> list[bytes]:
        """Version, request id, status code, status text, user id, metadata."""
        version, number, domain, address, _, mechanism, *credentials = request
        if mechanism == b"CURVE" and self._admit(domain.decode(), credentials[0], address.decode()):
            return [version, number, b"200", b"OK", credentials[0].hex().encode(), b""]
        return [version, number, b"400", b"not admitted", b"", b""]

    def close(self) -> None:
        """Nobody gets in any more."""
        self._loop.forget(self._sock)
        close(self._sock)
