"""Functions over many futures: `wait`, `as_completed` and `gather`, of ours and of others."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterable, Iterator
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION, CancelledError
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, NamedTuple, TypeVar

from .futures import Future, Place, unwatch, watch

T = TypeVar("T")

__all__ = ["ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION", "as_completed", "gather", "wait"]


class DoneAndNotDone(NamedTuple):
    """What `wait` returns; field names as in `concurrent.futures`."""

    done: set[Any]
    not_done: set[Any]


def wait(
    futures: Iterable[concurrent.futures.Future[T]],
    timeout: float | None = None,
    return_when: str = ALL_COMPLETED,
) -> DoneAndNotDone:
    """Wait for futures, as `concurrent.futures.wait` does.

    Parameters
    ----------
    futures
        Any iterable of futures; duplicates count once.
    timeout
        Seconds; None waits as long as it takes.
    return_when
        `ALL_COMPLETED`, `FIRST_COMPLETED` or `FIRST_EXCEPTION`.

    Returns
    -------
    DoneAndNotDone
        Two sets, `done` and `not_done`.

    Raises
    ------
    RuntimeError
        Called in a callback, before all were done: see `Future.result`.
    """
    chosen = set(futures)
    for place in _places(chosen):
        place.flush()
    if return_when != ALL_COMPLETED:
        result = concurrent.futures.wait(chosen, 0, return_when)
        if (timeout is None or timeout > 0) and not _suffices(*result, return_when):
            for place in _places(chosen):
                place.before_waiting()
            result = concurrent.futures.wait(chosen, timeout, return_when)
        return DoneAndNotDone(result.done, result.not_done)
    # One after the other: each is waited for by a bare lock, and only if it has not ended when its turn comes.
    end = None if timeout is None else monotonic() + timeout
    for future in chosen:
        if future.done():
            continue
        try:
            future.exception(None if end is None else max(0.0, end - monotonic()))
        except CancelledError:
            continue
        except TimeoutError:
            break
    done = {future for future in chosen if future.done()}
    return DoneAndNotDone(done, chosen - done)


def _suffices(
    done: set[concurrent.futures.Future[T]], not_done: set[concurrent.futures.Future[T]], return_when: str
) -> bool:
    """Whether nothing has to be waited for any more."""
    if return_when == FIRST_COMPLETED and done:
        return True
    return not not_done or any(not future.cancelled() and future.exception() for future in done)


def as_completed(
    futures: Iterable[concurrent.futures.Future[T]], timeout: float | None = None
) -> Iterator[concurrent.futures.Future[T]]:
    """Futures in the order in which they end, as `concurrent.futures.as_completed` does.

    Parameters
    ----------
    futures
        Any iterable of futures; duplicates count once.
    timeout
        Seconds; None waits as long as it takes.

    Returns
    -------
    Iterator
        Each future once.

    Raises
    ------
    TimeoutError
        Not all of them were done `timeout` seconds after the first was asked for.
    RuntimeError
        Called in a callback, before all were done: see `Future.result`.
    """
    chosen = set(futures)
    waits = timeout is None or timeout > 0
    for place in _places(chosen):
        place.before_waiting() if waits else place.flush()
    if not all(isinstance(future, Future) for future in chosen):
        return concurrent.futures.as_completed(chosen, timeout)
    return _as_they_end(chosen, timeout)  # type: ignore[arg-type]


def _as_they_end(left: set[Future[T]], timeout: float | None) -> Iterator[Future[T]]:
    """What the standard function does, without a Condition for each future: 50,000 of those take 40 MB."""
    end = None if timeout is None else monotonic() + timeout
    count = len(left)
    ended: SimpleQueue[Future[T]] = SimpleQueue()
    try:
        _ring(left, ended)
        while left:
            try:
                future = ended.get(timeout=None if end is None else max(0.0, end - monotonic()))
            except Empty:
                raise TimeoutError(f"{len(left)} (of {count}) futures unfinished") from None
            left.remove(future)
            yield future
            del future  # whoever asked for it may be done with it: it must not be kept until the next has ended
    finally:
        _ring_no_more(left, ended)


class _Bell(NamedTuple):
    """Sleeps in place of somebody who waits for many futures, and is woken like them."""

    future: Future[Any]
    ended: SimpleQueue[Any]

    def release(self) -> None:
        """The future has ended."""
        self.ended.put(self.future)


def _ring(futures: Iterable[Future[Any]], ended: SimpleQueue[Any]) -> None:
    """Have each future in the queue when it has ended."""
    for future in futures:
        if not watch(future, _Bell(future, ended)):
            ended.put(future)


def _ring_no_more(futures: Iterable[Future[Any]], ended: SimpleQueue[Any]) -> None:
    """Nobody waits for them any more."""
    for future in futures:
        unwatch(future, _Bell(future, ended))


def gather(*futures: Any, timeout: float | None = None) -> list[Any]:
    """Results of futures, in order; lists and tuples of futures may be nested, and keep their shape.

    `gather(a, b)`, `gather([a, b])` and `gather([a, [b, c]])` give `[ra, rb]`, `[ra, rb]` and `[ra, [rb, rc]]`.

    Parameters
    ----------
    *futures
        Futures, and lists and tuples of them.
    timeout
        Seconds for all of them together; None waits as long as it takes.

    Returns
    -------
    list
        As nested as what was given; tuples become lists.

    Raises
    ------
    TimeoutError
        Not all of them were done within `timeout` seconds.
    Exception
        What the first failed task, in order, raised.
    TypeError
        An element is neither a future nor a list or tuple.
    """
    nested = futures[0] if len(futures) == 1 and isinstance(futures[0], Iterable) else futures
    end = None if timeout is None else monotonic() + timeout
    gathered: list[Any] = _gather(list(nested), end)
    return gathered


def _gather(value: Any, end: float | None) -> Any:
    if isinstance(value, concurrent.futures.Future):
        return value.result(None if end is None else max(0.0, end - monotonic()))
    if isinstance(value, list | tuple):
        return [_gather(item, end) for item in value]
    raise TypeError(f"gather takes futures and lists of them, not {type(value).__name__}")


def _places(futures: Iterable[concurrent.futures.Future[Any]]) -> set[Place]:
    """Where those are that have not ended: one for each function."""
    return {future._place for future in futures if isinstance(future, Future) and not future.done()}
