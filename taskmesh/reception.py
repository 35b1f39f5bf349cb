"""The hub's control channel: one REP socket on which peers register, show that they live, and ask.

Whoever asks is known by its key (`door.py`). Whether a peer comes in is decided by the scheduler, and before that by
the door and by how many files are left; here it gets its lane, and its answer.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import zmq

from . import __version__
from .complaints import Complaint
from .core import actions as a
from .core import events as e
from .core import messages as m
from .core.access import LOCAL, Grant
from .door import NOTED
from .errors import AddressError, PeerProtocolError
from .transport.files import Room
from .transport.sockets import Context, close, make, put
from .transport.versions import PYTHON
from .wire.stream import Stream, pack_control, unpack_control

if TYPE_CHECKING:
    from .hub import Hub
    from .lanes import Lane
    from .transport.curve import Arrival
    from .transport.loop import Loop

REQUESTS_PER_ROUND = 512
STATUS_S = 0.1
NEVER = float("inf")


class Reception:
    """Answers what is asked of `hub`. Attribute `sock` is to be bound by it."""

    def __init__(self, hub: Hub, context: Context, loop: Loop) -> None:
        self._hub = hub
        self._loop = loop
        self._room = Room()
        self._shown: dict[str, tuple[float, bytes]] = {}  # by ticket: when its holder last got what
        self.sock = make(context, zmq.REP)

    def open(self) -> None:
        """Start to answer."""
        self._loop.watch(self.sock, self._read)

    def close(self, linger_ms: int = 0) -> None:
        """Answer nobody any more."""
        self._loop.forget(self.sock)
        close(self.sock, linger_ms)

    def _read(self) -> None:
        for _ in range(REQUESTS_PER_ROUND):
            arrival = self._hub.door.get(self.sock)
            if arrival is None:
                return
            try:
                reply = self._answer(unpack_control(arrival.frame), arrival)
            except PeerProtocolError as error:
                self._complain(Complaint.REQUEST, f"a request{arrival.where()}: {error}")
                reply = m.Refused(f"the hub runs taskmesh {__version__} and does not understand: {error}")
            put(self.sock, pack_control(reply))
        self._loop.again(self.sock)

    def _answer(self, request: m.ControlMessage, arrival: Arrival) -> m.ControlMessage:
        now = self._loop.now()
        if isinstance(request, m.Heartbeat):
            return self._answer_heartbeat(request, arrival.key, now)
        holder = self._hub.door.holder(arrival.key)
        if holder is None:
            self._complain(Complaint.REQUEST, f"a request{arrival.where()}: it has no good ticket")
            return m.Refused("this ticket is good no more: it was revoked, or has expired")
        if isinstance(request, m.Register):
            return self._answer_register(request, holder, arrival, now)
        if isinstance(request, m.StatusRequest):
            return m.StatusReply(self.status(now, holder))
        if isinstance(request, m.CreateTicket | m.RevokeTicket | m.ListTickets):
            self._hub.touch()  # a peer that came with a ticket that was revoked goes in this round
            return self._hub.door.administer(request, holder)
        raise PeerProtocolError(f"{type(request).__name__} is not a request")

    def _complain(self, about: Complaint, text: str) -> bool:
        return self._hub.complaints.add(about, text, self._loop.now())

    # ---- heartbeats and status ------------------------------------------------------------------------------

    def _answer_heartbeat(self, beat: m.Heartbeat, key: bytes, now: float) -> m.HeartbeatReply:
        hub = self._hub
        lane = hub.lanes.by_instance.get(beat.instance)
        if lane is None or beat.incarnation != hub.incarnation or beat.epoch != lane.stream.epoch:
            return m.HeartbeatReply(False, 0, 0, 0)
        if not hub.door.speaks_for(key, beat.epoch):
            self._complain(Complaint.REQUEST, f"a heartbeat of {beat.instance:x} by a key that is not its")
            return m.HeartbeatReply(False, 0, 0, 0)
        hub.scheduler.heard(beat.instance, beat.epoch, now, beat.held)
        link = lane.stream.link
        if beat.seen <= link.last:
            link.on_ack(beat.seen, now)
            hub.note_delivered(lane, now)
        hub.dirty.add(lane)
        return m.HeartbeatReply(True, link.safe, link.last, link.seen)

    def status(self, now: float, holder: Grant) -> bytes:
        """What a ticket's holder is shown. Every chunk is looked at for that, so asking again at once gets the same."""
        at, shown = self._shown.get(holder.name, (-NEVER, b""))
        if now - at >= STATUS_S:
            shown = json.dumps(self.document(now, holder)).encode()
            self._shown[holder.name] = now, shown
        return shown

    def document(self, now: float, holder: Grant = LOCAL) -> dict[str, object]:
        """What `taskmesh status` shows to a ticket's holder: to an admin all, to others no sessions but their own."""
        hub = self._hub
        statistics = hub.scheduler.statistics(now).as_dict()
        if not holder.manages:
            statistics["sessions"] = [s for s in statistics["sessions"] if s["ticket"] == holder.name]
        return {
            "address": str(hub.address),
            "version": __version__,
            "python": PYTHON,
            "secure": hub.door.secure,
            **({"events": hub.door.feed.endpoint} if holder.manages and hub.door.feed is not None else {}),
            **statistics,
            **{str(kind): count for kind, count in hub.complaints.counts.items()},
        }

    # ---- registrations --------------------------------------------------------------------------------------

    def _answer_register(self, request: m.Register, holder: Grant, arrival: Arrival, now: float) -> m.ControlMessage:
        hub = self._hub
        lane = hub.lanes.by_instance.get(request.instance)
        if (
            lane is None
            or (request.incarnation, request.epoch) != (hub.incarnation, lane.stream.epoch)
            or not lane.stream.resumable(request.seen)
        ):
            request = request._replace(epoch=0)  # nothing to resume
        why = hub.door.objection(request, arrival.key)
        if why is not None:
            return self._refuse(a.Refuse(why), request, holder, arrival)
        if lane is None and (why := self._room.lacks(now)) is not None:
            return m.Refused(why, again=True)
        reply: m.ControlMessage = m.Refused("a stale registration")
        for action in hub.scheduler.handle(e.Joined(request, False, holder), now):
            if isinstance(action, a.Refuse):
                reply = self._refuse(action, request, holder, arrival)
            elif isinstance(action, a.Again):
                reply = lane.welcome if lane is not None else reply
            elif isinstance(action, a.Admit):
                reply = self._admit(action, request, holder, arrival, now)
                if isinstance(reply, m.Refused):
                    break  # there is no lane: what follows is a note that it has joined
            else:
                hub.perform(action, now)
        return reply

    def _refuse(self, refusal: a.Refuse, request: m.Register, holder: Grant, arrival: Arrival) -> m.ControlMessage:
        who = f"{request.role} {request.name} on {request.host}"
        if self._complain(Complaint.PEER, f"{who}{arrival.where(holder.name)}: {refusal.why}"):
            self._hub.door.note(
                "registration refused", role=request.role, name=request.name[:NOTED], host=request.host[:NOTED],
                ticket=holder.name, address=arrival.address, why=refusal.why,
            )  # fmt: skip
        return m.Refused(refusal.why, refusal.again)

    def _admit(
        self, admit: a.Admit, request: m.Register, holder: Grant, arrival: Arrival, now: float
    ) -> m.ControlMessage:
        hub = self._hub
        known = hub.lanes.by_instance.get(admit.instance)
        stream = known.stream if known is not None and admit.resume else self._new_stream(admit)
        if known is not None:
            hub.close_lane(known)
        if admit.resume:
            stream.renew(hub.incarnation, admit.epoch, request.seen, now)
        welcome = m.Registered(
            hub.incarnation, admit.epoch, admit.resume, stream.link.safe, "", hub.inboxes.endpoint(admit.role),
            __version__, hub.config.quotas.message_bytes,
        )  # fmt: skip
        try:
            if not hub.door.enter(request, admit.epoch, holder.name):
                raise AddressError("a registration needs a fresh key of its own")
            lane = hub.lanes.open(hub.address, admit.instance, stream, welcome)
        except AddressError as error:
            hub.door.leave(admit.epoch)
            hub.act(e.NoLane(admit.instance, admit.known), now)
            return self._refuse(a.Refuse(str(error), again=True), request, holder, arrival)  # a port may become free
        hub.door.note_registration(request, admit.epoch, holder.name, arrival.address)
        if known is not None and admit.resume:
            self._carry_over(known, lane, now)
        hub.dirty.add(lane)
        return lane.welcome

    def _carry_over(self, known: Lane, lane: Lane, now: float) -> None:
        """A stream goes on by a new lane."""
        lane.results = known.results
        self._hub.note_delivered(lane, now)

    def _new_stream(self, admit: a.Admit) -> Stream:
        stream = Stream(self._hub.incarnation, admit.epoch, self._hub.config.quotas.message_bytes)
        if admit.role == "client" and self._hub.durable:
            stream.link.permitted = 0  # nothing is acknowledged before it is committed
        return stream
