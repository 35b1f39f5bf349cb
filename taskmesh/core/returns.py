"""Returns: what daemons say about their leases.

- Ends once: what has ended is in no set any more, so a second outcome finds nothing to end, and is a duplicate.
- Fences: a success counts from any dispatch of a task, a failure only from the lease that holds it now.
- Blame: three runners that died over exactly one task fail it with `WorkerLost`; deaths of machines do not count.
- at_most_once: what may have started is not started again, but lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import messages as m
from . import recovery
from .actions import Send
from .leases import MACHINE_LOST, ChunkState, DaemonState, Lease, Piece
from .lifecycle import Step
from .limits import ATTEMPTS
from .outbox import Ended
from .ranges import Ranges, count, covers, overlap, within, without

if TYPE_CHECKING:
    from .scheduler import Scheduler

MAX_STRIKES = 3


def on_done(scheduler: Scheduler, daemon: DaemonState, done: m.Done) -> None:
    """Tasks have ended: each outcome is booked, once."""
    scheduler.hungry.add(daemon.instance)
    for entry in done.entries:
        finish(scheduler, daemon, entry)


def finish(scheduler: Scheduler, daemon: DaemonState, entry: m.Finished) -> None:
    """An outcome, of the lease that holds the tasks or of an earlier one."""
    outcome = entry.outcome
    lease = daemon.leases.get(entry.fence)
    state = scheduler.state(entry.session, outcome.spec, outcome.first)
    if _astray(lease, state, entry):
        scheduler.drop(f"an outcome of no part of its lease, from daemon {daemon.instance:x}")
        return
    found = lease.take(outcome.lo, outcome.hi) if lease else []
    if lease:
        tasks = daemon.account(lease, found)
        daemon.finished += tasks
        daemon.busy_s += entry.busy_s
    origin = Ended(outcome, daemon.instance, entry.fence, outcome.lo, outcome.hi)
    if state is None and recovery.may_come(scheduler, entry.session, outcome.spec, outcome.first):
        scheduler.recovery.remember_outcome(daemon.instance, entry)
        return
    moved: Ranges = []
    if state is not None and not state.heeds(daemon.instance):
        scheduler.drop(f"an outcome from daemon {daemon.instance:x} of tasks that it was never given")
    elif state is not None:
        current = bool(lease and found and lease.state is state)
        moved = _book(scheduler, state, outcome, found if current else None)
    if not moved or state is None:
        scheduler.deliveries.duplicate(entry.session, origin)
        return
    state.spec.pace.observe(outcome.hi - outcome.lo, entry.busy_s)
    scheduler.deliver(state, outcome, origin)
    if not lease or count(found) < count(moved):
        scheduler.revoke(state, moved)  # a copy is elsewhere


def _astray(lease: Lease | None, state: ChunkState | None, entry: m.Finished) -> bool:
    """Whether an outcome cannot be one of its lease: taking that for it would leave tasks that nobody has."""
    outcome = entry.outcome
    if lease is None:
        return state is not None and outcome.hi > state.chunk.count
    if lease.state is not state and not lease.speaks_of(entry.session, outcome.spec, outcome.first):
        return True
    return outcome.hi > lease.state.chunk.count


def _book(scheduler: Scheduler, state: ChunkState, outcome: m.Outcome, found: Ranges | None) -> Ranges:
    """A success counts from any dispatch; a failure from the lease that holds the task, which was `found` in it.

    What is held since the start of this hub nobody has dispatched since: there a failure counts, too.
    """
    ranges: Ranges = [(outcome.lo, outcome.hi)]
    if outcome.form <= m.Form.EACH:
        moved = state.move(ranges, Step.SUCCEEDED)
        scheduler.totals.done += count(moved)
        return moved
    if found is not None:
        ranges = found
    else:
        ranges = overlap(state.ready, outcome.lo, outcome.hi) if state in scheduler.recovery.held else []
    if outcome.form == m.Form.CANCELLED:
        moved = state.move(ranges, Step.CANCELLED)
        scheduler.totals.cancelled += count(moved)
    else:
        moved = state.move(ranges, Step.LOST if found is None else Step.FAILED)
        scheduler.totals.failed += count(moved)
    return moved


def _owned(scheduler: Scheduler, state: ChunkState) -> bool:
    """Whether a chunk that a lease speaks of is wanted: its session may be over, or have begun anew since."""
    owner = scheduler.sessions.get(state.spec.session)
    return owner is not None and owner.specs.get(state.spec.number) is state.spec


def on_strike(scheduler: Scheduler, daemon: DaemonState, strike: m.Strike) -> None:
    """A runner died while it ran one of these tasks.

    They run again, one at a time. A task over which alone several runners died, or that must not start twice, is lost.
    """
    scheduler.hungry.add(daemon.instance)
    daemon.strikes += 1
    lease = daemon.leases.get(strike.fence)
    if lease is None:
        scheduler.recovery.no_longer_holds(daemon.instance, strike.fence, [(strike.lo, strike.hi)])
        return
    found = lease.take(strike.lo, strike.hi)
    daemon.account(lease, found)
    state = lease.state
    if not found or not _owned(scheduler, state):
        return
    once = state.spec.limits.at_most_once
    if strike.hi == strike.lo + 1:
        strikes = state.strikes[strike.lo] = state.strikes.get(strike.lo, 0) + 1
        once = once or strikes >= MAX_STRIKES
    if once and not covers(state.cancelling, strike.lo):
        lose(scheduler, state, found, strike.report)
    else:
        requeue(scheduler, state, found, lease.attempt + 1, solo=True)


def lose(scheduler: Scheduler, state: ChunkState, ranges: Ranges, report: bytes) -> None:
    """These tasks are not tried again."""
    moved = state.move(ranges, Step.LOST)
    scheduler.totals.failed += count(moved)
    for lo, hi in moved:
        for offset in range(lo, hi):
            spec, first = state.spec.number, state.chunk.first
            scheduler.deliver(state, m.Outcome(spec, first, offset, offset + 1, m.Form.LOST, report))


def requeue(
    scheduler: Scheduler, state: ChunkState, ranges: Ranges, attempt: int, solo: bool, started: bool = False
) -> None:
    """Put ranges of a lease back, at the front of the queue; what was being cancelled is cancelled.

    `started`: they may have started, so tasks that must not start twice are lost.
    """
    if not _owned(scheduler, state):
        return
    spec = state.spec
    if started and spec.limits.at_most_once:
        lose(scheduler, state, [part for lo, hi in ranges for part in overlap(state.leased, lo, hi)], MACHINE_LOST)
        return
    attempt = min(attempt, ATTEMPTS)  # a daemon's inventory may say any number
    returned = state.move(ranges, Step.RETURNED)
    scheduler.cancel_ready(state, [part for lo, hi in returned for part in overlap(state.cancelling, lo, hi)])
    for lo, hi in reversed([part for a, b in returned for part in overlap(state.ready, a, b)]):
        scheduler.ready.push(spec.priority, spec.session, Piece(state, lo, hi, attempt, solo), front=True)


def on_give_back(scheduler: Scheduler, daemon: DaemonState, back: m.GiveBack) -> None:
    """A daemon returns a part of a lease that it has not started; what it keeps may have started."""
    scheduler.hungry.add(daemon.instance)
    lease = daemon.leases.get(back.fence)
    if lease is None:
        scheduler.recovery.no_longer_holds(daemon.instance, back.fence, back.returned)
        return
    found = lease.take_all(back.returned)
    daemon.account(lease, found)
    state, spec = lease.state, lease.state.spec
    requeue(scheduler, state, found, lease.attempt, lease.solo)
    if found and not back.kept:
        lease.asked_at = 0.0  # all that it was asked for has come: the rest may be asked for
    kept = within(state.cancelling, back.kept)
    if kept and _owned(scheduler, state):
        scheduler.do(Send(spec.session, m.Cancelled(spec.number, state.chunk.first, kept)))


def on_inventory(scheduler: Scheduler, daemon: DaemonState, inventory: m.Inventory) -> None:
    """What a daemon that was away still holds.

    What it held and no longer names is lost; what it names without a lease becomes one.
    """
    scheduler.hungry.add(daemon.instance)
    held = {holding.fence: holding.ranges for holding in inventory.holdings}
    for lease in [daemon.leases[fence] for fence in daemon.stale if fence in daemon.leases]:
        lost = without(lease.ranges, held.get(lease.fence, []))
        take_back(scheduler, daemon, lease, lost, lease.attempt + 1, started=True)
    daemon.stale.clear()
    scheduler.recovery.forget_daemon(daemon.instance)
    for holding in inventory.holdings:
        recovery.adopt(scheduler, daemon, holding)


def take_back(
    scheduler: Scheduler, daemon: DaemonState, lease: Lease, ranges: Ranges, attempt: int, started: bool = False
) -> None:
    """Ranges of a lease are not with its daemon any more."""
    found = lease.take_all(ranges)
    daemon.account(lease, found)
    requeue(scheduler, lease.state, found, attempt, lease.solo, started)


def on_slots(scheduler: Scheduler, daemon: DaemonState, slots: m.Slots) -> None:
    """It runs more tasks at once from now on, or fewer."""
    daemon.resize(max(0, slots.slots))
    scheduler.hungry.add(daemon.instance)
