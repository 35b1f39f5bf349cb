"""Requests: what clients ask for on their links.

- A chunk is taken once: offered again, only what is neither here nor on its way to the client is taken.
- What is too much is refused, and the client is told why. Nothing that was taken is refused later.
- Cancelled: what waits never starts; what is at a daemon is asked back, and its answer says what has started.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from . import departures, recovery
from . import messages as m
from . import records as r
from .actions import Dismiss, Note, Send
from .leases import ChunkState, Piece, SpecState
from .limits import SPECS
from .ranges import Ranges, count, overlap, union, without
from .sessions import Session

if TYPE_CHECKING:
    from .scheduler import Scheduler


def on_spec(scheduler: Scheduler, session: Session, spec: m.Spec) -> None:
    """A function with its name and options; its body comes by itself."""
    _pass_over(scheduler, session, spec.spec)
    if spec.spec in session.specs:
        return
    if len(session.specs) >= SPECS:
        scheduler.drop(f"function {spec.spec} from session {session.instance:x}, which has {SPECS} already")
        return
    state = SpecState(session.instance, spec.spec, spec.name, spec.digest, spec.init, spec.priority, spec.limits)
    if session.queued + session.outbox.bytes + state.weight > scheduler.quotas.queued_bytes:
        scheduler.drop(f"function {spec.spec} from session {session.instance:x}, which has no room for it")
        return
    session.specs[spec.spec] = state
    session.queued += state.weight
    scheduler.bodies.refer(spec.digest, spec.init)
    scheduler.deliveries.persist(r.PutSpec(session.instance, spec))


def on_body(scheduler: Scheduler, session: Session, body: m.Body) -> None:
    """A pickled function that something here refers to."""
    if not scheduler.bodies.wants(body.digest):
        return
    if scheduler.bodies.bytes[session.instance] + len(body.data) > scheduler.quotas.queued_bytes:
        scheduler.drop(f"a function of {len(body.data):,} bytes from session {session.instance:x}, which has too many")
    elif scheduler.bodies.put(body.digest, body.data, session.instance):
        scheduler.deliveries.persist(r.PutBody(*body))


def on_submit(scheduler: Scheduler, session: Session, submit: m.Submit) -> None:
    """A chunk of tasks; with `left`, one that was offered to this hub or another before."""
    spec = session.specs.get(submit.spec)
    chunk = submit.chunk
    if spec is None:
        scheduler.drop(f"a chunk of unknown spec {submit.spec} from session {session.instance:x}")
        _reject(scheduler, session, submit, f"the hub has no function {submit.spec}: a session may have {SPECS}")
        return
    left: Ranges = list(submit.left) or [(0, chunk.count)]
    if chunk.first < spec.submitted:
        left = _unheard_of(scheduler, session, spec, submit)
        if not left:
            return
    spec.submitted = max(spec.submitted, chunk.first + chunk.count)
    why = _why_not(scheduler, session, spec, submit)
    if why is not None:
        _reject(scheduler, session, submit, why)
        return
    state = ChunkState(spec, chunk, left, again=bool(submit.left))
    spec.chunks[chunk.first] = state
    session.queued += chunk.weight
    scheduler.totals.submitted += count(state.ready)
    scheduler.deliveries.persist(r.PutChunk(session.instance, spec.number, chunk, state.ready))
    pieces = [Piece(state, lo, hi, 1, False) for lo, hi in state.ready]
    if not submit.left:
        for piece in pieces:
            scheduler.ready.push(spec.priority, session.instance, piece)
    else:
        scheduler.recovery.hold(pieces)
        recovery.match(scheduler, state)


def _reject(scheduler: Scheduler, session: Session, submit: m.Submit, why: str) -> None:
    scheduler.do(Send(session.instance, m.Rejected(submit.spec, submit.chunk.first, why)))


def _unheard_of(scheduler: Scheduler, session: Session, spec: SpecState, submit: m.Submit) -> Ranges:
    """What of a chunk that is offered again is neither here nor on its way to the client.

    It was rejected, and that word was lost with the link: the client has heard everything that it acknowledged
    before it offered anything again.
    """
    if submit.chunk.first in spec.chunks or not submit.left:
        return []
    return without(list(submit.left), session.outbox.pending(spec.number, submit.chunk.first))


def _why_not(scheduler: Scheduler, session: Session, spec: SpecState, submit: m.Submit) -> str | None:
    """Why a chunk cannot be taken. One that is offered again was taken before: it has twice the room."""
    room = scheduler.quotas.queued_bytes * (2 if submit.left else 1)
    if session.queued + session.outbox.bytes + submit.chunk.weight > room:
        return (
            f"this session has {session.queued + session.outbox.bytes:,} bytes of calls and outcomes at the hub, "
            f"which takes {scheduler.quotas.queued_bytes:,.0f} of each session"
        )
    if scheduler.bodies.get(spec.digest) is None or (spec.init and scheduler.bodies.get(spec.init) is None):
        return f"the hub was never sent the function {spec.name}"
    return scheduler.full


def on_cancel(scheduler: Scheduler, session: Session, cancel: m.Cancel) -> None:
    """End what has not started of a chunk; with `interrupt`, what runs as well."""
    spec = session.specs.get(cancel.spec)
    state = spec.chunks.get(cancel.first) if spec else None
    if state is None:
        scheduler.deliveries.send(session)  # it may have been cancelled just now: that has to be heard first
        scheduler.do(Send(session.instance, m.Cancelled(cancel.spec, cancel.first, [(cancel.lo, cancel.hi)])))
        return
    leased = overlap(state.leased, cancel.lo, cancel.hi)
    state.cancelling = union(state.cancelling, leased)
    scheduler.cancel_ready(state, overlap(state.ready, cancel.lo, cancel.hi))
    scheduler.revoke(state, leased, cancel.interrupt)


def on_retire(scheduler: Scheduler, session: Session, retire: m.Retire) -> None:
    """The client has let go of a function: it is forgotten when its last task has ended."""
    _pass_over(scheduler, session, retire.spec)
    _retire(scheduler, session, retire.spec)


def _pass_over(scheduler: Scheduler, session: Session, number: int) -> None:
    """A client whose link began anew names a spec: those before it that it has not named are retired."""
    stale = session.stale
    while stale and stale[0] < number:
        _retire(scheduler, session, stale.popleft())
    if stale and stale[0] == number:
        stale.popleft()


def _retire(scheduler: Scheduler, session: Session, number: int) -> None:
    spec = session.specs.get(number)
    if spec is not None:
        spec.retired = True
        scheduler.forget_if_retired(session, spec)


def on_close(scheduler: Scheduler, session: Session, close: m.Close) -> None:
    """A client says goodbye: nothing of its session is kept."""
    scheduler.do(Note(logging.INFO, f"client {session.name} on {session.host} said goodbye"))
    scheduler.do(Send(session.instance, m.Goodbye("session closed")))
    departures.drop_session(scheduler, session.instance)
    if session.instance in scheduler.roster.peers:
        scheduler.roster.remove(session.instance)
        scheduler.do(Dismiss(session.instance, False))
