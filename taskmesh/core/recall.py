"""Recall: taking back what waits at one daemon, because another one idles or because it has fallen silent.

A daemon holds a little more than it runs, and its runners a little more than their task; that waits behind long
tasks while somebody else has nothing to do. So when nothing waits here, a daemon without work gets the newest of what
the fullest daemon has not started. It is asked for, and given back only if it has not started.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import messages as m
from .actions import Action, Send
from .leases import DaemonState, Lease
from .ranges import Ranges, count, subtract
from .returns import take_back

if TYPE_CHECKING:
    from .roster import Peer
    from .scheduler import Scheduler

RECALL_AFTER_S = 0.05
"""Work that was handed out longer ago than this is behind something long: daemons are kept 30 ms ahead."""

ASK_AGAIN_S = 1.0
NEVER = float("inf")


def recall(scheduler: Scheduler, now: float) -> tuple[list[Action], float]:
    """Ask for what others could run now.

    Returns
    -------
    tuple[list[Action], float]
        What to send, and when to look again: infinity when there is nobody who idles, or nothing to ask for.
    """
    peers, daemons = scheduler.roster.peers, scheduler.daemons
    full = [daemons[i] for i in scheduler.loads.crowded if not peers[i].suspected(now)]
    free = _free(scheduler, now, sum(daemon.tasks_out - daemon.slots for daemon in full))
    if not free:
        return [], NEVER
    actions: list[Action] = []
    for daemon in sorted(full, key=lambda d: d.tasks_out / max(1, d.slots), reverse=True):
        wanted = min(free, daemon.tasks_out - daemon.slots)
        for lease in reversed(list(daemon.leases.values())):
            if wanted <= 0:
                break
            if now - lease.asked_at < ASK_AGAIN_S:
                wanted -= count(lease.ranges)  # its answer is on the way, or it was that it runs
                continue
            if now - lease.given_at < RECALL_AFTER_S:
                continue
            lease.asked_at = now
            for lo, hi in _tail(lease.ranges, wanted):
                actions.append(Send(daemon.instance, m.Revoke(lease.fence, lo, hi)))
                wanted -= hi - lo
                free -= hi - lo
    return actions, now + RECALL_AFTER_S


def _free(scheduler: Scheduler, now: float, enough: int) -> int:
    """How many slots are free; more than `enough` are not counted."""
    free = 0
    for instance in scheduler.loads.roomy:
        if free >= enough:
            return enough
        if scheduler.roster.peers[instance].takes_work(now):
            daemon = scheduler.daemons[instance]
            free += daemon.slots - daemon.tasks_out
    return min(free, enough)


def _tail(ranges: Ranges, tasks: int) -> Ranges:
    """The last so many of `ranges`."""
    tail: Ranges = []
    for lo, hi in reversed(ranges):
        lo = max(lo, hi - tasks)
        tail.append((lo, hi))
        tasks -= hi - lo
        if tasks <= 0:
            break
    return tail


def move_queued(scheduler: Scheduler, peer: Peer) -> None:
    """A daemon has fallen silent: what its runners do not hold is ready again, and it is told so when it wakes.

    What they held at its last heartbeat stays until the verdict. So does everything that must not start twice.
    """
    daemon: DaemonState = scheduler.daemons[peer.instance]
    held = peer.held()
    if held is None:
        return  # it may hold anything
    for lease in list(daemon.leases.values()):
        queued = _not_held(lease, held)
        if not queued or lease.state.spec.limits.at_most_once:
            continue
        for lo, hi in queued:
            scheduler.do(Send(daemon.instance, m.Revoke(lease.fence, lo, hi)))
        take_back(scheduler, daemon, lease, queued, lease.attempt)


def _not_held(lease: Lease, held: dict[int, Ranges]) -> Ranges:
    queued = lease.ranges
    for lo, hi in held.get(lease.fence, []):
        queued = subtract(queued, lo, hi)
    return queued
