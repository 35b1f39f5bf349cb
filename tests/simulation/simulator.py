"""One schedule, from its start to the check of what is left."""

from __future__ import annotations

import logging
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .checks import ended, leftovers, needed, verdicts
from .client import SimulatedClient, Ticket
from .daemon import SimulatedDaemon
from .hub import SimulatedHub
from .mesh import PEERS_MOST, Mesh, pick
from .script import Item, Script
from .world import Violation, World

HEAL_S = 240.0  # everything has to end within this time after the last fault, and what it takes to run it


@dataclass(frozen=True, slots=True)
class Report:
    """What a schedule was. `digest` is the same whenever and wherever the same script runs."""

    seed: int
    steps: int
    seconds: float
    tasks: int
    faults: Counter[str]
    digest: int
    error: str | None
    trace: list[str]


class Simulation(Mesh):
    """A mesh that a script is done to."""

    def __init__(self, script: Script, world: World) -> None:
        super().__init__(script, world)
        self._rank = world.rank()
        self.book.needed = lambda *what: needed(self, *what)
        self.doings: dict[str, Callable[[Item], None]] = {
            name.removeprefix("do_"): getattr(self, name) for name in dir(self) if name.startswith("do_")
        }

    def run(self) -> None:
        """Do everything, heal everything, and let it come out even.

        Raises
        ------
        Violation
            It does not.
        """
        started = self.world.now + 0.2
        for item in self.script.items:
            self.world.at(started + item.at, self._rank, lambda item=item: self.doings[item.kind](item))  # type: ignore[misc]
        self.world.run(started + self.script.settings.horizon_s)
        self.heal()
        limit = self.world.now + HEAL_S + 4 * sum(self._seconds(t) for c in self.clients for t in c.tickets)
        while not ended(self):
            if self.world.now > limit:
                verdicts(self)
                raise Violation("something does not end")
            self.world.run(self.world.now + 0.1)
        verdicts(self)
        limit = self.world.now + HEAL_S
        while found := leftovers(self):
            if self.world.now > limit:
                raise Violation("left over: " + "; ".join(found))
            self.world.run(self.world.now + 0.5)
        verdicts(self)

    def _seconds(self, ticket: Ticket) -> float:
        return self.script.settings.long_s if ticket.kind in "lsm" else self.script.settings.task_s

    # ---- work ----------------------------------------------------------------------------------------------------

    def do_define(self, item: Item) -> None:
        client = self.client(item.numbers[0])
        if client is not None:
            a, b, c = item.numbers[1:]
            client.define(b"body%d" % (a % 3), b % 3 - 1, self.limits(c))

    def do_call(self, item: Item) -> None:
        client = self.client(item.numbers[0])
        if client is not None:
            a, b, c = item.numbers[1:]
            client.call(self.spec(client, a), self.letters(b, self.script.settings.most if c % 2 else 3))

    def do_map(self, item: Item) -> None:
        client = self.client(item.numbers[0])
        if client is not None:
            a, b, c = item.numbers[1:]
            leaves = [self.letters(b + leaf, self.script.settings.most) for leaf in range(1 + c % 4)]
            client.map(self.spec(client, a), leaves, 1 if c % 8 else 4)

    def do_cancel(self, item: Item) -> None:
        client = self.client(item.numbers[0])
        if client is not None:
            client.cancel(item.numbers[1], 1 + item.numbers[2] % 30, False)

    def do_interrupt(self, item: Item) -> None:
        client = self.client(item.numbers[0])
        if client is not None:
            client.cancel(item.numbers[1], 1 + item.numbers[2] % 30, True)

    def do_interrupted(self, item: Item) -> None:
        client = self.client(item.numbers[0])
        if client is not None:
            for spec in sorted(client.session.filling, key=lambda s: s.number):
                client.seal(spec, interrupted=True)

    def do_retire(self, item: Item) -> None:
        client = self.client(item.numbers[0])
        if client is not None:
            client.retire()

    def do_close(self, item: Item) -> None:
        client = self.client(item.numbers[0])
        if client is not None and sum(c.usable for c in self.clients) > 1:
            client.close()

    def do_client_comes(self, item: Item) -> None:
        if sum(not c.gone for c in self.clients) < PEERS_MOST:
            self.add_client()

    def do_daemon_comes(self, item: Item) -> None:
        if len(self.living_daemons()) < PEERS_MOST:
            self.add_daemon()

    def do_drain_daemon(self, item: Item) -> None:
        daemon = self.daemon(item.numbers[0])
        if daemon is not None and sum(not d.plan.draining for d in self.living_daemons()) > 1:
            daemon.drain()

    def do_drain_hard(self, item: Item) -> None:
        daemon = self.daemon(item.numbers[0])
        if daemon is not None and sum(not d.plan.draining for d in self.living_daemons()) > 1:
            self.world.fault(item.kind, daemon.name)
            daemon.drain(_seconds(item.numbers[1]))

    # ---- faults --------------------------------------------------------------------------------------------------

    def do_kill_runner(self, item: Item) -> None:
        runner = self.runner(item.numbers[0])
        if runner is not None:
            self.world.fault(item.kind, f"{runner.daemon.name}/{runner.number}")
            runner.die()

    def do_freeze_runner(self, item: Item) -> None:
        runner = self.runner(item.numbers[0])
        if runner is not None:
            self.world.fault(item.kind, f"{runner.daemon.name}/{runner.number}")
            runner.freeze(_seconds(item.numbers[1]))

    def do_kill_daemon(self, item: Item) -> None:
        daemon = self.daemon(item.numbers[0])
        if daemon is not None:
            self.world.fault(item.kind, daemon.name)
            daemon.kill()
            if item.numbers[1] % 3:
                self.world.after(_seconds(item.numbers[2]), self._rank, lambda: self.do_daemon_comes(item))

    def do_freeze_daemon(self, item: Item) -> None:
        daemon = self.daemon(item.numbers[0])
        if daemon is not None:
            self._freeze(item, daemon)

    def do_freeze_client(self, item: Item) -> None:
        client = self.client(item.numbers[0])
        if client is not None:
            self._freeze(item, client)

    def do_freeze_hub(self, item: Item) -> None:
        if self.hub.alive:
            self._freeze(item, self.hub)

    def _freeze(self, item: Item, who: SimulatedDaemon | SimulatedClient | SimulatedHub) -> None:
        seconds = _seconds(item.numbers[1])
        self.world.fault(item.kind, who.process.name, f"for {seconds:g} s")
        who.process.freeze(seconds)

    def do_kill_client(self, item: Item) -> None:
        client = self.client(item.numbers[0])
        if client is not None and sum(c.usable for c in self.clients) > 1:
            self.world.fault(item.kind, client.name)
            client.process.kill()

    def do_revoke_client(self, item: Item) -> None:
        client = self.client(item.numbers[0])
        if client is not None and sum(c.usable for c in self.clients) > 1:
            self._revoke(item, client)

    def do_revoke_daemon(self, item: Item) -> None:
        daemon = self.daemon(item.numbers[0])
        if daemon is not None:
            self._revoke(item, daemon)
            self.world.after(_seconds(item.numbers[2]), self._rank, lambda: self.do_daemon_comes(item))

    def _revoke(self, item: Item, peer: SimulatedDaemon | SimulatedClient) -> None:
        self.world.fault(item.kind, peer.name)
        peer.revoked = True
        self.hub.revoke(peer.instance)

    def do_kill_hub(self, item: Item) -> None:
        if self.hub.alive:
            self.world.fault(item.kind, "hub")
            self.hub.kill(item.numbers[1] % 3)
            self._hub_comes_back(item.numbers[2])

    def do_restart_hub(self, item: Item) -> None:
        if self.hub.alive and self.disk is not None and self.disk.full is None:
            self.world.fault(item.kind, "hub")
            self.hub.leave()
            self._hub_comes_back(item.numbers[2])

    def _hub_comes_back(self, n: int) -> None:
        def start() -> None:
            if not self.hub.alive:
                self.hub.start()

        self.world.after(_seconds(n), self._rank, start)

    def do_cut(self, item: Item) -> None:
        peer = self.peer(item.numbers[0])
        host = peer.name if peer is not None and item.numbers[2] % 3 else "hub"
        seconds = _seconds(item.numbers[1])
        self.world.fault(item.kind, host, f"for {seconds:g} s")
        self.network.cut(host, seconds)

    def do_reset(self, item: Item) -> None:
        for connection in list(self.network.connections):
            if item.numbers[0] % 3 or connection.rank % 2:
                connection.break_off()
        self.world.fault(item.kind, "network")

    def do_half_open(self, item: Item) -> None:
        connection = pick(self.network.connections, item.numbers[0])
        if connection is not None:
            knows = item.numbers[1] % 2 == 0
            ends = f"{connection.dialled.process.name} to {connection.bound.process.name}"
            self.world.fault(item.kind, "network", f"{ends}; the {'first' if knows else 'second'} knows")
            connection.break_off(dialled_knows=knows, bound_knows=not knows)

    def do_stall(self, item: Item) -> None:
        self._stall(item, (item.numbers[1] % 100) / 100)

    def do_long_stall(self, item: Item) -> None:
        self._stall(item, _seconds(item.numbers[1]))

    def _stall(self, item: Item, seconds: float) -> None:
        peer = self.peer(item.numbers[0])
        host = peer.name if peer is not None and item.numbers[2] % 3 else "hub"
        self.world.fault(item.kind, host, f"for {seconds:g} s")
        self.network.stalled_until[host] = self.world.now + seconds

    def do_join_again(self, item: Item) -> None:
        peer = self.peer(item.numbers[0])
        if peer is not None and peer.membership.registered:
            self.world.fault(item.kind, peer.name)
            peer.membership.join_again()
            peer.process.poke()

    def do_jump(self, item: Item) -> None:
        peer = self.peer(item.numbers[0])
        process = peer.process if peer is not None and item.numbers[2] % 3 else self.hub.process
        seconds = _seconds(item.numbers[1])
        self.world.fault(item.kind, process.name, f"by {seconds:g} s")
        process.jump(seconds)

    def do_slow_disk(self, item: Item) -> None:
        if self.disk is not None:
            self.world.fault(item.kind, "disk")
            self.disk.commit_s = _seconds(item.numbers[0]) / 4

    def do_disk_full(self, item: Item) -> None:
        disk = self.disk
        if disk is not None:
            self.world.fault(item.kind, "disk")
            disk.set_full("the disk is full")
            self.world.after(_seconds(item.numbers[0]), self._rank, lambda: disk.set_full(None))


def _seconds(n: int) -> float:
    """How long a fault lasts: about the times after which somebody notices."""
    return (0.01, 0.1, 0.4, 0.7, 1.5, 2.5, 4.0, 7.0, 12.0, 18.0)[n % 10] * (0.8 + n % 41 / 100)


class _Notes(logging.Handler):
    """What the hub would log, in the trace."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        self._world.log("hub", record.getMessage())


@contextmanager
def _logs_of(world: World) -> Iterator[None]:
    """Nothing is logged but into the trace."""
    logger = logging.getLogger("taskmesh")
    before = logger.level, logger.propagate
    notes = _Notes(world)
    logger.propagate = False
    logger.setLevel(logging.CRITICAL + 1 if world.trace is None else logging.INFO)
    logger.addHandler(notes)
    try:
        yield
    finally:
        logger.removeHandler(notes)
        logger.setLevel(before[0])
        logger.propagate = before[1]


def simulate(script: Script, *, traced: bool = False) -> Report:
    """Run a schedule."""
    world = World(script.seed, traced=traced)
    with _logs_of(world):
        return _simulate(script, world)


def _simulate(script: Script, world: World) -> Report:
    simulation = Simulation(script, world)
    error: str | None = None
    try:
        simulation.run()
    except Exception as failure:
        error = f"{type(failure).__name__}: {failure}"
        if not isinstance(failure, Violation):
            world.log("error", traceback.format_exc())
    finally:
        if simulation.hub.alive:
            simulation.hub.kill()
    tasks = sum(len(client.tickets) for client in simulation.clients)
    trace = world.trace or []
    report = Report(script.seed, world.steps, world.now, tasks, world.faults, world.digest, error, trace)
    simulation.network.close()
    return report
