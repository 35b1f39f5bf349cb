"""Futures: `concurrent.futures.Future` made cheap. Functions over many of them are in `waiting`.

The standard Future builds a Condition when it is made (7 µs); ours makes it when somebody first needs one (0.5 µs
otherwise), and `result()` does not. Everything that the standard class keeps in its constructor is made on first need
by the properties below, so that its own methods, `concurrent.futures.wait` and `asyncio.wrap_future` work unchanged.
What a future has is in slots, without a dictionary of 270 bytes, and whoever watches it in one of them.

Rule: a future changes state under `_STATE`, the lock under which its Condition is made, and under that Condition if
there is one. So whoever ends a future sees every Condition that was made before, and whoever makes one later sees
the new state.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import os
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import CancelledError, InvalidStateError
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from .core.identity import task_id

if TYPE_CHECKING:
    from .core.session import OpenChunk

log = logging.getLogger("concurrent.futures")  # where the standard class reports them, too

T = TypeVar("T")
PENDING, RUNNING, FINISHED = "PENDING", "RUNNING", "FINISHED"
CANCELLED, CANCELLED_AND_NOTIFIED = "CANCELLED", "CANCELLED_AND_NOTIFIED"

_STATE = threading.RLock()


def _after_fork() -> None:
    """The parent's lock may have been held by a thread that this process does not have."""
    global _STATE
    _STATE = threading.RLock()


os.register_at_fork(after_in_child=_after_fork)
_FINAL = frozenset({FINISHED, CANCELLED, CANCELLED_AND_NOTIFIED})


class Sleeper(Protocol):
    """Waits for a future: a lock that it holds, or a bell (see `waiting`)."""

    def release(self) -> None:
        """Wake up."""


class _Watch:
    """Who watches a future that has not ended."""

    __slots__ = ("callbacks", "condition", "sleepers", "waiters")

    def __init__(self) -> None:
        self.condition: threading.Condition | None = None
        self.sleepers: list[Sleeper] = []
        self.waiters: list[Any] = []
        self.callbacks: list[Callable[[Any], object]] = []


class Place(Protocol):
    """Where a future's task is: its spec, and who can act on it."""

    @property
    def session(self) -> int:
        """The session's id."""

    @property
    def number(self) -> int:
        """The spec's number."""

    @property
    def name(self) -> str:
        """What the spec's tasks are called."""

    def flush(self) -> None:
        """Send what is still being gathered."""

    def before_waiting(self) -> None:
        """Somebody is going to wait: send what is still being gathered, or raise if nothing could ever come."""

    def cancel(self, future: Future[Any]) -> bool:
        """Cancel the task of `future` if it certainly has not started."""


class Future(concurrent.futures.Future[T]):
    """The result of a task, when there is one: a `concurrent.futures.Future` that can also be awaited.

    Made by `submit`. `cancel()` succeeds while the task has certainly not started; it may wait up to a second for the
    hub's word (not in a callback, and not in an event loop). `running()` is only an estimate everywhere but in the
    runner, and stays False here.
    """

    __slots__ = ("_chunk", "_exception", "_index", "_place", "_result", "_state", "_watch")
    _state: str
    _result: Any
    _exception: BaseException | None
    _watch: _Watch | None

    def __init__(self, place: Place, chunk: OpenChunk[Any], index: int) -> None:
        self._place = place
        self._chunk = chunk
        self._index = index
        self._state = PENDING
        self._result = self._exception = self._watch = None

    def _watched(self) -> _Watch:
        """Who watches; under `_STATE`."""
        if self._watch is None:
            self._watch = _Watch()
        return self._watch

    # What the standard class keeps from its constructor on, made on first need.

    @property
    def _condition(self) -> threading.Condition:
        with _STATE:
            watch = self._watched()
            if watch.condition is None:
                watch.condition = threading.Condition()
            return watch.condition

    @_condition.setter
    def _condition(self, value: threading.Condition) -> None:  # so that type checkers see an attribute, as it was
        self._watched().condition = value

    @property
    def _waiters(self) -> list[Any]:
        with _STATE:
            return self._watched().waiters

    @_waiters.setter
    def _waiters(self, value: list[Any]) -> None:
        self._watched().waiters = value

    @property
    def _done_callbacks(self) -> list[Callable[[Any], object]]:
        with _STATE:
            return self._watched().callbacks

    @property
    def id(self) -> str:
        """The task's id: session, number of the function, number of the task."""
        return task_id(self._place.session, self._place.number, self.number)

    @property
    def number(self) -> int:
        """The task's number within its function and session."""
        return self._chunk.first + self._index

    def __repr__(self) -> str:
        state = self._state.lower().replace("_and_notified", "")
        if self._state == FINISHED:
            outcome = self._exception if self._exception is not None else self._result
            verb = "raised" if self._exception is not None else "returned"
            state = f"{state}, {verb} {type(outcome).__name__}"
        return f"<Future {self.id} of {self._place.name}: {state}>"

    def __reduce__(self) -> Any:
        raise TypeError("a Future cannot be the argument of a task: pass its result()")

    def __await__(self) -> Generator[Any, None, T]:
        # Not `asyncio.wrap_future`: with a StopIteration as the exception it waits for ever on Python 3.11. Raised in
        # this generator, it becomes a RuntimeError, as in any coroutine.
        import asyncio

        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()

        def end() -> None:
            if not ended.done():
                ended.set_result(None)

        def wake(_: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed, so nobody waits
                loop.call_soon_threadsafe(end)

        self.add_done_callback(wake)
        try:
            yield from ended
        except asyncio.CancelledError:
            self.cancel()
            raise
        if self.cancelled():
            raise asyncio.CancelledError
        return self.result()

    def done(self) -> bool:
        """Whether the task has ended or was cancelled."""
        return self._state in _FINAL

    def cancel(self) -> bool:
        """Cancel the task if it certainly has not started. What runs goes on; see `Mesh.cancel` for that.

        Returns
        -------
        bool
            True: it never will start. False: it has started, may have, or has ended. In a callback and in the thread of
            an event loop, which do not wait for the hub's word, nearly always False; `cancelled()` tells later.
        """
        if self._state in _FINAL:
            return self._state != FINISHED
        return self._place.cancel(self)

    def result(self, timeout: float | None = None) -> T:
        """What the task returned; raises what it raised.

        Parameters
        ----------
        timeout
            Seconds to wait; None waits as long as it takes.

        Raises
        ------
        TimeoutError
            Not yet.
        concurrent.futures.CancelledError
            It was cancelled.
        TaskError
            It could not be run: see `taskmesh.errors`.
        RuntimeError
            Called in a callback: the thread that runs it would have to bring the result.
        """
        if self._state != FINISHED:
            self._sleep(timeout)
        if self._exception is not None:
            try:
                raise self._exception
            finally:
                self = None  # type: ignore[assignment]  # no cycle from the traceback to this frame
        value: T = self._result
        return value

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the task raised, or None; see `result` for the parameters and errors."""
        if self._state != FINISHED:
            self._sleep(timeout)
        return self._exception

    def _sleep(self, timeout: float | None) -> None:
        """Wait until the task has ended. A bare lock, which wakes faster and costs less than a Condition.

        Raises
        ------
        TimeoutError
            Not yet.
        concurrent.futures.CancelledError
            It was cancelled.
        """
        if self._state == PENDING:
            if timeout is None or timeout > 0:
                self._place.before_waiting()
            else:
                self._place.flush()
            lock = threading.Lock()
            lock.acquire()
            if watch(self, lock) and not lock.acquire(timeout=-1 if timeout is None else max(0.0, timeout)):
                unwatch(self, lock)
        if self._state == PENDING:
            raise TimeoutError(f"task {self.id} of {self._place.name} has not ended after {timeout:g} s")
        if self._state != FINISHED:
            raise CancelledError()

    def set_result(self, result: T) -> None:
        """End it with a result before its task does, which goes on for nobody.

        Raises
        ------
        concurrent.futures.InvalidStateError
            It has ended.
        """
        self._end_by_hand(result, None)

    def set_exception(self, exception: BaseException | None) -> None:
        """End it with an exception before its task does; see `set_result`."""
        self._end_by_hand(None, exception)

    def _end_by_hand(self, result: Any, error: BaseException | None) -> None:
        if not _end(self, FINISHED, result, error):
            raise InvalidStateError(f"{self._state}: {self!r}")

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        """Call `fn(future)` when it is done, in the mesh's receive thread; at once when it already is."""
        super().add_done_callback(fn)
        if self._state == PENDING:
            self._place.flush()


def watch(future: Future[Any], sleeper: Sleeper) -> bool:
    """Have `sleeper` woken when a future ends. False: it has ended."""
    with _STATE:
        if future._state != PENDING:
            return False
        future._watched().sleepers.append(sleeper)
        return True


def unwatch(future: Future[Any], sleeper: Sleeper) -> None:
    """Nobody waits by `sleeper` any more."""
    with _STATE, contextlib.suppress(ValueError):
        if future._watch is not None:
            future._watch.sleepers.remove(sleeper)


# ---- ending ---------------------------------------------------------------------------------------------------------


def end_values(futures: Sequence[Future[Any]], values: Sequence[Any]) -> None:
    """`futures[i]` returned `values[i]`. Those that are done already stay as they are."""
    watched: list[tuple[Future[Any], Any]] = []
    with _STATE:
        for future, value in zip(futures, values, strict=True):
            if future._watch is not None:
                watched.append((future, value))
            elif future._state == PENDING:
                future._result = value
                future._state = FINISHED
    for future, value in watched:
        _end(future, FINISHED, value, None)


def end_error(future: Future[Any], error: BaseException) -> None:
    """`future` raised `error`."""
    _end(future, FINISHED, None, error)


def end_cancelled(future: Future[Any]) -> None:
    """`future` will never run."""
    _end(future, CANCELLED_AND_NOTIFIED, None, None)


def _end(future: Future[Any], state: str, result: Any, error: BaseException | None) -> bool:
    """End one future, wake those who wait, run its callbacks. False: it had ended before.

    Whoever holds its Condition sees the old state and no news, or the new state after all the news: the standard
    `wait` and `as_completed` read the state and leave their waiter under it, and would count a future twice otherwise.
    The Condition comes before `_STATE`, in which order the standard functions take them as well.
    """
    with _STATE:
        condition = future._watch.condition if future._watch is not None else None
        if condition is None and not _set(future, state, result, error):
            return False
    if condition is not None:
        with condition:
            if not _set(future, state, result, error):
                return False
            for waiter in future._waiters:
                if state != FINISHED:
                    waiter.add_cancelled(future)
                elif error is not None:
                    waiter.add_exception(future)
                else:
                    waiter.add_result(future)
            condition.notify_all()
    with _STATE:
        left = future._watch
        if left is None:
            return True
        if left.condition is None:  # else somebody may hold it, and is going to release the one that is found here
            future._watch = None
        sleepers, left.sleepers = left.sleepers, []
        callbacks, left.callbacks = left.callbacks, []
    for sleeper in sleepers:
        sleeper.release()
    for callback in callbacks:
        try:
            callback(future)
        except BaseException:  # user code, and even its sys.exit() must not end the receive thread
            log.exception("exception calling callback for %r", future)
    return True


def _set(future: Future[Any], state: str, result: Any, error: BaseException | None) -> bool:
    with _STATE:
        if future._state != PENDING:
            return False
        future._result = result
        future._exception = error
        future._state = state
        return True
