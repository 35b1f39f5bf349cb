"""What has to hold: while things happen (`Book`), and when everything has ended (`leftovers`, `verdicts`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from taskmesh import __version__
from taskmesh.core import actions as a
from taskmesh.core import events as e
from taskmesh.core import messages as m
from taskmesh.core.leases import ChunkState
from taskmesh.core.outbox import Ended
from taskmesh.core.ranges import overlap, subtract
from taskmesh.core.scheduler import Scheduler
from taskmesh.transport.versions import PYTHON

from .world import Violation, World

if TYPE_CHECKING:
    from .client import Ticket
    from .simulator import Simulation

TaskId = tuple[int, int, int]


class Book:
    """What was started where, over the whole mesh."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.starts: Counter[TaskId] = Counter()
        self.once: set[tuple[int, int]] = set()  # (session, spec) of tasks that may start at most once
        self.cancelled: list[TaskId] = []
        self.needed: Callable[[int, m.Outcome, int, int], bool] = lambda *_: False

    def register(self, role: str, instance: int, name: str, slots: int) -> m.Register:
        """A request to take part, of the right release."""
        return m.Register(role, instance, 0, 0, 0, 0, name, name, 1, slots, __version__, PYTHON)

    def started(self, session: int, spec: int, number: int, where: str) -> None:
        """A runner begins with a task."""
        self.starts[session, spec, number] += 1
        if self.world.trace is not None:
            self.world.log(where, f"starts {session:x}-{spec}-{number}")
        if self.starts[session, spec, number] > 1 and (session, spec) in self.once:
            raise Violation(f"task {session:x}-{spec}-{number} may start at most once, and starts again at {where}")

    def settled(self, session: int, outcome: m.Outcome, lo: int, hi: int, where: str) -> None:
        """A daemon is told to forget a part of an outcome."""
        if self.needed(session, outcome, lo, hi):
            raise Violation(f"{where} is to forget {session:x}-{outcome.spec}-[{lo}, {hi}), which is nowhere else")


class Fences:
    """Watches a scheduler: a failure ends a task only when it comes from the lease that holds it.

    What is held since the start of the hub nobody has dispatched since; there a failure counts as well.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._handle, self._deliver = scheduler.handle, scheduler.deliver
        self._stale: set[tuple[int, int, int]] = set()  # daemon, fence, offset
        scheduler.handle = self.handle  # type: ignore[method-assign]
        scheduler.deliver = self.deliver  # type: ignore[method-assign]

    def handle(self, event: e.Event, now: float) -> list[a.Action]:
        """Note which failures do not count, before they are booked."""
        self._stale.clear()
        if isinstance(event, e.Received) and isinstance(event.message, m.Done):
            for entry in event.message.entries:
                if entry.outcome.form > m.Form.EACH and not self._counts(event.instance, entry):
                    self._stale.add((event.instance, entry.fence, entry.outcome.lo))
        return self._handle(event, now)

    def _counts(self, instance: int, entry: m.Finished) -> bool:
        daemon, o = self._scheduler.daemons.get(instance), entry.outcome
        state = self._scheduler.state(entry.session, o.spec, o.first)
        lease = daemon.leases.get(entry.fence) if daemon is not None else None
        held = lease is not None and lease.state is state and overlap(lease.ranges, o.lo, o.hi)
        return bool(held) or state in self._scheduler.recovery.held

    def deliver(self, state: ChunkState, outcome: m.Outcome, origin: Ended | None = None) -> None:
        """A task has ended."""
        if origin is not None and (origin.daemon, origin.fence, outcome.lo) in self._stale:
            raise Violation(f"{m.Form(outcome.form).name} of an earlier lease, {origin.fence}, ends a task")
        self._deliver(state, outcome, origin)


def is_calm(simulation: Simulation) -> bool:
    """Whether nothing has happened that lets a task run twice."""
    return simulation.script.calm and not simulation.world.faults["left_alone"]


def needed(simulation: Simulation, session: int, outcome: m.Outcome, lo: int, hi: int) -> bool:
    """Whether nobody but a daemon has this part of an outcome. Only where nobody dies: else it may run again anyway."""
    client = next((c for c in simulation.clients if c.instance == session), None)
    if not is_calm(simulation) or client is None or client.gone or client.closing:
        return False
    spec = client.session.specs.get(outcome.spec)
    sent = spec.sent.get(outcome.first) if spec is not None else None
    missing = overlap(sent.left, lo, hi) if sent is not None else []
    disk = simulation.disk
    for stored in disk.sessions[session].outcomes.values() if disk is not None and session in disk.sessions else ():
        if (stored.spec, stored.first) == (outcome.spec, outcome.first):
            missing = [part for x, y in missing for part in subtract([(x, y)], stored.lo, stored.hi)]
    return bool(missing)


def verdicts(simulation: Simulation) -> None:
    """Every accepted task of a living client has ended once, and as it should."""
    calm = is_calm(simulation)
    for client in simulation.clients:
        for ticket in client.tickets:
            if client.gone or client.closing:
                continue
            if len(ticket.ended) != 1:
                raise Violation(f"a task of kind {ticket.kind} of {client.name} ended {ticket.ended or 'never'}")
            if not _fits(ticket, ticket.ended[0], simulation):
                raise Violation(f"a task of kind {ticket.kind} of {client.name} ended as {ticket.ended[0]}")
    if calm:
        twice = [task for task, times in simulation.book.starts.items() if times > 1]
        if twice:
            raise Violation(f"{len(twice)} tasks ran twice although nothing had died: {_name(twice[0])}")
        started = [task for task in simulation.book.cancelled if simulation.book.starts[task]]
        if started:
            raise Violation(f"{len(started)} cancelled tasks had started: {_name(started[0])}")


def _fits(ticket: Ticket, word: str, simulation: Simulation) -> bool:
    """Whether a task may end like this."""
    faults = simulation.world.faults
    match word:
        case "CANCELLED":
            return ticket.cancelled
        case "LOST":
            if ticket.kind == "k" or faults["kill_runner"] >= 3 or (ticket.kind == "m" and ticket.limits.memory):
                return True
            # what is late, or may have started, after something had gone wrong
            return not is_calm(simulation) and bool(ticket.limits.at_most_once or ticket.limits.timeout_s)
        case "ERROR":
            late = ticket.limits.timeout_s and (ticket.kind in "lm" or not is_calm(simulation))
            return ticket.kind == "e" or bool(late)
        case "REJECTED":
            return faults["disk_full"] > 0
        case _:
            return ticket.kind in "olsm"


def _name(task: TaskId) -> str:
    return f"{task[0]:x}-{task[1]}-{task[2]}"


def ended(simulation: Simulation) -> bool:
    """Whether no client waits for anything any more."""
    return all(
        client.gone or client.over or (not client.closing and not client.session.unsettled)
        for client in simulation.clients
    )


def leftovers(simulation: Simulation) -> list[str]:
    """What is still somewhere although nobody needs it."""
    living = {c.instance for c in simulation.clients if not c.gone}
    found = _at_the_hub(simulation, living)
    for peer in simulation.all_peers():
        if peer.revoked and not peer.process.dead:
            found.append(f"{peer.name} goes on with a ticket that was revoked")
    for daemon in simulation.daemons:
        if daemon.process.dead:
            continue
        plan = daemon.plan
        found += [f"{daemon.name} keeps {plan.ledger.outcomes} outcomes"] if plan.ledger.outcomes else []
        found += [f"{daemon.name} is not idle"] if not plan.idle else []
        found += [f"{daemon.name} has leases {list(plan._works)}"] if plan._works else []
        found += [f"{daemon.name} has unanswered revocations"] if plan._revokes else []
        found += [f"{daemon.name} holds"] if plan.holding else []
        found += [f"{daemon.name} has unacknowledged messages"] if daemon.membership.unacked else []
    for client in simulation.clients:
        if not client.gone:
            found += [f"{client.name} has unacknowledged messages"] if client.membership.unacked else []
            found += [f"{client.name} keeps chunks"] if client.session.unsettled else []
    return found + _on_disk(simulation, living)


def _at_the_hub(simulation: Simulation, living: set[int]) -> list[str]:
    hub = simulation.hub.hub
    scheduler = hub.scheduler
    found = []
    for instance, session in scheduler.sessions.items():
        found += [f"the hub keeps session {instance:x}, which is over"] if instance not in living else []
        found += [f"the hub keeps {len(session.outbox)} outcomes"] if len(session.outbox) else []
        for spec in session.specs.values():
            found += [f"the hub keeps chunks {list(spec.chunks)} of spec {spec.number}"] if spec.chunks else []
    for client in simulation.clients:
        known = scheduler.sessions.get(client.instance)
        if known is not None and not client.gone and not client.closing:
            unknown = set(known.specs) - set(client.session.specs)
            found += [f"the hub keeps functions {unknown} of {client.name}, which has retired them"] if unknown else []
    for daemon in scheduler.daemons.values():
        found += [f"the hub has leases {list(daemon.leases)}"] if daemon.leases else []
        found += [f"daemon {daemon.instance:x} has {daemon.tasks_out} tasks out"] if daemon.tasks_out else []
        found += [f"load {daemon.load_s} without leases"] if daemon.load_s and not daemon.leases else []
        found += ["the hub has not said what is settled"] if daemon.settled else []
    for _, _, piece in scheduler.ready.pieces():
        found += ["work is still queued"] if overlap(piece.state.ready, piece.lo, piece.hi) else []
    found += ["the hub waits to see a daemon off"] if scheduler.leaving else []
    recovery = scheduler.recovery
    found += ["the hub holds back work"] if recovery.held or recovery.holdings or recovery.outcomes else []
    found += ["the hub has uncommitted outcomes"] if scheduler.deliveries._uncommitted else []
    specs = sum(len(s.specs) for s in scheduler.sessions.values())
    found += ["the hub keeps functions of nobody"] if not specs and scheduler.bodies._data else []
    for lane in hub.lanes.by_instance.values():
        found += [f"the hub waits for an acknowledgement of {lane.instance:x}"] if lane.stream.link.unacked else []
    return found


def _on_disk(simulation: Simulation, living: set[int]) -> list[str]:
    disk = simulation.disk
    found = []
    for instance, session in disk.sessions.items() if disk is not None else ():
        found += [f"the disk keeps session {instance:x}, which is over"] if instance not in living else []
        found += [f"the disk keeps {len(session.outcomes)} outcomes"] if session.outcomes else []
        found += ["the disk keeps chunks"] if any(spec.chunks for spec in session.specs.values()) else []
    return found
