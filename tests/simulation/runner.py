"""A runner: runs doses as the real one does, and can be killed or stopped between any two of its steps.

A task is one byte of payload that says what it does: `o` returns, `e` raises, `k` kills its runner, `l` takes long.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import TYPE_CHECKING

from taskmesh.core import messages as m
from taskmesh.wire.pipe import Dose, PipeOutcome, PipeStopped

if TYPE_CHECKING:
    from .daemon import SimulatedDaemon

FLUSH_S = 0.001
START_S = 0.002


def names(numbers: range) -> bytes:
    """A result blob that names the tasks it is of."""
    return struct.pack(f"<{len(numbers)}Q", *numbers)


class SimulatedRunner:
    """One runner of a daemon. `claimed` and `limit` are the words that they share."""

    def __init__(self, daemon: SimulatedDaemon, number: int) -> None:
        self.daemon = daemon
        self.number = number
        self.world = daemon.process.world
        self.rank = self.world.rank()
        self.claimed = (0, 0)
        self.limit = 0
        self.dead = False
        self.ready = False
        self.outbox: deque[PipeOutcome | PipeStopped] = deque()
        self._inbox: deque[Dose | tuple[bytes, bytes | None]] = deque()
        self._bodies: set[bytes] = set()
        self._dose: Dose | None = None
        self._offset = 0
        self._results: list[PipeOutcome] = []
        self._flushed_at = 0.0
        self._busy = False
        self._begun: tuple[int, int, float] | None = None  # the block that runs: offsets, and since when
        self._frozen_until = 0.0
        self.world.after(START_S, self.rank, self._start)

    def _start(self) -> None:
        if not self.dead:
            self.ready = True
            self.daemon.process.poke()
            self._go_on()

    def put(self, what: Dose | tuple[bytes, bytes | None]) -> None:
        """The daemon writes to the pipe: a dose, or a function and one to drop."""
        self._inbox.append(what)
        if self.ready:
            self._go_on()

    def _go_on(self) -> None:
        if not self._busy and not self.dead:
            self._busy = True
            self.world.at(max(self.world.now, self._frozen_until), self.rank, self._step)

    def _step(self) -> None:
        if self.dead:
            return
        if self._frozen_until > self.world.now:
            self.world.at(self._frozen_until, self.rank, self._step)
            return
        self._busy = False
        while self._begun is None and (self._dose is not None or self._inbox):
            if self._dose is None:
                self._take(self._inbox.popleft())
            else:
                self._claim(self._dose)

    def _take(self, what: Dose | tuple[bytes, bytes | None]) -> None:
        if isinstance(what, Dose):
            assert what.digest in self._bodies, "a dose before its function"
            assert what.chunk.base <= what.lo < what.hi <= what.chunk.end
            if what.block == 1:
                self._flush()
            self._dose, self._offset = what, what.lo
        else:
            digest, drop = what
            self._bodies.discard(drop or b"")
            self._bodies.add(digest)

    def _claim(self, dose: Dose) -> None:
        lo = self._offset
        hi = min(dose.hi, lo + dose.block)
        end = dose.at + hi - dose.lo
        if lo < dose.hi and self.limit >= end:
            self.claimed = (end - (hi - lo), end)
            self._begun = lo, hi, self.world.now
            self._start_task(dose, lo)
            seconds = sum(self._seconds(dose, offset) for offset in range(lo, hi))
            self._busy = True
            self.world.after(seconds, self.rank, self._finish)
            return
        self._flush()
        self._dose = None
        if lo < dose.hi:
            self.outbox.append(PipeStopped(dose.at + lo - dose.lo, dose.at + dose.hi - dose.lo))
            self.daemon.process.poke()

    def _kind(self, dose: Dose, offset: int) -> str:
        return chr(dose.chunk.payload[offset - dose.chunk.base])

    def _seconds(self, dose: Dose, offset: int) -> float:
        settings = self.daemon.settings
        return settings.long_s if self._kind(dose, offset) == "l" else settings.task_s

    def _start_task(self, dose: Dose, offset: int) -> None:
        self.daemon.book.started(dose.session, dose.spec, dose.chunk.first + offset, f"{self.daemon.name}/{self.number}")

    def _finish(self) -> None:
        if self.dead:
            return
        if self._frozen_until > self.world.now:
            self.world.at(self._frozen_until, self.rank, self._finish)
            return
        assert self._dose is not None and self._begun is not None
        dose, (lo, hi, since) = self._dose, self._begun
        self._begun = None
        busy_s = (self.world.now - since) / (hi - lo)
        for offset in range(lo, hi):
            if offset > lo:
                self._start_task(dose, offset)
            kind = self._kind(dose, offset)
            if kind == "k":
                self.die()
                return
            number = dose.chunk.first + offset
            at = dose.at + offset - dose.lo
            form = m.Form.ERROR if kind == "e" else m.Form.LIST
            self._results.append(PipeOutcome(at, 1, form, busy_s, names(range(number, number + 1))))
        self._offset = hi
        if self.world.now - self._flushed_at >= FLUSH_S:
            self._flush()
        self._busy = False
        self._go_on()

    def _flush(self) -> None:
        """Neighbouring successes travel together, as the real runner's do."""
        self._flushed_at = self.world.now
        if not self._results:
            return
        run: list[PipeOutcome] = []
        for outcome in self._results:
            if run and run[-1].form == outcome.form == m.Form.LIST and run[-1].at + run[-1].tasks == outcome.at:
                last = run[-1]
                run[-1] = last._replace(tasks=last.tasks + 1, blob=last.blob + outcome.blob, busy_s=last.busy_s * 2)
            else:
                run.append(outcome)
        self.outbox += run
        self._results.clear()
        self.daemon.process.poke()

    def freeze(self, seconds: float) -> None:
        """Stop it, as SIGSTOP does."""
        self._frozen_until = max(self._frozen_until, self.world.now + seconds)

    def thaw(self) -> None:
        """Faults are over: what is scheduled for the end of the stop stays there."""
        self._frozen_until = min(self._frozen_until, self.world.now + 1.0)

    def die(self) -> None:
        """What it has written is still read; what it had not flushed is lost."""
        if not self.dead:
            self.dead = True
            self.daemon.process.poke()
