"""A stream of messages to one peer: a link, its codec, and fragments.

A message is encoded once, when it is sent; what is larger than a frame may be is split, and each fragment is a link
message of its own, so that a resend repeats 256 KiB and not the whole. Fragments of one message are consecutive.
Nothing here does I/O: a shell asks for frames to put on its socket, and hands in the frames that came.

The envelope before each body: version u8, flags u8, epoch u32, incarnation u64, seq u64, ack u64, little-endian.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import NamedTuple, cast

from ..core.limits import BODY, MESSAGE
from ..core.link import Link
from ..core.messages import ControlMessage, LinkMessage
from ..errors import PeerProtocolError
from .messages import decode, encode

PROTOCOL_VERSION = 1
MAX_BODY = BODY
MAX_MESSAGE = MESSAGE

LAST, MORE, ACK, NAK = 0, 1, 2, 3
_ENVELOPE = Struct("<BBIQQQ")


class Envelope(NamedTuple):
    """Who sent a frame, and where it stands in its stream."""

    flags: int
    epoch: int
    incarnation: int
    seq: int
    ack: int
    body: memoryview


def open_envelope(frame: bytes) -> Envelope:
    """Read the envelope of `frame`.

    Raises
    ------
    PeerProtocolError
        It is too short, of another protocol version, or has unknown flags.
    """
    if not _ENVELOPE.size <= len(frame) <= _ENVELOPE.size + MAX_BODY:
        raise PeerProtocolError(f"a frame of {len(frame)} bytes is too short or too long")
    version, flags, epoch, incarnation, seq, ack = _ENVELOPE.unpack_from(frame)
    if version != PROTOCOL_VERSION:
        raise PeerProtocolError(f"protocol version {version}, not {PROTOCOL_VERSION}")
    if flags > NAK:
        raise PeerProtocolError(f"unknown flags {flags}")
    return Envelope(flags, epoch, incarnation, seq, ack, memoryview(frame)[_ENVELOPE.size :])


class Stream:
    """Both directions of the link to one peer under one registration `(incarnation, epoch)`.

    `largest`: the longest message, in bytes, that the peer may make us assemble.
    """

    def __init__(self, incarnation: int, epoch: int, largest: int = MAX_MESSAGE) -> None:
        self.incarnation = incarnation
        self.epoch = epoch
        self.largest = largest
        self.link = Link()
        self._parts: list[bytes] = []
        self._parts_bytes = 0
        self._skipping = False  # the rest of a message that is too long

    def renew(self, incarnation: int, epoch: int, peer_seen: int | None, now: float) -> None:
        """Go on under a new registration; `peer_seen=None` starts a new link from 1.

        A message that is half assembled stays so when the link goes on: its other fragments will still come.
        """
        self.incarnation = incarnation
        self.epoch = epoch
        if peer_seen is None:
            self.link = Link()
            self._parts, self._parts_bytes, self._skipping = [], 0, False
        else:
            self.link.resume(peer_seen, now)

    def resumable(self, peer_seen: int) -> bool:
        """Whether the link can go on behind what the peer says it has received."""
        return self.link.last - self.link.unacked <= peer_seen <= self.link.last

    # ---- out ------------------------------------------------------------------------------------------------

    def send(self, message: LinkMessage) -> None:
        """Record `message` on the link; `pump` puts it on a socket."""
        body = encode(message)
        if len(body) <= MAX_BODY:
            self.link.record((LAST, body))
            return
        starts = range(0, len(body), MAX_BODY)
        self.link.record_all(
            [(LAST if start == starts[-1] else MORE, body[start : start + MAX_BODY]) for start in starts]
        )

    def pump(self, put: Callable[[bytes], bool], now: float) -> bool:
        """Give every frame that may go now to `put`, which returns False when the socket is full.

        Returns
        -------
        bool
            False: the socket was full, and the shell should come back.
        """
        link = self.link
        pack, incarnation, epoch = _ENVELOPE.pack, self.incarnation, self.epoch
        while (item := link.take(now)) is not None:
            seq, (flags, body) = item
            if not put(pack(PROTOCOL_VERSION, flags, epoch, incarnation, seq, link.acknowledged()) + body):
                return False
            link.sent(seq)
        if link.wants_nak(now):
            return put(pack(PROTOCOL_VERSION, NAK, epoch, incarnation, 0, link.acknowledged()))
        if link.wants_ack(now):
            return put(pack(PROTOCOL_VERSION, ACK, epoch, incarnation, 0, link.acknowledged()))
        return True

    # ---- in -------------------------------------------------------------------------------------------------

    def confirmed(self, envelope: Envelope, now: float) -> None:
        """Take note of what the peer has received, or lacks, and of nothing else in this frame.

        Raises
        ------
        PeerProtocolError
            The peer confirms what was never sent.
        """
        if envelope.flags == NAK:
            self.link.on_nak(envelope.ack, now)
        else:
            self.link.on_ack(envelope.ack, now)

    def receive(self, envelope: Envelope, now: float) -> LinkMessage | None:
        """The message that `envelope` completes, if it does.

        Raises
        ------
        PeerProtocolError
            The peer broke the protocol; the frame is dropped and the stream stays as it was, or is one message on.
        """
        self.confirmed(envelope, now)
        if envelope.flags >= ACK or not self.link.accept(envelope.seq, now):
            return None
        if self._skipping:
            self._skipping = envelope.flags != LAST
            return None
        if envelope.flags == LAST and not self._parts:
            return cast(LinkMessage, decode(envelope.body))
        if envelope.flags == MORE and len(envelope.body) != MAX_BODY:
            self._parts, self._parts_bytes = [], 0
            raise PeerProtocolError(f"a fragment of {len(envelope.body)} bytes that is not the last")
        self._parts.append(bytes(envelope.body))
        self._parts_bytes += len(envelope.body)
        if self._parts_bytes > self.largest:
            self._parts, self._parts_bytes = [], 0
            self._skipping = envelope.flags != LAST
            raise PeerProtocolError(f"a message of over {self.largest:,} bytes")
        if envelope.flags != LAST:
            return None
        body = b"".join(self._parts)
        self._parts, self._parts_bytes = [], 0
        return cast(LinkMessage, decode(body))


def pack_control(message: ControlMessage) -> bytes:
    """A control message: version u8, then its msgpack array."""
    return bytes((PROTOCOL_VERSION,)) + encode(message)


def unpack_control(frame: bytes) -> ControlMessage:
    """The inverse of `pack_control`.

    Raises
    ------
    PeerProtocolError
        It is of another protocol version, or not a control message.
    """
    if not frame or frame[0] != PROTOCOL_VERSION:
        raise PeerProtocolError(f"protocol version {frame[0] if frame else 'missing'}, not {PROTOCOL_VERSION}")
    message = decode(memoryview(frame)[1:])
    if not isinstance(message, ControlMessage):
        raise PeerProtocolError(f"{type(message).__name__} is not for the control channel")
    return message
