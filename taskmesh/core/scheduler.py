"""The scheduler: the hub's side of every decision.

Events come in, actions come out; the hub's shell owns sockets and clocks. What clients ask for is in `requests`, what
daemons say in `returns`, who comes in `admission`, who goes in `departures`, what is leased out in `dispatch`. The
rules kept together (design, section 7):

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
from collections.abc import Callable
from functools import partial
from typing import Any

from . import admission, checks, departures, recovery, requests, returns, statistics
from . import messages as m
from . import records as r
from .actions import Action, Dropped, Note, Send
from .bodies import Bodies
from .deliveries import Deliveries
from .dispatch import dispatch
from .events import (
    Committed,
    Delivered,
    Drain,
    Event,
    Joined,
    LaneDown,
    NoLane,
    Received,
    Revoked,
    Stop,
    StoreFails,
    Tick,
)
from .hungry import Hungry
from .leases import ChunkState, DaemonState, Loads, Piece, SpecState
from .lifecycle import Step
from .outbox import Ended
from .quota import UNLIMITED, Bucket, Quotas
from .ranges import Ranges, count, normal, overlap
from .ready import ReadyQueue
from .recall import RECALL_AFTER_S, move_queued, recall
from .repairs import Repairs
from .roster import NEVER, Roster
from .sessions import Session, Totals
from .timing import Timing


class Scheduler:
    """Decides what runs where.

    Parameters
    ----------
    version, python
        Release of taskmesh and `major.minor` of Python: peers with others are refused, because functions that travel
        by value do not survive the difference.
    now
        Monotonic time, seconds.
    timing
        How long peers are waited for.
    fence
        Fences count up from here; a hub's incarnation starts them where no other did.
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
        timing: Timing,
        fence: int = 0,
        durable: bool = False,
        quotas: Quotas = UNLIMITED,
    ) -> None:
        self.version = version
        self.python = python
        self.started_at = now
        self.draining = False
        self.roster = Roster(timing.dead_after_s)
        self.sessions: dict[int, Session] = {}
        self.daemons: dict[int, DaemonState] = {}
        self.totals = Totals()
        self.ready: ReadyQueue[Piece] = ReadyQueue()
        self.bodies = Bodies()
        self.loads = Loads()
        self.hungry = Hungry(self.daemons, self.roster)
        self.recovery = recovery.Recovery(now + timing.recovery_s)
        self.grace_s = timing.grace_s
        self.full: str | None = None  # why the store takes nothing more
        self.quotas = quotas
        self.registrations: dict[str, Bucket] = {}  # by ticket: those that come too often hold up no others
        self.gone: dict[int, float] = {}  # sessions whose client is away, and until when they are kept
        self.leaving: set[int] = set()  # daemons whose last outcomes are not committed yet
        self._recall_at = NEVER
        self._recalled_at = -NEVER
        self._fences = fence
        self.rate = statistics.Rate(now)
        self._actions: list[Action] = []
        self.deliveries = Deliveries(self.sessions, self.daemons, durable, self.do)
        self.repairs = Repairs(self.bodies, self.daemons, self.do)
        self._events = self._event_handlers()
        self._from_client = self._client_handlers()
        self._from_daemon = self._daemon_handlers()

    def _event_handlers(self) -> dict[type[Any], Callable[[Any, float], None]]:
        return {
            Received: self._on_received,
            Joined: partial(admission.on_joined, self),
            LaneDown: partial(departures.on_lane_down, self),
            NoLane: partial(departures.on_no_lane, self),
            Revoked: partial(admission.on_revoked, self),
            Delivered: self._on_delivered,
            Committed: self.deliveries.on_committed,
            StoreFails: self._on_store_fails,
            Tick: self._on_tick,
            Drain: self._on_drain,
            Stop: self._on_stop,
        }

    def _client_handlers(self) -> dict[type[Any], Callable[[Session, Any], None]]:
        return {
            m.Spec: partial(requests.on_spec, self),
            m.Body: partial(requests.on_body, self),
            m.Submit: partial(requests.on_submit, self),
            m.Cancel: partial(requests.on_cancel, self),
            m.Retire: partial(requests.on_retire, self),
            m.Close: partial(requests.on_close, self),
        }

    def _daemon_handlers(self) -> dict[type[Any], Callable[[DaemonState, Any], None]]:
        return {
            m.Done: partial(returns.on_done, self),
            m.Strike: partial(returns.on_strike, self),
            m.GiveBack: partial(returns.on_give_back, self),
            m.Inventory: partial(returns.on_inventory, self),
            m.NeedBody: self.repairs.on_need_body,
            m.Slots: partial(returns.on_slots, self),
            m.Leaving: partial(departures.on_leaving, self),
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

    # ---- what its parts need --------------------------------------------------------------------------------

    def do(self, action: Action) -> None:
        """Have this done, after what was decided before."""
        self._actions.append(action)

    def next_fence(self) -> int:
        """A number higher than that of every dispatch before."""
        self._fences += 1
        return self._fences

    def drop(self, text: str) -> None:
        """A peer sent what it may not, or what makes no sense: count it."""
        self._actions.append(Dropped(text))

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
            self.forget_if_retired(session, spec)

    def forget_if_retired(self, session: Session, spec: SpecState) -> None:
        """A function that its client has let go of ends with its last task."""
        if spec.retired and not spec.chunks:
            del session.specs[spec.number]
            session.queued -= spec.weight
            self.release(spec)
            self.deliveries.persist(r.DropSpec(session.instance, spec.number))

    def release(self, spec: SpecState) -> None:
        """A spec is forgotten: drop the bodies that nothing refers to any more."""
        for digest in self.bodies.release(spec.digest, spec.init):
            self.deliveries.persist(r.DropBody(digest))

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
                departures.bury(self, peer, now)
            for peer in suspect:
                if peer.role == "daemon":
                    move_queued(self, peer)
        if self.leaving:
            for instance in [i for i in self.leaving if not self.deliveries.uncommitted_of(i)]:
                departures.see_off(self, self.roster.peers[instance])
        if now >= self.recovery.until:
            recovery.finish(self)
        self.repairs.tick(now)
        if self.gone:
            departures.drop_gone(self, now)
        if self.hungry:
            if self.ready:
                self._actions += dispatch(self, now)
            self._recall(now)
        else:
            self._recall_at = NEVER  # nobody could take anything; whoever can says something first
        self.deliveries.tick()
        self.rate.sample(now, self.totals.done + self.totals.failed)

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

    # ---- what it knows --------------------------------------------------------------------------------------

    def statistics(self, now: float) -> statistics.Statistics:
        """Everything that there is to know, as of `now`."""
        return statistics.statistics(self, now)

    def check(self) -> None:
        """Compare every index with every other.

        Raises
        ------
        LocalProtocolError
            Two of them disagree.
        """
        checks.check(self)


__all__ = ["Scheduler"]
