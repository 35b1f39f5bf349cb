"""The hub's shell: sockets, lanes and the loop around the scheduler. It decides nothing.

Frames come in on submit and sink (one PULL socket each), requests on control; every registered peer has a lane of its
own. Each round reads what is there, hands it to the scheduler, ends with a `Tick`, and then puts on the lanes what
the scheduler wants sent. Nothing that a peer sends can stop it: what does not fit is counted, logged and dropped.
"""

from __future__ import annotations

import json
import logging
import secrets
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import zmq

from . import __version__
from .complaints import Complaint, Complaints
from .core import actions as a
from .core import messages as m
from .core.access import CONTROL, LOCAL, SINK, SUBMIT, Grant
from .core.quota import DEFAULT, Quotas
from .core.roster import DEAD_AFTER_S
from .core.scheduler import SESSION_GRACE_S, Scheduler
from .door import NOTED, Door
from .errors import AddressError, PeerProtocolError, StoreError, TaskmeshError
from .journal import Journal, OpenStore
from .lanes import Lane, Lanes
from .transport.crowds import Crowds
from .transport.curve import Arrival
from .transport.endpoints import LANE_PORTS, Address
from .transport.files import Room
from .transport.local import LocalMembership
from .transport.loop import Loop
from .transport.sockets import Context, Socket, bind, close, make, put
from .wire.stream import MAX_MESSAGE as LARGEST
from .wire.stream import MORE, Stream, open_envelope, pack_control, unpack_control

if TYPE_CHECKING:
    from .security.keyring import Keyring

log = logging.getLogger("taskmesh.hub")

FRAMES_PER_ROUND = 512
ROUND_S, LOOK_EVERY = 0.05, 16  # frames are read for so long at a time; and after so many the clock is
GOODBYE_S = 1.0
FAREWELL_S = 0.1
SETTLE_S = 3.0
STATUS_S = 0.1
UNREAD = 20_000  # frames that a peer has not acknowledged: it is not read until it reads
NEVER = float("inf")
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True, slots=True)
class HubConfig:
    """Where a hub listens.

    Attributes
    ----------
    address
        Of the control channel; submit and sink take the two ports after it, or free ones if its port is 0.
    lanes
        First and last port of the lanes; None: any free ones.
    dead_after_s
        Seconds of silence after which a peer is dead; infinity where its end is noticed otherwise.
    settle_s
        Seconds after the start in which work that was offered before waits for the daemons that may hold it.
    grace_s
        Seconds that a session outlives its connection.
    store
        Opens the store; None: everything is in memory, and gone with the hub.
    quotas
        How much it takes in.
    keyring
        Its keys and tickets; None: it has none, and whoever reaches it may do everything.
    """

    address: Address
    lanes: tuple[int, int] | None = LANE_PORTS
    dead_after_s: float = DEAD_AFTER_S
    settle_s: float = SETTLE_S
    grace_s: float = SESSION_GRACE_S
    store: OpenStore | None = None
    quotas: Quotas = DEFAULT
    keyring: Keyring | None = None


class _Inboxes(NamedTuple):
    """Where peers send to."""

    submit: str
    sink: str


class Hub:
    """A running hub on `loop`. Attribute `address` is where it can be joined.

    Raises
    ------
    AddressError
        An address is in use, or not this machine's.
    """

    def __init__(self, config: HubConfig, context: Context, loop: Loop) -> None:
        self._config = config
        self._context = context
        self._loop = loop
        self.incarnation = secrets.randbits(64)
        first_fence = self.incarnation & 0x7FFF_FFFF_0000_0000
        self.complaints = Complaints()
        self._shown: dict[str, tuple[float, bytes]] = {}  # by ticket: when its holder last got what
        self._door = Door(config.keyring, self.complaints, context, loop)
        self._journal = Journal(config.store, loop, self) if config.store is not None else None
        self.scheduler = Scheduler(
            __version__, PYTHON, loop.now(), first_fence, config.dead_after_s, config.settle_s, config.grace_s,
            durable=self._journal is not None, quotas=config.quotas,
        )  # fmt: skip
        self._lanes = Lanes(context, loop, config.lanes, self._on_lane_lost, self._door)
        self._local: dict[int, LocalMembership] = {}
        self._dirty: set[Lane] = set()  # lanes that something was sent to, or came from, in this round
        self._timed: set[Lane] = set()  # lanes whose link has a deadline
        self._touched = True  # something happened in this round
        self._due = 0.0  # when `on_time` has something to do although nothing happened
        self._leaving: list[tuple[float, Lane]] = []
        self._room = Room()
        self._crowds = Crowds(config.address.scheme == "tcp")
        self._control = make(context, zmq.REP)
        self._submit = make(context, zmq.PULL)
        self._sink = make(context, zmq.PULL)
        try:
            if self._journal is not None:
                self.scheduler.restore(self._journal.load(), loop.now())
            self.address = self._bind()
        except TaskmeshError:
            self._door.close()
            for sock in (self._control, self._submit, self._sink):
                close(sock)
            if self._journal is not None:
                self._journal.close()
            raise
        loop.watch(self._control, self._read_control)
        loop.watch(self._submit, lambda: self._read_inbox(self._submit))
        loop.watch(self._sink, lambda: self._read_inbox(self._sink))
        loop.add_part(self)

    def _bind(self) -> Address:
        address = self._config.address
        for sock, domain in ((self._control, CONTROL), (self._submit, SUBMIT), (self._sink, SINK)):
            self._door.guard(sock, domain)
            if address.scheme == "tcp":  # nobody else gets into an ipc directory
                self._door.watch(sock, domain)
        if address.scheme == "ipc":
            submit, sink = f"ipc://{address.host}/s", f"ipc://{address.host}/r"
            bind(self._control, address.control)
        else:
            control = bind(self._control, str(address))
            address = address._replace(port=int(control.rpartition(":")[2]))
            ports = (address.port + 1, address.port + 2) if self._config.address.port else (0, 0)
            submit, sink = (str(address._replace(port=port)) for port in ports)
        self._inboxes = _Inboxes(bind(self._submit, submit), bind(self._sink, sink))
        return address

    # ---- control --------------------------------------------------------------------------------------------

    def _read_control(self) -> None:
        for _ in range(FRAMES_PER_ROUND):
            arrival = self._door.get(self._control)
            if arrival is None:
                return
            try:
                reply = self._answer(unpack_control(arrival.frame), arrival)
            except PeerProtocolError as error:
                self.complaints.add(Complaint.REQUEST, f"a request{_of(arrival)}: {error}", self._loop.now())
                reply = m.Refused(f"the hub runs taskmesh {__version__} and does not understand: {error}")
            put(self._control, pack_control(reply))
        self._loop.again(self._control)

    def _answer(self, request: m.ControlMessage, arrival: Arrival) -> m.ControlMessage:
        now = self._loop.now()
        if isinstance(request, m.Heartbeat):
            return self._answer_heartbeat(request, arrival.key, now)
        holder = self._door.holder(arrival.key)
        if holder is None:
            self.complaints.add(Complaint.REQUEST, f"a request{_of(arrival)}: it has no good ticket", now)
            return m.Refused("this ticket is good no more: it was revoked, or has expired")
        if isinstance(request, m.Register):
            return self._answer_register(request, holder, arrival, now)
        if isinstance(request, m.StatusRequest):
            return m.StatusReply(self._status(now, holder))
        if isinstance(request, m.CreateTicket | m.RevokeTicket | m.ListTickets):
            self._touched = True  # who came with a ticket that was revoked goes in this round
            return self._door.administer(request, holder)
        raise PeerProtocolError(f"{type(request).__name__} is not a request")

    def _status(self, now: float, holder: Grant) -> bytes:
        """What a ticket's holder is shown. Every chunk is looked at for it: who asks again at once gets the same."""
        at, shown = self._shown.get(holder.name, (-NEVER, b""))
        if now - at >= STATUS_S:
            shown = json.dumps(self.document(now, holder)).encode()
            self._shown[holder.name] = now, shown
        return shown

    def _answer_heartbeat(self, beat: m.Heartbeat, key: bytes, now: float) -> m.HeartbeatReply:
        lane = self._lanes.by_instance.get(beat.instance)
        if lane is None or beat.incarnation != self.incarnation or beat.epoch != lane.stream.epoch:
            return m.HeartbeatReply(False, 0, 0, 0)
        if not self._door.speaks_for(key, beat.epoch):
            self.complaints.add(Complaint.REQUEST, f"a heartbeat of {beat.instance:x} by a key that is not its", now)
            return m.HeartbeatReply(False, 0, 0, 0)
        self.scheduler.heard(beat.instance, beat.epoch, now, beat.held)
        link = lane.stream.link
        if beat.seen <= link.last:
            link.on_ack(beat.seen, now)
            self._note_delivered(lane, now)
        self._dirty.add(lane)
        return m.HeartbeatReply(True, link.safe, link.last, link.seen)

    def _note_delivered(self, lane: Lane, now: float) -> None:
        messages = lane.delivered()
        if messages:
            self._act(a.Delivered(lane.instance, messages), now)

    def _answer_register(self, request: m.Register, holder: Grant, arrival: Arrival, now: float) -> m.ControlMessage:
        lane = self._lanes.by_instance.get(request.instance)
        if (
            lane is None
            or (request.incarnation, request.epoch) != (self.incarnation, lane.stream.epoch)
            or not lane.stream.resumable(request.seen)
        ):
            request = request._replace(epoch=0)  # nothing to resume
        why = self._door.objection(request, arrival.key)
        if why is not None:
            return self._refuse(a.Refuse(why), request, holder, arrival, now)
        if lane is None and (why := self._room.lacks(now)) is not None:
            return m.Refused(why, again=True)
        for action in self.scheduler.handle(a.Joined(request, False, holder), now):
            if isinstance(action, a.Refuse):
                return self._refuse(action, request, holder, arrival, now)
            if isinstance(action, a.Again) and lane is not None:
                return lane.welcome
            if isinstance(action, a.Admit):
                return self._admit(action, request, holder, arrival, now)
            self._perform(action, now)
        return m.Refused("a stale registration")

    def _refuse(
        self, refusal: a.Refuse, request: m.Register, holder: Grant, arrival: Arrival, now: float
    ) -> m.ControlMessage:
        who = f"{request.role} {request.name} on {request.host}"
        if self.complaints.add(Complaint.PEER, f"{who}{_of(arrival, holder)}: {refusal.why}", now):
            self._door.note(
                "registration refused", role=request.role, name=request.name[:NOTED], host=request.host[:NOTED],
                ticket=holder.name, address=arrival.address, why=refusal.why,
            )  # fmt: skip
        return m.Refused(refusal.why, refusal.again)

    def _admit(
        self, admit: a.Admit, request: m.Register, holder: Grant, arrival: Arrival, now: float
    ) -> m.ControlMessage:
        known = self._lanes.by_instance.get(admit.instance)
        stream = known.stream if known is not None and admit.resume else self._new_stream(admit)
        if known is not None:
            self._close(known)
        if admit.resume:
            stream.renew(self.incarnation, admit.epoch, request.seen, now)
        inbox = self._inboxes.submit if admit.role == "client" else self._inboxes.sink
        welcome = m.Registered(
            self.incarnation, admit.epoch, admit.resume, stream.link.safe, "", inbox, __version__,
            self._config.quotas.message_bytes,
        )  # fmt: skip
        try:
            if not self._door.enter(request, admit.epoch, holder.name):
                raise AddressError("a registration needs a fresh key of its own")
            lane = self._lanes.open(self.address, admit.instance, stream, welcome)
        except AddressError as error:
            log.error("%s", error)
            self._door.leave(admit.epoch)
            self._act(a.NoLane(admit.instance), now)
            return m.Refused(str(error), again=True)  # whoever has the ports or files may let go of them
        self._door.note_registration(request, admit.epoch, holder.name, arrival.address)
        if known is not None and admit.resume:
            lane.results = known.results
            self._note_delivered(lane, now)
        self._dirty.add(lane)
        return lane.welcome

    def _new_stream(self, admit: a.Admit) -> Stream:
        stream = Stream(self.incarnation, admit.epoch, self._config.quotas.message_bytes)
        if admit.role == "client" and self._journal is not None:
            stream.link.permitted = 0
        return stream

    def _on_lane_lost(self, lane: Lane) -> None:
        self._act(a.LaneDown(lane.instance, lane.stream.epoch), self._loop.now())

    # ---- a daemon in this process ---------------------------------------------------------------------------

    def join_local(self, register: m.Register, member: LocalMembership) -> m.Registered | m.Refused:
        """Take in a daemon that shares this process: it needs no lane, no link and no heartbeats."""
        now = self._loop.now()
        self._touched = True
        for action in self.scheduler.handle(a.Joined(register, local=True), now):
            if isinstance(action, a.Refuse):
                return m.Refused(action.why)
            if isinstance(action, a.Admit):
                self._local[register.instance] = member
                return m.Registered(self.incarnation, action.epoch, action.resume, 0, "", "", __version__, LARGEST)
        return m.Refused("a stale registration")

    def receive_local(self, instance: int, message: m.LinkMessage) -> None:
        """A message from a daemon that shares this process."""
        self._act(a.Received(instance, message), self._loop.now())

    # ---- frames ---------------------------------------------------------------------------------------------

    def _read_inbox(self, inbox: Socket) -> None:
        now = self._loop.now()
        for n in range(FRAMES_PER_ROUND):
            if n % LOOK_EVERY == LOOK_EVERY - 1 and self._loop.now() - now > ROUND_S:
                break  # what one peer asks for may be much work: others wait, heartbeats among them
            arrival = self._door.get(inbox)
            if arrival is None:
                return
            try:
                envelope = open_envelope(arrival.frame)
                lane = self._lanes.by_epoch.get(envelope.epoch)
                if lane is None or envelope.incarnation != self.incarnation:
                    raise PeerProtocolError("it is of no live registration")
                if not self._door.speaks_for(arrival.key, envelope.epoch):
                    if envelope.flags > MORE and self._lanes.by_instance.get(lane.instance) is not lane:
                        continue  # who is put out acknowledges that
                    raise PeerProtocolError(f"it came by a key that is not that of peer {lane.instance:x}")
                self.scheduler.heard(lane.instance, envelope.epoch, now)
                self._dirty.add(lane)
                message = None
                if lane.stream.link.unacked > UNREAD or self.scheduler.overdrawn(lane.instance):
                    lane.stream.confirmed(envelope, now)  # who does not read is not read: it sends the rest again
                else:
                    message = lane.stream.receive(envelope, now)
                if self._lanes.by_instance.get(lane.instance) is not lane:
                    if message is None:
                        continue  # it acknowledges our goodbye
                    raise PeerProtocolError(f"peer {lane.instance:x} was dismissed")  # its number may be another's now
                if lane.results:
                    self._note_delivered(lane, now)
            except PeerProtocolError as error:
                self.complaints.add(Complaint.FRAME, f"a frame{_of(arrival)}: {error}", now)
                continue
            if message is not None:
                self._act(a.Received(lane.instance, message), now)
        self._loop.again(inbox)

    # ---- actions --------------------------------------------------------------------------------------------

    def _act(self, event: a.Event, now: float) -> None:
        self._touched = True
        for action in self.scheduler.handle(event, now):
            self._perform(action, now)

    def _perform(self, action: a.Action, now: float) -> None:
        if isinstance(action, a.Send):
            local = self._local.get(action.instance)
            if local is not None:
                local.deliver(action.message)
                return
            lane = self._lanes.by_instance.get(action.instance)
            if lane is not None:
                lane.send(action.message)
                self._dirty.add(lane)
        elif isinstance(action, a.Persist):
            if self._journal is not None:
                self._journal.append(action.record)
        elif isinstance(action, a.Dropped):
            self.complaints.add(Complaint.FRAME, action.text, now)
        elif isinstance(action, a.Note):
            log.log(action.level, "%s", action.text)
        elif isinstance(action, a.Dismiss):
            lane = self._lanes.by_instance.pop(action.instance, None)
            if lane is None:
                return
            if action.dead:
                self._close(lane)
                return
            if action.put_out:
                self._door.leave(lane.stream.epoch)
            self._leaving.append((now + GOODBYE_S, lane))

    def _close(self, lane: Lane, linger_ms: int = 0) -> None:
        self._dirty.discard(lane)
        self._timed.discard(lane)
        self._door.leave(lane.stream.epoch)
        self._lanes.close(lane, linger_ms)

    # ---- the store ------------------------------------------------------------------------------------------

    def on_committed(self, records: int) -> None:
        """The journal says that the first so many records are safe."""
        self._act(a.Committed(records), self._loop.now())

    def on_permitted(self, lane: Lane) -> None:
        """The journal says that more may be acknowledged on this lane."""
        if self._lanes.by_epoch.get(lane.stream.epoch) is lane:
            self._dirty.add(lane)

    def on_store_error(self, why: str | None) -> None:
        """The journal says that the store takes nothing more, or that it works again."""
        self._act(a.StoreFails(why), self._loop.now())

    # ---- time -----------------------------------------------------------------------------------------------

    def on_time(self, now: float) -> None:
        """Everything readable has been read: let the scheduler dispatch, then fill the lanes."""
        if not self._touched and not self._dirty and now < self._due:
            return
        for ticket, why in self._door.ended(now):
            self._act(a.Revoked(ticket, why), now)
        self._act(a.Tick(), now)
        if now >= self._crowds.due:
            self._crowds.look(len(self._lanes.by_epoch), now)
        if now >= self._due:
            self._dirty |= self._timed
        if self._journal is not None:
            self._journal.flush(self._dirty, now)
        for lane in self._dirty:
            if lane.pump(now):
                self._timed.add(lane)
            else:
                self._timed.discard(lane)
        self._dirty.clear()
        if self._leaving:
            done = [lane for until, lane in self._leaving if now >= until or not lane.stream.link.unacked]
            self._leaving = [(until, lane) for until, lane in self._leaving if lane not in done]
            for lane in done:
                self._close(lane, linger_ms=200)
        self._touched = False
        self._due = self._earliest()

    def _earliest(self) -> float:
        deadline = min(self.scheduler.next_deadline(), self._door.next_deadline(), self._crowds.due)
        for lane in self._timed:
            due = lane.due()
            if due < deadline:
                deadline = due
        if self._leaving:
            deadline = min(deadline, min(until for until, _ in self._leaving))
        return deadline

    def next_deadline(self) -> float:
        """When `on_time` is due if nothing arrives."""
        return 0.0 if self._touched or self._dirty else self._due

    # ---- the end --------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Take no new sessions; see `drained`."""
        self._act(a.Drain(), self._loop.now())

    @property
    def drained(self) -> bool:
        """Whether every task has ended and every outcome was received."""
        return self.scheduler.idle and not any(
            lane.stream.link.unacked or len(self.scheduler.sessions[lane.instance].outbox)
            for lane in self._lanes.by_instance.values()
            if lane.instance in self.scheduler.sessions
        )

    def close(self, why: str, back: bool = False) -> None:
        """Commit everything, say goodbye to every peer and close. Goodbyes linger for at most a second.

        Parameters
        ----------
        why
            What to tell them.
        back
            Whether the hub will be back, with all it knows: peers then wait for it.

        Raises
        ------
        StoreError
            Not everything could be committed. Everything is closed all the same.
        """
        now = self._loop.now()
        failure: StoreError | None = None
        if self._journal is not None:
            journal, self._journal = self._journal, None
            try:
                journal.close()
                self._act(a.Stop(), now)
            except StoreError as error:
                failure = error
        present = list(self._lanes.by_instance.values())
        lanes = [*present, *(lane for _, lane in self._leaving)]
        for lane in lanes:
            if lane in present:  # a daemon waits for another hub in any case; good for ever would end it
                lane.send(m.Goodbye(why, back or lane.instance in self.scheduler.daemons))
            lane.pump(now)
        if present:
            time.sleep(FAREWELL_S)  # a peer whose lane breaks drops what it has not read yet
        for lane in lanes:
            self._close(lane, linger_ms=1000)
        self._leaving.clear()
        self._door.close()
        for sock in (self._control, self._submit, self._sink):
            self._loop.forget(sock)
            close(sock, linger_ms=100)
        if failure is not None:
            raise failure

    def publish(self, address: str) -> None:
        """Make tickets for processes of this user, which name `address`, unless there are any.

        Raises
        ------
        KeysError
            They cannot be written.
        """
        self._door.publish(address)

    def document(self, now: float, holder: Grant = LOCAL) -> dict[str, object]:
        """What `taskmesh status` shows to a ticket's holder: to an admin all, to others no sessions but their own."""
        statistics = self.scheduler.statistics(now).as_dict()
        if not holder.manages:
            statistics["sessions"] = [s for s in statistics["sessions"] if s["ticket"] == holder.name]
        return {
            "address": str(self.address),
            "version": __version__,
            "python": PYTHON,
            "secure": self._door.secure,
            **statistics,
            **{str(kind): count for kind, count in self.complaints.counts.items()},
        }


def _of(arrival: Arrival, holder: Grant = LOCAL) -> str:
    """Where something came from, for the log."""
    ticket = f" with ticket {holder.name!r}" if holder.name else ""
    return f" from {arrival.address}{ticket}" if arrival.address else ticket
