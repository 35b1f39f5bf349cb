"""W9: the hub alone. Fake daemons answer without running anything; the chunks are ready-made.

The hub is a process of its own on loopback TCP, as in a fleet. Client and daemons are played by the measuring process,
which may well be the slower side on two cores: so beside the rate by the clock there is the rate by the hub's own
processor time, which says what the hub could do if nobody kept it waiting.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from benchmarks.workloads.base import Metric, Outcome, Setting, Workload

DAEMONS = 2
SLOTS = 32
DEADLINE_S = 120.0
RESULT_BYTES_PER_TASK = 4

HUB = """
import os, resource, sys
from taskmesh.hub import Hub, HubConfig
from taskmesh.transport.endpoints import Address
from taskmesh.transport.loop import Loop
from taskmesh.transport.sockets import new_context
loop = Loop()
hub = Hub(HubConfig(Address("tcp", "127.0.0.1", 0), lanes=None), new_context(), loop)
print(hub.address, flush=True)
loop.watch(0, lambda: setattr(loop, "stopping", True))
loop.run()
"""


@dataclass
class Player:
    """Client or daemon, as far as the hub can tell."""

    role: str
    finished: int = 0
    member: object = None
    welcomed: bool = False
    mean_s: float = 1e-6
    done: list[object] = field(default_factory=list)

    def on_welcome(self, welcome: object) -> None:
        self.welcomed = True

    def on_refused(self, why: str) -> None:
        raise RuntimeError(f"the hub refused a {self.role}: {why}")

    def on_lost(self) -> None:
        raise RuntimeError("the hub does not answer")

    def on_message(self, message: object) -> None:
        from taskmesh.core import messages as m

        if isinstance(message, m.Dispatch):
            tasks = message.hi - message.lo
            blob = bytes(RESULT_BYTES_PER_TASK * tasks)
            outcome = m.Outcome(message.spec, message.chunk.first, message.lo, message.hi, m.Form.LIST, blob)
            self.done.append(m.Finished(message.fence, message.session, tasks * self.mean_s, outcome))
        elif isinstance(message, m.Results):
            self.finished += sum(outcome.hi - outcome.lo for outcome in message.outcomes)


@contextmanager
def hub() -> Iterator[tuple[str, int]]:
    """A hub process: its address and pid."""
    process = subprocess.Popen([sys.executable, "-c", HUB], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), process.pid
    finally:
        process.kill()
        process.communicate()


def measure(setting: Setting) -> Outcome:
    """1M calls in chunks as `map` makes them, then as many as `submit` makes them."""
    by_map = play(setting.amount, items_per_leaf=256, leaves=50)
    by_submit = play(setting.amount, items_per_leaf=0, leaves=512)
    return Outcome(
        {
            "map_rate": by_map[0], "map_cpu_rate": by_map[1],
            "submit_rate": by_submit[0], "submit_cpu_rate": by_submit[1],
        }
    )  # fmt: skip


def play(amount: int, items_per_leaf: int, leaves: int) -> tuple[float, float]:
    """Feed `amount` calls through a fresh hub; tasks per second by the clock and by the hub's processor time."""
    import psutil

    from taskmesh.core import messages as m
    from taskmesh.core.chunk import Chunk, pack_sizes
    from taskmesh.core.identity import digest_of
    from taskmesh.transport.loop import Loop
    from taskmesh.transport.sockets import new_context

    with hub() as (address, pid):
        context, loop = new_context(), Loop()
        client = Player("client")
        daemons = [Player("daemon") for _ in range(DAEMONS)]
        members = join(address, [client, *daemons], context, loop)
        mine = members[0]
        for member in members[1:]:
            member.send(m.Slots(SLOTS))  # a daemon gets work once it has been heard
        digest = digest_of(b"body")
        mine.send(m.Spec(1, "noop", digest, b"", 0))
        mine.send(m.Body(digest, b"body"))
        per_chunk = (items_per_leaf or 1) * leaves
        leaf = b"x" * (1300 if items_per_leaf else 30)
        sizes = pack_sizes([len(leaf)] * leaves)
        items = pack_sizes([items_per_leaf] * leaves) if items_per_leaf else b""
        payload = leaf * leaves
        process = psutil.Process(pid)
        before, began = process.cpu_times(), time.perf_counter()
        sent = 0
        while client.finished < amount:
            if time.perf_counter() - began > DEADLINE_S:
                raise RuntimeError(f"only {client.finished} of {amount} calls came back within {DEADLINE_S:g} s")
            while sent < amount and sent - client.finished < 64 * per_chunk:
                mine.send(m.Submit(1, Chunk(sent, 0, per_chunk, sizes, items, 1, payload)))
                sent += per_chunk
            loop.step()
            for player, member in zip(daemons, members[1:], strict=True):
                if player.done:
                    member.send(m.Done(player.done))
                    player.done = []
            now = loop.now()
            for member in members:
                member.pump(now)
        took = time.perf_counter() - began
        after = process.cpu_times()
        for member in members:
            member.close(0)
        context.destroy(0)
        busy = after.user + after.system - before.user - before.system
        return client.finished / took, client.finished / max(busy, 1e-9)


def join(address: str, players: list[Player], context: object, loop: object) -> list:  # type: ignore[type-arg]
    """Register everybody at the hub."""
    from taskmesh import __version__
    from taskmesh.core import messages as m
    from taskmesh.transport.membership import Membership

    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    members = []
    for number, player in enumerate(players, 1):
        slots = SLOTS if player.role == "daemon" else 0
        register = m.Register(
            player.role, number, 0, 0, 0, 0, f"fake-{number}", "localhost", os.getpid(), slots, __version__, python
        )
        member = Membership(context, loop, address, register, player)
        loop.add_part(_Timer(member))
        members.append(member)
    until = time.perf_counter() + DEADLINE_S
    while not all(player.welcomed for player in players):
        loop.step()
        if time.perf_counter() > until:
            raise RuntimeError(f"the hub at {address} did not answer")
    return members


class _Timer:
    """Lets a membership act on time."""

    def __init__(self, member) -> None:  # type: ignore[no-untyped-def]
        self._member = member

    def on_time(self, now: float) -> None:
        self._member.on_time(now)
        self._member.pump(now)

    def next_deadline(self) -> float:
        return self._member.next_deadline()


def _remark(workers: int, scale: float) -> str:
    return f"{DAEMONS} fake daemons of {SLOTS} slots in the measuring process; no runner, no client library"


W9 = Workload(
    name="W9",
    title="The hub alone",
    metrics=(
        Metric("map_rate", "map chunks, tasks/s", higher_is_better=True, compared=False),
        Metric("map_cpu_rate", "per hub CPU second", higher_is_better=True, compared=False),
        Metric("submit_rate", "submit chunks, tasks/s", higher_is_better=True, compared=False),
        Metric("submit_cpu_rate", "per hub CPU second", higher_is_better=True, compared=False),
    ),
    measure=measure,
    amount=1_000_000,
    unit="calls",
    only_peers=frozenset({"taskmesh"}),
    remark=_remark,
)
