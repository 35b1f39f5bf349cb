"""What goes wrong, and when: a seeded schedule of faults, and what each of them did, for the record."""

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import psutil

from benchmarks.chaos.fleet import Daemon, Fleet, Member

WEIGHTS = {
    "kill-runner": 8,
    "kill-nursery": 1,
    "kill-daemon": 2,
    "kill-hub": 1,
    "freeze-runner": 1,
    "freeze-daemon": 1,
    "freeze-machine": 1,
    "freeze-hub": 1,
}
"""Kinds of faults, and how often each is drawn."""
CUTS = {"cut-daemon": 2, "cut-hub": 1, "cut-client": 1}
"""More kinds, for hosts that have cables."""
FROZEN_S = (0.2, 5.0)
AWAY_S = (0.0, 1.0)
NURSERY_KILLS, NURSERY_WINDOW_S = 3, 30.0
"""A daemon gives up when its nursery dies more often than that."""


class Planned(NamedTuple):
    """A fault that is to happen: `at_s` after the start; `whom` and `long` are in [0, 1), or `for_s` says how long."""

    at_s: float
    kind: str
    whom: float
    long: float
    for_s: float | None = None

    def seconds(self, bounds: tuple[float, float]) -> float:
        """How long it lasts."""
        low, high = bounds
        return self.for_s if self.for_s is not None else low + self.long * (high - low)


class Happened(NamedTuple):
    """A fault that has happened. Times are monotonic, in ns; `until_ns` is when it was over."""

    kind: str
    name: str
    pids: frozenset[int]
    """Runners that were hit: they ended, or stood still, or were cut off."""
    at_ns: int
    until_ns: int


def schedule(seed: int, kinds: Sequence[str], every_s: float) -> Iterator[Planned]:
    """The same faults for the same seed, without end."""
    generator = random.Random(seed)
    weights = [(WEIGHTS | CUTS)[kind] for kind in kinds]
    number = 0
    while True:
        number += 1
        kind = generator.choices(kinds, weights)[0]
        yield Planned(number * every_s, kind, generator.random(), generator.random())


class Chaos:
    """Makes faults happen, in a thread of its own, from `start` to `stop`.

    Attributes
    ----------
    happened
        What was done.
    surprises
        Members that ended although nobody had killed them.
    """

    def __init__(self, fleet: Fleet, faults: Iterator[Planned], seconds: float) -> None:
        self._fleet = fleet
        self._faults = faults
        self._seconds = seconds
        self._over = threading.Event()
        self._undo: list[tuple[float, Callable[[], None]]] = []
        self._busy: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="chaos")
        self.happened: list[Happened] = []
        self.surprises: list[str] = []
        self.failure: BaseException | None = None

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """No more faults; what was stopped goes on, what was killed is started again."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        began = time.monotonic()
        try:
            for fault in self._faults:
                if fault.at_s > self._seconds or not self._until(began + fault.at_s):
                    break
                self._make(fault)
            while self._undo:
                self._until(min(at for at, _ in self._undo))
                self._tidy(everything=self._over.is_set())
            self._until(float("inf"))
        except BaseException as error:
            self.failure = error
        finally:
            self._tidy(everything=True)

    def _until(self, at: float) -> bool:
        """Wait, and undo in the meantime what is due. False: it is over."""
        while (now := time.monotonic()) < at and not self._over.is_set():
            self._tidy()
            self._look()
            self._over.wait(min(0.05, at - now))
        return not self._over.is_set()

    def _tidy(self, everything: bool = False) -> None:
        now = time.monotonic()
        due = [(at, undo) for at, undo in self._undo if everything or at <= now]
        self._undo = [entry for entry in self._undo if entry not in due]
        for _, undo in due:
            undo()

    def _look(self) -> None:
        """Somebody who ended by himself is a finding, and is started again so that the rest goes on."""
        for member in self._fleet.members:
            if not member.running and not member.expected_dead:
                self.surprises.append(f"{member.name} ended by itself with code {member.exit_code}")
                member.start()

    # ---- faults ---------------------------------------------------------------------------------------------

    def _make(self, fault: Planned) -> None:
        verb, _, role = fault.kind.partition("-")
        if role == "client":
            self._cut(fault, role, [])
            return
        members: list[Member] = [self._fleet.hub] if role == "hub" else list(self._fleet.daemons)
        free = [member for member in members if member.running and member.name not in self._busy]
        if not free:
            return
        member = free[int(fault.whom * len(free))]
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            if verb == "cut":
                self._cut(fault, member.name, member.runners() if isinstance(member, Daemon) else [])
            elif verb == "freeze":
                self._freeze(fault, member, role)
            elif role in ("runner", "nursery"):
                assert isinstance(member, Daemon)
                self._kill_child(fault, member, role)
            else:
                self._kill(fault, member)

    def _kill_child(self, fault: Planned, daemon: Daemon, role: str) -> None:
        runners = daemon.runners()
        nursery = daemon.nursery()
        if role == "nursery":
            now = time.monotonic()
            recent = [at for at in daemon.nursery_kills if now - at < NURSERY_WINDOW_S + 5]
            if nursery is None or len(recent) >= NURSERY_KILLS:
                return
            daemon.nursery_kills[:] = [*recent, now]
            nursery.kill()
            self._note(fault.kind, daemon.name, runners)
        elif runners:
            runner = runners[int(fault.long * len(runners))]
            runner.kill()
            self._note(fault.kind, daemon.name, [runner])

    def _kill(self, fault: Planned, member: Member) -> None:
        runners = member.runners() if isinstance(member, Daemon) else []
        at = time.monotonic_ns()
        member.kill()
        self._busy.add(member.name)

        def again() -> None:
            self._note(fault.kind, member.name, runners, at)
            self._busy.discard(member.name)
            member.start()

        self._undo.append((time.monotonic() + fault.seconds(AWAY_S), again))

    def _freeze(self, fault: Planned, member: Member, role: str) -> None:
        runners = member.runners() if isinstance(member, Daemon) else []
        if role == "runner":
            if not runners:
                return
            hit = runners = [runners[int(fault.whom * 7919) % len(runners)]]
        else:
            hit = member.family() if role == "machine" else [psutil.Process(member.pid)]
        at = time.monotonic_ns()
        _signal(hit, signal.SIGSTOP)
        if role != "runner":
            self._busy.add(member.name)

        def again() -> None:
            _signal(hit, signal.SIGCONT)
            self._note(fault.kind, member.name, runners, at)
            self._busy.discard(member.name)

        self._undo.append((time.monotonic() + fault.seconds(FROZEN_S), again))

    def _cut(self, fault: Planned, name: str, runners: Sequence[psutil.Process]) -> None:
        hosts = self._fleet.hosts
        assert hosts is not None, "only hosts have cables"
        if name in self._busy:
            return
        at = time.monotonic_ns()
        hosts.cut(name)
        self._busy.add(name)

        def again() -> None:
            hosts.heal(name)
            self._note(fault.kind, name, runners, at)
            self._busy.discard(name)

        self._undo.append((time.monotonic() + fault.seconds(FROZEN_S), again))

    def _note(self, kind: str, name: str, runners: Sequence[psutil.Process], at_ns: int | None = None) -> None:
        now = time.monotonic_ns()
        pids = frozenset(runner.pid for runner in runners)
        self.happened.append(Happened(kind, name, pids, at_ns or now, now))


def _signal(processes: Sequence[psutil.Process], number: int) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            if process.is_running():
                os.kill(process.pid, number)
