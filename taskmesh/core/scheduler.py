"""The scheduler: the hub's side of every decision.

Events come in, actions come out; the hub's shell owns sockets and clocks. The rules kept here (design, section 7):

- Ends once: what has ended is in no set any more, so a second outcome finds nothing to end and is dropped.
- Fences: a success counts from any dispatch of a task, a failure only from the lease that holds it now.
- Death: a dead daemon's unfinished work goes to the front of the queue; a dead client's work goes on for a while.
- Blame: three runners that died over exactly one task fail it with `WorkerLost`; deaths of machines do not count.
- A slot is free only when its runner is: a lease stays on the books until the daemon has accounted for it.
- Outcomes are kept until their client has them, and daemons are told when they may forget theirs (`Settled`).
- at_most_once: what may have started is not started again, but lost.
"""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from . import admission, audit, recovery, returns
from . import messages as m
from . import records as r
from .actions import (
    Action,
    Committed,
    Delivered,
    Dismiss,
    Drain,
    Dropped,
    Event,
    Joined,
    LaneDown,
    NoLane,
    Note,
    Received,
    Revoked,
    Send,
    Stop,
    StoreFails,
    Tick,
)
from .bodies import Bodies
from .deliveries import Deliveries
from .dispatch import dispatch
from .hungry import Hungry
from .leases import ChunkState, DaemonState, Loads, Piece, SpecState
from .lifecycle import Step
from .limits import SPECS
from .outbox import Ended, Outbox
from .quota import UNLIMITED, Bucket, Quotas
from .ranges import Ranges, count, normal, overlap, union, without
from .ready import ReadyQueue
from .recall import RECALL_AFTER_S, move_queued, recall
from .repairs import Repairs
from .roster import DEAD_AFTER_S, NEVER, Peer, Roster
from .statistics import Statistics

SESSION_GRACE_S = 60.0


@dataclass(slots=True, eq=False)
class Session:
    """One client's tasks. `gone_at`: since when it is dead or cut off; its work goes on for a while.

    `stale`: numbers of specs, rising, that were here when its link began anew and that it has not named since. It names
    those that it still has in rising order: what it passes over it has retired, and that word was lost with the link.
    `proof`: a digest of its secret. `ticket`: with which it came last. `queued`: bytes of its functions'
    books, and of its chunks that have not ended.
    """

    instance: int
    name: str = ""
    host: str = ""
    pid: int = 0
    joined_at: float = 0.0
    gone_at: float | None = None
    specs: dict[int, SpecState] = field(default_factory=dict)
    outbox: Outbox = field(default_factory=Outbox)
    stale: deque[int] = field(default_factory=deque)
    proof: bytes = b""
    ticket: str = ""
    queued: int = 0


@dataclass(slots=True)
class Totals:
    """Counters over the hub's life, in tasks."""

    submitted: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0


class Scheduler:
    """Decides what runs where.

    Parameters
    ----------
    version, python
        Release of taskmesh and `major.minor` of Python: peers with others are refused, because functions that travel
        by value do not survive the difference.
    now
        Monotonic time, seconds.
    fence
        Fences count up from here; a hub's incarnation starts them where no other did.
    dead_after_s
        Seconds of silence after which a peer is dead; infinity where its end is noticed otherwise.
    settle_s
        Seconds after the start in which work that was offered before waits for the daemons that may hold it.
    grace_s
        Seconds that a session outlives its connection.
    durable
        Whether there is a store: what is to be kept goes out as `Persist`.
    quotas
        How much peers may ask for.
    """

    def __init__(
        self,
        version: str,
        python: str,
        now: float,
        fence: int = 0,
        dead_after_s: float = DEAD_AFTER_S,
        settle_s: float = 0.0,
        grace_s: float = SESSION_GRACE_S,
        durable: bool = False,
        quotas: Quotas = UNLIMITED,
    ) -> None:
        self.version = version
        self.python = python
        self.started_at = now
        self.draining = False
        self.roster = Roster(dead_after_s)
        self.sessions: dict[int, Session] = {}
        self.daemons: dict[int, DaemonState] = {}
        self.totals = Totals()
        self.ready: ReadyQueue[Piece] = ReadyQueue()
        self.bodies = Bodies()
        self.loads = Loads()
        self.hungry = Hungry(self.daemons, self.roster)
        self.recovery = recovery.Recovery(now + settle_s)
        self.grace_s = grace_s
        self.full: str | None = None  # why the store takes nothing more
        self.quotas = quotas
        self.registrations: dict[str, Bucket] = {}  # by ticket: who comes too often holds up nobody else
        self.gone: dict[int, float] = {}  # sessions whose client is away, and until when they are kept
        self._leaving: set[int] = set()  # daemons whose last outcomes are not committed yet
        self._recall_at = NEVER
        self._recalled_at = -NEVER
        self._fences = fence
        self.rate = audit.Rate(now)
        self._actions: list[Action] = []
        self.deliveries = Deliveries(self.sessions, self.daemons, durable, self.do)
        self.repairs = Repairs(self.bodies, self.daemons, self.do)
        self._events: dict[type[Any], Callable[[Any, float], None]] = {
            Received: self._on_received,
            Joined: partial(admission.on_joined, self),
            LaneDown: self._on_lane_down,
            NoLane: self._on_no_lane,
            Revoked: partial(admission.on_revoked, self),
            Delivered: self._on_delivered,
            Committed: self.deliveries.on_committed,
            StoreFails: self._on_store_fails,
            Tick: self._on_tick,
            Drain: self._on_drain,
            Stop: self._on_stop,
        }
        self._from_client: dict[type[Any], Callable[[Session, Any], None]] = {
            m.Spec: self._on_spec,
            m.Body: self._on_body,
            m.Submit: self._on_submit,
            m.Cancel: self._on_cancel,
            m.Retire: self._on_retire,
            m.Close: self._on_close,
        }
        self._from_daemon: dict[type[Any], Callable[[DaemonState, Any], None]] = {
            m.Done: partial(returns.on_done, self),
            m.Strike: partial(returns.on_strike, self),
            m.GiveBack: partial(returns.on_give_back, self),
            m.Inventory: partial(returns.on_inventory, self),
            m.NeedBody: self.repairs.on_need_body,
            m.Slots: self._on_slots,
            m.Leaving: self._on_leaving,
        }

    # ---- the machine ----------------------------------------------------------------------------------------

    def handle(self, event: Event, now: float) -> list[Action]:
        """Digest one event. `now` is monotonic time in seconds."""
        self._events[type(event)](event, now)
        actions, self._actions = self._actions, []
        return actions

    def heard(self, instance: int, epoch: int, now: float, held: list[tuple[int, int, int]] | None = None) -> bool:
        """A heartbeat, with what a daemon's runners hold, or a frame. Returns whether that registration is live."""
        peer = self.roster.heard(instance, epoch, now)
        if peer is None:
            return False
        self.hungry.heard(instance)
        if held is not None:
            self.roster.holds(peer, held)
        return True

    def next_deadline(self) -> float:
        """When `Tick` is due if nothing else happens."""
        deadline = min(self.roster.next_deadline(), self._recall_at, self.recovery.until, self.repairs.due)
        return min(deadline, *self.gone.values()) if self.gone else deadline

    def restore(self, snapshot: r.Snapshot, now: float) -> None:
        """Take up what a hub before this one had stored. Once, before the first event."""
        recovery.restore(self, snapshot)
        self.gone = dict.fromkeys(self.sessions, now + self.grace_s)

    @property
    def idle(self) -> bool:
        """Whether no task waits or runs."""
        return not any(spec.chunks for s in self.sessions.values() for spec in s.specs.values())

    # ---- peers ----------------------------------------------------------------------------------------------

    def _on_lane_down(self, event: LaneDown, now: float) -> None:
        self.roster.lane_down(event.instance, event.epoch, now)

    def _on_no_lane(self, event: NoLane, now: float) -> None:
        self.remove_peer(self.roster.peers[event.instance], dead=True, now=now)

    def _bury(self, peer: Peer, now: float) -> None:
        silent = now - peer.heard_at
        why = "disconnected" if peer.lane_down_at is not None else f"not heard for {silent:.0f} s"
        level = logging.WARNING if peer.role == "daemon" else logging.INFO
        self._actions.append(Note(level, f"{peer.role} {peer.name} on {peer.host} is gone: {why}"))
        self.remove_peer(peer, dead=True, now=now)

    def remove_peer(self, peer: Peer, dead: bool, now: float) -> None:
        if peer.role == "daemon":
            self.lose_daemon(peer.instance)
        elif dead and self.grace_s > 0:
            self.sessions[peer.instance].gone_at = now
            self.gone[peer.instance] = now + self.grace_s
        else:
            self.drop_session(peer.instance)
        self.roster.remove(peer.instance)
        self._actions.append(Dismiss(peer.instance, dead))

    def lose_daemon(self, instance: int) -> None:
        """Requeue, at the front, whatever a daemon had not finished."""
        daemon = self.daemons.pop(instance, None)
        self.hungry.discard(instance)
        self.loads.forget(instance)
        self._leaving.discard(instance)
        if daemon is None:
            return
        self.bodies.forget_daemon(daemon)
        self.deliveries.forget_daemon(instance)
        self.recovery.forget_daemon(instance)
        for lease in reversed(list(daemon.leases.values())):
            lease.state.leases.pop(lease.fence, None)
            returns.requeue(self, lease.state, lease.ranges, lease.attempt + 1, lease.solo, started=True)

    def drop_session(self, instance: int) -> None:
        session = self.sessions.pop(instance, None)
        if session is None:
            return
        self.ready.drop_session(instance)
        self.recovery.drop_session(instance)
        self.gone.pop(instance, None)
        holders: dict[int, None] = {}
        for spec in session.specs.values():
            for state in spec.chunks.values():
                self.totals.cancelled += count(state.ready) + count(state.leased)
                holders |= dict.fromkeys(lease.daemon for lease in state.leases.values())
            self._release(spec)
        holders |= dict.fromkeys(self.deliveries.drop(session))
        self._actions += [Send(daemon, m.Forget(instance)) for daemon in holders if daemon in self.daemons]
        self.deliveries.persist(r.DropSession(instance))

    def _on_drain(self, event: Drain, now: float) -> None:
        self.draining = True

    def _on_stop(self, event: Stop, now: float) -> None:
        """Tell daemons what they may forget: they need not wait for the next hub because of it."""
        self.deliveries.on_committed(Committed(sys.maxsize), now)
        self.deliveries.tick()

    # ---- messages -------------------------------------------------------------------------------------------

    def _on_received(self, event: Received, now: float) -> None:
        instance, message = event
        session = self.sessions.get(instance)
        daemon = self.daemons.get(instance)
        if session is not None and type(message) in self._from_client:
            self._from_client[type(message)](session, message)
        elif daemon is not None and type(message) in self._from_daemon:
            self._from_daemon[type(message)](daemon, message)
        else:
            self.drop(f"{type(message).__name__} from peer {instance:x}, which may not send it")

    def drop(self, text: str) -> None:
        """A peer sent what it may not, or what makes no sense: count it."""
        self._actions.append(Dropped(text))

    def _on_spec(self, session: Session, spec: m.Spec) -> None:
        self._pass_over(session, spec.spec)
        if spec.spec in session.specs:
            return
        if len(session.specs) >= SPECS:
            self.drop(f"function {spec.spec} from session {session.instance:x}, which has {SPECS} already")
            return
        state = SpecState(session.instance, spec.spec, spec.name, spec.digest, spec.init, spec.priority, spec.limits)
        if session.queued + session.outbox.bytes + state.weight > self.quotas.queued_bytes:
            self.drop(f"function {spec.spec} from session {session.instance:x}, which has no room for it")
            return
        session.specs[spec.spec] = state
        session.queued += state.weight
        self.bodies.refer(spec.digest, spec.init)
        self.deliveries.persist(r.PutSpec(session.instance, spec))

    def _on_body(self, session: Session, body: m.Body) -> None:
        if not self.bodies.wants(body.digest):
            return
        if self.bodies.bytes[session.instance] + len(body.data) > self.quotas.queued_bytes:
            self.drop(f"a function of {len(body.data):,} bytes from session {session.instance:x}, which has too many")
        elif self.bodies.put(body.digest, body.data, session.instance):
            self.deliveries.persist(r.PutBody(*body))

    def _on_submit(self, session: Session, submit: m.Submit) -> None:
        spec = session.specs.get(submit.spec)
        chunk = submit.chunk
        if spec is None:
            self.drop(f"a chunk of unknown spec {submit.spec} from session {session.instance:x}")
            self._reject(session, submit, f"the hub has no function {submit.spec}: a session may have {SPECS}")
            return
        left: Ranges = list(submit.left) or [(0, chunk.count)]
        if chunk.first < spec.submitted:
            left = self._unheard_of(session, spec, submit)
            if not left:
                return
        spec.submitted = max(spec.submitted, chunk.first + chunk.count)
        why = self._why_not(session, spec, submit)
        if why is not None:
            self._reject(session, submit, why)
            return
        state = ChunkState(spec, chunk, left, again=bool(submit.left))
        spec.chunks[chunk.first] = state
        session.queued += chunk.weight
        self.totals.submitted += count(state.ready)
        self.deliveries.persist(r.PutChunk(session.instance, spec.number, chunk, state.ready))
        pieces = [Piece(state, lo, hi, 1, False) for lo, hi in state.ready]
        if not submit.left:
            for piece in pieces:
                self.ready.push(spec.priority, session.instance, piece)
        else:
            self.recovery.hold(pieces)
            recovery.match(self, state)

    def _reject(self, session: Session, submit: m.Submit, why: str) -> None:
        self._actions.append(Send(session.instance, m.Rejected(submit.spec, submit.chunk.first, why)))

    def _unheard_of(self, session: Session, spec: SpecState, submit: m.Submit) -> Ranges:
        """What of a chunk that is offered again is neither here nor on its way to the client.

        It was rejected, and that word was lost with the link: the client has heard everything that it acknowledged
        before it offered anything again.
        """
        if submit.chunk.first in spec.chunks or not submit.left:
            return []
        return without(list(submit.left), session.outbox.pending(spec.number, submit.chunk.first))

    def _why_not(self, session: Session, spec: SpecState, submit: m.Submit) -> str | None:
        """Why a chunk cannot be taken. One that is offered again was taken before: it has twice the room."""
        room = self.quotas.queued_bytes * (2 if submit.left else 1)
        if session.queued + session.outbox.bytes + submit.chunk.weight > room:
            return (
                f"this session has {session.queued + session.outbox.bytes:,} bytes of calls and outcomes at the hub, "
                f"which takes {self.quotas.queued_bytes:,.0f} of each session"
            )
        if self.bodies.get(spec.digest) is None or (spec.init and self.bodies.get(spec.init) is None):
            return f"the hub was never sent the function {spec.name}"
        return self.full

    def _on_cancel(self, session: Session, cancel: m.Cancel) -> None:
        spec = session.specs.get(cancel.spec)
        state = spec.chunks.get(cancel.first) if spec else None
        if state is None:
            self.deliveries.send(session)  # it may have been cancelled just now: that has to be heard first
            self._actions.append(
                Send(session.instance, m.Cancelled(cancel.spec, cancel.first, [(cancel.lo, cancel.hi)]))
            )
            return
        leased = overlap(state.leased, cancel.lo, cancel.hi)
        state.cancelling = union(state.cancelling, leased)
        self.cancel_ready(state, overlap(state.ready, cancel.lo, cancel.hi))
        self.revoke(state, leased, cancel.interrupt)

    def revoke(self, state: ChunkState, ranges: Ranges, interrupt: bool = False) -> None:
        """Ask whoever holds any of `ranges` to give it back."""
        ranges = normal(ranges)
        for lease in state.leases.values() if ranges else ():
            for lo, hi in lease.ranges:
                for a, b in overlap(ranges, lo, hi):
                    self._actions.append(Send(lease.daemon, m.Revoke(lease.fence, a, b, interrupt)))

    def cancel_ready(self, state: ChunkState, ranges: Ranges) -> None:
        """These have not started, and never will."""
        cancelled = state.move(ranges, Step.CANCELLED)
        self.totals.cancelled += count(cancelled)
        spec, first = state.spec, state.chunk.first
        for lo, hi in cancelled:
            self.deliver(state, m.Outcome(spec.number, first, lo, hi, m.Form.CANCELLED, b""))

    def _on_retire(self, session: Session, retire: m.Retire) -> None:
        self._pass_over(session, retire.spec)
        self._retire(session, retire.spec)

    def _pass_over(self, session: Session, number: int) -> None:
        """A client whose link began anew names a spec: those before it that it has not named are retired."""
        stale = session.stale
        while stale and stale[0] < number:
            self._retire(session, stale.popleft())
        if stale and stale[0] == number:
            stale.popleft()

    def _retire(self, session: Session, number: int) -> None:
        spec = session.specs.get(number)
        if spec is not None:
            spec.retired = True
            self._forget_if_retired(session, spec)

    def _on_close(self, session: Session, close: m.Close) -> None:
        self._actions += [
            Note(logging.INFO, f"client {session.name} on {session.host} said goodbye"),
            Send(session.instance, m.Goodbye("session closed")),
        ]
        self.drop_session(session.instance)
        if session.instance in self.roster.peers:
            self.roster.remove(session.instance)
            self._actions.append(Dismiss(session.instance, False))

    # ---- books ----------------------------------------------------------------------------------------------

    def state(self, session: int, spec: int, first: int) -> ChunkState | None:
        """A chunk that has not ended."""
        owner = self.sessions.get(session)
        known = owner.specs.get(spec) if owner else None
        return known.chunks.get(first) if known else None

    def deliver(self, state: ChunkState, outcome: m.Outcome, origin: Ended | None = None) -> None:
        """Tasks have ended, in a daemon's lease if `origin` says so."""
        self.deliveries.add(state, outcome, origin)
        self.ration(self.sessions[state.spec.session])
        self._end_if_done(state)

    def _on_delivered(self, event: Delivered, now: float) -> None:
        self.deliveries.on_delivered(event, now)
        session = self.sessions.get(event.instance)
        if session is not None:
            self.ration(session)

    def ration(self, session: Session) -> None:
        """Nothing more is started of a session that has too much that it has not fetched, until it fetches that."""
        if session.outbox.bytes > self.quotas.queued_bytes:
            self.ready.hold(session.instance)
        elif session.instance in self.ready.held:
            self.ready.release(session.instance)

    def overdrawn(self, instance: int) -> bool:
        """Whether a client has far more unfetched than it may: by what ran, or by what it has cancelled."""
        session = self.sessions.get(instance)
        return session is not None and session.outbox.bytes > 2 * self.quotas.queued_bytes

    def _end_if_done(self, state: ChunkState) -> None:
        spec = state.spec
        if state.ended and spec.chunks.pop(state.chunk.first, None) is not None:
            session = self.sessions[spec.session]
            session.queued -= state.chunk.weight
            self._forget_if_retired(session, spec)

    def _forget_if_retired(self, session: Session, spec: SpecState) -> None:
        if spec.retired and not spec.chunks:
            del session.specs[spec.number]
            session.queued -= spec.weight
            self._release(spec)
            self.deliveries.persist(r.DropSpec(session.instance, spec.number))

    def _release(self, spec: SpecState) -> None:
        """A spec is forgotten: drop the bodies that nothing refers to any more."""
        for digest in self.bodies.release(spec.digest, spec.init):
            self.deliveries.persist(r.DropBody(digest))

    def _on_slots(self, daemon: DaemonState, slots: m.Slots) -> None:
        daemon.resize(max(0, slots.slots))
        self.hungry.add(daemon.instance)

    def _on_leaving(self, daemon: DaemonState, leaving: m.Leaving) -> None:
        for lease in reversed(list(daemon.leases.values())):  # was on its way there: it starts nothing any more
            returns.take_back(self, daemon, lease, lease.ranges, lease.attempt)
        if self.deliveries.uncommitted_of(daemon.instance):
            self._leaving.add(daemon.instance)  # it keeps them until they are safe
        else:
            self._see_off(self.roster.peers[daemon.instance])

    def _see_off(self, peer: Peer) -> None:
        self._actions += [
            Note(logging.INFO, f"daemon {peer.name} on {peer.host} left"),
            Send(peer.instance, m.Goodbye("you left")),
        ]
        self.remove_peer(peer, dead=False, now=0.0)

    def _on_store_fails(self, event: StoreFails, now: float) -> None:
        self.full = event.why
        if event.why is None:
            self._actions.append(Note(logging.WARNING, "the store works again: taking tasks again"))
        else:
            self._actions.append(Note(logging.ERROR, f"taking no more tasks, and losing none: {event.why}"))

    # ---- time: verdicts, dispatch, deliveries ---------------------------------------------------------------

    def _on_tick(self, event: Tick, now: float) -> None:
        if now >= self.roster.next_deadline():
            dead, suspect = self.roster.overdue(now)
            for peer in dead:
                self._bury(peer, now)
            for peer in suspect:
                if peer.role == "daemon":
                    move_queued(self, peer)
        if self._leaving:
            for instance in [i for i in self._leaving if not self.deliveries.uncommitted_of(i)]:
                self._see_off(self.roster.peers[instance])
        if now >= self.recovery.until:
            recovery.finish(self)
        self.repairs.tick(now)
        if self.gone:
            self._drop_gone(now)
        if self.hungry:
            if self.ready:
                self._actions += dispatch(self, now)
            self._recall(now)
        else:
            self._recall_at = NEVER  # nobody could take anything; whoever can says something first
        self.deliveries.tick()
        self.rate.sample(now, self.totals.done + self.totals.failed)

    def _drop_gone(self, now: float) -> None:
        for instance in [i for i, until in self.gone.items() if now >= until]:
            session = self.sessions[instance]
            self._actions.append(Note(logging.INFO, f"client {session.name} on {session.host} did not come back"))
            self.drop_session(instance)

    def _recall(self, now: float) -> None:
        """Nothing waits here, and some daemon idles: ask another for what waits there."""
        if self.ready or len(self.daemons) < 2:
            self._recall_at = NEVER
        elif now < self._recalled_at + RECALL_AFTER_S:
            self._recall_at = self._recalled_at + RECALL_AFTER_S  # it looks at every daemon: not in each round
        else:
            self._recalled_at = now
            actions, self._recall_at = recall(self, now)
            self._actions += actions

    def do(self, action: Action) -> None:
        """Have this done, after what was decided before."""
        self._actions.append(action)

    def next_fence(self) -> int:
        """A number higher than that of every dispatch before."""
        self._fences += 1
        return self._fences

    # ---- what it knows --------------------------------------------------------------------------------------

    def statistics(self, now: float) -> Statistics:
        """Everything that there is to know, as of `now`."""
        return audit.statistics(self, now)

    def check(self) -> None:
        """Compare every index with every other.

        Raises
        ------
        LocalProtocolError
            Two of them disagree.
        """
        audit.check(self)


__all__ = ["Scheduler", "Session", "Totals"]
