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
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from . import audit, recovery
from . import messages as m
from . import records as r
from .actions import (
    Action,
    Admit,
    Again,
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
    Persist,
    Received,
    Refuse,
    Send,
    StoreFails,
    Tick,
)
from .bodies import Bodies
from .dispatch import dispatch
from .leases import MACHINE_LOST, ChunkState, DaemonState, Lease, Piece, SpecState
from .lifecycle import Step
from .outbox import Ended, Outbox
from .ranges import Ranges, add, count, covers, overlap, subtract
from .ready import ReadyQueue
from .recall import move_queued, recall
from .roster import DEAD_AFTER_S, NEVER, Peer, Roster
from .statistics import Statistics

MAX_STRIKES = 3
SESSION_GRACE_S = 60.0
SETTLED_PARTS = 4096  # in one message to a daemon


@dataclass(slots=True, eq=False)
class Session:
    """One client's tasks. `gone_at`: since when it is dead or cut off; its work goes on for a while."""

    instance: int
    name: str = ""
    host: str = ""
    pid: int = 0
    joined_at: float = 0.0
    gone_at: float | None = None
    specs: dict[int, SpecState] = field(default_factory=dict)
    outbox: Outbox = field(default_factory=Outbox)


@dataclass(slots=True)
class Totals:
    """Counters over the hub's life, in tasks."""

    submitted: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0
    refused_peers: int = 0


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
        self.hungry: set[int] = set()  # daemons that may have room
        self.recovery = recovery.Recovery(now + settle_s)
        self.grace_s = grace_s
        self.durable = durable
        self.full: str | None = None  # why the store takes nothing more
        self._talkative: set[int] = set()  # sessions with something to send
        self._gone: dict[int, float] = {}  # sessions whose client is away, and until when they are kept
        self._settling: set[int] = set()  # daemons that are to be told what they may forget
        self._uncommitted: deque[tuple[int, Ended]] = deque()  # outcomes, by the number of records up to them
        self._records = 0
        self._recall_at = NEVER
        self._fences = fence
        self.rate = audit.Rate(now)
        self._actions: list[Action] = []
        self._events: dict[type[Any], Callable[[Any, float], None]] = {
            Received: self._on_received,
            Joined: self._on_joined,
            LaneDown: self._on_lane_down,
            NoLane: self._on_no_lane,
            Delivered: self._on_delivered,
            Committed: self._on_committed,
            StoreFails: self._on_store_fails,
            Tick: self._on_tick,
            Drain: self._on_drain,
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
            m.Done: self._on_done,
            m.Strike: self._on_strike,
            m.GiveBack: self._on_give_back,
            m.Inventory: self._on_inventory,
            m.NeedBody: self._on_need_body,
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
        if held is not None:
            self.roster.holds(peer, held)
        return True

    def next_deadline(self) -> float:
        """When `Tick` is due if nothing else happens."""
        deadline = min(self.roster.next_deadline(), self._recall_at, self.recovery.until)
        return min(deadline, *self._gone.values()) if self._gone else deadline

    def restore(self, snapshot: r.Snapshot, now: float) -> None:
        """Take up what a hub before this one had stored. Once, before the first event."""
        recovery.restore(self, snapshot)
        self._gone = dict.fromkeys(self.sessions, now + self.grace_s)

    @property
    def idle(self) -> bool:
        """Whether no task waits or runs."""
        return not any(spec.chunks for s in self.sessions.values() for spec in s.specs.values())

    # ---- peers ----------------------------------------------------------------------------------------------

    def _on_joined(self, event: Joined, now: float) -> None:
        request = event.request
        why = self._objection(request)
        if why:
            self.totals.refused_peers += 1
            self._actions += [
                Note(logging.WARNING, f"refused {request.role} {request.name}: {why}"),
                Refuse(why),
            ]
            return
        welcome = self.roster.register(request, now, event.local)
        if welcome is None:
            self._actions.append(Again(request.instance))
            return
        peer, resume = welcome
        resume = resume and request.epoch != 0
        if peer.role == "daemon":
            self._welcome_daemon(peer, request, resume, event.local)
        else:
            self._welcome_client(peer, resume)
        word = (
            "again"
            if resume
            else f"with {peer.slots} slot{'s' if peer.slots != 1 else ''}"
            if peer.role == "daemon"
            else ""
        )
        self._actions += [
            Note(logging.INFO, f"{peer.role} {peer.name} on {peer.host} joined {word}".rstrip()),
            Admit(peer.instance, peer.epoch, peer.role, resume),
        ]

    def _welcome_daemon(self, peer: Peer, request: m.Register, resume: bool, local: bool) -> None:
        """A daemon that was here before says what it holds; one that starts anew holds nothing."""
        known = self.daemons.get(peer.instance)
        if known is None:
            self.daemons[peer.instance] = DaemonState(peer.instance, peer.slots, local)
        elif not resume:
            known.bodies.clear()
            known.stale = set(known.leases)
            if not request.incarnation:
                self._lose_daemon(peer.instance)
                self.daemons[peer.instance] = DaemonState(peer.instance, peer.slots, local)
        self.hungry.add(peer.instance)

    def _welcome_client(self, peer: Peer, resume: bool) -> None:
        session = self.sessions.get(peer.instance)
        if session is None:
            session = self.sessions[peer.instance] = Session(peer.instance, peer.name, peer.host)
            self._persist(r.PutSession(peer.instance, peer.name, peer.host))
        elif not resume:
            session.outbox.again()
            self._talkative.add(peer.instance)
        session.pid, session.joined_at, session.gone_at = peer.pid, peer.joined_at, None
        self._gone.pop(peer.instance, None)

    def _objection(self, request: m.Register) -> str | None:
        if request.role not in ("client", "daemon"):
            return f"unknown role {request.role!r}"
        if request.version != self.version:
            return f"it runs taskmesh {request.version}, this hub runs {self.version}; install the same release on both"
        if request.python != self.python:
            return (
                f"it runs Python {request.python}, this hub runs {self.python}; functions do not travel between them: "
                f"use the same minor version of Python everywhere"
            )
        other, has_it = ("client", self.sessions) if request.role == "daemon" else ("daemon", self.daemons)
        if request.instance in has_it:
            return f"a {other} already has this instance id"
        if request.role == "daemon" and request.slots < 0:
            return f"a daemon cannot have {request.slots} slots"
        if self.draining and request.role == "client" and request.instance not in self.sessions:
            return "the hub is shutting down"
        return None

    def _on_lane_down(self, event: LaneDown, now: float) -> None:
        self.roster.lane_down(event.instance, event.epoch, now)

    def _on_no_lane(self, event: NoLane, now: float) -> None:
        self._remove_peer(self.roster.peers[event.instance], dead=True, now=now)

    def _bury(self, peer: Peer, now: float) -> None:
        silent = now - peer.heard_at
        why = "disconnected" if peer.lane_down_at is not None else f"not heard for {silent:.0f} s"
        level = logging.WARNING if peer.role == "daemon" else logging.INFO
        self._actions.append(Note(level, f"{peer.role} {peer.name} on {peer.host} is gone: {why}"))
        self._remove_peer(peer, dead=True, now=now)

    def _remove_peer(self, peer: Peer, dead: bool, now: float) -> None:
        if peer.role == "daemon":
            self._lose_daemon(peer.instance)
        elif dead and self.grace_s > 0:
            self.sessions[peer.instance].gone_at = now
            self._gone[peer.instance] = now + self.grace_s
        else:
            self._drop_session(peer.instance)
        self.roster.remove(peer.instance)
        self._actions.append(Dismiss(peer.instance, dead))

    def _lose_daemon(self, instance: int) -> None:
        """Requeue, at the front, whatever a daemon had not finished."""
        daemon = self.daemons.pop(instance, None)
        self.hungry.discard(instance)
        if daemon is None:
            return
        self._settling.discard(instance)
        for lease in reversed(list(daemon.leases.values())):
            lease.state.leases.pop(lease.fence, None)
            self._requeue(lease.state, lease.ranges, lease.attempt + 1, lease.solo, started=True)

    def _drop_session(self, instance: int) -> None:
        session = self.sessions.pop(instance, None)
        if session is None:
            return
        self.ready.drop_session(instance)
        self.recovery.drop_session(instance)
        self._talkative.discard(instance)
        self._gone.pop(instance, None)
        holders: dict[int, None] = {}
        for spec in session.specs.values():
            for state in spec.chunks.values():
                self.totals.cancelled += count(state.ready) + count(state.leased)
                holders |= dict.fromkeys(lease.daemon for lease in state.leases.values())
            self._release(spec)
        for ended in session.outbox.everything():
            self._settled(ended)
            holders[ended.daemon] = None
        self._actions += [Send(daemon, m.Forget(instance)) for daemon in holders if daemon in self.daemons]
        self._persist(r.DropSession(instance))

    def _on_drain(self, event: Drain, now: float) -> None:
        self.draining = True

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
            self._drop(f"{type(message).__name__} from peer {instance:x}, which may not send it")

    def _drop(self, text: str) -> None:
        self._actions.append(Dropped(text))

    def _on_spec(self, session: Session, spec: m.Spec) -> None:
        if spec.spec in session.specs:
            return
        session.specs[spec.spec] = SpecState(
            session.instance, spec.spec, spec.name, spec.digest, spec.init, spec.priority, spec.limits
        )
        self.bodies.refer(spec.digest, spec.init)
        self._persist(r.PutSpec(session.instance, spec))

    def _on_body(self, session: Session, body: m.Body) -> None:
        if self.bodies.put(body.digest, body.data):
            self._persist(r.PutBody(*body))

    def _on_submit(self, session: Session, submit: m.Submit) -> None:
        spec = session.specs.get(submit.spec)
        chunk = submit.chunk
        if spec is None:
            self._drop(f"a chunk of unknown spec {submit.spec} from session {session.instance:x}")
            return
        if chunk.first < spec.submitted:
            return  # offered again; it is here, or has ended
        spec.submitted = chunk.first + chunk.count
        why = self._why_not(spec)
        if why is not None:
            self._actions.append(Send(session.instance, m.Rejected(spec.number, chunk.first, why)))
            return
        state = ChunkState(spec, chunk, list(submit.left) or [(0, chunk.count)])
        spec.chunks[chunk.first] = state
        self.totals.submitted += count(state.ready)
        self._persist(r.PutChunk(session.instance, spec.number, chunk, state.ready))
        pieces = [Piece(state, lo, hi, 1, False) for lo, hi in state.ready]
        if not submit.left:
            for piece in pieces:
                self.ready.push(spec.priority, session.instance, piece)
        else:
            self.recovery.hold(pieces)
            recovery.match(self, state)

    def _why_not(self, spec: SpecState) -> str | None:
        """Why a new chunk cannot be taken."""
        if not all(self.bodies.get(digest) is not None for digest in (spec.digest, spec.init) if digest):
            return f"the hub was never sent the function {spec.name}"
        return self.full

    def _on_cancel(self, session: Session, cancel: m.Cancel) -> None:
        spec = session.specs.get(cancel.spec)
        state = spec.chunks.get(cancel.first) if spec else None
        if state is None:
            self._actions.append(
                Send(session.instance, m.Cancelled(cancel.spec, cancel.first, [(cancel.lo, cancel.hi)]))
            )
            return
        leased = overlap(state.leased, cancel.lo, cancel.hi)
        for lo, hi in leased:
            state.cancelling = add(state.cancelling, lo, hi)
        self._cancel_ready(state, overlap(state.ready, cancel.lo, cancel.hi))
        self._revoke(state, leased, cancel.interrupt)

    def _revoke(self, state: ChunkState, ranges: Ranges, interrupt: bool = False) -> None:
        for lease in state.leases.values():
            for lo, hi in ranges:
                for a, b in overlap(lease.ranges, lo, hi):
                    self._actions.append(Send(lease.daemon, m.Revoke(lease.fence, a, b, interrupt)))

    def _cancel_ready(self, state: ChunkState, ranges: Ranges) -> None:
        """These have not started, and never will."""
        cancelled = state.move(ranges, Step.CANCELLED)
        self.totals.cancelled += count(cancelled)
        spec, first = state.spec, state.chunk.first
        for lo, hi in cancelled:
            self._deliver(state, m.Outcome(spec.number, first, lo, hi, m.Form.CANCELLED, b""))

    def _on_retire(self, session: Session, retire: m.Retire) -> None:
        spec = session.specs.get(retire.spec)
        if spec is not None:
            spec.retired = True
            self._forget_if_retired(session, spec)

    def _on_close(self, session: Session, close: m.Close) -> None:
        self._actions += [
            Note(logging.INFO, f"client {session.name} on {session.host} said goodbye"),
            Send(session.instance, m.Goodbye("session closed")),
        ]
        self._drop_session(session.instance)
        if session.instance in self.roster.peers:
            self.roster.remove(session.instance)
            self._actions.append(Dismiss(session.instance, False))

    # ---- what daemons say -----------------------------------------------------------------------------------

    def _on_done(self, daemon: DaemonState, done: m.Done) -> None:
        self.hungry.add(daemon.instance)
        for entry in done.entries:
            self.finish(daemon, entry)

    def finish(self, daemon: DaemonState, entry: m.Finished) -> None:
        """An outcome, of the lease that holds the tasks or of an earlier one."""
        outcome = entry.outcome
        lease = daemon.leases.get(entry.fence)
        found = lease.take(outcome.lo, outcome.hi) if lease else []
        if lease:
            tasks = daemon.settle(lease, found)
            daemon.finished += tasks
            daemon.busy_s += entry.busy_s
        origin = Ended(outcome, daemon.instance, entry.fence, outcome.lo, outcome.hi)
        state = self.state(entry.session, outcome.spec, outcome.first)
        if state is None and self.recovery.remember_outcome(daemon.instance, entry, self.sessions):
            return
        moved: Ranges = []
        if state is not None and outcome.hi <= state.chunk.count:
            current = bool(lease and found and lease.state is state)
            moved = self._book(state, outcome, current)
        if not moved or state is None:
            self.duplicate(entry.session, origin)
            return
        state.spec.pace.observe(outcome.hi - outcome.lo, entry.busy_s)
        self._deliver(state, outcome, origin)
        if not lease or count(found) < count(moved):
            self._revoke(state, moved)  # a copy is elsewhere

    def _book(self, state: ChunkState, outcome: m.Outcome, current: bool) -> Ranges:
        """A success counts from any dispatch; a failure only from the lease that holds the task."""
        ranges: Ranges = [(outcome.lo, outcome.hi)]
        if outcome.form <= m.Form.EACH:
            moved = state.move(ranges, Step.SUCCEEDED)
            self.totals.done += count(moved)
        elif not current:
            return []
        elif outcome.form == m.Form.CANCELLED:
            moved = state.move(ranges, Step.CANCELLED)
            self.totals.cancelled += count(moved)
        else:
            moved = state.move(ranges, Step.FAILED)
            self.totals.failed += count(moved)
        return moved

    def duplicate(self, session: int, ended: Ended) -> None:
        """Nobody needs this outcome; but its daemon keeps it until the one that counted is safe."""
        owner = self.sessions.get(session)
        if self.durable:
            self._uncommitted.append((self._records, ended))
        elif owner is None:
            self._settled(ended)
        else:
            owner.outbox.add(ended._replace(outcome=None))
            self._talkative.add(session)

    def state(self, session: int, spec: int, first: int) -> ChunkState | None:
        """A chunk that has not ended."""
        owner = self.sessions.get(session)
        known = owner.specs.get(spec) if owner else None
        return known.chunks.get(first) if known else None

    def _owned(self, state: ChunkState) -> bool:
        """Whether a chunk that a lease speaks of is wanted: its session may be over, or have begun anew since."""
        owner = self.sessions.get(state.spec.session)
        return owner is not None and owner.specs.get(state.spec.number) is state.spec

    def _deliver(self, state: ChunkState, outcome: m.Outcome, origin: Ended | None = None) -> None:
        """Tasks have ended: their client is to hear it, and the store to remember it until then."""
        session = self.sessions[state.spec.session]
        ended = origin or Ended(outcome, 0, 0, outcome.lo, outcome.hi)
        session.outbox.add(ended)
        self._talkative.add(session.instance)
        if self.durable:
            self._persist(r.PutOutcome(session.instance, outcome))
            self._persist(r.PutLeft(session.instance, outcome.spec, outcome.first, state.left))
            self._uncommitted.append((self._records, ended))
        self._end_if_done(state)

    def _end_if_done(self, state: ChunkState) -> None:
        spec = state.spec
        if state.ended and spec.chunks.pop(state.chunk.first, None) is not None:
            self._forget_if_retired(self.sessions[spec.session], spec)

    def _forget_if_retired(self, session: Session, spec: SpecState) -> None:
        if spec.retired and not spec.chunks:
            del session.specs[spec.number]
            self._release(spec)
            self._persist(r.DropSpec(session.instance, spec.number))

    def _release(self, spec: SpecState) -> None:
        """A spec is forgotten: drop the bodies that nothing refers to any more."""
        for digest in self.bodies.release(spec.digest, spec.init):
            self._persist(r.DropBody(digest))
            for daemon in self.daemons.values():
                daemon.bodies.discard(digest)

    def _on_strike(self, daemon: DaemonState, strike: m.Strike) -> None:
        self.hungry.add(daemon.instance)
        daemon.strikes += 1
        lease = daemon.leases.get(strike.fence)
        if lease is None:
            return
        found = lease.take(strike.lo, strike.hi)
        daemon.settle(lease, found)
        state = lease.state
        if not found or not self._owned(state):
            return
        once = state.spec.limits.at_most_once
        if strike.hi == strike.lo + 1:
            state.strikes[strike.lo] += 1
            once = once or state.strikes[strike.lo] >= MAX_STRIKES
        if once and not covers(state.cancelling, strike.lo):
            self.lose(state, found, strike.report)
        else:
            self._requeue(state, found, lease.attempt + 1, solo=True)

    def lose(self, state: ChunkState, ranges: Ranges, report: bytes) -> None:
        """These tasks are not tried again."""
        moved = state.move(ranges, Step.LOST)
        self.totals.failed += count(moved)
        for lo, hi in moved:
            for offset in range(lo, hi):
                spec, first = state.spec.number, state.chunk.first
                self._deliver(state, m.Outcome(spec, first, offset, offset + 1, m.Form.LOST, report))

    def _requeue(self, state: ChunkState, ranges: Ranges, attempt: int, solo: bool, started: bool = False) -> None:
        """Put ranges of a lease back, at the front of the queue; what was being cancelled is cancelled.

        `started`: they may have started, so tasks that must not start twice are lost.
        """
        if not self._owned(state):
            return
        spec = state.spec
        if started and spec.limits.at_most_once:
            self.lose(state, [part for lo, hi in ranges for part in overlap(state.leased, lo, hi)], MACHINE_LOST)
            return
        returned = state.move(ranges, Step.RETURNED)
        self._cancel_ready(state, [part for lo, hi in returned for part in overlap(state.cancelling, lo, hi)])
        for lo, hi in reversed([part for a, b in returned for part in overlap(state.ready, a, b)]):
            self.ready.push(spec.priority, spec.session, Piece(state, lo, hi, attempt, solo), front=True)

    def _on_give_back(self, daemon: DaemonState, back: m.GiveBack) -> None:
        self.hungry.add(daemon.instance)
        lease = daemon.leases.get(back.fence)
        if lease is None:
            return
        found = [part for lo, hi in back.returned for part in lease.take(lo, hi)]
        daemon.settle(lease, found)
        state, spec = lease.state, lease.state.spec
        self._requeue(state, found, lease.attempt, lease.solo)
        kept = [part for lo, hi in back.kept for part in overlap(state.cancelling, lo, hi)]
        if kept and self._owned(state):
            self._actions.append(Send(spec.session, m.Cancelled(spec.number, state.chunk.first, kept)))

    def _on_inventory(self, daemon: DaemonState, inventory: m.Inventory) -> None:
        """What a daemon that was away still holds: of its old leases the rest is lost, of the rest leases are made."""
        self.hungry.add(daemon.instance)
        held = {holding.fence: holding.ranges for holding in inventory.holdings}
        for lease in [daemon.leases[fence] for fence in daemon.stale if fence in daemon.leases]:
            lost = lease.ranges
            for lo, hi in held.get(lease.fence, []):
                lost = subtract(lost, lo, hi)
            self.take_back(daemon, lease, lost, lease.attempt + 1, started=True)
        daemon.stale.clear()
        for holding in inventory.holdings:
            self._actions += recovery.adopt(self, daemon, holding)

    def take_back(self, daemon: DaemonState, lease: Lease, ranges: Ranges, attempt: int, started: bool = False) -> None:
        """Ranges of a lease are not with its daemon any more."""
        found = [part for lo, hi in ranges for part in lease.take(lo, hi)]
        daemon.settle(lease, found)
        self._requeue(lease.state, found, attempt, lease.solo, started)

    def _on_need_body(self, daemon: DaemonState, need: m.NeedBody) -> None:
        body = self.bodies.get(need.digest)
        if body is not None:
            self._actions.append(Send(daemon.instance, m.Body(need.digest, body)))

    def _on_slots(self, daemon: DaemonState, slots: m.Slots) -> None:
        daemon.slots = max(0, slots.slots)
        self.hungry.add(daemon.instance)

    def _on_leaving(self, daemon: DaemonState, leaving: m.Leaving) -> None:
        peer = self.roster.peers[daemon.instance]
        self._actions += [
            Note(logging.INFO, f"daemon {peer.name} on {peer.host} left"),
            Send(daemon.instance, m.Goodbye("you left")),
        ]
        self._remove_peer(peer, dead=False, now=0.0)

    # ---- outcomes until their client has them ---------------------------------------------------------------

    def _on_delivered(self, event: Delivered, now: float) -> None:
        session = self.sessions.get(event.instance)
        if session is None:
            return
        for ended in session.outbox.acknowledged(event.messages):
            outcome = ended.outcome
            if not self.durable:
                self._settled(ended)
            elif outcome is not None:
                self._persist(r.DropOutcome(session.instance, outcome.spec, outcome.first, outcome.lo, outcome.hi))

    def _on_committed(self, event: Committed, now: float) -> None:
        while self._uncommitted and self._uncommitted[0][0] <= event.records:
            self._settled(self._uncommitted.popleft()[1])

    def _on_store_fails(self, event: StoreFails, now: float) -> None:
        self.full = event.why
        if event.why is None:
            self._actions.append(Note(logging.WARNING, "the store works again: taking tasks again"))
        else:
            self._actions.append(Note(logging.ERROR, f"taking no more tasks, and losing none: {event.why}"))

    def _settled(self, ended: Ended) -> None:
        """The daemon that made this outcome may forget it."""
        daemon = self.daemons.get(ended.daemon)
        if daemon is not None and not daemon.local:
            daemon.settled.append((ended.fence, ended.lo, ended.hi))
            self._settling.add(ended.daemon)

    def _persist(self, record: r.Record) -> None:
        if self.durable:
            self._records += 1
            self._actions.append(Persist(record))

    # ---- time: verdicts, dispatch, deliveries ---------------------------------------------------------------

    def _on_tick(self, event: Tick, now: float) -> None:
        if now >= self.roster.next_deadline():
            dead, suspect = self.roster.overdue(now)
            for peer in dead:
                self._bury(peer, now)
            for peer in suspect:
                if peer.role == "daemon":
                    move_queued(self, peer)
        if now >= self.recovery.until:
            self._actions += recovery.finish(self)
        for instance in [i for i, until in self._gone.items() if now >= until]:
            session = self.sessions[instance]
            self._actions.append(Note(logging.INFO, f"client {session.name} on {session.host} did not come back"))
            self._drop_session(instance)
        if self.hungry:
            if self.ready:
                self._actions += dispatch(self, now)
            self._recall(now)
        for instance in self._talkative:
            self._flush(self.sessions[instance])
        self._talkative.clear()
        for instance in self._settling:
            parts, self.daemons[instance].settled = self.daemons[instance].settled, []
            for start in range(0, len(parts), SETTLED_PARTS):
                self._actions.append(Send(instance, m.Settled(parts[start : start + SETTLED_PARTS])))
        self._settling.clear()
        self.rate.sample(now, self.totals.done + self.totals.failed)

    def _recall(self, now: float) -> None:
        """Nothing waits here, and some daemon idles: ask another for what waits there."""
        if self.ready or len(self.daemons) < 2:
            self._recall_at = NEVER
        elif self._recall_at == NEVER or now >= self._recall_at:
            actions, self._recall_at = recall(self, now)
            self._actions += actions

    def _flush(self, session: Session) -> None:
        if session.gone_at is not None:
            return
        messages, settled = session.outbox.send()
        self._actions += [Send(session.instance, m.Results(outcomes)) for outcomes in messages]
        for ended in settled:
            self._settled(ended)

    def perform(self, actions: list[Action]) -> None:
        """Have these done, after what was decided before."""
        self._actions += actions

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
