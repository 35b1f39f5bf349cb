"""The scheduler: the hub's side of every decision.

Events come in, actions come out; the hub's shell owns sockets and clocks. The rules kept here (design, section 7):

- Ends once: what has ended is in no set any more, so a second outcome finds nothing to end and is dropped.
- Fences: a success counts from any dispatch of a task, a failure only from the lease that holds it now.
- Death: a dead daemon's unfinished work goes to the front of the queue; a dead client's waiting work is dropped.
- Blame: three runners that died over exactly one task fail it with `WorkerLost`; deaths of machines do not count.
- A slot is free only when its runner is: a lease stays on the books until the daemon has accounted for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from . import audit
from . import messages as m
from .actions import (
    Action,
    Admit,
    Again,
    Dismiss,
    Drain,
    Dropped,
    Event,
    Joined,
    LaneDown,
    NoLane,
    Note,
    Received,
    Refuse,
    Send,
    Tick,
)
from .bodies import Bodies
from .dispatch import dispatch
from .leases import ChunkState, DaemonState, Piece, SpecState
from .lifecycle import Step
from .ranges import Ranges, add, count, overlap
from .ready import ReadyQueue
from .roster import DEAD_AFTER_S, Peer, Roster
from .statistics import Statistics

MAX_STRIKES = 3
RESULTS_BYTES = 128 * 1024  # outcomes are gathered into messages of about this size


@dataclass(slots=True, eq=False)
class Session:
    """One client's tasks. `outbox`: outcomes that the next tick sends."""

    instance: int
    specs: dict[int, SpecState] = field(default_factory=dict)
    outbox: list[m.Outcome] = field(default_factory=list)


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
    """

    def __init__(
        self, version: str, python: str, now: float, fence: int = 0, dead_after_s: float = DEAD_AFTER_S
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
        self._talkative: set[int] = set()  # sessions with an outbox
        self._fences = fence
        self.rate = audit.Rate(now)
        self._actions: list[Action] = []
        self._events: dict[type[Any], Callable[[Any, float], None]] = {
            Received: self._on_received,
            Joined: self._on_joined,
            LaneDown: self._on_lane_down,
            NoLane: self._on_no_lane,
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

    def heard(self, instance: int, epoch: int, now: float) -> bool:
        """A heartbeat or frame came. Returns whether that registration is live."""
        return self.roster.heard(instance, epoch, now)

    def next_deadline(self) -> float:
        """When `Tick` is due if nothing else happens."""
        return self.roster.next_deadline()

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
        welcome = self.roster.register(request, now)
        if welcome is None:
            self._actions.append(Again(request.instance))
            return
        peer, resume = welcome
        resume = resume and request.epoch != 0
        if peer.role == "daemon":
            if not resume:
                self._lose_daemon(peer.instance)
                self.daemons[peer.instance] = DaemonState(peer.instance, peer.slots)
            self.hungry.add(peer.instance)
        elif not resume:
            self._drop_session(peer.instance)
            self.sessions[peer.instance] = Session(peer.instance)
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
        known = self.roster.peers.get(request.instance)
        if known is not None and known.role != request.role:
            return f"a {known.role} already has this instance id"
        if request.role == "daemon" and request.slots < 0:
            return f"a daemon cannot have {request.slots} slots"
        if self.draining and request.role == "client" and request.instance not in self.roster.peers:
            return "the hub is shutting down"
        return None

    def _on_lane_down(self, event: LaneDown, now: float) -> None:
        self.roster.lane_down(event.instance, event.epoch, now)

    def _on_no_lane(self, event: NoLane, now: float) -> None:
        self._remove_peer(self.roster.peers[event.instance], dead=True)

    def _bury(self, peer: Peer, now: float) -> None:
        silent = now - peer.heard_at
        why = "disconnected" if peer.lane_down_at is not None else f"not heard for {silent:.0f} s"
        level = logging.WARNING if peer.role == "daemon" else logging.INFO
        self._actions.append(Note(level, f"{peer.role} {peer.name} on {peer.host} is gone: {why}"))
        self._remove_peer(peer, dead=True)

    def _remove_peer(self, peer: Peer, dead: bool) -> None:
        if peer.role == "daemon":
            self._lose_daemon(peer.instance)
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
        for lease in reversed(list(daemon.leases.values())):
            self._requeue(lease.state, lease.ranges, lease.attempt + 1, lease.solo)

    def _drop_session(self, instance: int) -> None:
        session = self.sessions.pop(instance, None)
        if session is None:
            return
        self.ready.drop_session(instance)
        self._talkative.discard(instance)
        for spec in session.specs.values():
            for state in spec.chunks.values():
                self.totals.cancelled += count(state.ready) + count(state.leased)
            self._release(spec)
        for daemon in self.daemons.values():
            if any(lease.state.spec.session == instance for lease in daemon.leases.values()):
                self._actions.append(Send(daemon.instance, m.Forget(instance)))

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

    def _on_body(self, session: Session, body: m.Body) -> None:
        self.bodies.put(body.digest, body.data)

    def _on_submit(self, session: Session, submit: m.Submit) -> None:
        spec = session.specs.get(submit.spec)
        chunk = submit.chunk
        if spec is None:
            self._drop(f"a chunk of unknown spec {submit.spec} from session {session.instance:x}")
            return
        if not all(self.bodies.get(digest) is not None for digest in (spec.digest, spec.init) if digest):
            self._drop(f"a chunk of {spec.name}, whose function session {session.instance:x} never sent")
            return
        if chunk.first < spec.submitted:
            return  # offered again; it is here, or has ended
        spec.submitted = chunk.first + chunk.count
        state = ChunkState(spec, chunk, list(submit.left) or [(0, chunk.count)])
        spec.chunks[chunk.first] = state
        self.totals.submitted += chunk.count
        for lo, hi in state.ready:
            self.ready.push(spec.priority, session.instance, Piece(state, lo, hi, 1, False))

    def _on_cancel(self, session: Session, cancel: m.Cancel) -> None:
        spec = session.specs.get(cancel.spec)
        state = spec.chunks.get(cancel.first) if spec else None
        if state is None:
            answer = m.Cancelled(cancel.spec, cancel.first, [], [(cancel.lo, cancel.hi)])
            self._actions.append(Send(session.instance, answer))
            return
        cancelled = state.move(overlap(state.ready, cancel.lo, cancel.hi), Step.CANCELLED)
        self._cancelled(state, cancelled)
        leased = overlap(state.leased, cancel.lo, cancel.hi)
        if cancelled or not leased:
            self._actions.append(Send(session.instance, m.Cancelled(cancel.spec, cancel.first, cancelled, [])))
        if leased:
            for lo, hi in leased:
                state.cancelling = add(state.cancelling, lo, hi)
            self._revoke(state, leased)

    def _revoke(self, state: ChunkState, ranges: Ranges) -> None:
        for daemon in self.daemons.values():
            for lease in daemon.leases.values():
                if lease.state is not state:
                    continue
                for lo, hi in ranges:
                    for a, b in overlap(lease.ranges, lo, hi):
                        self._actions.append(Send(daemon.instance, m.Revoke(lease.fence, a, b)))

    def _cancelled(self, state: ChunkState, ranges: Ranges) -> None:
        self.totals.cancelled += count(ranges)
        self._end_if_done(state)

    def _on_retire(self, session: Session, retire: m.Retire) -> None:
        spec = session.specs.get(retire.spec)
        if spec is not None:
            spec.retired = True
            self._forget_if_retired(session, spec)

    def _on_close(self, session: Session, close: m.Close) -> None:
        peer = self.roster.peers[session.instance]
        self._actions += [
            Note(logging.INFO, f"client {peer.name} on {peer.host} said goodbye"),
            Send(session.instance, m.Goodbye("session closed")),
        ]
        self._remove_peer(peer, dead=False)

    # ---- what daemons say -----------------------------------------------------------------------------------

    def _on_done(self, daemon: DaemonState, done: m.Done) -> None:
        self.hungry.add(daemon.instance)
        for entry in done.entries:
            self._finish(daemon, entry)

    def _finish(self, daemon: DaemonState, entry: m.Finished) -> None:
        outcome = entry.outcome
        lease = daemon.leases.get(entry.fence)
        found = lease.take(outcome.lo, outcome.hi) if lease else []
        if lease:
            tasks = daemon.settle(lease, found)
            daemon.finished += tasks
            daemon.busy_s += entry.busy_s
        state = self._state(entry.session, outcome.spec, outcome.first)
        if state is None or outcome.hi > state.chunk.count:
            return  # the session is over, or all of it has ended
        succeeded = outcome.form <= m.Form.EACH
        if not succeeded and not (lease and found and lease.state is state):
            return  # a failure counts only from the lease that holds the task
        moved = state.move([(outcome.lo, outcome.hi)], Step.SUCCEEDED if succeeded else Step.FAILED)
        if not moved:
            return
        if succeeded:
            self.totals.done += count(moved)
        else:
            self.totals.failed += count(moved)
        state.spec.pace.observe(outcome.hi - outcome.lo, entry.busy_s)
        self._deliver(state, outcome)

    def _state(self, session: int, spec: int, first: int) -> ChunkState | None:
        owner = self.sessions.get(session)
        known = owner.specs.get(spec) if owner else None
        return known.chunks.get(first) if known else None

    def _owned(self, state: ChunkState) -> bool:
        """Whether a chunk that a lease speaks of is wanted: its session may be over, or have begun anew since."""
        owner = self.sessions.get(state.spec.session)
        return owner is not None and owner.specs.get(state.spec.number) is state.spec

    def _deliver(self, state: ChunkState, outcome: m.Outcome) -> None:
        session = self.sessions[state.spec.session]
        session.outbox.append(outcome)
        self._talkative.add(session.instance)
        self._end_if_done(state)

    def _end_if_done(self, state: ChunkState) -> None:
        spec = state.spec
        if state.ended and spec.chunks.pop(state.chunk.first, None) is not None:
            self._forget_if_retired(self.sessions[spec.session], spec)

    def _forget_if_retired(self, session: Session, spec: SpecState) -> None:
        if spec.retired and not spec.chunks:
            del session.specs[spec.number]
            self._release(spec)

    def _release(self, spec: SpecState) -> None:
        """A spec is forgotten: drop the bodies that nothing refers to any more."""
        for digest in self.bodies.release(spec.digest, spec.init):
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
        if strike.hi == strike.lo + 1 and found and self._owned(state):
            state.strikes[strike.lo] += 1
            if state.strikes[strike.lo] >= MAX_STRIKES and state.move(found, Step.FAILED):
                self.totals.failed += 1
                spec, first = state.spec.number, state.chunk.first
                self._deliver(state, m.Outcome(spec, first, strike.lo, strike.hi, m.Form.LOST, strike.report))
                return
        self._requeue(state, found, lease.attempt + 1, solo=True)

    def _requeue(self, state: ChunkState, ranges: Ranges, attempt: int, solo: bool) -> None:
        """Put ranges of a lease back, at the front of the queue; what was being cancelled is cancelled."""
        if not self._owned(state):
            return
        returned = state.move(ranges, Step.RETURNED)
        doomed = [part for lo, hi in returned for part in overlap(state.cancelling, lo, hi)]
        if doomed:
            cancelled = state.move(doomed, Step.CANCELLED)
            spec = state.spec
            self._actions.append(Send(spec.session, m.Cancelled(spec.number, state.chunk.first, cancelled, [])))
            self._cancelled(state, cancelled)
        for lo, hi in reversed([part for a, b in returned for part in overlap(state.ready, a, b)]):
            piece = Piece(state, lo, hi, attempt, solo)
            self.ready.push(state.spec.priority, state.spec.session, piece, front=True)

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
            self._actions.append(Send(spec.session, m.Cancelled(spec.number, state.chunk.first, [], kept)))

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
        self._remove_peer(peer, dead=False)

    # ---- time: verdicts, dispatch, deliveries ---------------------------------------------------------------

    def _on_tick(self, event: Tick, now: float) -> None:
        if now >= self.roster.next_deadline():
            for peer in self.roster.dead(now):
                self._bury(peer, now)
        if self.ready and self.hungry:
            self._actions += dispatch(self, now)
        for instance in self._talkative:
            self._flush(self.sessions[instance])
        self._talkative.clear()
        self.rate.sample(now, self.totals.done + self.totals.failed)

    def _flush(self, session: Session) -> None:
        batch: list[m.Outcome] = []
        size = 0
        for outcome in session.outbox:
            if batch and size + len(outcome.blob) > RESULTS_BYTES:
                self._actions.append(Send(session.instance, m.Results(batch)))
                batch, size = [], 0
            batch.append(outcome)
            size += len(outcome.blob) + 32
        self._actions.append(Send(session.instance, m.Results(batch)))
        session.outbox.clear()

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
