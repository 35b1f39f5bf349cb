"""The hub: the real shell and scheduler, on virtual sockets and a disk that outlives them.

It has no keys, so its door cannot tell who comes. In its place each peer has a ticket of its own, which can be revoked.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from taskmesh import hub as shell
from taskmesh.core import actions as a
from taskmesh.core import events as e
from taskmesh.core.access import PEERS, Grant, Role
from taskmesh.core.timing import Timing
from taskmesh.transport.endpoints import Address

from .checks import Fences
from .disk import Disk
from .process import Process
from .world import Violation

if TYPE_CHECKING:
    from .network import Network

ADDRESS = Address("tcp", "hub", 5555)


class _Numbers:
    """In place of `secrets`."""

    def __init__(self, number: int) -> None:
        self._number = number

    def randbits(self, bits: int) -> int:
        return self._number


class _NoSleep:
    """In place of `time` while a hub says goodbye."""

    @staticmethod
    def sleep(seconds: float) -> None:
        """Frames that were sent come before their connections close anyway."""


class Tickets:
    """Instead of a door: each peer has a ticket that is called as its instance is; what is `revoked` stays so."""

    def __init__(self) -> None:
        self.revoked: list[int] = []

    def guard(self, hub: shell.Hub, process: Process) -> None:
        """Have a hub see by which ticket everybody comes, and put out who has none that is good."""
        handle = hub.scheduler.handle

        def with_ticket(event: e.Event, now: float) -> list[a.Action]:
            if not isinstance(event, e.Joined):
                return handle(event, now)
            instance = event.request.instance
            if instance in self.revoked:
                return [a.Refuse("its ticket was revoked")]
            role = next((role for role, peer in PEERS.items() if peer == event.request.role), Role.CLIENT)
            return handle(event._replace(holder=Grant(f"{instance:x}", role, b"", 0.0)), now)

        hub.scheduler.handle = with_ticket  # type: ignore[method-assign]
        for instance in self.revoked:
            self.put_out(hub, process, instance)

    @staticmethod
    def put_out(hub: shell.Hub, process: Process, instance: int) -> None:
        """As a hub does with who came by a ticket that is good no more."""
        hub.act(e.Revoked(f"{instance:x}", "it was revoked"), process.loop.now())
        scheduler = hub.scheduler
        there = (scheduler.sessions, scheduler.daemons, scheduler.roster.peers, hub.lanes.by_instance)
        if any(instance in peers for peers in there):
            raise Violation(f"{instance:x} is still there, and its ticket was revoked")


class SimulatedHub:
    """Hubs that follow each other on one host. `disk` is None for those without a store."""

    def __init__(self, network: Network, disk: Disk | None, grace_s: float, rate: float) -> None:
        self.network = network
        self.disk = disk
        self.grace_s = grace_s
        self._rate = rate
        self._incarnations = 0
        self.tickets = Tickets()
        self.process: Process
        self.hub: shell.Hub
        self.start()

    @property
    def alive(self) -> bool:
        return not self.process.dead

    def start(self) -> None:
        """A hub with what the disk remembers."""
        world, disk = self.network.world, self.disk
        self._incarnations += 1
        process = self.process = Process(self.network, "hub", self._rate, 1000.0 * self._incarnations)
        loop = process.loop

        def opened(wake: Any) -> Any:
            def woken() -> None:
                wake()
                loop.wake_files()

            assert disk is not None
            return disk.open(woken)

        config = shell.HubConfig(
            ADDRESS, None, Timing(grace_s=self.grace_s), store=opened if disk is not None else None
        )
        with patch.object(shell, "secrets", _Numbers(world.random.getrandbits(63) | 1)):
            self.hub = shell.Hub(config, process.context, loop)
        self.fences = Fences(self.hub.scheduler)
        self.tickets.guard(self.hub, process)
        process.after_round = self._check
        process.poke()
        world.log("hub", "starts")

    def revoke(self, instance: int) -> None:
        """Revoke the ticket of a peer: now, or while there is no hub."""
        self.tickets.revoked.append(instance)
        if self.alive:
            self.tickets.put_out(self.hub, self.process, instance)
            self.process.poke()

    def kill(self, committed: int = 0) -> None:
        """End it at once; so many batches on their way to the disk are committed."""
        self.process.kill()
        if self.disk is not None and self.disk.store is not None:
            self.disk.store.crash(committed)
        journal = self.hub._journal
        if journal is not None:
            os.close(journal._wake_read)
            os.close(journal._wake_write)

    def leave(self) -> None:
        """End it as SIGTERM does: it will be back."""
        with patch.object(shell, "time", _NoSleep):
            self.hub.close("the hub is restarted", back=True)
        self.process.kill()

    def _check(self) -> None:
        self.hub.scheduler.check()
        for lane in self.hub.lanes.by_instance.values():
            lane.stream.link.check()
