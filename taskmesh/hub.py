"""The hub's shell: sockets, lanes and the loop around the scheduler. It decides nothing.

Frames come in on submit and sink (`inboxes`), requests on control (`reception`); every registered peer has a lane of
its own. Each round reads what is there, hands it to the scheduler, ends with a `Tick`, and then puts on the lanes what
the scheduler wants sent. Nothing that a peer sends can stop it: what does not fit is counted, logged and dropped.
"""

from __future__ import annotations

import logging
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import __version__
from .complaints import Complaint, Complaints
from .core import actions as a
from .core import events as e
from .core import messages as m
from .core.access import CONTROL, EVENTS
from .core.quota import DEFAULT, Quotas
from .core.scheduler import Scheduler
from .core.timing import USUAL, Timing
from .door import Door
from .errors import StoreError, TaskmeshError
from .inboxes import Inboxes
from .journal import Journal
from .lanes import Lane, Lanes
from .reception import Reception
from .store.base import OpenStore
from .transport.crowds import Crowds
from .transport.endpoints import LANE_PORTS, Address
from .transport.local import LocalMembership
from .transport.loop import Loop
from .transport.sockets import Context, bind
from .transport.versions import PYTHON
from .wire.stream import MAX_MESSAGE as LARGEST

if TYPE_CHECKING:
    from .security.keyring import Keyring

log = logging.getLogger("taskmesh.hub")

GOODBYE_S = 1.0
FAREWELL_S = 0.1


@dataclass(frozen=True, slots=True)
class HubConfig:
    """Where a hub listens.

    Attributes
    ----------
    address
        Of the control channel; submit, sink and events take the three ports after it, or free ones if its port is 0.
    lanes
        First and last port of the lanes; None: any free ones.
    timing
        How long it waits for peers.
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
    timing: Timing = USUAL
    store: OpenStore | None = None
    quotas: Quotas = DEFAULT
    keyring: Keyring | None = None
    events: bool = False


class Hub:
    """A running hub on `loop`. Attribute `address` is where it can be joined.

    `dirty`: lanes that something was sent to, or came from, in this round; at its end they are looked at.

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
        # A fence has 64 bits: the upper half is random, so that two hubs give out different ones, and the lower half
        # counts. The highest bit is clear, so that no fence ever passes the end.
        first_fence = self.incarnation & 0x7FFF_FFFF_0000_0000
        self.scheduler = Scheduler(
            __version__, PYTHON, loop.now(), config.timing, first_fence,
            durable=config.store is not None, quotas=config.quotas,
        )  # fmt: skip
        self.complaints = Complaints()
        self.door = Door(config.keyring, self.complaints, context, loop)
        self.lanes = Lanes(context, loop, config.lanes, self._on_lane_lost, self.door)
        self._local: dict[int, LocalMembership] = {}
        self.dirty: set[Lane] = set()
        self._timed: set[Lane] = set()  # lanes whose link has a deadline
        self._touched = True  # something happened in this round
        self._due = 0.0  # when `on_time` has something to do although nothing happened
        self._leaving: list[tuple[float, Lane]] = []
        self._crowds = Crowds(config.address.scheme == "tcp")
        self._journal: Journal | None = None
        opened: list[Door | Reception | Inboxes | Journal] = [self.door]
        try:
            self._reception = Reception(self, context, loop)
            opened.append(self._reception)
            self.inboxes = Inboxes(self, context, loop)
            opened.append(self.inboxes)
            if config.store is not None:
                self._journal = Journal(config.store, loop, self)
                opened.append(self._journal)
                self.scheduler.restore(self._journal.load(), loop.now())
            self.address = self._bind()
        except (TaskmeshError, OSError):
            for part in opened:
                part.close()
            raise
        self._reception.open()
        self.inboxes.open()
        loop.add_part(self)

    def _bind(self) -> Address:
        address, control = self.config.address, self._reception.sock
        self.door.guard(control, CONTROL)
        if address.scheme == "tcp":  # nobody else gets into an ipc directory
            self.door.watch(control, CONTROL)
        bound = bind(control, address.control)
        if address.scheme == "tcp":
            address = address._replace(port=int(bound.rpartition(":")[2]))
        self.inboxes.bind(self.config.address)
        if self.config.events:
            self._open_feed()
        return address

    def _open_feed(self) -> None:
        from .feed import Feed

        self.door.feed = Feed(self.config.address.channel(EVENTS), self._context, self._loop, self.door)
        self._loop.add_part(self.door.feed)

    # ---- for reception and inboxes --------------------------------------------------------------------------

    @property
    def durable(self) -> bool:
        """Whether work is kept in a store."""
        return self._journal is not None

    def touch(self) -> None:
        """Something has happened in this round."""
        self._touched = True

    def note_delivered(self, lane: Lane, now: float) -> None:
        """Tell the scheduler which results a lane's peer has acknowledged."""
        messages = lane.delivered()
        if messages:
            self.act(e.Delivered(lane.instance, messages), now)

    def close_lane(self, lane: Lane, linger_ms: int = 0) -> None:
        """Close a lane and forget its peer's key."""
        self.dirty.discard(lane)
        self._timed.discard(lane)
        self.door.leave(lane.stream.epoch)
        self.lanes.close(lane, linger_ms)

    def _on_lane_lost(self, lane: Lane) -> None:
        self.act(e.LaneDown(lane.instance, lane.stream.epoch), self._loop.now())

    # ---- a daemon in this process ---------------------------------------------------------------------------

    def join_local(self, register: m.Register, member: LocalMembership) -> m.Registered | m.Refused:
        """Take in a daemon that shares this process: it needs no lane, no link and no heartbeats."""
        now = self._loop.now()
        self._touched = True
        reply: m.Registered | m.Refused = m.Refused("a stale registration")
        for action in self.scheduler.handle(e.Joined(register, local=True), now):
            if isinstance(action, a.Refuse):
                reply = m.Refused(action.why)
            elif isinstance(action, a.Admit):
                self._local[register.instance] = member
                reply = m.Registered(self.incarnation, action.epoch, action.resume, 0, "", "", __version__, LARGEST)
            else:
                self.perform(action, now)
        return reply

    def receive_local(self, instance: int, message: m.LinkMessage) -> None:
        """A message from a daemon that shares this process."""
        self.act(e.Received(instance, message), self._loop.now())

    # ---- actions --------------------------------------------------------------------------------------------

    def act(self, event: e.Event, now: float) -> None:
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
                self.dirty.add(lane)
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
        self.act(e.Committed(records), self._loop.now())

    def on_permitted(self, lane: Lane) -> None:
        """The journal says that more may be acknowledged on this lane."""
        if self.lanes.by_epoch.get(lane.stream.epoch) is lane:
            self.dirty.add(lane)

    def on_store_error(self, why: str | None) -> None:
        """The journal says that the store takes nothing more, or that it works again."""
        self.act(e.StoreFails(why), self._loop.now())

    # ---- time -----------------------------------------------------------------------------------------------

    def on_time(self, now: float) -> None:
        """Everything readable has been read: let the scheduler dispatch, then fill the lanes."""
        if not self._touched and not self.dirty and now < self._due:
            return
        for ticket, why in self.door.ended(now):
            self.act(e.Revoked(ticket, why), now)
        self.act(e.Tick(), now)
        if now >= self._crowds.due:
            self._crowds.look(len(self.lanes.by_epoch), now)
        if now >= self._due:
            self.dirty |= self._timed
        if self._journal is not None:
            self._journal.flush(self.dirty, now)
        for lane in self.dirty:
            if lane.pump(now):
                self._timed.add(lane)
            else:
                self._timed.discard(lane)
        self.dirty.clear()
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
        return 0.0 if self._touched or self.dirty else self._due

    # ---- the end --------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Take no new sessions; see `drained`."""
        self.act(e.Drain(), self._loop.now())

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
                self.act(e.Stop(), now)
            except StoreError as error:
                failure = error
        present = list(self.lanes.by_instance.values())
        lanes = [*present, *(lane for _, lane in self._leaving)]
        for lane in lanes:
            if (
                lane in present
            ):  # a daemon waits for the next hub, so its goodbye always says `back`: a final one ends it
                lane.send(m.Goodbye(why, back or lane.instance in self.scheduler.daemons))
            lane.pump(now)
        if present:
            time.sleep(FAREWELL_S)  # a peer whose lane breaks drops what it has not read yet
        for lane in lanes:
            self.close_lane(lane, linger_ms=1000)
        self._leaving.clear()
        self.door.close()
        self._reception.close(linger_ms=100)
        self.inboxes.close(linger_ms=100)
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
