"""What has to hold: while things happen (`Book`), and when everything has ended (`leftovers`, `verdicts`)."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from taskmesh import __version__
from taskmesh.core import messages as m
from taskmesh.core.ranges import overlap
from taskmesh.hub import PYTHON

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


def is_calm(simulation: Simulation) -> bool:
    """Whether nothing has happened that lets a task run twice."""
    return simulation.script.calm and not simulation.world.faults["left_alone"]


def verdicts(simulation: Simulation) -> None:
    """Every accepted task of a living client has ended once, and as it should."""
    calm = is_calm(simulation)
    for client in simulation.clients:
        for ticket in client.tickets:
            if client.process.dead or client.closing:
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
        client.process.dead or client.over or (not client.closing and not client.session.unsettled)
        for client in simulation.clients
    )


def leftovers(simulation: Simulation) -> list[str]:
    """What is still somewhere although nobody needs it."""
    living = {c.instance for c in simulation.clients if not c.process.dead}
    found = _at_the_hub(simulation, living)
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
        if not client.process.dead:
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
        if known is not None and not client.process.dead and not client.closing:
            unknown = set(known.specs) - set(client.session.specs)
            found += [f"the hub keeps functions {unknown} of {client.name}, which has retired them"] if unknown else []
    for daemon in scheduler.daemons.values():
        found += [f"the hub has leases {list(daemon.leases)}"] if daemon.leases else []
        found += [f"daemon {daemon.instance:x} has {daemon.tasks_out} tasks out"] if daemon.tasks_out else []
        found += [f"load {daemon.load_s} without leases"] if daemon.load_s and not daemon.leases else []
        found += ["the hub has not said what is settled"] if daemon.settled else []
    for _, _, piece in scheduler.ready.pieces():
        found += ["work is still queued"] if overlap(piece.chunk.ready, piece.lo, piece.hi) else []
    found += ["the hub waits to see a daemon off"] if scheduler._leaving else []
    recovery = scheduler.recovery
    found += ["the hub holds back work"] if recovery.held or recovery.holdings or recovery.outcomes else []
    found += ["the hub has uncommitted outcomes"] if scheduler.deliveries._uncommitted else []
    specs = sum(len(s.specs) for s in scheduler.sessions.values())
    found += ["the hub keeps functions of nobody"] if not specs and scheduler.bodies._data else []
    for lane in hub._lanes.by_instance.values():
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
