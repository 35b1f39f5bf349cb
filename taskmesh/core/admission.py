"""Admission: which peers may register, and what becomes of those whose ticket ends.

- A ticket's role says as what its holder may register; the hub's shell has seen to it that the ticket is good.
- An instance that is known is taken over only by a peer that knows its secret: its number alone is no proof, because
  daemons are told the numbers of sessions. What is kept, and compared in constant time, is a digest.
- There is a limit to peers, and to registrations per second; a peer that comes too often is told to come again.
- A ticket that ends takes with it everyone who came by it, at once: nothing more of theirs is started, and what runs is
  interrupted. They are told so on their lanes, because nothing else that says it is known to come from the hub.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections import deque
from typing import TYPE_CHECKING

from . import departures
from . import messages as m
from . import records as r
from .actions import Admit, Again, Dismiss, Note, Refuse, Send
from .events import Joined, Revoked
from .leases import DaemonState
from .quota import Bucket
from .roster import Peer
from .sessions import Session

if TYPE_CHECKING:
    from .scheduler import Scheduler

PROOF_BYTES = 16


def proof_of(secret: bytes) -> bytes:
    """What is kept of a peer's secret; empty if it has none."""
    return hashlib.blake2b(secret, digest_size=PROOF_BYTES).digest() if secret else b""


def on_joined(scheduler: Scheduler, event: Joined, now: float) -> None:
    """Let a peer in, or say why not."""
    request = event.request
    why = _objection(scheduler, event)
    refusal = Refuse(why) if why is not None else _postponement(scheduler, event, now)
    if refusal is not None:
        scheduler.do(refusal)
        return
    welcome = scheduler.roster.register(request, now, event.local, proof_of(request.secret), event.holder.name)
    if welcome is None:
        scheduler.do(Again(request.instance))
        return
    peer, registered = welcome
    resume = registered and request.epoch != 0
    known = registered or peer.instance in scheduler.sessions
    if peer.role == "daemon":
        _welcome_daemon(scheduler, peer, request, resume, event.local)
    else:
        _welcome_client(scheduler, peer, resume)
    word = "again" if resume else _slots(peer.slots) if peer.role == "daemon" else ""
    scheduler.do(Admit(peer.instance, peer.epoch, peer.role, resume, known))
    scheduler.do(Note(logging.INFO, f"{peer.role} {peer.name} on {peer.host} joined {word}".rstrip()))


def _slots(slots: int) -> str:
    return f"with {slots} slot{'s' if slots != 1 else ''}"


def _welcome_daemon(scheduler: Scheduler, peer: Peer, request: m.Register, resume: bool, local: bool) -> None:
    """A daemon that was here before says what it holds; one that starts anew holds nothing."""
    known = scheduler.daemons.get(peer.instance)
    if known is None:
        scheduler.daemons[peer.instance] = DaemonState(peer.instance, peer.slots, local, scheduler.loads)
    elif not resume:
        scheduler.bodies.forget_daemon(known)
        known.stale = set(known.leases)
        if not request.incarnation:
            departures.lose_daemon(scheduler, peer.instance)
            scheduler.daemons[peer.instance] = DaemonState(peer.instance, peer.slots, local, scheduler.loads)
    scheduler.hungry.add(peer.instance)


def _welcome_client(scheduler: Scheduler, peer: Peer, resume: bool) -> None:
    session = scheduler.sessions.get(peer.instance)
    known = session is not None
    if session is None:
        session = Session(peer.instance, peer.name, peer.host, proof=peer.proof)
        scheduler.sessions[peer.instance] = session
    elif not resume:
        scheduler.deliveries.again(session)
        session.stale = deque(sorted(session.specs))
    if not known or session.ticket != peer.ticket:
        session.ticket = peer.ticket
        scheduler.deliveries.persist(r.PutSession(peer.instance, peer.name, peer.host, peer.proof, peer.ticket))
    session.pid, session.joined_at, session.gone_at = peer.pid, peer.joined_at, None
    scheduler.gone.pop(peer.instance, None)


def _objection(scheduler: Scheduler, event: Joined) -> str | None:
    """Why this peer is not let in, now or later."""
    request, role = event.request, event.holder.role
    if request.role not in ("client", "daemon"):
        return f"unknown role {request.role!r}"
    if not event.holder.may_be(request.role):
        return f"its ticket is for a {role}: a {request.role} needs another one"
    if request.version != scheduler.version:
        return (
            f"it runs taskmesh {request.version}, this hub runs {scheduler.version}; install the same release on both"
        )
    if request.python != scheduler.python:
        return (
            f"it runs Python {request.python}, this hub runs {scheduler.python}; functions do not travel between "
            f"them: use the same minor version of Python everywhere"
        )
    is_daemon = request.role == "daemon"
    other, has_it = ("client", scheduler.sessions) if is_daemon else ("daemon", scheduler.daemons)
    if request.instance in has_it:
        return f"a {other} already has this instance id"
    if not _is_itself(scheduler, request):
        return "this instance id belongs to somebody who has another secret"
    if request.role == "daemon" and request.slots < 0:
        return f"a daemon cannot have {request.slots} slots"
    if scheduler.draining and request.role == "client" and request.instance not in scheduler.sessions:
        return "the hub is shutting down"
    return None


def _is_itself(scheduler: Scheduler, request: m.Register) -> bool:
    known = scheduler.roster.peers.get(request.instance) or scheduler.sessions.get(request.instance)
    return known is None or hmac.compare_digest(known.proof, proof_of(request.secret))


def _postponement(scheduler: Scheduler, event: Joined, now: float) -> Refuse | None:
    """Why this peer is not let in now."""
    quotas, peers = scheduler.quotas, scheduler.roster.peers
    if event.request.instance not in peers and len(peers) >= quotas.peers:
        return Refuse(
            f"the hub has {len(peers):,} peer{'s' if len(peers) != 1 else ''}, and takes no more (--max-peers)",
            again=True,
        )
    bucket = scheduler.registrations.setdefault(event.holder.name, Bucket(quotas.registrations_per_s, now))
    if not bucket.take(now):
        return Refuse(
            f"too many registrations: the hub takes {quotas.registrations_per_s:,.0f} a second with one ticket "
            f"(--max-registrations)",
            again=True,
        )
    return None


def on_revoked(scheduler: Scheduler, event: Revoked, now: float) -> None:
    """A ticket is good no more."""
    for peer in [peer for peer in scheduler.roster.peers.values() if peer.ticket == event.ticket]:
        scheduler.do(Note(logging.WARNING, f"{peer.role} {peer.name} on {peer.host} has to go: {event.why}"))
        if peer.role == "client":
            _end_session(scheduler, peer.instance)
        else:
            departures.lose_daemon(scheduler, peer.instance)
        scheduler.roster.remove(peer.instance)
        scheduler.do(Send(peer.instance, m.Goodbye(event.why)))
        scheduler.do(Dismiss(peer.instance, False, put_out=True))
    for session in [s for s in scheduler.sessions.values() if s.ticket == event.ticket]:  # whose client is away
        _end_session(scheduler, session.instance)


def _end_session(scheduler: Scheduler, instance: int) -> None:
    """Nothing more of it is started, and what runs is interrupted."""
    session = scheduler.sessions[instance]
    for spec in session.specs.values():
        for state in spec.chunks.values():
            scheduler.revoke(state, state.leased, interrupt=True)
    departures.drop_session(scheduler, instance)


__all__ = ["on_joined", "on_revoked", "proof_of"]
