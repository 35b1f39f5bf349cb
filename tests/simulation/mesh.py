"""The mesh of a simulation: who is there, and how all of it heals."""

from __future__ import annotations

from typing import TypeVar

from taskmesh.core import messages as m
from taskmesh.core.session import ClientSpec

from .checks import Book
from .client import SimulatedClient, Ticket
from .daemon import SimulatedDaemon
from .disk import Disk
from .hub import SimulatedHub
from .network import Network
from .runner import SimulatedRunner
from .script import Script
from .world import World

T = TypeVar("T")
PEERS_MOST = 5


class Mesh:
    """A hub, daemons and clients, as the settings of a script have them."""

    def __init__(self, script: Script, world: World) -> None:
        self.script = script
        s = script.settings
        self.world = world
        self.network = Network(self.world, s.latency_s, s.mess)
        self.book = Book(self.world)
        self.disk = Disk(self.world, s.commit_s) if s.durable else None

        self._instances = 0x10

        self.hub = SimulatedHub(self.network, self.disk, s.grace_s, self._rate())
        self.daemons: list[SimulatedDaemon] = []
        self.clients: list[SimulatedClient] = []
        for _ in range(s.daemons):
            self.add_daemon()
        for _ in range(s.clients):
            self.add_client()

    def _rate(self) -> float:
        return 1.0 + self.script.settings.drift * (self.world.random.random() - 0.5)

    def heal(self) -> None:
        """No more faults: everybody is there, and can reach everybody."""

        self.world.log("world", "--- everything heals ---")
        self.network.mess = 0.0
        self.network.cut_until.clear()
        self.network.stalled_until.clear()
        if self.disk is not None:
            self.disk.set_full(None)
        if not self.hub.alive:
            self.hub.start()
        self.hub.process.thaw()
        for peer in self.all_peers():
            peer.process.thaw()
        for daemon in self.daemons:
            for runner in daemon.runners.values():
                runner.thaw()
        if not any(not d.plan.draining for d in self.living_daemons()):
            self.add_daemon()

    # ---- who is there --------------------------------------------------------------------------------------------

    def add_daemon(self) -> None:
        """Another daemon."""
        self._instances += 1
        name = f"daemon{len(self.daemons) + 1}"
        s = self.script.settings
        self.daemons.append(
            SimulatedDaemon(self.network, self.book, s, name, self._instances, s.slots, self._rate())
        )  # fmt: skip

    def add_client(self) -> None:
        """Another client."""
        self._instances += 1
        name = f"client{len(self.clients) + 1}"
        self.clients.append(SimulatedClient(self.network, self.book, name, self._instances, self._rate()))

    def living_daemons(self) -> list[SimulatedDaemon]:
        """Daemons that can take work."""
        return [d for d in self.daemons if not d.process.dead and not d.revoked]

    def client(self, n: int) -> SimulatedClient | None:
        return pick([c for c in self.clients if c.usable], n)

    def daemon(self, n: int) -> SimulatedDaemon | None:
        return pick(self.living_daemons(), n)

    def peer(self, n: int) -> SimulatedDaemon | SimulatedClient | None:
        return pick([peer for peer in self.all_peers() if not peer.process.dead], n)

    def all_peers(self) -> list[SimulatedDaemon | SimulatedClient]:
        return [*self.daemons, *self.clients]

    def runner(self, n: int) -> SimulatedRunner | None:
        return pick([r for d in self.living_daemons() for r in d.runners.values() if not r.dead], n)

    def spec(self, client: SimulatedClient, n: int) -> ClientSpec[Ticket]:
        spec = pick(client.specs, n)
        return spec if spec is not None else client.define(b"body", 0, self.limits(n))

    def limits(self, n: int) -> m.Limits:
        s = self.script.settings
        return m.Limits(s.timeout_s if n % 3 else 0.0, 1 << 20 if s.memory and n % 5 else 0, n % 4 == 0)

    def letters(self, a: int, most: int) -> str:
        kinds = self.script.settings.kinds
        count = 1 + a % most
        return "".join(kinds[(a * 2654435761 + 40503 * i * i + 7 * i) % 4093 % len(kinds)] for i in range(count))


def pick(among: list[T], n: int) -> T | None:
    return among[n % len(among)] if among else None
