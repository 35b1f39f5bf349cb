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
from collections.abc import Callable
from functools import partial
from operator import length_hint
from typing import Any

from taskmesh.core.chunk import unpack_sizes
from taskmesh.errors import InitializerFailed
from taskmesh.task import TaskInfo, enter_runner, plain_function
from taskmesh.wire.payload import describe, dump_error, loads, unpickling_error
from taskmesh.wire.pipe import (
    BODY,
    CLAIM_BITS,
    DOSE,
    DROP,
    READY,
    Dose,
    Frames,
    PipeStopped,
    frame,
    pack_stopped,
    unpack_dose,
)

from .cells import CLAIMED, LIMIT, Cells
from .results import Results

READ_BYTES = 256 * 1024


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
        self._words = cells.words
        self._host = host
        self._frames = Frames()
        self._bodies: dict[bytes, bytes] = {}
        self._functions: dict[bytes, Callable[..., Any] | BaseException] = {}
        self._initialised: dict[bytes, BaseException | None] = {}
        self._assigned: dict[bytes, tuple[str, dict[str, Any]]] = {}  # initializer: module, and globals that it set
        self._leaf: tuple[tuple[int, int, int, int], Any] | None = None
        self._results = Results(self._send)
        self._dose: Dose | None = None
        self._offset = 0  # of the task, or of the end of the block, that runs
        self._iterator: Any = None  # over the block that runs: how much is left of it tells which item runs

    # ---- the loop -------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until the daemon closes its end."""
        enter_runner(self._current)
        self._send(frame(READY))
        while True:
            try:
                data = self._sock.recv(READ_BYTES)
            except KeyboardInterrupt:  # somebody's signal, but no task's: there is nothing to interrupt
                continue
            if not data:
                return
            for kind, body in self._frames.feed(data):
                if kind == DOSE:
                    self._run(unpack_dose(body))
                elif kind == BODY:
                    self._bodies[body[:16]] = body[16:]
                elif kind == DROP:
                    self._bodies.pop(body, None)
                    self._functions.pop(body, None)
            self._results.flush()  # of very short items, which may wait for one another

    def _send(self, buffers: list[bytes | memoryview]) -> None:
        """Write everything. The daemon always reads, so this does not wait for long."""
        self._sock.sendall(b"".join(buffers))

    def _current(self) -> TaskInfo | None:
        dose = self._dose
        if dose is None:
            return None
        left = length_hint(self._iterator) + 1 if self._iterator is not None else 0
        number = dose.chunk.first + self._offset - left
        return TaskInfo(f"{dose.session:016x}-{dose.spec}-{number}", dose.attempt, dose.name, self._host)

    # ---- functions ------------------------------------------------------------------------------------------

    def _function(self, dose: Dose) -> Callable[..., Any] | BaseException:
        """The function of a dose, or why there is none: then every task of the dose fails with that."""
        function = self._load(dose.digest, f"the function {dose.name}")
        if dose.init and not isinstance(function, BaseException):
            failure = self._initialise(dose.init)
            if failure is not None:
                return failure
            self._share_globals(dose.init, function)
        return function

    def _load(self, digest: bytes, what: str) -> Callable[..., Any] | BaseException:
        known = self._functions.get(digest)
        if known is None:
            try:
                known = plain_function(loads(self._bodies[digest]))
            except BaseException as error:
                known = unpickling_error(error, what, self._host)
                known.__cause__ = error
                if isinstance(error, ModuleNotFoundError):
                    return known  # it may be installed while we run
            self._functions[digest] = known
        return known

    def _initialise(self, digest: bytes) -> BaseException | None:
        if digest not in self._initialised:
            failure: BaseException | None = None
            initializer = self._load(digest, "the initializer")
            try:
                if isinstance(initializer, BaseException):
                    raise initializer
                initializer()
                self._note_globals(digest, initializer)
            except BaseException as error:
                type_name, text = describe(error)
                failure = InitializerFailed(f"the initializer raised {type_name} on {self._host}: {text}")
                failure.__cause__ = error
            self._initialised[digest] = failure
        return self._initialised[digest]

    def _note_globals(self, digest: bytes, initializer: Callable[..., Any]) -> None:
        """Keep what an initializer has assigned to globals: see `_share_globals`."""
        function = initializer.func if isinstance(initializer, partial) else initializer
        code, scope = getattr(function, "__code__", None), getattr(function, "__globals__", {})
        names = {step.argval for step in dis.get_instructions(code) if step.opname == "STORE_GLOBAL"} if code else set()
        self._assigned[digest] = (function.__module__, {name: scope[name] for name in names if name in scope})

    def _share_globals(self, digest: bytes, function: Any) -> None:
        """Let a function that travelled by value see the globals that the initializer of its mesh has set.

        Such a function has globals of its own, filled with what it refers to; `global pool; pool = ...` in an
        initializer would be for nothing otherwise. Functions of real modules share their globals anyway.
        """
        module, assigned = self._assigned[digest]
        scope = getattr(function, "__globals__", None)
        if assigned and scope is not None and function.__module__ == module:
            scope.update(assigned)

    # ---- doses ----------------------------------------------------------------------------------------------

    def _run(self, dose: Dose) -> None:
        if dose.block == 1:
            self._results.flush()  # who knows how long this takes
        self._results.begin(dose.at)
        self._dose = dose
        try:
            function = self._function(dose)
            if isinstance(function, BaseException):
                done = self._fail_all(dose, function)
            elif dose.chunk.items:
                done = self._run_items(dose, function)
            else:
                done = self._run_calls(dose, function)
        finally:
            self._dose = None
        if dose.block == 1 or done < dose.hi:
            self._results.flush()
        else:
            self._results.end()
        if done < dose.hi:
            at = dose.at + done - dose.lo
            self._send(pack_stopped(PipeStopped(at, dose.at + dose.hi - dose.lo)))
        _flush_standard_streams()

    def _claim(self, dose: Dose, offset: int, tasks: int) -> bool:
        """Claim `tasks` from `offset` on. False: the limit forbids it, and nothing is claimed."""
        end = dose.at + offset - dose.lo + tasks
        before = self._words[CLAIMED]
        self._words[CLAIMED] = end << CLAIM_BITS | tasks
        if self._words[LIMIT] < end:
            self._words[CLAIMED] = before
            return False
        return True

    def _fail_all(self, dose: Dose, error: BaseException) -> int:
        blob = dump_error(error)
        for offset in range(dose.lo, dose.hi):
            if not self._claim(dose, offset, 1):
                return offset
            self._results.error(blob)
        return dose.hi

    def _run_calls(self, dose: Dose, function: Callable[..., Any]) -> int:
        chunk, words, results = dose.chunk, self._words, self._results
        payload = memoryview(chunk.payload)
        skip = dose.lo - chunk.base
        sizes = unpack_sizes(chunk.sizes)
        start = sum(sizes[:skip])
        position = dose.at
        for offset in range(dose.lo, dose.hi):
            end = start + sizes[offset - chunk.base]
            position += 1
            before = words[CLAIMED]  # `_claim`, inline: this loop is the hot one
            words[CLAIMED] = position << CLAIM_BITS | 1
            if words[LIMIT] < position:
                words[CLAIMED] = before
                return offset
            self._offset = offset
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
                    results.error(dump_error(error, 1))
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
                columns = self._columns(dose, base, payload[start : start + size])
                if isinstance(columns, BaseException):
                    done = self._fail_some(dose, lo, hi, columns)
                else:
                    done = self._run_leaf(dose, function, columns, base, lo, hi)
                if done < hi:
                    return done
            base += tasks
            start += size
        return dose.hi

    def _fail_some(self, dose: Dose, lo: int, hi: int, error: BaseException) -> int:
        blob = dump_error(error)
        for offset in range(lo, hi):
            if not self._claim(dose, offset, 1):
                return offset
            self._results.error(blob)
        return hi

    def _columns(self, dose: Dose, base: int, leaf: memoryview) -> tuple[list[Any], ...] | BaseException:
        """The unpickled leaf, one list for each iterable; the last one is kept, as its other items often follow."""
        key = (dose.session, dose.spec, dose.chunk.first, base)
        if self._leaf is not None and self._leaf[0] == key:
            columns: tuple[list[Any], ...] = self._leaf[1]
            return columns
        try:
            loaded = loads(leaf)
        except BaseException as error:
            failure = unpickling_error(error, f"the arguments of {dose.name}", self._host)
            failure.__cause__ = error
            return failure
        columns = loaded if type(loaded) is tuple else (loaded,)
        self._leaf = (key, columns)
        return columns

    def _run_leaf(
        self,
        dose: Dose,
        function: Callable[..., Any],
        columns: tuple[list[Any], ...],
        base: int,
        lo: int,
        hi: int,
    ) -> int:
        """Run items `[lo, hi)` of a leaf that begins at `base`, by blocks; returns how far it came."""
        results = self._results
        offset = lo
        while offset < hi:
            end = min(hi, offset + dose.block)
            if not self._claim(dose, offset, end - offset):
                return offset
            self._offset = end
            first = self._iterator = iter(columns[0][offset - base : end - base])
            rest = [column[offset - base : end - base] for column in columns[1:]]
            values: list[Any] = []
            try:
                values.extend(map(function, first, *rest))
            except BaseException as error:
                self._iterator = None
                results.values(values, dose.name)
                results.error(dump_error(error, 1))
                offset += len(values) + 1
                continue
            self._iterator = None
            results.values(values, dose.name)
            offset += len(values)
            if offset < end:  # `map` takes a StopIteration out of the function for its own end
                results.error(dump_error(StopIteration()))
                offset += 1
        return hi


def _flush_standard_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):  # closed by a task, or nobody reads it any more
            continue


def main(sock: socket.socket, cells_fd: int, host: str) -> None:
    """Become a runner. Called in a fresh fork of the nursery; the caller ends the process afterwards."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    main_module = types.ModuleType("__main__")  # tasks must not find the nursery's names
    sys.modules["__main__"] = main_module
    sock.setblocking(True)
    cells, pid = Cells(cells_fd), os.getpid()

    def no_runner() -> None:  # a task has forked: its child must neither claim nor answer
        sock.close()
        cells.close()

    os.register_at_fork(after_in_child=no_runner)
    try:
        Runner(sock, cells, host).run()
    except ConnectionError:
        pass  # the daemon is gone, and so are we
    except (OSError, ValueError):
        if os.getpid() == pid:
            raise  # else: a task's child, which has returned from the task
    _flush_standard_streams()
