"""A daemon: the real plan and registration, with runners that are simulated."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import msgpack

from taskmesh.core import messages as m
from taskmesh.core.ranges import Ranges, overlap
from taskmesh.transport.membership import Membership
from taskmesh_worker import plan_events as p
from taskmesh_worker.farewell import Farewell, Parting
from taskmesh_worker.plan import Plan
from taskmesh_worker.plan_limits import RunnerLimits
from taskmesh_worker.plan_state import Phase, Work

from .hub import ADDRESS
from .process import Process
from .runner import SimulatedRunner

if TYPE_CHECKING:
    from .checks import Book
    from .network import Network
    from .script import Settings

DIED: bytes = msgpack.packb({"kind": "lost", "host": "simulated"})
NEVER = float("inf")


class _Plan(Plan):
    """The plan, with two of its indexes by the names that `checks` calls them."""

    @property
    def _works(self) -> dict[int, Work]:
        return self.works

    @property
    def _revokes(self) -> dict[int, Ranges]:
        return self.revokes


class SimulatedDaemon:
    """One daemon, from its start to its end. As `taskmesh_worker.daemon.Daemon`, which see."""

    def __init__(
        self, network: Network, book: Book, settings: Settings, name: str, instance: int, slots: int, rate: float
    ) -> None:
        self.name = name
        self.book = book
        self.settings = settings
        self.instance = instance
        self.revoked = False  # its ticket was
        self.process = Process(network, name, rate, float(instance % 977))
        self.plan = _Plan(slots, limits=RunnerLimits(max_tasks=settings.max_tasks))
        self.runners: dict[int, SimulatedRunner] = {}
        self.farewell = Farewell(self.plan)
        self._finished: list[m.Finished] = []
        self._joined = False
        self._events: deque[p.Event] = deque()
        self._acting = False
        self._touched = True
        self._see_off_at = NEVER
        register = book.register("daemon", instance, name, slots)
        self.membership = Membership(
            self.process.context, self.process.loop, ADDRESS.control, register, self, keeper=self
        )
        assert self.membership._silence is not None
        self.membership._silence._clock = self.process.clock
        self.process.loop.add_part(self)
        self.process.after_round = self._after_round
        self.process.poke()

    @property
    def holds(self) -> bool:
        """Whether it may start nothing, since its hub is silent."""
        silence = self.membership._silence
        return silence is not None and silence.holding

    # ---- the hub -------------------------------------------------------------------------------------------------

    def on_welcome(self, welcome: m.Registered) -> None:
        if not welcome.resume:
            self._finished.clear()
            self._act(p.Reset(again=self._joined))
        self._joined = True
        self.farewell.on_heard()
        self.process.world.log(self.name, f"joins, {'goes on' if welcome.resume else 'on a new link'}")

    def on_message(self, message: m.LinkMessage) -> None:
        if isinstance(message, m.Goodbye):
            self._on_goodbye(message)
            return
        if isinstance(message, m.Settled):
            self._judge(message)
        self._act(p.FromHub(message))

    def _on_goodbye(self, goodbye: m.Goodbye) -> None:
        parting = self.farewell.on_goodbye(goodbye, self.membership.unacked)
        if parting is Parting.FOR_NOW:
            self.membership.join_again()
        elif parting is Parting.PUT_OUT:
            self.on_refused(goodbye.why)

    def _judge(self, settled: m.Settled) -> None:
        for fence, lo, hi in settled.parts:
            for kept in self.plan.ledger._leases.get(fence, {}).values():
                for a, b in overlap(kept.left, lo, hi):
                    self.book.settled(kept.entry.session, kept.entry.outcome, a, b, self.name)

    def on_refused(self, why: str) -> None:
        assert self.revoked, f"{self.name} was refused: {why}"
        self.kill()

    def on_lost(self) -> None:
        now = self.process.loop.now()
        self.farewell.on_lost(now)
        if self.farewell.leave_without_hub(now):
            self._leaves_alone()

    def _see_itself_off(self, now: float) -> float:
        left = self.farewell.left
        due = self.farewell.on_time(now)
        if self.farewell.left and not left:
            self._leaves_alone()
        return due

    def _leaves_alone(self) -> None:
        self.process.world.fault("left_alone", self.name)  # the hub does not know: like a death

    def on_silence(self) -> None:
        self.process.world.log(self.name, "holds")
        self._act(p.Hold(True))

    def on_heard(self) -> None:
        self.process.world.log(self.name, "goes on")
        self.farewell.on_heard()
        self._act(p.Hold(False))

    def held(self) -> list[tuple[int, int, int]]:
        return self.plan.held()

    # ---- the plan ------------------------------------------------------------------------------------------------

    def _act(self, event: p.Event) -> None:
        self._touched = True
        self._events.append(event)
        if self._acting:
            return
        self._acting = True
        try:
            while self._events:
                for action in self.plan.handle(self._events.popleft(), self.process.loop.now()):
                    self._perform(action)
        finally:
            self._acting = False

    def _perform(self, action: p.Action) -> None:
        match action:
            case p.Report(message):
                self._report(message)
            case p.Start(number):
                self.runners[number] = SimulatedRunner(self, number)
            case p.Hand(number, dose, limit):
                self.runners[number].limit = limit
                self.runners[number].put(dose)
            case p.GiveBody(number, digest, _, drop):
                self.runners[number].put((digest, drop))
            case p.Lower(number, limit):
                self.runners[number].limit = limit
            case p.Peek(number):
                self._act(p.Claimed(number, self.runners[number].claimed[1]))
            case p.Look(number):
                runner = self.runners[number]
                self._act(p.Seen(number, *runner.claimed, self.process.world.now - runner.claimed_at))
            case p.Flush(number):
                self.runners[number].signal()
            case p.Interrupt(number, position, reason):
                self.runners[number].signal(position, reason)
            case p.Sample(number):
                self._act(p.Sampled(number, self.runners[number].resident, *self.runners[number].claimed))
            case p.End(number):
                self.runners[number].hang_up()
            case p.Kill(number):
                self.runners[number].die()
            case _:
                raise AssertionError(f"the simulated daemon cannot {action}")

    def _report(self, message: m.LinkMessage | m.Finished) -> None:
        if isinstance(message, m.Finished):
            self._finished.append(message)
        else:
            self._flush()
            self.membership.send(message)

    def _flush(self) -> None:
        if self._finished:
            self.membership.send(m.Done(self._finished.copy()))
            self._finished.clear()

    # ---- rounds --------------------------------------------------------------------------------------------------

    def on_time(self, now: float) -> None:
        for number, runner in list(self.runners.items()):
            if runner.ready and self.plan.runners[number].phase is Phase.STARTING:
                self._act(p.RunnerReady(number))
            while runner.outbox:
                self._act(p.RunnerSaid(number, runner.outbox.popleft()))
            if runner.dead:
                del self.runners[number]
                self._act(p.RunnerGone(number, runner.claimed, DIED))
        self.membership.read()
        self._act(p.Tick())
        self._flush()
        self.membership.on_time(now)
        self.membership.pump(now)
        self._touched = False
        self._see_off_at = self._see_itself_off(now)

    def next_deadline(self) -> float:
        if self._touched or self.membership.touched:
            return 0.0
        return min(self.plan.next_deadline(), self.membership.next_deadline(), self._see_off_at)

    def _after_round(self) -> None:
        self.plan.check()
        if self.membership.stream is not None:
            self.membership.stream.link.check()
        if self.farewell.left:
            self.process.world.log(self.name, "has left")
            self.kill()

    # ---- its end -------------------------------------------------------------------------------------------------

    def kill(self) -> None:
        """Its runners die with it."""
        self.process.kill()
        for runner in self.runners.values():
            runner.dead = True

    def drain(self, timeout_s: float = NEVER) -> None:
        """SIGTERM."""
        self._act(p.Drain(timeout_s))
        self.process.poke()
