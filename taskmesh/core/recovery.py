"""Recovery: what a hub that has just started knows, and what its peers tell it again.

A client offers again what has not ended (`Submit` with `left`), or the store has it; a daemon says again what it has
done (`Done`) and what it still holds (`Inventory`). They come in any order. So for a short while after the start, work
that was offered before is held and not dispatched, and what daemons say of chunks that are not here yet is kept. After
that, what nobody holds is dispatched, but for tasks that must not start twice: those are lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import messages as m
from . import returns
from .actions import Send
from .leases import HUB_LOST, ChunkState, DaemonState, Lease, Piece, SpecState
from .lifecycle import Step
from .outbox import Ended
from .ranges import Ranges, count, normal, overlap, subtract, without
from .records import Snapshot
from .sessions import Session

if TYPE_CHECKING:
    from .scheduler import Scheduler

NEVER = float("inf")
Key = tuple[int, int, int]
"""Session, spec, first task: a chunk."""


class Recovery:
    """What is held until `until`, and what was said of chunks that are not here yet."""

    def __init__(self, until: float) -> None:
        self.until = until
        self.held: dict[ChunkState, list[Piece]] = {}
        self.holdings: dict[Key, list[tuple[int, m.Holding]]] = {}  # with the daemon that said it
        self.outcomes: dict[Key, list[tuple[int, m.Finished]]] = {}

    def hold(self, pieces: list[Piece]) -> None:
        """These were offered before. They wait; if the time is over, only until the next tick."""
        for piece in pieces:
            self.held.setdefault(piece.state, []).append(piece)
        if self.until == NEVER:
            self.until = 0.0

    def release(self, state: ChunkState, ranges: Ranges) -> None:
        """A daemon has these: they are not held any more, and whatever becomes of them is in other books."""
        pieces = self.held.get(state, [])
        for lo, hi in ranges:
            pieces = [p._replace(lo=a, hi=b) for p in pieces for a, b in subtract([(p.lo, p.hi)], lo, hi)]
        if pieces:
            self.held[state] = pieces
        else:
            self.held.pop(state, None)

    def remember_outcome(self, daemon: int, entry: m.Finished) -> None:
        """An outcome of a chunk that may yet be offered again."""
        self.outcomes.setdefault((entry.session, entry.outcome.spec, entry.outcome.first), []).append((daemon, entry))

    def remember_holding(self, daemon: int, holding: m.Holding) -> None:
        """A part of an inventory that speaks of a chunk that may yet be offered again."""
        self.holdings.setdefault((holding.session, holding.spec, holding.first), []).append((daemon, holding))

    def no_longer_holds(self, daemon: int, fence: int, ranges: Ranges) -> None:
        """A daemon has given back, or lost, parts of what it said it holds."""
        for key, holdings in self.holdings.items():
            for place, (instance, holding) in enumerate(holdings):
                if (instance, holding.fence) == (daemon, fence):
                    left: Ranges = without(holding.ranges, ranges)
                    self.holdings[key][place] = instance, holding._replace(ranges=left)

    def forget_daemon(self, daemon: int) -> None:
        """A daemon is dead, or says anew what it holds."""
        for key, holdings in self.holdings.items():
            self.holdings[key] = [(instance, holding) for instance, holding in holdings if instance != daemon]

    def drop_session(self, session: int) -> None:
        """A session is over: nothing of it is held."""
        self.held = {state: pieces for state, pieces in self.held.items() if state.spec.session != session}


def restore(scheduler: Scheduler, snapshot: Snapshot) -> None:
    """Build sessions, specs and chunks from what was stored; all of it is held, and no client is there yet."""
    for stored in snapshot.sessions:
        session = scheduler.sessions[stored.session] = Session(
            stored.session, stored.name, stored.host, proof=stored.proof, ticket=stored.ticket
        )  # fmt: skip
        session.gone_at = scheduler.started_at
        for spec, submitted, chunks in stored.specs:
            state = SpecState(
                stored.session, spec.spec, spec.name, spec.digest, spec.init, spec.priority, spec.limits,
                submitted=submitted,
            )  # fmt: skip
            session.specs[spec.spec] = state
            session.queued += state.weight
            scheduler.bodies.refer(spec.digest, spec.init)
            for chunk, left in chunks:
                chunk_state = state.chunks[chunk.first] = ChunkState(state, chunk, left, again=True)
                session.queued += chunk.weight
                scheduler.totals.submitted += count(left)
                scheduler.recovery.hold([Piece(chunk_state, lo, hi, 1, False) for lo, hi in left])
        for outcome in stored.outcomes:
            session.outbox.add(Ended(outcome, 0, 0, outcome.lo, outcome.hi))
        scheduler.ration(session)
    for digest, data in snapshot.bodies.items():
        scheduler.bodies.put(digest, data)


def may_come(scheduler: Scheduler, session: int, spec: int, first: int) -> bool:
    """Whether a chunk that is not here may yet be offered again: the hub has just started, and it was not yet."""
    if scheduler.recovery.until in (NEVER, 0.0):
        return False
    owner = scheduler.sessions.get(session)
    known = owner.specs.get(spec) if owner is not None else None
    return known is None or first >= known.submitted


def match(scheduler: Scheduler, state: ChunkState) -> None:
    """A chunk was offered again: what daemons have said of it counts now.

    What they hold comes first: an outcome may have followed it, and ends the lease that it becomes.
    """
    recovery = scheduler.recovery
    key = (state.spec.session, state.spec.number, state.chunk.first)
    for instance, holding in recovery.holdings.pop(key, ()):
        daemon = scheduler.daemons.get(instance)
        if daemon is not None:
            adopt(scheduler, daemon, holding)
    for instance, entry in recovery.outcomes.pop(key, ()):
        daemon = scheduler.daemons.get(instance)
        returns.finish(scheduler, daemon or DaemonState(instance, 0), entry)


def adopt(scheduler: Scheduler, daemon: DaemonState, holding: m.Holding) -> None:
    """A daemon holds this: it is its lease if nobody else has it; the rest it is asked to drop."""
    state = scheduler.state(holding.session, holding.spec, holding.first)
    known = daemon.leases.get(holding.fence)
    unwanted = without(normal(holding.ranges), known.ranges if known else ())
    if state is None:
        if may_come(scheduler, holding.session, holding.spec, holding.first):
            scheduler.recovery.remember_holding(daemon.instance, holding)
            return
        if holding.session not in scheduler.sessions:
            scheduler.do(Send(daemon.instance, m.Forget(holding.session)))
            return
    elif not state.heeds(daemon.instance):
        scheduler.drop(f"an inventory of daemon {daemon.instance:x} with tasks that it was never given")
    elif known.state is state if known is not None else holding.fence not in state.leases:  # nor is it another's
        taken = state.move(unwanted, Step.DISPATCHED)
        if taken:
            scheduler.recovery.release(state, taken)
            price_s = state.spec.pace.price_s()
            attempt, solo = holding.attempt, holding.solo
            daemon.add(Lease(holding.fence, daemon.instance, state, taken, attempt, solo, price_s))
        unwanted = without(unwanted, taken)
    for lo, hi in unwanted:
        scheduler.do(Send(daemon.instance, m.Revoke(holding.fence, lo, hi)))


def finish(scheduler: Scheduler) -> None:
    """The wait is over: dispatch what nobody holds."""
    recovery = scheduler.recovery
    recovery.until = NEVER
    held, recovery.held = recovery.held, {}
    for piece in (piece for pieces in held.values() for piece in pieces):
        spec = piece.state.spec
        ready = overlap(piece.state.ready, piece.lo, piece.hi)
        if spec.limits.at_most_once:
            returns.lose(scheduler, piece.state, ready, HUB_LOST)
            continue
        for lo, hi in ready:
            scheduler.ready.push(spec.priority, spec.session, piece._replace(lo=lo, hi=hi))
    for (session, _, _), outcomes in recovery.outcomes.items():
        for instance, entry in outcomes:
            outcome = entry.outcome
            scheduler.deliveries.duplicate(session, Ended(None, instance, entry.fence, outcome.lo, outcome.hi))
    for holdings in recovery.holdings.values():
        for instance, holding in holdings:
            if instance not in scheduler.daemons:
                continue
            if holding.session not in scheduler.sessions:
                scheduler.do(Send(instance, m.Forget(holding.session)))
                continue
            for lo, hi in holding.ranges:  # its session goes on, with other work at this daemon
                scheduler.do(Send(instance, m.Revoke(holding.fence, lo, hi)))
    recovery.outcomes, recovery.holdings = {}, {}
