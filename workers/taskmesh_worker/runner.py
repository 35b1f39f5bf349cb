"""A runner: a process that runs one task at a time in its main thread.

It reads doses from its socketpair, runs them in order, and writes outcomes, at the latest when the last ones are 1 ms
old and a task has ended. Before each task (or each block of very short ones) it claims a position and looks at its
limit; see `cells`. It holds no sockets but that pair, and no keys. Only the standard library and cloudpickle are
loaded here, before what the tasks import.
"""

from __future__ import annotations

import dis
import os
import signal
import socket
import sys
import types
from collections.abc import Callable, Sequence
from time import monotonic_ns, perf_counter
from types import FrameType
from typing import Any

from taskmesh.core.chunk import unpack_sizes
from taskmesh.errors import TaskInterrupted, TaskTimeout
from taskmesh.task import TaskInfo, enter_runner
from taskmesh.wire.payload import dump_error, loads, unpickling_error
from taskmesh.wire.pipe import (
    BODY,
    CLAIM_BITS,
    DOSE,
    DROP,
    READY,
    Dose,
    Frames,
    PipeStopped,
    Reason,
    frame,
    pack_stopped,
    unpack_dose,
)

from .blocks import Blocks
from .cells import CLAIMED, FLUSH_SIGNAL, INTERRUPT_SIGNAL, LIMIT, LOADING, SINCE, Cells
from .functions import Functions
from .results import Results
from .running import Running
from .tee import tee

READ_BYTES = 256 * 1024
Columns = tuple[Sequence[Any], ...]  # arguments of a leaf, by iterable


class Runner:
    """Runs doses until its daemon hangs up.

    Parameters
    ----------
    sock
        The runner's end of the socketpair, blocking.
    cells
        Claim and limit.
    host
        What this machine is called, for error messages and `current_task()`.
    """

    def __init__(self, sock: socket.socket, cells: Cells, host: str) -> None:
        self._sock = sock
        self._cells = cells
        self._words = cells.words
        self._host = host
        self._frames = Frames()
        self._functions = Functions(host)
        self._leaf: tuple[tuple[int, int, int, int], Any] | None = None
        self._blocks = Blocks()
        self._results = Results(self._send)
        self._dose: Dose | None = None
        self._running = Running()
        self._raised = -1  # position of the task that was interrupted last: each is, once
        self.forked = False  # this is a child that a task has forked

    # ---- the loop -------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until the daemon closes its end."""
        enter_runner(self._current)
        self._send(frame(READY))
        space = memoryview(bytearray(READ_BYTES))  # one for all reads: see `forking`
        while True:
            try:
                size = self._sock.recv_into(space)
            except KeyboardInterrupt:  # somebody's signal, but no task's: there is nothing to interrupt
                continue
            if not size:
                return
            for kind, body in self._frames.feed(space[:size]):
                if kind == DOSE:
                    self._run(unpack_dose(body))
                elif kind == BODY:
                    self._functions.put(body[:16], body[16:])
                elif kind == DROP:
                    self._functions.drop(body)
            self._results.flush()  # of very short items, which may wait for one another

    def _send(self, buffers: list[bytes | memoryview]) -> None:
        """Write everything. The daemon always reads, so this does not wait for long."""
        self._sock.sendall(b"".join(buffers))

    def _current(self) -> TaskInfo | None:
        dose = self._dose
        if dose is None:
            return None
        number = dose.chunk.first + self._running.current()
        return TaskInfo(f"{dose.session:016x}-{dose.spec}-{number}", dose.attempt, dose.name, self._host)

    # ---- signals --------------------------------------------------------------------------------------------
    #
    # Handlers run between any two steps of the main thread, our own as well as a task's. They act only while the frame
    # that has called the task stands on the line of that call. An exception from there is that task's, and nothing
    # of ours is half done; and the loop pays nothing for it.

    def on_interrupt(self, number: int, frame: FrameType | None) -> None:
        """The daemon wants the task ended that it has named in the cells: raise in it, once, if it still runs."""
        dose = self._called_from(frame)
        if dose is None:
            return
        self._flush_early()
        position, reason = self._cells.interrupt()
        running = dose.at + self._running.current() - dose.lo
        if position != running or position == self._raised or position < self._cells.claimed()[0]:
            return  # the last: none of this block runs yet, and the one before it has ended
        self._raised = position
        info = self._current()
        assert info is not None
        what = f"task {info.id} of {info.name} on {info.host}"
        if reason == Reason.TIMEOUT:
            raise TaskTimeout(f"{what} ran longer than its timeout of {dose.timeout_s:g} s")
        raise TaskInterrupted(f"{what} was cancelled")

    def on_flush(self, number: int, frame: FrameType | None) -> None:
        """A task takes long while others wait: before it, to be reported; behind it, in its block, to be run."""
        if self._called_from(frame) is not None:
            self._flush_early()

    def _called_from(self, frame: FrameType | None) -> Dose | None:
        """The dose that runs, if `frame` is the task's, or that of our call to it.

        Not if a handler is at work already: what it does must not be begun again, or left, in the middle. The daemon
        asks again.
        """
        if self.forked:
            return None
        while frame is not None:
            if frame.f_code in _HANDLERS:
                return None
            lines = _CALLS.get(frame.f_code)
            if lines is not None:
                return self._dose if frame.f_lineno in lines else None
            frame = frame.f_back
        return None

    def _flush_early(self) -> None:
        dose = self._dose
        if self._running.iterator is not None and dose is not None:
            self._running.report(self._results)
            self._running.cut(self._words, dose.at - dose.lo)
        self._results.flush()

    def _failed(self, error: BaseException, position: int) -> None:
        """A task has raised; perhaps what we raised in it."""
        if position == self._raised:
            if isinstance(error, TaskInterrupted):
                self._results.cancelled()
                return
            _forget_handler(error)
        self._results.error(dump_error(error, 1))

    # ---- doses ----------------------------------------------------------------------------------------------

    def _run(self, dose: Dose) -> None:
        self._blocks.begin(dose.session, dose.spec)
        in_blocks = dose.block > 1 and self._blocks.size > 1
        if not in_blocks:
            self._results.flush()  # who knows how long this takes
        self._dose = dose
        try:
            self._loads_for(dose, dose.lo)
            function = self._functions.of(dose)
            self._words[LOADING] = 0
            # Only now: loading a function, and what it imports, says nothing of the next task.
            self._results.begin(dose.at, dose.name, blocks=in_blocks, largest=dose.largest)
            if isinstance(function, BaseException):
                done = self._fail(dose, dose.lo, dose.hi, function)
            elif dose.chunk.items:
                done = self._run_items(dose, function)
            else:
                done = self._run_calls(dose, function)
        finally:
            self._dose = None
        if done < dose.hi or not in_blocks:
            self._results.flush()
        else:
            self._results.end()
        if done < dose.hi:
            at = dose.at + done - dose.lo
            self._send(pack_stopped(PipeStopped(at, dose.at + dose.hi - dose.lo)))
        _flush_standard_streams()

    def _loads_for(self, dose: Dose, offset: int) -> None:
        """What is loaded now is for the task at `offset`: if it kills us, that one is to blame."""
        self._words[LOADING] = (dose.at + offset - dose.lo + 1) << CLAIM_BITS

    def _claim(self, dose: Dose, offset: int, tasks: int) -> bool:
        """Claim `tasks` from `offset` on. False: the limit forbids it, and nothing is claimed."""
        end = dose.at + offset - dose.lo + tasks
        before = self._words[CLAIMED]
        self._words[CLAIMED] = end << CLAIM_BITS | tasks
        if self._words[LIMIT] < end:
            self._words[CLAIMED] = before
            return False
        return True

    def _run_calls(self, dose: Dose, function: Callable[..., Any]) -> int:
        chunk, words, results, running = dose.chunk, self._words, self._results, self._running
        payload = memoryview(chunk.payload)
        skip = dose.lo - chunk.base
        sizes = unpack_sizes(chunk.sizes)
        start = sum(sizes[:skip])
        position = dose.at
        singly = dose.singly or dose.timeout_s > 0
        for offset in range(dose.lo, dose.hi):
            end = start + sizes[offset - chunk.base]
            position += 1
            if singly:
                results.flush()
                words[SINCE] = monotonic_ns()
            before = words[CLAIMED]  # `_claim`, inline: this loop is the hot one
            words[CLAIMED] = position << CLAIM_BITS | 1
            if words[LIMIT] < position:
                words[CLAIMED] = before
                return offset
            running.offset = offset
            try:
                call = loads(payload[start:end])
            except BaseException as error:
                failure = unpickling_error(error, f"the arguments of {dose.name}", self._host)
                failure.__cause__ = error
                results.error(dump_error(failure))
            else:
                try:
                    value = function(*call) if type(call) is tuple else function(*call[0], **call[1])
                except BaseException as error:
                    self._failed(error, position - 1)
                else:
                    results.value(value, dose.name)
            start = end
        return dose.hi

    def _run_items(self, dose: Dose, function: Callable[..., Any]) -> int:
        chunk = dose.chunk
        payload = memoryview(chunk.payload)
        base, start = chunk.base, 0
        for size, tasks in zip(unpack_sizes(chunk.sizes), unpack_sizes(chunk.items), strict=True):
            lo, hi = max(base, dose.lo), min(base + tasks, dose.hi)
            if lo < hi:
                self._loads_for(dose, lo)
                columns = self._columns(dose, base, payload[start : start + size], (hi - lo) / tasks)
                self._words[LOADING] = 0
                if isinstance(columns, BaseException):
                    done = self._fail(dose, lo, hi, columns)
                else:
                    done = self._run_leaf(dose, function, columns, base, lo, hi)
                if done < hi:
                    return done
            base += tasks
            start += size
        return dose.hi

    def _fail(self, dose: Dose, lo: int, hi: int, error: BaseException) -> int:
        """None of the tasks at offsets `[lo, hi)` can be called: each fails with `error`. Returns how far it came."""
        blob = dump_error(error)
        for offset in range(lo, hi):
            if not self._claim(dose, offset, 1):
                return offset
            self._results.error(blob)
        return hi

    def _columns(self, dose: Dose, base: int, leaf: memoryview, share: float) -> Columns | BaseException:
        """The unpickled leaf, one column for each iterable; the last one is kept, as its other items often follow.

        Of the time for it, the dose pays for its `share` of the leaf's items: or the first task of an unknown
        function would look as long as all the others' arguments take to unpickle.
        """
        key = (dose.session, dose.spec, dose.chunk.first, base)
        if self._leaf is not None and self._leaf[0] == key:
            columns: Columns = self._leaf[1]
            return columns
        began = perf_counter()
        try:
            loaded = loads(leaf)
        except BaseException as error:
            failure = unpickling_error(error, f"the arguments of {dose.name}", self._host)
            failure.__cause__ = error
            return failure
        self._results.exempt((perf_counter() - began) * (1.0 - share))
        columns = loaded if type(loaded) is tuple else (loaded,)
        self._leaf = (key, columns)
        return columns

    def _run_leaf(
        self,
        dose: Dose,
        function: Callable[..., Any],
        columns: Columns,
        base: int,
        lo: int,
        hi: int,
    ) -> int:
        """Run items `[lo, hi)` of a leaf that begins at `base`, by blocks; returns how far it came."""
        results, blocks, running = self._results, self._blocks, self._running
        offset = lo
        singly = dose.singly or dose.timeout_s > 0
        while offset < hi:
            end = min(hi, offset + min(dose.block, blocks.size))
            if singly:
                results.flush()
                self._words[SINCE] = monotonic_ns()
            if not self._claim(dose, offset, end - offset):
                return offset
            running.offset = end  # earlier, if the block is cut
            block = columns
            if offset > base or end - base < len(columns[0]):
                block = tuple([column[offset - base : end - base] for column in columns])
            first = running.iterator = iter(block[0])
            values = running.values = results.run_of(dose.name)
            before = running.reported = len(values)
            error: BaseException = StopIteration()  # `map` takes one out of the function for its own end
            began = perf_counter()
            try:
                values.extend(map(function, first, *block[1:]))
            except BaseException as raised:
                error = raised
            took_s = perf_counter() - began
            running.iterator, running.values, end = None, [], running.offset
            results.added(values, running.reported)
            ended = len(values) - before
            blocks.ran(min(ended + 1, end - offset), took_s)
            offset += ended
            if offset < end:  # else: all have ended, or an interrupt came when the last one had
                self._failed(error, dose.at + offset - dose.lo)
                offset += 1
            del error
        return hi


def _call_lines(function: Callable[..., Any]) -> frozenset[int | None]:
    """The lines on which one of our loops calls a task: nothing else there is called with `*`."""
    steps = dis.get_instructions(function)
    return frozenset(s.positions.lineno for s in steps if s.opname == "CALL_FUNCTION_EX" and s.positions is not None)


_HANDLERS = frozenset({Runner.on_interrupt.__code__, Runner.on_flush.__code__})
_CALLS = {loop.__code__: _call_lines(loop) for loop in (Runner._run_calls, Runner._run_leaf)}


def _forget_handler(error: BaseException) -> None:
    """Cut our handler's frame off the end of a traceback."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        if trace.tb_next.tb_frame.f_code is Runner.on_interrupt.__code__:
            trace.tb_next = None
        trace = trace.tb_next


def _flush_standard_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except Exception:  # closed by a task, or replaced by something else; or nobody reads it any more
            continue


def main(sock: socket.socket, cells_fd: int, host: str) -> None:
    """Become a runner. Called in a fresh fork of the nursery; the caller ends the process afterwards."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    main_module = types.ModuleType("__main__")  # tasks must not find the nursery's names
    sys.modules["__main__"] = main_module
    sock.setblocking(True)
    cells, pid = Cells(cells_fd), os.getpid()
    runner, tail = Runner(sock, cells, host), tee(cells)

    def no_runner() -> None:  # a task has forked: its child must neither claim nor answer
        runner.forked = True
        tail.close()
        sock.close()
        cells.close()

    os.register_at_fork(after_in_child=no_runner)
    signal.signal(INTERRUPT_SIGNAL, runner.on_interrupt)
    signal.signal(FLUSH_SIGNAL, runner.on_flush)
    signal.siginterrupt(FLUSH_SIGNAL, False)  # C code that does not expect to be interrupted is left alone
    try:
        runner.run()
    except ConnectionError:
        pass  # the daemon is gone, and so are we
    except (OSError, ValueError):
        if os.getpid() == pid:
            raise  # else: a task's child, which has returned from the task
    _flush_standard_streams()
