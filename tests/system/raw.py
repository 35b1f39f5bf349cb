"""A peer on plain ZeroMQ sockets with real keys, which says whatever a test has it say.

Nothing here keeps it honest: any message, by any key, to any channel, under any epoch and number. What it knows of the
protocol is how messages are written, and that a socket needs keys to be heard at all.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import zmq
from zmq.utils import z85

from taskmesh import __version__
from taskmesh.core import messages as m
from taskmesh.core.chunk import Chunk, pack_sizes
from taskmesh.core.identity import digest_of
from taskmesh.errors import PeerProtocolError
from taskmesh.security.ticket import Ticket
from taskmesh.transport.endpoints import Address, parse_address
from taskmesh.transport.versions import PYTHON
from taskmesh.wire.messages import encode
from taskmesh.wire.stream import ACK, LAST, PROTOCOL_VERSION, Stream, open_envelope, pack_control, unpack_control

PATIENCE_S = 15.0
ENVELOPE = struct.Struct("<BBIQQQ")
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
"""How ZMTP 3.0 begins for who has no keys."""
HANDSHAKES = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)
Socket = zmq.Socket[bytes]


class Keys(NamedTuple):
    """What a socket connects with: the hub's public key and a pair of its own, in Z85."""

    hub: str
    public: str
    secret: str

    @property
    def raw(self) -> bytes:
        """The public key's 32 bytes."""
        data: bytes = z85.decode(self.public)
        return data


def keys_of(ticket: Ticket) -> Keys:
    """A ticket's."""
    return Keys(ticket.hub_key, ticket.public_key, ticket.secret_key)


def new_keys(hub_key: str) -> Keys:
    """A pair that nobody knows."""
    public, secret = zmq.curve_keypair()
    return Keys(hub_key, public.decode(), secret.decode())


class Raw:
    """Makes sockets that connect to one hub, and closes them.

    Parameters
    ----------
    address
        The hub's.
    """

    def __init__(self, address: str) -> None:
        self.address: Address = parse_address(address)
        self._context = zmq.Context()
        self._sockets: list[Socket] = []  # open until the end, whoever forgets them

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        for sock in self._sockets:
            sock.close(linger=0)
        self._context.destroy(linger=0)

    def connect(self, kind: int, endpoint: str, keys: Keys | None) -> Socket:
        """A socket that connects there with these keys; None: without CURVE."""
        sock = self._new(kind, keys)
        sock.connect(endpoint)
        return sock

    def _new(self, kind: int, keys: Keys | None) -> Socket:
        sock: Socket = self._context.socket(kind)
        self._sockets.append(sock)
        sock.linger = 0
        if keys is not None:
            sock.curve_serverkey = keys.hub.encode()
            sock.curve_publickey = keys.public.encode()
            sock.curve_secretkey = keys.secret.encode()
        return sock

    def let_in(self, kind: int, endpoint: str, keys: Keys | None) -> bool:
        """Whether a connection comes about."""
        sock = self._new(kind, keys)
        monitor = sock.get_monitor_socket(HANDSHAKES)
        sock.connect(endpoint)
        try:
            assert monitor.poll(int(PATIENCE_S * 1000)), f"neither let in nor refused at {endpoint}"
            number: int = struct.unpack("=HI", monitor.recv_multipart()[0])[0]
            return number == zmq.EVENT_HANDSHAKE_SUCCEEDED
        finally:
            sock.disable_monitor()
            monitor.close(linger=0)
            sock.close(linger=0)

    def turned_away(self, kind: int, endpoint: str, keys: Keys | None) -> None:
        """It is not let in.

        A ZeroMQ socket without keys hangs up as soon as it sees that the hub has some, often before it has said that it
        has none itself. So that is said by hand, too.
        """
        assert not self.let_in(kind, endpoint, keys)
        if keys is None:
            address = parse_address(endpoint)
            with socket.create_connection((address.host, address.port), PATIENCE_S) as connection:
                connection.sendall(GREETING)
                with contextlib.suppress(ConnectionResetError):
                    while connection.recv(4096):
                        pass

    # ---- control --------------------------------------------------------------------------------------------

    def ask(self, message: m.ControlMessage, keys: Keys | None) -> m.ControlMessage:
        """The hub's reply to a request by these keys."""
        sock = self.connect(zmq.REQ, self.address.control, keys)
        try:
            sock.send(pack_control(message))
            assert sock.poll(int(PATIENCE_S * 1000)), f"no reply to {message}"
            return unpack_control(sock.recv())
        finally:
            sock.close(linger=0)

    def request(self, role: str, instance: int, key: bytes, secret: bytes, **other: Any) -> m.Register:
        """A registration; `other` are more fields of it."""
        usual = m.Register(
            role, instance, 1, 0, 0, 0, f"raw {role}", "nowhere", instance & 0xFFFF_FFFF | 1 << 32, 0,
            __version__, PYTHON, key, secret,
        )  # fmt: skip
        return usual._replace(**other)

    def join(self, ticket: Ticket, role: str, slots: int = 0) -> RawPeer:
        """Register, and connect lane and inbox, as an honest peer does. A daemon without slots gets no work."""
        own, secret = new_keys(ticket.hub_key), secrets.token_bytes(16)
        instance = secrets.randbits(64) | 1
        welcome = self.ask(self.request(role, instance, own.raw, secret, slots=slots), keys_of(ticket))
        assert isinstance(welcome, m.Registered), welcome
        return RawPeer(self, ticket, role, instance, own, secret, welcome)


@dataclass
class RawPeer:
    """A registration, with its lane and inbox; its key and its secret are there to be misused."""

    raw: Raw
    ticket: Ticket
    role: str
    instance: int
    keys: Keys
    secret: bytes
    welcome: m.Registered
    seq: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._stream = Stream(self.welcome.incarnation, self.welcome.epoch)
        self.lane = self.raw.connect(zmq.PULL, self.welcome.lane, self.keys)
        self.inbox = self.raw.connect(zmq.PUSH, self.welcome.inbox, self.keys)

    @property
    def pid(self) -> int:
        """What it says is its process: no process has this number."""
        return self.instance & 0xFFFF_FFFF | 1 << 32

    def vanish(self) -> None:
        """Its connections end without a word."""
        self.lane.close(linger=0)
        self.inbox.close(linger=0)

    def beat(self, keys: Keys | None = None) -> m.HeartbeatReply:
        """A heartbeat of this registration, by its own key or another."""
        beat = m.Heartbeat(self.instance, self.welcome.incarnation, self.welcome.epoch, self._stream.link.seen, [])
        reply = self.raw.ask(beat, keys or self.keys)
        assert isinstance(reply, m.HeartbeatReply), reply
        return reply

    def frame(self, message: m.LinkMessage, seq: int, **other: int) -> bytes:
        """A frame with this message. `other`: what is not to be as it is: `epoch`, `incarnation`, `ack`."""
        head = {"epoch": self.welcome.epoch, "incarnation": self.welcome.incarnation, "ack": 0, **other}
        packed = ENVELOPE.pack(PROTOCOL_VERSION, LAST, head["epoch"], head["incarnation"], seq, head["ack"])
        return packed + encode(message)

    def send(self, *messages: m.LinkMessage) -> None:
        """Messages on its own link, in order."""
        for message in messages:
            self.seq += 1
            self.inbox.send(self.frame(message, self.seq, ack=self._stream.link.seen))

    def says(self, frame: bytes) -> None:
        """Any frame, on its own connection."""
        self.inbox.send(frame)

    def hears(self, seconds: float = PATIENCE_S) -> Iterator[m.LinkMessage]:
        """What comes on its lane, acknowledged, until nothing has come for so long."""
        end = time.monotonic() + seconds
        while self.lane.poll(max(0, int((end - time.monotonic()) * 1000))):
            envelope = open_envelope(self.lane.recv())._replace(ack=0)  # what we said is not on this stream's books
            try:
                message = self._stream.receive(envelope, time.monotonic())
            except PeerProtocolError:
                continue
            if message is not None:
                head = (PROTOCOL_VERSION, ACK, self.welcome.epoch, self.welcome.incarnation, 0)
                self.inbox.send(ENVELOPE.pack(*head, self._stream.link.seen))
                yield message
                end = time.monotonic() + seconds

    def hears_a(self, kind: type[Any]) -> Any:
        """The next message of a kind; others are passed over."""
        for message in self.hears():
            if isinstance(message, kind):
                return message
        raise AssertionError(f"no {kind.__name__} within {PATIENCE_S:g} s")


def call(body: bytes, arguments: bytes, spec: int = 1) -> list[m.LinkMessage]:
    """What a client sends to have one function called once: both pickles are given."""
    digest = digest_of(body)
    chunk = Chunk(0, 0, 1, pack_sizes([len(arguments)]), b"", 1, arguments)
    return [m.Spec(spec, "raw", digest, b"", 0), m.Body(digest, body), m.Submit(spec, chunk)]
