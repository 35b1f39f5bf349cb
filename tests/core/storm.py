"""Schedules for the mesh in memory: a seed says what goes wrong, how often, and when.

Each seed enables only some kinds of trouble (swarm testing, Groce et al., 2012): a schedule in which everything goes
wrong all the time never gets far enough to meet the interesting states.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeVar

from taskmesh_worker import plan as p

from .model import ClientModel, DaemonModel, MeshModel, PeerModel, RunnerModel, Wire

T = TypeVar("T")
PAUSES = [0.0, 0.0005, 0.001, 0.001, 0.002, 0.004, 0.011, 0.06, 0.3, 1.1]


class Storm:
    """Drives a mesh from `seed`. `deadly`: processes die, too; otherwise no task may ever run twice."""

    def __init__(self, seed: int, *, deadly: bool) -> None:
        self.random = random.Random(seed)
        self.deadly = deadly
        self.mesh = MeshModel(self.random.choice([1e-7, 1e-6, 1e-5, 1e-3, 0.1]))
        self.eager = self.random.random()  # how often a runner sends its outcomes before it claims the next task
        self.interrupts = self.random.random() < 0.5
        self.killers = deadly and self.random.random() < 0.5
        for _ in range(self.random.randint(1, 3)):
            self.mesh.add_daemon(self.random.randint(1, 3))
        for _ in range(self.random.randint(1, 2)):
            self.mesh.add_client()
        usual: dict[Callable[[], None], float] = {
            self.call: 2, self.map: 2, self.seal: 2, self.define: 0.3, self.time_goes_by: 5,
            self.peer_writes: 8, self.peer_reads: 12, self.hub_reads: 12, self.hub_ticks: 8,
            self.daemon_ticks: 12, self.runner_goes_on: 40,
        }  # fmt: skip
        trouble: dict[Callable[[], None], float] = {
            self.cancel: 3, self.retire: 0.5, self.lose: 2, self.double: 2, self.reorder: 2, self.reconnect: 0.5,
            self.hold: 0.5,
        }  # fmt: skip
        deaths: dict[Callable[[], None], float] = {
            self.kill_runner: 1, self.kill_daemon: 0.2, self.fall_silent: 0.3, self.drain: 0.1,
            self.client_comes: 0.2, self.close: 0.2, self.restart_hub: 0.1,
        }  # fmt: skip
        self.steps = dict(usual)
        for step, weight in (trouble | (deaths if deadly else {})).items():
            if self.random.random() < 0.5:
                self.steps[step] = weight
        for step in usual:
            self.steps[step] *= self.random.choice([0.3, 1, 1, 3])

    def run(self, steps: int) -> None:
        """So many steps of trouble, then calm, then everything has to come out even."""
        chosen = self.random.choices(list(self.steps), list(self.steps.values()), k=steps)
        for step in chosen:
            step()
            self.mesh.bury()
        self.mesh.verify_calm()
        self.mesh.settle()

    def pick(self, population: list[T]) -> T | None:
        return self.random.choice(population) if population else None

    # ---- users ------------------------------------------------------------------------------------------------

    def client(self) -> ClientModel | None:
        return self.pick([c for c in self.mesh.clients if not c.closing and not c.gone])

    def kinds(self, most: int) -> str:
        kinds = "".join(self.random.choices("oe", [12, 1], k=self.random.randint(1, most)))
        if self.killers and self.random.random() < 0.1:
            self.mesh.calm = False
            kinds += "k"
        return kinds

    def define(self) -> None:
        client = self.client()
        if client is not None:
            client.define(b"body%d" % self.random.randrange(3), self.random.randint(-1, 1))

    def call(self) -> None:
        client = self.client()
        if client is not None:
            spec = self.pick(client.specs) or client.define(b"body", 0)
            client.call(spec, self.kinds(20))

    def seal(self) -> None:
        client = self.client()
        if client is not None:
            for spec in list(client.session.filling):
                client.seal(spec, interrupted=self.interrupts and self.random.random() < 0.3)

    def map(self) -> None:
        client = self.client()
        if client is not None:
            spec = self.pick(client.specs) or client.define(b"body", 0)
            leaves = [self.kinds(30) for _ in range(self.random.randint(1, 3))]
            client.map(spec, leaves, self.random.choice([1, 1, 1, 4]))

    def cancel(self) -> None:
        client = self.client()
        if client is not None:
            client.cancel(self.random.randrange(1000), self.random.randint(1, 30))

    def retire(self) -> None:
        client = self.client()
        if client is not None:
            client.retire()

    # ---- wires and time ---------------------------------------------------------------------------------------

    def peer(self) -> PeerModel | None:
        return self.pick([peer for peer in self.mesh.peers if not peer.gone])

    def wire(self) -> Wire:
        peer = self.peer()
        if peer is None:
            return Wire()
        return self.random.choice([peer.up, peer.down])

    def time_goes_by(self) -> None:
        self.mesh.advance(self.random.choice(PAUSES))

    def peer_writes(self) -> None:
        peer = self.peer()
        if peer is not None:
            peer.pump()

    def peer_reads(self) -> None:
        peer = self.peer()
        if peer is not None:
            peer.receive(self.random.randint(1, 6))

    def hub_reads(self) -> None:
        peer = self.peer()
        if peer is not None:
            self.mesh.hub.receive(peer.up, self.random.randint(1, 6))

    def hub_ticks(self) -> None:
        self.mesh.hub.tick()

    def lose(self) -> None:
        wire = self.wire()
        kept = [frame for frame in wire if self.random.random() < 0.5]
        wire.clear()
        wire.extend(kept)

    def double(self) -> None:
        wire = self.wire()
        if wire:
            wire.append(self.random.choice(wire))

    def reorder(self) -> None:
        wire = self.wire()
        frames = list(wire)
        self.random.shuffle(frames)
        wire.clear()
        wire.extend(frames)

    def reconnect(self) -> None:
        peer = self.peer()
        if peer is not None and self.mesh.hub.heartbeat(peer):
            self.mesh.hub.lane_down(peer.instance)
            peer.join()

    # ---- daemons and runners ----------------------------------------------------------------------------------

    def daemon(self) -> DaemonModel | None:
        return self.pick([d for d in self.mesh.daemons if not d.gone])

    def daemon_ticks(self) -> None:
        daemon = self.daemon()
        if daemon is not None:
            daemon.tick()

    def hold(self) -> None:
        """A daemon does not hear its hub, or hears it again."""
        daemon = self.daemon()
        if daemon is not None:
            daemon.act(p.Hold(not daemon.plan.holding))

    def runner(self) -> RunnerModel | None:
        daemon = self.daemon()
        return self.pick(list(daemon.runners.values())) if daemon is not None else None

    def runner_goes_on(self) -> None:
        runner = self.runner()
        if runner is not None:
            for _ in range(self.random.randint(1, 4)):
                runner.step(self.random.random() < self.eager)

    # ---- deaths -----------------------------------------------------------------------------------------------

    def kill_runner(self) -> None:
        runner = self.runner()
        if runner is not None:
            self.mesh.calm = False
            runner.die()

    def kill_daemon(self) -> None:
        daemon = self.daemon()
        if daemon is not None:
            self.mesh.calm = False
            self.mesh.daemons.remove(daemon)
            self.mesh.hub.lane_down(daemon.instance)
            self.mesh.add_daemon(self.random.randint(1, 3))

    def fall_silent(self) -> None:
        """A peer is cut off until the hub has buried it; it comes back later, and knows nothing of that."""
        peer = self.peer()
        if peer is not None and self.mesh.hub.heartbeat(peer):
            self.mesh.calm = False
            self.mesh.hub.lane_down(peer.instance)
            self.mesh.now += 0.6
            self.mesh.hub.tick()

    def drain(self) -> None:
        daemon = self.daemon()
        if daemon is not None and len(self.mesh.daemons) > 1:
            daemon.act(p.Drain())

    def client_comes(self) -> None:
        if len(self.mesh.clients) < 4:
            self.mesh.add_client()

    def close(self) -> None:
        client = self.client()
        if client is not None:
            client.close()

    def restart_hub(self) -> None:
        self.mesh.restart_hub()
