"""A runner: runs doses as the real one does, and can be killed or stopped between any two of its steps.

A task is one byte of payload that says what it does: `o` returns, `e` raises, `k` kills its runner, `l` takes long, `s`
takes long and cannot be interrupted, `m` takes long and much memory.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import TYPE_CHECKING

from taskmesh.core import messages as m
from taskmesh.wire.pipe import Dose, PipeOutcome, PipeStopped, Reason
from taskmesh_worker.blocks import Blocks

from .world import Violation

if TYPE_CHECKING:
    from .daemon import SimulatedDaemon

FLUSH_S = 0.001
START_S = 0.002
MUCH_MEMORY = 1 << 30


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
        self.claimed_at = 0.0
        self.limit = 0
        self.dead = False
        self.ready = False
        self.outbox: deque[PipeOutcome | PipeStopped] = deque()
        self._inbox: deque[Dose | tuple[bytes, bytes | None]] = deque()
        self._bodies: set[bytes] = set()
        self._dose: Dose | None = None
        self._item = 0  # the task of the dose that runs or is next,
        self._until = 0  # the end of the block that runs; nothing runs when it is the same,
        self._block_lo = 0  # where it began,
        self._since = 0.0  # and since when that task runs
        self._blocks = Blocks()
        self._results: list[PipeOutcome] = []
        self._flushed_at = 0.0
        self._scheduled = 0  # which of the steps that were planned counts
        self._frozen_until = 0.0
        self._signals: list[tuple[int, Reason | None]] = []  # that came while it was stopped
        self._raised = -1
        self.world.after(START_S, self.rank, self._start)

    @property
    def resident(self) -> int:
        """How much memory it has."""
        dose = self._dose
        busy = dose is not None and self._item < self._until
        return MUCH_MEMORY if dose is not None and busy and self._kind(dose, self._item) == "m" else 1

    def _start(self) -> None:
        if not self.dead:
            self.ready = True
            self.daemon.process.poke()
            self._plan(self.world.now)

    def put(self, what: Dose | tuple[bytes, bytes | None]) -> None:
        """The daemon writes to the pipe: a dose, or a function and one to drop."""
        self._inbox.append(what)
        if self.ready and self._dose is None:
            self._plan(self.world.now)

    def _plan(self, when: float) -> None:
        """The next step is at `when`, whatever was planned before."""
        self._scheduled += 1
        number = self._scheduled
        self.world.at(max(when, self._frozen_until), self.rank, lambda: self._step(number))

    def _step(self, number: int) -> None:
        if self.dead or number != self._scheduled:
            return
        if self._frozen_until > self.world.now:
            self._plan(self._frozen_until)
            return
        if self._item < self._until:
            self._advance(self._until)
            self._blocks.ran(self._until - self._block_lo, self.world.now - self.claimed_at)
        while not self.dead and self._item == self._until and (self._dose is not None or self._inbox):
            if self._dose is None:
                self._take(self._inbox.popleft())
            else:
                self._claim(self._dose)

    def _take(self, what: Dose | tuple[bytes, bytes | None]) -> None:
        if isinstance(what, Dose):
            assert what.digest in self._bodies, "a dose before its function"
            assert what.chunk.base <= what.lo < what.hi <= what.chunk.end
            self._blocks.begin(what.session, what.spec)
            if min(what.block, self._blocks.size) == 1:
                self._flush()
            self._dose, self._item, self._until = what, what.lo, what.lo
        else:
            digest, drop = what
            self._bodies.discard(drop or b"")
            self._bodies.add(digest)

    def _claim(self, dose: Dose) -> None:
        lo = self._item
        hi = min(dose.hi, lo + min(dose.block, self._blocks.size))
        end = dose.at + hi - dose.lo
        if dose.singly or dose.timeout_s:
            self._flush()
        if lo < dose.hi and self.limit >= end:
            if self.daemon.holds:
                raise Violation(f"{self.daemon.name}/{self.number} starts a task although its hub is silent")
            self.claimed, self.claimed_at = (end - (hi - lo), end), self.world.now
            self._block_lo = lo
            self._until, self._since = hi, self.world.now
            self._begin(dose)
            self._plan(self.world.now + self._rest(dose))
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
        return settings.long_s if self._kind(dose, offset) in "lsm" else settings.task_s

    def _rest(self, dose: Dose) -> float:
        """Seconds from the start of the task that runs to the end of its block, or of a task that kills the runner."""
        seconds = 0.0
        for offset in range(self._item, self._until):
            seconds += self._seconds(dose, offset)
            if self._kind(dose, offset) == "k":
                break
        return seconds

    def _begin(self, dose: Dose) -> None:
        number = dose.chunk.first + self._item
        self.daemon.book.started(dose.session, dose.spec, number, f"{self.daemon.name}/{self.number}")

    def _advance(self, certainly: int) -> None:
        """Book what has ended by now; what lies before `certainly` has, whatever rounding says."""
        dose = self._dose
        while dose is not None and self._item < self._until:
            seconds = self._seconds(dose, self._item)
            if self._item >= certainly and self._since + seconds > self.world.now:
                return
            kind = self._kind(dose, self._item)
            if kind == "k":
                self.die()
                return
            self._ended(dose, m.Form.ERROR if kind == "e" else m.Form.LIST, self._since + seconds)
        if self.world.now - self._flushed_at >= FLUSH_S:
            self._flush()

    def _ended(self, dose: Dose, form: m.Form, when: float) -> None:
        """The task that runs has ended: the next one of the block begins."""
        number, at = dose.chunk.first + self._item, dose.at + self._item - dose.lo
        blob = b"" if form == m.Form.CANCELLED else names(range(number, number + 1))
        self._results.append(PipeOutcome(at, 1, form, max(0.0, when - self._since), blob))
        self._item, self._since = self._item + 1, when
        if self._item < self._until:
            self._begin(dose)

    def _flush(self) -> None:
        """Neighbouring successes travel together, as the real runner's do."""
        self._flushed_at = self.world.now
        if not self._results:
            return
        run: list[PipeOutcome] = []
        for outcome in self._results:
            last = run[-1] if run else None
            if last is not None and last.form == outcome.form == m.Form.LIST and last.at + last.tasks == outcome.at:
                busy_s, blob = last.busy_s + outcome.busy_s, last.blob + outcome.blob
                run[-1] = last._replace(tasks=last.tasks + 1, blob=blob, busy_s=busy_s)
            else:
                run.append(outcome)
        self.outbox += run
        self._results.clear()
        self.daemon.process.poke()

    # ---- signals -------------------------------------------------------------------------------------------------

    def signal(self, position: int = -1, reason: Reason | None = None) -> None:
        """Report what has ended; and raise in the task at `position`, if that is what runs and can be interrupted."""
        if self.dead or self._frozen_until > self.world.now:
            self._signals.append((position, reason))
            return
        dose = self._dose
        if dose is None or self._item == self._until:
            return
        self._advance(0)
        self._flush()
        if self.dead or self._item == self._until or self._kind(dose, self._item) in "sk":
            return
        self._cut_block(dose)
        if position == dose.at + self._item - dose.lo and position != self._raised:
            self._raised = position
            self._ended(dose, m.Form.CANCELLED if reason is Reason.CANCELLED else m.Form.ERROR, self.world.now)
            self._flush()
            self._plan(self.world.now + (self._rest(dose) if self._item < self._until else 0.0))

    def _cut_block(self, dose: Dose) -> None:
        """Claim no more of a block than the task that runs."""
        if self._item + 1 < self._until:
            end = dose.at + self._item + 1 - dose.lo
            self.claimed, self._until = (end - 1, end), self._item + 1
            self._plan(self._since + self._seconds(dose, self._item))

    def freeze(self, seconds: float) -> None:
        """Stop it, as SIGSTOP does."""
        self._frozen_until = max(self._frozen_until, self.world.now + seconds)
        self.world.at(self._frozen_until, self.rank, self._thawed)

    def thaw(self) -> None:
        """Let it go on at once."""
        self._frozen_until = min(self._frozen_until, self.world.now)
        self._thawed()

    def _thawed(self) -> None:
        if self._frozen_until <= self.world.now:
            signals, self._signals = self._signals, []
            for position, reason in signals:
                self.signal(position, reason)

    def hang_up(self) -> None:
        """The daemon closes its end: a runner that has nothing to do ends."""
        done = self._dose is None or self._item == self._dose.hi  # the last one was interrupted a moment ago
        assert done and not self._inbox, "a runner is to end that has tasks"
        self.die()

    def die(self) -> None:
        """What it has written is still read; what it had not flushed is lost."""
        if not self.dead:
            self.dead = True
            self.daemon.process.poke()
