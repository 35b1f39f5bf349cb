"""The three machines together, in memory, under everything that can go wrong (design, section 7).

`check()` of every machine runs after every event; at the end every task has ended exactly once and the books balance.
"""

from __future__ import annotations

from typing import TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from .model import ClientModel, DaemonModel, MeshModel, RunnerModel

T = TypeVar("T")
PICK = st.integers(0, 1000)
KINDS = st.text("oooooooe", min_size=1, max_size=40) | st.text("oek", min_size=1, max_size=3)


def pick(population: list[T], number: int) -> T | None:
    return population[number % len(population)] if population else None


class CalmMesh(RuleBasedStateMachine):
    """Links lose frames, clients cancel and runners are slow, but nothing dies: every task runs at most once."""

    @initialize(
        slots=st.lists(st.integers(1, 3), min_size=1, max_size=2), task_s=st.sampled_from([1e-7, 1e-6, 1e-3, 0.1])
    )
    def start(self, slots: list[int], task_s: float) -> None:
        self.mesh = MeshModel(task_s)
        for n in slots:
            self.mesh.add_daemon(n)
        self.mesh.add_client()

    # ---- users ------------------------------------------------------------------------------------------------

    def client(self, number: int) -> ClientModel | None:
        return pick([c for c in self.mesh.clients if not c.closing and not c.gone], number)

    def kinds(self, kinds: str) -> str:
        return kinds.replace("k", "o")

    @rule(n=PICK, priority=st.integers(-1, 1))
    def defines(self, n: int, priority: int) -> None:
        client = self.client(n)
        if client is not None:
            client.define(b"body%d" % (n % 3), priority)

    @rule(n=PICK, kinds=KINDS, send=st.booleans())
    def calls(self, n: int, kinds: str, send: bool) -> None:
        client = self.client(n)
        if client is None:
            return
        spec = pick(client.specs, n) or client.define(b"body", 0)
        client.call(spec, self.kinds(kinds))
        if send:
            client.seal(spec)

    @rule(n=PICK, leaves=st.lists(KINDS, min_size=1, max_size=4), grain=st.sampled_from([1, 1, 4]))
    def maps(self, n: int, leaves: list[str], grain: int) -> None:
        client = self.client(n)
        if client is not None:
            spec = pick(client.specs, n) or client.define(b"body", 0)
            client.map(spec, [self.kinds(leaf) for leaf in leaves], grain)

    @rule(n=PICK, length=st.integers(1, 30))
    def cancels(self, n: int, length: int) -> None:
        client = self.client(n)
        if client is not None:
            client.cancel(n, length)

    @rule(n=PICK)
    def retires(self, n: int) -> None:
        client = self.client(n)
        if client is not None:
            client.retire()

    # ---- time and wires ---------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.002, 0.011, 0.06, 0.3, 1.1]))
    def time_goes_by(self, seconds: float) -> None:
        self.mesh.advance(seconds)

    @rule()
    def everybody_reads_and_writes(self) -> None:
        self.mesh.round()

    @rule(seconds=st.sampled_from([0.0, 0.002, 0.011]), steps=st.integers(0, 20))
    def a_while_goes_by(self, seconds: float, steps: int) -> None:
        for _ in range(3):
            self.mesh.round()
            self.mesh.advance(seconds)
            for daemon in self.mesh.daemons:
                for runner in list(daemon.runners.values()):
                    for _ in range(steps):
                        runner.step(flush=True)

    @rule(n=PICK, frames=st.integers(1, 5))
    def a_peer_reads(self, n: int, frames: int) -> None:
        peer = pick([p for p in self.mesh.peers if not p.gone], n)
        if peer is not None:
            peer.receive(frames)
            self.mesh.bury()

    @rule(n=PICK, frames=st.integers(1, 5))
    def the_hub_reads(self, n: int, frames: int) -> None:
        peer = pick(self.mesh.peers, n)
        if peer is not None:
            peer.pump()
            self.mesh.hub.receive(peer.up, frames)

    @rule()
    def the_hub_ticks(self) -> None:
        self.mesh.hub.tick()

    @rule(n=PICK)
    def a_daemon_ticks(self, n: int) -> None:
        daemon = pick(self.mesh.daemons, n)
        if daemon is not None:
            daemon.tick()

    @rule(n=PICK, up=st.booleans(), keep=st.integers(0, 3))
    def a_wire_loses_frames(self, n: int, up: bool, keep: int) -> None:
        peer = pick(self.mesh.peers, n)
        if peer is not None:
            wire = peer.up if up else peer.down
            while len(wire) > keep:
                wire.popleft()

    @rule(n=PICK)
    def a_peer_reconnects_in_time(self, n: int) -> None:
        peer = pick([p for p in self.mesh.peers if not p.gone and p.instance in self.mesh.hub.lanes], n)
        if peer is not None:
            self.mesh.hub.lane_down(peer.instance)
            peer.join()

    # ---- runners ----------------------------------------------------------------------------------------------

    def runner(self, number: int) -> RunnerModel | None:
        return pick([r for d in self.mesh.daemons for r in d.runners.values()], number)

    @rule(n=PICK, steps=st.integers(1, 12), flush=st.booleans())
    def a_runner_goes_on(self, n: int, steps: int, flush: bool) -> None:
        runner = self.runner(n)
        if runner is not None:
            for _ in range(steps):
                runner.step(flush)

    @invariant()
    def nothing_ran_that_should_not(self) -> None:
        if hasattr(self, "mesh"):
            self.mesh.verify_calm()

    def teardown(self) -> None:
        if hasattr(self, "mesh"):
            self.mesh.settle()


class StormyMesh(CalmMesh):
    """And now runners, daemons, sessions and the hub die, too."""

    def kinds(self, kinds: str) -> str:
        if "k" in kinds:
            self.mesh.calm = False
        return kinds

    @rule(n=PICK)
    def a_runner_is_killed(self, n: int) -> None:
        runner = self.runner(n)
        if runner is not None:
            self.mesh.calm = False
            runner.die()

    @rule(n=PICK, slots=st.integers(1, 3))
    def a_daemon_dies_and_another_starts(self, n: int, slots: int) -> None:
        daemon = self.daemon(n)
        if daemon is not None:
            self.mesh.calm = False
            self.mesh.daemons.remove(daemon)
            self.mesh.hub.lane_down(daemon.instance)
            self.mesh.add_daemon(slots)

    @rule(n=PICK)
    def a_peer_is_silent_until_the_hub_buries_it(self, n: int) -> None:
        peer = pick([p for p in self.mesh.peers if not p.gone and p.instance in self.mesh.hub.lanes], n)
        if peer is not None:
            self.mesh.calm = False
            self.mesh.hub.lane_down(peer.instance)
            self.mesh.now += 0.6
            self.mesh.hub.tick()

    @rule(n=PICK)
    def a_daemon_drains(self, n: int) -> None:
        from taskmesh_worker import plan as p

        daemon = self.daemon(n)
        if daemon is not None:
            daemon.act(p.Drain())

    @rule()
    def a_client_comes(self) -> None:
        if len(self.mesh.clients) < 4:
            self.mesh.add_client()

    @rule(n=PICK)
    def a_session_closes(self, n: int) -> None:
        client = self.client(n)
        if client is not None:
            client.close()

    @rule()
    def the_hub_is_killed_and_started_again(self) -> None:
        self.mesh.restart_hub()

    def daemon(self, number: int) -> DaemonModel | None:
        return pick(self.mesh.daemons, number)


TestCalmMesh = CalmMesh.TestCase
TestStormyMesh = StormyMesh.TestCase
TestCalmMesh.settings = settings(max_examples=150, stateful_step_count=40)
TestStormyMesh.settings = settings(max_examples=150, stateful_step_count=40)
pytestmark = pytest.mark.timeout(300)
