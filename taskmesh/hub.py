"""The hub's shell: sockets, lanes and the loop around the scheduler. It decides nothing.

Frames come in on submit and sink (one PULL socket each), requests on control; every registered peer has a lane of its
own. Each round reads what is there, hands it to the scheduler, ends with a `Tick`, and then puts on the lanes what
the scheduler wants sent. Nothing that a peer sends can stop it: what does not fit is counted, logged and dropped.
"""

from __future__ import annotations

import logging
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import zmq

from . import __version__
from .complaints import Complaint, Complaints
from .core import actions as a
from .core import messages as m
from .core.access import CONTROL, SINK, SUBMIT
from .core.quota import DEFAULT, Quotas
from .core.roster import DEAD_AFTER_S
from .core.scheduler import Scheduler
from .core.sessions import SESSION_GRACE_S
from .door import Door
from .errors import PeerProtocolError, StoreError, TaskmeshError
from .journal import Journal, OpenStore
from .lanes import Lane, Lanes
from .reception import Reception
from .transport.crowds import Crowds
from .transport.endpoints import LANE_PORTS, Address
from .transport.local import LocalMembership
from .transport.loop import Loop
from .transport.sockets import Context, Socket, bind, close, make
from .transport.versions import PYTHON
from .wire.stream import MAX_MESSAGE as LARGEST
from .wire.stream import MORE, open_envelope

if TYPE_CHECKING:
    from .security.keyring import Keyring

log = logging.getLogger("taskmesh.hub")

FRAMES_PER_ROUND = 512
ROUND_S, LOOK_EVERY = 0.05, 16  # frames are read for so long at a time; and after so many the clock is
GOODBYE_S = 1.0
FAREWELL_S = 0.1
SETTLE_S = 3.0
UNREAD = 20_000  # frames that a peer has not acknowledged: it is not read until it reads


@dataclass(frozen=True, slots=True)
class HubConfig:
    """Where a hub listens.

    Attributes
    ----------
    address
        Of the control channel; submit, sink and events take the three ports after it, or free ones if its port is 0.
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
    events
        Whether it has an events channel.
    """

    address: Address
    lanes: tuple[int, int] | None = LANE_PORTS
    dead_after_s: float = DEAD_AFTER_S
    settle_s: float = SETTLE_S
    grace_s: float = SESSION_GRACE_S
    store: OpenStore | None = None
    quotas: Quotas = DEFAULT
    keyring: Keyring | None = None
    events: bool = False


class Hub:
    """A running hub on `loop`. Attribute `address` is where it can be joined.

    Raises
    ------
    AddressError
        An address is in use, or not this machine's.
    """

    def __init__(self, config: HubConfig, context: Context, loop: Loop) -> None:
        self.config = config
        self._context = context
        self._loop = loop
        self.incarnation = secrets.randbits(64)
        first_fence = self.incarnation & 0x7FFF_FFFF_0000_0000
        self.complaints = Complaints()
        self.door = Door(config.keyring, self.complaints, context, loop)
        self._journal = Journal(config.store, loop, self) if config.store is not None else None
        self.scheduler = Scheduler(
            __version__, PYTHON, loop.now(), first_fence, config.dead_after_s, config.settle_s, config.grace_s,
            durable=self._journal is not None, quotas=config.quotas,
        )  # fmt: skip
        self.lanes = Lanes(context, loop, config.lanes, self._on_lane_lost, self.door)
        self._local: dict[int, LocalMembership] = {}
        self._dirty: set[Lane] = set()  # lanes that something was sent to, or came from, in this round
        self._timed: set[Lane] = set()  # lanes whose link has a deadline
        self._touched = True  # something happened in this round
        self._due = 0.0  # when `on_time` has something to do although nothing happened
        self._leaving: list[tuple[float, Lane]] = []
        self._crowds = Crowds(config.address.scheme == "tcp")
        self._reception = Reception(self, context, loop)
        self._submit = make(context, zmq.PULL)
        self._sink = make(context, zmq.PULL)
        try:
            if self._journal is not None:
                self.scheduler.restore(self._journal.load(), loop.now())
            self.address = self._bind()
        except TaskmeshError:
            self.door.close()
            self._reception.close()
            for sock in (self._submit, self._sink):
                close(sock)
            if self._journal is not None:
                self._journal.close()
            raise
        self._reception.open()
        loop.watch(self._submit, lambda: self._read_inbox(self._submit))
        loop.watch(self._sink, lambda: self._read_inbox(self._sink))
        loop.add_part(self)

    def _bind(self) -> Address:
        address, control = self.config.address, self._reception.sock
        for sock, domain in ((control, CONTROL), (self._submit, SUBMIT), (self._sink, SINK)):
            self.door.guard(sock, domain)
            if address.scheme == "tcp":  # nobody else gets into an ipc directory
                self.door.watch(sock, domain)
        if address.scheme == "ipc":
            submit, sink = f"ipc://{address.host}/s", f"ipc://{address.host}/r"
            bind(control, address.control)
        else:
            bound = bind(control, str(address))
            address = address._replace(port=int(bound.rpartition(":")[2]))
            ports = (address.port + 1, address.port + 2) if self.config.address.port else (0, 0)
            submit, sink = (str(address._replace(port=port)) for port in ports)
        self._inboxes = {"client": bind(self._submit, submit), "daemon": bind(self._sink, sink)}
        if self.config.events:
            self._open_feed(address)
        return address

    def _open_feed(self, address: Address) -> None:
        from .feed import Feed

        port = address.port + 3 if self.config.address.port else 0
        endpoint = f"ipc://{address.host}/e" if address.scheme == "ipc" else str(address._replace(port=port))
        self.door.feed = Feed(endpoint, self._context, self._loop, self.door)
        self._loop.add_part(self.door.feed)

    # ---- for the reception ----------------------------------------------------------------------------------

    @property
    def durable(self) -> bool:
        """Whether work is kept in a store."""
        return self._journal is not None

    def inbox_of(self, role: str) -> str:
        """Where peers of a role send to."""
        return self._inboxes[role]

    def touch(self) -> None:
        """Something has happened in this round."""
        self._touched = True

    def pump_soon(self, lane: Lane) -> None:
        """Look at what a lane has to send at the end of this round."""
        self._dirty.add(lane)

    def note_delivered(self, lane: Lane, now: float) -> None:
        """Tell the scheduler which results a lane's peer has acknowledged."""
        messages = lane.delivered()
        if messages:
            self.act(a.Delivered(lane.instance, messages), now)

    def close_lane(self, lane: Lane, linger_ms: int = 0) -> None:
        """Close a lane and forget its peer's key."""
        self._dirty.discard(lane)
        self._timed.discard(lane)
        self.door.leave(lane.stream.epoch)
        self.lanes.close(lane, linger_ms)

    def _on_lane_lost(self, lane: Lane) -> None:
        self.act(a.LaneDown(lane.instance, lane.stream.epoch), self._loop.now())

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
            self.perform(action, now)
        return m.Refused("a stale registration")

    def receive_local(self, instance: int, message: m.LinkMessage) -> None:
        """A message from a daemon that shares this process."""
        self.act(a.Received(instance, message), self._loop.now())

    # ---- frames ---------------------------------------------------------------------------------------------

    def _read_inbox(self, inbox: Socket) -> None:
        now = self._loop.now()
        for n in range(FRAMES_PER_ROUND):
            if n % LOOK_EVERY == LOOK_EVERY - 1 and self._loop.now() - now > ROUND_S:
                break  # what one peer asks for may be much work: others wait, heartbeats among them
            arrival = self.door.get(inbox)
            if arrival is None:
                return
            try:
                envelope = open_envelope(arrival.frame)
                lane = self.lanes.by_epoch.get(envelope.epoch)
                if lane is None or envelope.incarnation != self.incarnation:
                    raise PeerProtocolError("it is of no live registration")
                if not self.door.speaks_for(arrival.key, envelope.epoch):
                    if envelope.flags > MORE and self.lanes.by_instance.get(lane.instance) is not lane:
                        continue  # who is put out acknowledges that
                    raise PeerProtocolError(f"it came by a key that is not that of peer {lane.instance:x}")
                self.scheduler.heard(lane.instance, envelope.epoch, now)
                self._dirty.add(lane)
                message = None
                if lane.stream.link.unacked > UNREAD or self.scheduler.overdrawn(lane.instance):
                    lane.stream.confirmed(envelope, now)  # who does not read is not read: it sends the rest again
                else:
                    message = lane.stream.receive(envelope, now)
                if self.lanes.by_instance.get(lane.instance) is not lane:
                    if message is None:
                        continue  # it acknowledges our goodbye
                    raise PeerProtocolError(f"peer {lane.instance:x} was dismissed")  # its number may be another's now
                if lane.results:
                    self.note_delivered(lane, now)
            except PeerProtocolError as error:
                self.complaints.add(Complaint.FRAME, f"a frame{arrival.where()}: {error}", now)
                continue
            if message is not None:
                self.act(a.Received(lane.instance, message), now)
        self._loop.again(inbox)

    # ---- actions --------------------------------------------------------------------------------------------

    def act(self, event: a.Event, now: float) -> None:
        """Tell the scheduler what happened, and do what it says."""
        self._touched = True
        for action in self.scheduler.handle(event, now):
            self.perform(action, now)

    def perform(self, action: a.Action, now: float) -> None:
        """Do what the scheduler says."""
        if isinstance(action, a.Send):
            local = self._local.get(action.instance)
            if local is not None:
                local.deliver(action.message)
                return
            lane = self.lanes.by_instance.get(action.instance)
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
            self._dismiss(action, now)

    def _dismiss(self, action: a.Dismiss, now: float) -> None:
        lane = self.lanes.by_instance.pop(action.instance, None)
        if lane is None:
            return
        how = "dead" if action.dead else "put out" if action.put_out else "goodbye"
        self.door.tell("left", instance=f"{action.instance:x}", epoch=lane.stream.epoch, how=how)
        if action.dead:
            self.close_lane(lane)
            return
        if action.put_out:
            self.door.leave(lane.stream.epoch)
        self._leaving.append((now + GOODBYE_S, lane))

    # ---- the store ------------------------------------------------------------------------------------------

    def on_committed(self, records: int) -> None:
        """The journal says that the first so many records are safe."""
        self.act(a.Committed(records), self._loop.now())

    def on_permitted(self, lane: Lane) -> None:
        """The journal says that more may be acknowledged on this lane."""
        if self.lanes.by_epoch.get(lane.stream.epoch) is lane:
            self._dirty.add(lane)

    def on_store_error(self, why: str | None) -> None:
        """The journal says that the store takes nothing more, or that it works again."""
        self.act(a.StoreFails(why), self._loop.now())

    # ---- time -----------------------------------------------------------------------------------------------

    def on_time(self, now: float) -> None:
        """Everything readable has been read: let the scheduler dispatch, then fill the lanes."""
        if not self._touched and not self._dirty and now < self._due:
            return
        for ticket, why in self.door.ended(now):
            self.act(a.Revoked(ticket, why), now)
        self.act(a.Tick(), now)
        if now >= self._crowds.due:
            self._crowds.look(len(self.lanes.by_epoch), now)
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
                self.close_lane(lane, linger_ms=200)
        self._touched = False
        self._due = self._earliest()

    def _earliest(self) -> float:
        deadline = min(self.scheduler.next_deadline(), self.door.next_deadline(), self._crowds.due)
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
        self.act(a.Drain(), self._loop.now())

    @property
    def drained(self) -> bool:
        """Whether every task has ended and every outcome was received."""
        return self.scheduler.idle and not any(
            lane.stream.link.unacked or len(self.scheduler.sessions[lane.instance].outbox)
            for lane in self.lanes.by_instance.values()
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
                self.act(a.Stop(), now)
            except StoreError as error:
                failure = error
        present = list(self.lanes.by_instance.values())
        lanes = [*present, *(lane for _, lane in self._leaving)]
        for lane in lanes:
            if lane in present:  # a daemon waits for another hub in any case; good for ever would end it
                lane.send(m.Goodbye(why, back or lane.instance in self.scheduler.daemons))
            lane.pump(now)
        if present:
            time.sleep(FAREWELL_S)  # a peer whose lane breaks drops what it has not read yet
        for lane in lanes:
            self.close_lane(lane, linger_ms=1000)
        self._leaving.clear()
        self.door.close()
        self._reception.close(linger_ms=100)
        for sock in (self._submit, self._sink):
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
        self.door.publish(address)
