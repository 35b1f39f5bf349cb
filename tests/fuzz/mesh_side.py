"""Target: a whole mesh in the simulator, and somebody beside it who puts anything on the hub's sockets.

The real shells read what comes: requests, frames of registrations that there are and that there are not, and messages
of a session of the stranger's own. Meanwhile a client has work done; all of it has to come out even, as after any other
bad day, and nothing of the stranger may be left.
"""

from __future__ import annotations

import contextlib
from typing import cast

import zmq

from taskmesh.core import messages as m
from taskmesh.errors import LocalProtocolError, PeerProtocolError
from taskmesh.transport.membership import Membership
from taskmesh.transport.sockets import connect, make, put
from taskmesh.wire.messages import decode, encode

from ..simulation.hub import ADDRESS
from ..simulation.process import Process
from ..simulation.script import Item, Script, Settings
from ..simulation.simulator import Simulation, _logs_of
from ..simulation.world import World
from .grammar import EDGES, Known, packed
from .hub_side import FROM_CLIENT
from .source import Source, chance, pick

ON_CONTROL = (m.Register, m.Register, m.Heartbeat, m.StatusRequest, m.CreateTicket, m.RevokeTicket, m.ListTickets)
EVE = 0x0EE0
MOVES = 30
PORTS = {"control": 5555, "submit": 5556, "sink": 5557}


class Stranger:
    """One process with a session of its own, and a socket to each of the hub's."""

    def __init__(self, simulation: Simulation) -> None:
        self.process = Process(simulation.network, "eve", 1.0, 0.0)
        register = simulation.book.register("client", EVE, "eve", 0)
        context = self.process.context
        self.member = Membership(context, self.process.loop, ADDRESS.control, register, self)
        self.process.loop.add_part(self)
        self.sockets = {}
        for name, port in PORTS.items():
            self.sockets[name] = make(context, zmq.REQ if name == "control" else zmq.PUSH)
            connect(self.sockets[name], str(ADDRESS._replace(port=port)))
        self.process.poke()

    def on_welcome(self, welcome: m.Registered) -> None:
        """As it comes."""

    def on_message(self, message: m.LinkMessage) -> None:
        """As it comes."""

    def on_refused(self, why: str) -> None:
        """As it comes."""

    def on_lost(self) -> None:
        """As it comes."""

    def on_time(self, now: float) -> None:
        """It keeps its own registration alive."""
        self.member.on_time(now)
        self.member.pump(now)

    def next_deadline(self) -> float:
        """When that is due."""
        return self.member.next_deadline()

    def acts(self, data: bytes, channel: str) -> None:
        """Put bytes on one of the hub's sockets; without a channel, a message on its own link."""
        if self.process.dead:
            return
        if channel:
            put(self.sockets[channel], data)
            return
        with contextlib.suppress(PeerProtocolError, LocalProtocolError):
            self.member.send(cast(m.LinkMessage, decode(data)))
            self.process.poke()


def mesh(source: Source) -> None:
    """Work and noise in any order."""
    script = Script(1, _settings(source), _work(source))
    world = World(1)
    with _logs_of(world):
        simulation = Simulation(script, world)
        stranger = Stranger(simulation)
        rank = world.rank()
        for _ in range(MOVES):
            if source.spent:
                break
            at = 0.2 + source.below(200) / 100
            data, channel = _noise(source, stranger)
            world.at(at, rank, lambda data=data, channel=channel: stranger.acts(data, channel))  # type: ignore[misc]
        world.at(3.0, rank, stranger.process.kill)
        try:
            simulation.run()
        finally:
            if simulation.hub.alive:
                simulation.hub.kill()


def _settings(source: Source) -> Settings:
    return Settings(
        durable=source.below(2) == 1, daemons=1 + source.below(2), slots=2, clients=1, latency_s=1e-3, mess=0.0,
        task_s=pick(source, (1e-5, 1e-2)), long_s=0.2, grace_s=2.0, commit_s=1e-3, drift=0.0, horizon_s=3.5,
        kinds="ooe", timeout_s=0.0, memory=False, max_tasks=0, most=8,
    )  # fmt: skip


def _work(source: Source) -> list[Item]:
    items = []
    for _ in range(2 + source.below(4)):
        numbers = (source.below(256), source.below(256), source.below(256), source.below(256))
        items.append(Item(source.below(250) / 100, pick(source, ("call", "map", "define", "cancel")), numbers))
    return sorted(items)


def _noise(source: Source, stranger: Stranger) -> tuple[bytes, str]:
    """Bytes, and the socket that they go to."""
    known = Known(sessions=[EVE, EVE + 1, EVE + 2])
    what = source.below(6)
    if what < 2:
        return packed(source, known, FROM_CLIENT), ""
    if what == 2:
        return b"\x01" + packed(source, known, ON_CONTROL), "control"
    if what == 3:
        return b"\x01" + encode(_beat(source)), "control"
    frame = b"".join((
        bytes((pick(source, (1, 1, 1, 0, 2)), source.below(5))), (source.below(5)).to_bytes(4, "little"),
        *((max(0, pick(source, EDGES)) % 2**64).to_bytes(8, "little") for _ in range(3)), packed(source, known),
    ))  # fmt: skip
    return (frame if chance(source, 2) else bytes(source.below(256) for _ in range(source.below(60)))), pick(
        source, ("control", "submit", "sink")
    )


def _beat(source: Source) -> m.Heartbeat:
    numbers = [max(0, pick(source, EDGES)) % 2**64 for _ in range(2)]
    return m.Heartbeat(EVE, numbers[0], source.below(4), numbers[1], [(source.below(9), 0, 1)])
