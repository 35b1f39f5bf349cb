"""The hub's inboxes: submit, which clients send to, and sink, which daemons send to. One PULL socket each.

A frame counts if it is of a live registration, and came by that registration's key. What it says goes to the
scheduler; what does not fit is counted, logged and dropped. A peer that does not read its own lane is not read either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import zmq

from .complaints import Complaint
from .core import events as e
from .core.access import INBOXES, SINK, SUBMIT
from .errors import AddressError, PeerProtocolError
from .transport.sockets import Context, Socket, bind, close, make
from .wire.stream import MORE, open_envelope

if TYPE_CHECKING:
    from .hub import Hub
    from .transport.curve import Arrival
    from .transport.endpoints import Address
    from .transport.loop import Loop

FRAMES_PER_ROUND = 512
ROUND_S = 0.05  # frames are read for so long at a time: what one peer asks for may be much work, and others wait
LOOK_EVERY = 16  # frames, after which the clock is looked at
UNREAD = 20_000  # frames that a peer has not acknowledged: it is not read until it reads


class Inboxes:
    """Reads what is sent to `hub`."""

    def __init__(self, hub: Hub, context: Context, loop: Loop) -> None:
        self._hub = hub
        self._loop = loop
        self._submit = make(context, zmq.PULL)
        try:
            self._sink = make(context, zmq.PULL)
        except AddressError:
            close(self._submit)
            raise
        self._endpoints: dict[str, str] = {}  # by the role of those that send there

    def bind(self, address: Address) -> None:
        """Listen. `address`: of the hub, as it was asked for: with port 0 the inboxes get free ones as well.

        Raises
        ------
        AddressError
            An endpoint is in use.
        """
        for channel, sock in ((SUBMIT, self._submit), (SINK, self._sink)):
            self._hub.door.guard(sock, channel)
            if address.scheme == "tcp":  # nobody else gets into an ipc directory
                self._hub.door.watch(sock, channel)
            self._endpoints[INBOXES[channel]] = bind(sock, address.channel(channel))

    def endpoint(self, role: str) -> str:
        """Where peers of a role send to."""
        return self._endpoints[role]

    def open(self) -> None:
        """Start to read."""
        self._loop.watch(self._submit, lambda: self._read(self._submit))
        self._loop.watch(self._sink, lambda: self._read(self._sink))

    def close(self, linger_ms: int = 0) -> None:
        """Read nothing more."""
        for sock in (self._submit, self._sink):
            self._loop.forget(sock)
            close(sock, linger_ms)

    def _read(self, inbox: Socket) -> None:
        hub = self._hub
        now = self._loop.now()
        for n in range(FRAMES_PER_ROUND):
            if n % LOOK_EVERY == LOOK_EVERY - 1 and self._loop.now() - now > ROUND_S:
                break
            arrival = hub.door.get(inbox)
            if arrival is None:
                return
            try:
                received = self._judge(arrival, now)
            except PeerProtocolError as error:
                hub.complaints.add(Complaint.FRAME, f"a frame{arrival.where()}: {error}", now)
                continue
            if received is not None:
                hub.act(received, now)
        self._loop.again(inbox)

    def _judge(self, arrival: Arrival, now: float) -> e.Received | None:
        """What a frame says; None: nothing that is new.

        Raises
        ------
        PeerProtocolError
            It makes no sense, or is not of a registration that lives, or not by its key.
        """
        hub = self._hub
        envelope = open_envelope(arrival.frame)
        lane = hub.lanes.by_epoch.get(envelope.epoch)
        if lane is None or envelope.incarnation != hub.incarnation:
            raise PeerProtocolError("it is of no live registration")
        dismissed = hub.lanes.by_instance.get(lane.instance) is not lane
        if not hub.door.speaks_for(arrival.key, envelope.epoch):
            if dismissed and envelope.flags > MORE:
                return None  # a peer that was put out is only acknowledging its goodbye
            raise PeerProtocolError(f"it came by a key that is not that of peer {lane.instance:x}")
        hub.scheduler.heard(lane.instance, envelope.epoch, now)
        hub.dirty.add(lane)
        message = None
        if lane.stream.link.unacked > UNREAD or hub.scheduler.overdrawn(lane.instance):
            lane.stream.confirmed(envelope, now)  # a peer that does not read is not read: it sends the rest again
        else:
            message = lane.stream.receive(envelope, now)
        if dismissed:
            if message is None:
                return None  # it is only acknowledging its goodbye
            raise PeerProtocolError(f"peer {lane.instance:x} was dismissed")  # its number may be another's now
        if lane.results:
            hub.note_delivered(lane, now)
        return None if message is None else e.Received(lane.instance, message)
