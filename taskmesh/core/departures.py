"""Departures: peers that leave, die or are thrown out, and sessions that end.

- Death: a dead daemon's unfinished work goes to the front of the queue; a dead client's work goes on for a while.
- A daemon that drains says so, gives back what it has not started, and is let go when its last outcomes are safe.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from . import messages as m
from . import records as r
from . import returns
from .actions import Dismiss, Note, Send
from .events import LaneDown, NoLane
from .leases import DaemonState
from .ranges import count
from .roster import Peer

if TYPE_CHECKING:
    from .scheduler import Scheduler


def on_lane_down(scheduler: Scheduler, event: LaneDown, now: float) -> None:
    """A connection broke. That is no death yet: the peer may come again."""
    scheduler.roster.lane_down(event.instance, event.epoch, now)


def on_no_lane(scheduler: Scheduler, event: NoLane, now: float) -> None:
    """A peer was let in, and then there was no lane for it: it has to come again. Of a new one nothing is kept."""
    remove_peer(scheduler, scheduler.roster.peers[event.instance], dead=True, now=now, keep=event.known)


def bury(scheduler: Scheduler, peer: Peer, now: float) -> None:
    """A peer is dead: it was not heard for too long."""
    silent = now - peer.heard_at
    why = "disconnected" if peer.lane_down_at is not None else f"not heard for {silent:.0f} s"
    level = logging.WARNING if peer.role == "daemon" else logging.INFO
    scheduler.do(Note(level, f"{peer.role} {peer.name} on {peer.host} is gone: {why}"))
    remove_peer(scheduler, peer, dead=True, now=now)


def remove_peer(scheduler: Scheduler, peer: Peer, dead: bool, now: float, keep: bool = True) -> None:
    """A peer is not here any more. The session of a `dead` client is kept for the grace period, if it is to `keep`."""
    if peer.role == "daemon":
        lose_daemon(scheduler, peer.instance)
    elif dead and keep and scheduler.grace_s > 0:
        scheduler.sessions[peer.instance].gone_at = now
        scheduler.gone[peer.instance] = now + scheduler.grace_s
    else:
        drop_session(scheduler, peer.instance)
    scheduler.roster.remove(peer.instance)
    scheduler.do(Dismiss(peer.instance, dead))


def lose_daemon(scheduler: Scheduler, instance: int) -> None:
    """Requeue, at the front, whatever a daemon had not finished."""
    daemon = scheduler.daemons.pop(instance, None)
    scheduler.hungry.discard(instance)
    scheduler.loads.forget(instance)
    scheduler.leaving.discard(instance)
    if daemon is None:
        return
    scheduler.bodies.forget_daemon(daemon)
    scheduler.deliveries.forget_daemon(instance)
    scheduler.recovery.forget_daemon(instance)
    for lease in reversed(list(daemon.leases.values())):
        lease.state.leases.pop(lease.fence, None)
        returns.requeue(scheduler, lease.state, lease.ranges, lease.attempt + 1, lease.solo, started=True)


def on_leaving(scheduler: Scheduler, daemon: DaemonState, leaving: m.Leaving) -> None:
    """A daemon has drained: it goes when what it has done is safe."""
    for lease in reversed(list(daemon.leases.values())):  # was on its way there: it starts nothing any more
        returns.take_back(scheduler, daemon, lease, lease.ranges, lease.attempt)
    if scheduler.deliveries.uncommitted_of(daemon.instance):
        scheduler.leaving.add(daemon.instance)  # it keeps them until they are safe
    else:
        see_off(scheduler, scheduler.roster.peers[daemon.instance])


def see_off(scheduler: Scheduler, peer: Peer) -> None:
    """Let a daemon go that has nothing left here."""
    scheduler.do(Note(logging.INFO, f"daemon {peer.name} on {peer.host} left"))
    scheduler.do(Send(peer.instance, m.Goodbye("you left")))
    remove_peer(scheduler, peer, dead=False, now=0.0)


def drop_session(scheduler: Scheduler, instance: int) -> None:
    """Forget a client with all that it had asked for, here, at the daemons and in the store."""
    session = scheduler.sessions.pop(instance, None)
    if session is None:
        return
    scheduler.ready.drop_session(instance)
    scheduler.recovery.drop_session(instance)
    scheduler.gone.pop(instance, None)
    holders: dict[int, None] = {}
    for spec in session.specs.values():
        for state in spec.chunks.values():
            scheduler.totals.cancelled += count(state.ready) + count(state.leased)
            holders |= dict.fromkeys(lease.daemon for lease in state.leases.values())
        scheduler.release(spec)
    holders |= dict.fromkeys(scheduler.deliveries.drop(session))
    for daemon in holders:
        if daemon in scheduler.daemons:
            scheduler.do(Send(daemon, m.Forget(instance)))
    scheduler.deliveries.persist(r.DropSession(instance))


def drop_gone(scheduler: Scheduler, now: float) -> None:
    """The grace period of some clients is over."""
    for instance in [i for i, until in scheduler.gone.items() if now >= until]:
        session = scheduler.sessions[instance]
        scheduler.do(Note(logging.INFO, f"client {session.name} on {session.host} did not come back"))
        drop_session(scheduler, instance)
