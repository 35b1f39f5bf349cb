"""`python -m tests.simulation.scale`: the scheduler with thousands of daemons and millions of tasks, without faults.

The scheduler is the real one; daemons answer without running anything: each slot takes a dose of work for as long as
it would take, and reports an outcome. So the time that is measured is the scheduler's own, and the
makespan is that of a mesh whose hub takes no time: what credit and dispatch cost.
"""

from __future__ import annotations

import argparse
import gc
import heapq
import resource
from collections.abc import Iterator
from random import Random
from time import process_time
from typing import NamedTuple

from taskmesh.core import actions as a
from taskmesh.core import events as e
from taskmesh.core import messages as m
from taskmesh.core.chunk import Chunk, pack_sizes
from taskmesh.core.credit import DOSE_S
from taskmesh.core.scheduler import Scheduler
from taskmesh.core.timing import Timing

CLIENT, FIRST_DAEMON = 1, 100
DIGEST = b"0123456789abcdef"
LATENCY_S = 0.0005  # one way
ROUND_S = 0.0005  # what arrives within this time is read in one round of the hub's loop
HEARTBEAT_S = 0.5
CALLS = 512  # a chunk of submit()
LONE = 2000  # tasks that are enough for a figure
LEAVES, ITEMS, LEAF_BYTES = 16, 256, 64  # a chunk of map()


class Scale(NamedTuple):
    """What was measured. Seconds are the scheduler's, but for `makespan_s` and `ideal_s`, which are virtual."""

    daemons: int
    tasks: int
    joined_s: float
    submitted_s: float
    seconds: float
    leases: int
    outcomes: int
    makespan_s: float
    ideal_s: float
    peak_mib: float

    def row(self) -> str:
        """As a row of a Markdown table."""
        decisions = (self.leases + self.outcomes) / self.seconds
        return (
            f"| {self.daemons:,} | {self.tasks:,} | {decisions:,.0f} | {self.tasks / self.seconds:,.0f} "
            f"| {1e6 * self.seconds / max(self.leases, 1):.0f} | {1e6 * self.joined_s / self.daemons:.0f} "
            f"| {self.makespan_s / self.ideal_s:.2f} | {self.peak_mib:,.0f} |"
        )


HEAD = (
    "| daemons | tasks | decisions/s | tasks/s | µs per lease, with its outcomes | µs per daemon that joins "
    "| makespan / ideal | peak MiB |\n|---|---|---|---|---|---|---|---|"
)


class Fleet:
    """A hub's scheduler, one client and daemons of `runners` slots each; tasks take `task_s` seconds."""

    def __init__(self, daemons: int, runners: int, task_s: float, durable: bool = False) -> None:
        self.now = 1000.0
        self.runners = runners
        self.task_s = task_s
        self.scheduler = Scheduler("1", "3", self.now, Timing(recovery_s=0.0), durable=durable)
        self._records = 0
        self.leases = self.outcomes = self.ended = 0
        self.seconds = 0.0
        self._slots = {FIRST_DAEMON + n: [0.0] * runners for n in range(daemons)}  # when each is free
        self._coming: list[tuple[float, int, int, m.Dispatch, int, int]] = []  # when an outcome arrives, and of what
        self._entries = 0
        self._random = Random(1)
        self._dose = max(1, int(DOSE_S / task_s))
        self._epochs: dict[int, int] = {}
        self._beat_at = self.now
        self._join(CLIENT, "client", 0)
        for instance in self._slots:
            self._join(instance, "daemon", runners)
        self.joined_s, self.seconds = self.seconds, 0.0

    def _join(self, instance: int, role: str, slots: int) -> None:
        request = m.Register(role, instance, 1, 0, 0, 0, "n", "h", 1, slots, "1", "3")
        for action in self._handle(e.Joined(request)):
            if isinstance(action, a.Admit):
                self._epochs[instance] = action.epoch
                self.scheduler.heard(instance, action.epoch, self.now, [])

    def _handle(self, event: e.Event) -> list[a.Action]:
        began = process_time()
        actions = self.scheduler.handle(event, self.now)
        self.seconds += process_time() - began
        return actions

    def hear(self, instance: int, message: m.LinkMessage) -> None:
        """A message comes, and what the hub does about it."""
        self._perform(self._handle(e.Received(instance, message)))

    def _perform(self, actions: list[a.Action]) -> None:
        delivered = 0
        for action in actions:
            if not isinstance(action, a.Send):
                self._records += isinstance(action, a.Persist)
                continue
            message = action.message
            if isinstance(message, m.Dispatch):
                self._run(action.instance, message)
            elif isinstance(message, m.Results):
                delivered += 1
                self.ended += sum(outcome.hi - outcome.lo for outcome in message.outcomes)
            elif isinstance(message, m.Revoke):
                self.hear(action.instance, m.GiveBack(message.fence, [], [(message.lo, message.hi)]))
        if delivered:
            self._perform(self._handle(e.Delivered(CLIENT, delivered)))

    def _run(self, instance: int, dispatch: m.Dispatch) -> None:
        """Every slot takes a dose when it is free."""
        self.leases += 1
        slots, arrives = self._slots[instance], self.now + LATENCY_S
        for lo in range(dispatch.lo, dispatch.hi, self._dose):
            hi = min(lo + self._dose, dispatch.hi)
            seconds = self.task_s * (hi - lo) * (0.9 + 0.2 * self._random.random())
            done = max(slots[0], arrives) + seconds
            heapq.heapreplace(slots, done)
            self._entries += 1
            heapq.heappush(self._coming, (done + LATENCY_S, self._entries, instance, dispatch, lo, hi))

    def round(self) -> None:
        """Time goes on to the next thing that arrives; the hub reads what there is, and ticks."""
        if self._coming:
            self.now = max(self.now, self._coming[0][0]) + ROUND_S
        done: dict[int, list[m.Finished]] = {}
        while self._coming and self._coming[0][0] <= self.now:
            _, _, instance, d, lo, hi = heapq.heappop(self._coming)
            outcome = m.Outcome(d.spec, d.chunk.first, lo, hi, m.Form.LIST, b"r")
            done.setdefault(instance, []).append(m.Finished(d.fence, d.session, self.task_s * (hi - lo), outcome))
            self.outcomes += 1
        for instance, entries in done.items():
            self.hear(instance, m.Done(entries))
        if self.now >= self._beat_at:
            self._beat_at = self.now + HEARTBEAT_S
            began = process_time()
            for instance, epoch in self._epochs.items():
                self.scheduler.heard(instance, epoch, self.now, [])
            self.seconds += process_time() - began
        self._perform(self._handle(e.Tick()))
        if self._records:
            self._perform(self._handle(e.Committed(self._records)))


def chunks(tasks: int, items: bool) -> Iterator[Chunk]:
    """So many tasks, as `map` cuts them or as `submit` gathers them."""
    size = LEAVES * ITEMS if items else CALLS
    for first in range(0, tasks, size):
        count = min(size, tasks - first)
        if items:
            leaves = [min(ITEMS, count - start) for start in range(0, count, ITEMS)]
            yield Chunk(
                first, 0, count, pack_sizes([LEAF_BYTES] * len(leaves)), pack_sizes(leaves), 1,
                bytes(LEAF_BYTES * len(leaves)),
            )  # fmt: skip
        else:
            yield Chunk(first, 0, count, pack_sizes([20] * count), b"", 1, bytes(20 * count))


def introduce(fleet: Fleet) -> None:
    """The client's function."""
    fleet.hear(CLIENT, m.Spec(1, "f", DIGEST, b"", 0))
    fleet.hear(CLIENT, m.Body(DIGEST, b"body"))


def lone(daemons: int, runners: int, tasks: int, task_s: float) -> float:
    """Seconds of the scheduler's time for a task when there is never more than one, and everybody else idles."""
    fleet = Fleet(daemons, runners, task_s)
    introduce(fleet)
    fleet.round()
    fleet.seconds = 0.0
    for n in range(tasks):
        fleet.hear(CLIENT, m.Submit(1, Chunk(n, 0, 1, pack_sizes([20]), b"", 1, bytes(20))))
        while fleet.ended <= n:
            fleet.round()
    return fleet.seconds / tasks


def measure(daemons: int, runners: int, tasks: int, task_s: float, items: bool, durable: bool = False) -> Scale:
    """Submit everything, and let it end."""
    gc.collect()
    gc.disable()  # what it would look through is mostly ours, and not the scheduler's
    fleet = Fleet(daemons, runners, task_s, durable)
    introduce(fleet)
    for chunk in chunks(tasks, items):
        fleet.hear(CLIENT, m.Submit(1, chunk))
    submitted_s, fleet.seconds = fleet.seconds, 0.0
    began = fleet.now
    while fleet.ended < tasks:
        fleet.round()
    fleet.scheduler.check()
    assert fleet.scheduler.idle and not any(d.tasks_out for d in fleet.scheduler.daemons.values())
    ideal_s = max(1.0, tasks / (daemons * runners)) * task_s
    gc.enable()
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Scale(
        daemons, tasks, fleet.joined_s, submitted_s, fleet.seconds, fleet.leases, fleet.outcomes,
        fleet.now - began, ideal_s, peak_mib,
    )  # fmt: skip


def main() -> None:
    """Read the command line, measure, and print a row."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.scale", description=__doc__)
    parser.add_argument("--daemons", type=int, nargs="+", default=[1000], help="how many; several make several rows")
    parser.add_argument("--runners", type=int, default=64, help="slots of each")
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--task-ms", type=float, default=5.0, help="how long a task takes")
    parser.add_argument("--calls", action="store_true", help="chunks as submit() makes them, instead of map()'s")
    parser.add_argument("--store", action="store_true", help="a hub with a store, of which nothing is measured")
    parser.add_argument("--lone", action="store_true", help="instead: one task at a time, and what each costs")
    options = parser.parse_args()
    if min(options.runners, options.tasks, *options.daemons) < 1 or options.task_ms <= 0:
        parser.error("there is nothing less than one runner, daemon or task, and no task without time")
    task_s = options.task_ms / 1000
    if options.lone:
        for daemons in options.daemons:
            each_s = lone(daemons, options.runners, min(options.tasks, LONE), task_s)
            print(f"{daemons:,} daemons: {1e6 * each_s:.0f} µs for each lone task", flush=True)
        return
    print(HEAD)
    for daemons in options.daemons:
        scale = measure(daemons, options.runners, options.tasks, task_s, not options.calls, options.store)
        print(scale.row(), flush=True)


if __name__ == "__main__":
    main()
