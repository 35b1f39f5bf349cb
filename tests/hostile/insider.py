"""An insider: a peer with a good ticket that registers as it should, and then sends whatever it likes."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from struct import Struct

import zmq

from taskmesh import __version__
from taskmesh.core import messages as m
from taskmesh.core.limits import BODY
from taskmesh.errors import PeerProtocolError
from taskmesh.transport.curve import fresh, raw
from taskmesh.transport.sockets import Socket
from taskmesh.transport.versions import PYTHON
from taskmesh.wire.messages import decode, encode
from taskmesh.wire.stream import ACK, LAST, MORE, NAK, pack_control, unpack_control

from .target import Target, curve

ENVELOPE = Struct("<BBIQQQ")
ANSWER_S = 10.0
JOINED_S = 30.0  # others may take all the room, and their silence is waited for
SENT_S = 5.0
ROLES = {"client": "client", "worker": "daemon"}


class Insider:
    """A peer with a ticket.

    Parameters
    ----------
    target
        The hub.
    ticket
        Which one: "client" or "worker".
    slots
        How many tasks it says it runs at once.
    """

    def __init__(self, target: Target, ticket: str = "client", slots: int = 0) -> None:
        self.target = target
        self.ticket = target.tickets.get(ticket)  # none: the hub has no keys
        self.keys = fresh(self.ticket.hub_key) if self.ticket is not None else None
        self.instance = secrets.randbits(63) | 1
        self.secret = secrets.token_bytes(16)
        self.attempt = 0
        self.role = ROLES[ticket]
        self.slots = slots
        self.seq = 0
        self.seen = 0
        self.welcome: m.Registered | None = None
        self._sockets: list[Socket] = []
        self.control = self._connected(zmq.REQ, target.address, own=False)

    def _connected(self, kind: int, endpoint: str, own: bool = True) -> Socket:
        sock: Socket = self.target.context.socket(kind)
        sock.setsockopt(zmq.LINGER, 0)
        if kind == zmq.REQ:
            sock.setsockopt(zmq.REQ_RELAXED, 1)
            sock.setsockopt(zmq.REQ_CORRELATE, 1)
        keys = self.keys if own else self.ticket
        if keys is not None:
            curve(sock, keys.hub_key, keys.public_key, keys.secret_key)
        sock.connect(endpoint)
        self._sockets.append(sock)
        return sock

    # ---- control --------------------------------------------------------------------------------------------

    def ask_raw(self, request: bytes) -> bytes | None:
        """The reply to some bytes; None: none came."""
        self.control.send(request)
        return self.control.recv() if self.control.poll(round(ANSWER_S * 1000)) else None

    def ask(self, request: m.ControlMessage) -> m.ControlMessage | None:
        """The reply to a request."""
        reply = self.ask_raw(pack_control(request))
        return unpack_control(reply) if reply is not None else None

    def request(self) -> m.Register:
        """A good one."""
        self.attempt += 1
        return m.Register(
            self.role, self.instance, self.attempt, 0, 0, 0, "insider", "here", os.getpid(), self.slots,
            __version__, PYTHON, raw(self.keys.public_key) if self.keys is not None else b"", self.secret,
        )  # fmt: skip

    def join(self) -> bool:
        """Register, and connect lane and inbox; False: it was not let in in time."""
        end = time.monotonic() + JOINED_S
        while time.monotonic() < end:
            reply = self.ask(self.request())
            if isinstance(reply, m.Registered):
                self.welcome = reply
                self.lane = self._connected(zmq.PULL, reply.lane)
                self.outbox = self._connected(zmq.PUSH, reply.inbox)
                self.control = self._connected(zmq.REQ, self.target.address)
                return self.outbox.poll(round(ANSWER_S * 1000), zmq.POLLOUT) != 0 and self.beat() is not None
            if not isinstance(reply, m.Refused) or not reply.again:
                return False
            self.control.poll(200)
        return False

    def beat(self, seen: int | None = None, held: list[tuple[int, int, int]] | None = None) -> m.ControlMessage | None:
        """A heartbeat."""
        assert self.welcome is not None
        w = self.welcome
        return self.ask(
            m.Heartbeat(self.instance, w.incarnation, w.epoch, self.seen if seen is None else seen, held or [])
        )

    # ---- the link -------------------------------------------------------------------------------------------

    def put(self, frame: bytes) -> bool:
        """A frame as it is; False: the hub does not take any."""
        return self.put_parts([frame])

    def put_parts(self, parts: list[bytes]) -> bool:
        """A message of several frames."""
        if not self.outbox.poll(round(SENT_S * 1000), zmq.POLLOUT):
            return False
        with contextlib.suppress(zmq.Again):
            self.outbox.send_multipart(parts, zmq.NOBLOCK)
            return True
        return False

    def frame(
        self, body: bytes, flags: int = LAST, *, seq: int | None = None, ack: int | None = None,
        epoch: int | None = None, incarnation: int | None = None, version: int = 1,
    ) -> bytes:  # fmt: skip
        """A link frame; what is not given is as it should be."""
        assert self.welcome is not None
        if seq is None:
            self.seq += flags in (LAST, MORE)
            seq = self.seq if flags in (LAST, MORE) else 0
        w = self.welcome
        return ENVELOPE.pack(
            version, flags, w.epoch if epoch is None else epoch, w.incarnation if incarnation is None else incarnation,
            seq, self.seen if ack is None else ack,
        ) + body  # fmt: skip

    def send(self, message: m.LinkMessage) -> bool:
        """A good message, in good fragments."""
        return self.send_body(encode(message))

    def send_body(self, body: bytes) -> bool:
        """The body of a message, good or not, in good fragments."""
        starts = range(0, len(body) or 1, BODY)
        return all(
            self.put(self.frame(body[start : start + BODY], LAST if start == starts[-1] else MORE)) for start in starts
        )

    def acknowledge(self) -> bool:
        """Confirm what was read."""
        return self.put(self.frame(b"", ACK))

    def nak(self, seen: int) -> bool:
        """Ask for what follows `seen` again."""
        return self.put(self.frame(b"", NAK, ack=seen))

    def read(self, seconds: float) -> m.LinkMessage | None:
        """The next message on the lane, if it is one of one frame and comes in time; it is acknowledged later."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and self.lane.poll(max(1, round(left * 1000))):
            frame = self.lane.recv()
            _, flags, _, _, seq, _ = ENVELOPE.unpack_from(frame)
            if seq != self.seen + 1 or flags not in (LAST, MORE):
                continue
            self.seen = seq
            if flags == LAST:
                with contextlib.suppress(PeerProtocolError):
                    message: m.LinkMessage = decode(frame[ENVELOPE.size :])  # type: ignore[assignment]
                    return message
        return None

    def close(self) -> None:
        """Every connection ends."""
        for sock in self._sockets:
            sock.close(linger=0)

    def __enter__(self) -> Insider:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
