"""A role as a process: a clock of its own, a loop like `taskmesh.transport.loop`, and its deaths and stops."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from taskmesh.transport.loop import LATE_S, LONGEST_WAIT_S, PASSES, Part

from .network import Context, Socket
from .world import Violation

if TYPE_CHECKING:
    from .network import Network
    from .world import World

WAKE_S = 2e-5  # from something that has arrived to the round that reads it
SPINS_MOST = 2000  # rounds without a pause


class Process:
    """One role on one host. `rate` and `offset`: how its clock runs."""

    def __init__(self, network: Network, name: str, rate: float, offset: float) -> None:
        self.network = network
        self.world: World = network.world
        self.name = self.host = name
        self.rank = self.world.rank()
        self.dead = False
        self.frozen_until = 0.0
        self._rate = rate
        self._offset = offset
        self.context: Any = Context(network, self)  # stands in for a zmq.Context
        self.loop: Any = SimulatedLoop(self)  # stands in for a Loop
        self.after_round: Callable[[], None] = lambda: None
        self._wake_at = float("inf")
        self._rounds_at = (0.0, 0)

    def clock(self) -> float:
        """Monotonic seconds by this process's clock; they go on while it is stopped."""
        return self._offset + self._rate * self.world.now

    def jump(self, seconds: float) -> None:
        """Its clock is suddenly ahead."""
        self._offset += seconds
        self.poke()

    def poke(self) -> None:
        """Something has come for it."""
        self.wake(self.world.now + WAKE_S)

    def wake(self, when: float) -> None:
        """Run a round at `when`, or as soon as it is not stopped."""
        when = max(when, self.frozen_until)
        if when < self._wake_at and not self.dead:
            self._wake_at = when
            self.world.at(when, self.rank, self._round)

    def _round(self) -> None:
        if self.dead or self.world.now != self._wake_at:
            return  # it was woken before
        self._wake_at = float("inf")
        if self.frozen_until > self.world.now:
            self.wake(self.frozen_until)
            return
        at, rounds = self._rounds_at
        self._rounds_at = (at, rounds + 1) if self.world.now - at < 1e-3 * SPINS_MOST / 20 else (self.world.now, 1)
        if rounds > SPINS_MOST:
            raise Violation(f"{self.name} spins: {rounds} rounds since {at:.4f}")
        wait = self.loop.step()
        self.after_round()
        if not self.dead:
            self.wake(self.world.now + max(wait / self._rate, WAKE_S))

    def freeze(self, seconds: float) -> None:
        """Stop it, as SIGSTOP does."""
        self.frozen_until = max(self.frozen_until, self.world.now + seconds)
        self._wake_at = float("inf")
        self.wake(self.frozen_until)

    def thaw(self) -> None:
        """Let it go on at once."""
        self.frozen_until = 0.0
        self.poke()

    def kill(self) -> None:
        """End it, as SIGKILL does."""
        self.dead = True
        self.context.kill()


class SimulatedLoop:
    """The interface of `Loop` on a process's clock."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._readers: dict[Socket | int, Callable[[], None]] = {}
        self._again: dict[Socket | int, None] = {}
        self._parts: list[Part] = []
        self._lost_s = 0.0
        self._expected: float | None = None
        self.stopping = False

    def now(self) -> float:
        return self._process.clock() - self._lost_s

    def add_part(self, part: Part) -> None:
        self._parts.append(part)

    def watch(self, source: Socket | int, reader: Callable[[], None], writable: bool = False) -> None:
        self._readers[source] = reader
        self.again(source)

    def forget(self, source: Socket | int) -> None:
        self._readers.pop(source, None)
        self._again.pop(source, None)

    def arrived(self, source: Socket) -> None:
        """A socket holds something now."""
        if source in self._readers:
            self._again[source] = None

    def again(self, source: Socket | int) -> None:
        if source in self._readers:
            self._again[source] = None
            self._process.poke()

    def wake_files(self) -> None:
        """Call the readers of file descriptors in the next round."""
        for source in self._readers:
            if isinstance(source, int):
                self.again(source)

    def step(self) -> float:
        """One round; returns how long to wait for the next one if nothing comes."""
        again, self._again = self._again, {}
        for source in again:
            reader = self._readers.get(source)
            if reader is not None:
                reader()
                if not isinstance(source, int) and source.inbox:
                    self._again[source] = None
        after = self.now()
        if self._expected is not None and after - self._expected > LATE_S:
            self._lost_s += after - self._expected
            after = self.now()
        for _ in range(PASSES):
            for part in self._parts:
                part.on_time(after)
            if all(part.next_deadline() > 0.0 for part in self._parts):
                break
        wait = LONGEST_WAIT_S
        for part in self._parts:
            left = part.next_deadline() - after
            if left < wait:
                wait = left if left > 0.0 else 0.0
        self._expected = after + wait
        return 0.0 if self._again else wait
