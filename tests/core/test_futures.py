"""Futures: as the standard ones, whoever waits on them and whenever they end."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import pickle
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from itertools import permutations
from typing import Any

import pytest

from taskmesh import futures
from taskmesh import waiting as f
from taskmesh.core.session import OpenChunk
from taskmesh.futures import Future, end_cancelled, end_error, end_values
from taskmesh.waiting import as_completed, gather, wait

LONG = 20.0  # seconds: a deadline for what happens at once


class Spot:
    """A place that counts what is asked of it."""

    session, number, name = 0xAB, 4, "f"

    def __init__(self) -> None:
        self.flushed = 0
        self.grants = True

    def before_waiting(self) -> None:
        self.flush()

    def flush(self) -> None:
        self.flushed += 1

    def cancel(self, future: Future[Any]) -> bool:
        if self.grants:
            end_cancelled(future)
        return self.grants


@pytest.fixture
def spot() -> Spot:
    return Spot()


@pytest.fixture
def make(spot: Spot) -> Callable[[], Future[Any]]:
    """Makes pending futures of one chunk that begins at task 10."""
    chunk: OpenChunk[Any] = OpenChunk(10)
    count = iter(range(1000))
    return lambda: Future(spot, chunk, next(count))


Make = Callable[[], Future[Any]]


def value(future: Future[Any], result: object = None) -> None:
    end_values([future], [result])


def in_thread(target: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """Run `target` beside; its result, or what it raised, is appended to the list."""
    results: list[object] = []

    def run() -> None:
        try:
            results.append(target())
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, results


def until(condition: Callable[[], object]) -> None:
    """Wait, without a fixed pause, for what another thread does."""
    pause = threading.Event()
    for _ in range(int(LONG / 0.001)):
        if condition():
            return
        pause.wait(0.001)
    raise AssertionError("it did not happen")


def sleepers(future: Future[Any]) -> list[Any]:
    """Who waits for it, and not by a Condition."""
    return future._watch.sleepers if future._watch is not None else []


# ---- one future -----------------------------------------------------------------------------------------------------


def test_a_future_costs_no_condition_until_somebody_needs_one(make: Make) -> None:
    future = make()
    assert future._watch is None
    value(future, 3)
    assert future.result() == 3
    assert future._watch is None
    waiting = make()
    thread, results = in_thread(waiting.result)
    until(lambda: sleepers(waiting))
    value(waiting, 4)
    thread.join(LONG)
    assert results == [4]
    assert waiting._watch is None
    assert not waiting.__dict__


def test_it_knows_its_task(make: Make) -> None:
    make()
    future = make()
    assert future.number == 11
    assert future.id == "00000000000000ab-4-11"
    assert repr(future) == "<Future 00000000000000ab-4-11 of f: pending>"
    value(future, 1.5)
    assert repr(future).endswith("finished, returned float>")


def test_whoever_waits_sends_what_is_being_gathered(make: Make, spot: Spot) -> None:
    with pytest.raises(TimeoutError, match="task 00000000000000ab-4-10 of f"):
        make().result(0)
    assert spot.flushed == 1
    make().add_done_callback(print)
    assert spot.flushed == 2


def test_an_error_is_raised_by_result_and_returned_by_exception(make: Make) -> None:
    future, error = make(), KeyError("k")
    assert not future.done()
    end_error(future, error)
    with pytest.raises(KeyError) as caught:
        future.result()
    assert caught.value is error
    assert future.exception() is error
    assert future.done()
    assert not future.cancelled()


def test_the_first_ending_is_the_only_one(make: Make) -> None:
    future = make()
    value(future, 1)
    value(future, 2)
    end_error(future, ValueError())
    end_cancelled(future)
    assert future.result() == 1
    assert not future.cancelled()
    assert not future.cancel()


def test_a_cancelled_future_says_so_everywhere(make: Make) -> None:
    future = make()
    assert future.cancel()
    assert future.cancel(), "and again"
    assert future.cancelled()
    assert future.done()
    for ask in (future.result, future.exception):
        with pytest.raises(CancelledError):
            ask()


def test_a_cancel_that_is_not_granted_changes_nothing(make: Make, spot: Spot) -> None:
    future = make()
    spot.grants = False
    assert not future.cancel()
    assert not future.done()


def test_everyone_who_waits_is_woken(make: Make) -> None:
    future = make()
    threads = [in_thread(future.result) for _ in range(3)] + [in_thread(future.exception)]
    until(lambda: len(sleepers(future)) == 4)
    value(future, 7)
    for thread, _ in threads:
        thread.join(LONG)
    assert [results for _, results in threads] == [[7], [7], [7], [None]]


def test_who_gave_up_waiting_is_forgotten(make: Make) -> None:
    future = make()
    with pytest.raises(TimeoutError):
        future.result(0)
    assert not sleepers(future)
    value(future, 1)
    assert future.result(0) == 1


# ---- callbacks ------------------------------------------------------------------------------------------------------


def test_callbacks_run_once_in_order_and_late_ones_at_once(make: Make) -> None:
    future = make()
    seen: list[object] = []
    future.add_done_callback(lambda x: seen.append(("first", x)))
    future.add_done_callback(lambda x: seen.append(("second", x)))
    assert not seen
    value(future, 1)
    value(future, 1)
    future.add_done_callback(lambda x: seen.append(("late", x)))
    assert seen == [("first", future), ("second", future), ("late", future)]


def test_a_callback_that_fails_stops_nobody(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    future = make()
    seen: list[object] = []

    def fail(_: object) -> None:
        raise SystemExit(3)

    future.add_done_callback(fail)
    future.add_done_callback(seen.append)
    value(future, 1)
    assert seen == [future]
    assert "exception calling callback" in caplog.text


def test_a_callback_may_ask_the_future(make: Make) -> None:
    """It would wait for ever if it ran while the future is locked against others."""
    future = make()
    seen: list[object] = []

    def ask(done: Future[Any]) -> None:
        thread, results = in_thread(lambda: concurrent.futures.wait([done], LONG).done)
        thread.join(LONG)
        seen.extend(results)

    future.add_done_callback(ask)
    value(future, 1)
    assert seen == [{future}]


# ---- many -----------------------------------------------------------------------------------------------------------

ENDINGS: dict[str, Callable[[Future[Any]], None]] = {
    "value": value,
    "error": lambda future: end_error(future, ValueError()),
    "cancelled": end_cancelled,
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("function", [wait, concurrent.futures.wait], ids=["ours", "theirs"])
@pytest.mark.parametrize("return_when", [f.ALL_COMPLETED, f.FIRST_COMPLETED, f.FIRST_EXCEPTION])
def test_waiting_is_as_the_standard_function_does_it(
    make: Make, ending: str, function: Callable[..., Any], return_when: str
) -> None:
    done, pending = make(), make()
    ENDINGS[ending](done)
    returns = return_when == f.FIRST_COMPLETED or (return_when == f.FIRST_EXCEPTION and ending == "error")
    result = function([done, pending], timeout=0, return_when=return_when)
    assert (result.done, result.not_done) == ({done}, {pending})
    thread, results = in_thread(lambda: function([done, pending], LONG, return_when))
    if not returns:
        until(lambda: pending._watch)
        value(pending)
    thread.join(LONG)
    assert results
    assert results[0].done >= {done}  # type: ignore[attr-defined]


@pytest.mark.parametrize("function", [as_completed, concurrent.futures.as_completed], ids=["ours", "theirs"])
@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_futures_come_in_the_order_in_which_they_end(
    make: Make, function: Callable[..., Iterator[Future[Any]]], order: tuple[int, ...]
) -> None:
    futures = [make() for _ in range(3)]
    value(futures[order[0]])
    coming = function(futures, timeout=LONG)
    for at, number in enumerate(order):
        assert next(coming) is futures[number]
        if at < 2:
            value(futures[order[at + 1]])
    assert list(coming) == []


def test_as_completed_gives_up_in_time(make: Make) -> None:
    with pytest.raises(TimeoutError):
        next(as_completed([make()], timeout=0))


def test_as_completed_counts_each_future_once_and_those_of_others_too(make: Make) -> None:
    ours, theirs = make(), concurrent.futures.Future[int]()
    value(ours, 1)
    theirs.set_result(2)
    assert list(as_completed([ours, ours])) == [ours]
    assert set(as_completed([ours, theirs, theirs])) == {ours, theirs}
    assert list(as_completed([])) == []


@pytest.mark.parametrize("ending", ENDINGS)
def test_as_completed_makes_no_conditions_and_keeps_nothing(make: Make, ending: str) -> None:
    futures = [make() for _ in range(3)]
    coming: Any = as_completed(futures, LONG)
    thread, results = in_thread(lambda: [next(coming).id, next(coming).id])
    until(lambda: all(sleepers(future) for future in futures))
    for future in futures[:2]:
        ENDINGS[ending](future)
    thread.join(LONG)
    assert results == [[future.id for future in futures[:2]]]
    assert [future._watch is None for future in futures] == [True, True, False]
    assert sleepers(futures[2])
    gone = weakref.ref(futures[0])
    futures[0] = futures[1]
    assert gone() is None  # without the garbage collector's help
    coming.close()
    assert not sleepers(futures[2])


def test_threads_that_settle_while_several_wait_for_what_ends_lose_nothing(make: Make) -> None:
    futures = [make() for _ in range(600)]
    waiters = [in_thread(lambda: sorted(map(id, as_completed(futures, LONG)))) for _ in range(3)]
    settlers = [in_thread(lambda n=n: [*map(value, futures[n::3])]) for n in range(3)]  # type: ignore[misc]
    for thread, _ in [*waiters, *settlers]:
        thread.join(LONG)
    assert [results for _, results in waiters] == [[sorted(map(id, futures))]] * 3


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_future_that_ends_while_somebody_begins_to_wait_is_counted_once(make: Make, ending: str) -> None:
    """The standard functions look at the state and leave their waiter under one lock: nothing may happen in between.

    Here the waiting thread holds that lock, the settling thread comes, and only then does the waiting thread look.
    """
    first, second = make(), make()
    with first._condition:
        thread, _ = in_thread(lambda: ENDINGS[ending](first))
        for _ in range(50):  # it cannot get past the lock, however long it has
            thread.join(0.001)
        assert thread.is_alive()
        assert not first.done()
        coming = concurrent.futures.as_completed([first, second], timeout=LONG)
        beside, results = in_thread(lambda: concurrent.futures.wait([second], LONG))
    assert next(coming) is first
    thread.join(LONG)
    value(second)
    assert list(coming) == [second]
    beside.join(LONG)
    assert results[0].done == {second}  # type: ignore[attr-defined]


def test_threads_that_settle_and_wait_at_once_lose_nothing(make: Make) -> None:
    futures = [make() for _ in range(600)]
    waiters = [
        in_thread(lambda: len(concurrent.futures.wait(futures, LONG).done)),
        in_thread(lambda: len(list(concurrent.futures.as_completed(futures, LONG)))),
        in_thread(lambda: len([x.result(LONG) for x in futures])),
        in_thread(lambda: len(wait(futures, LONG).done)),
    ]
    settlers = [in_thread(lambda n=n: [*map(value, futures[n::3])]) for n in range(3)]  # type: ignore[misc]
    for thread, _ in [*waiters, *settlers]:
        thread.join(LONG)
    assert [results for _, results in waiters] == [[600]] * 4


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_need_not_wait_for_what_the_parent_was_settling() -> None:
    ended: list[int] = []

    def fork() -> None:
        child = os.fork()
        if child == 0:
            os._exit(0 if futures._STATE.acquire(timeout=5) else 1)
        ended.append(os.waitpid(child, 0)[1])

    with futures._STATE:  # as the receive thread does
        thread = threading.Thread(target=fork)
        thread.start()
        thread.join(20)
    assert ended == [0]


def test_gather_keeps_the_shape(make: Make) -> None:
    a, b, c = make(), make(), make()
    end_values([a, b, c], [1, 2, 3])
    assert gather(a, b) == [1, 2]
    assert gather([a, b]) == [1, 2]
    assert gather([a, [b, (c,)], []]) == [1, [2, [3]], []]
    assert gather() == []
    assert gather(x for x in (a, c)) == [1, 3]


def test_gather_raises_what_the_first_failed_task_raised(make: Make) -> None:
    a, b = make(), make()
    end_error(a, KeyError("a"))
    end_error(b, ValueError("b"))
    with pytest.raises(ValueError, match="b"):
        gather(b, a)
    with pytest.raises(TypeError, match="not int"):
        gather([5])
    with pytest.raises(TimeoutError):
        gather(make(), timeout=0)


def test_a_future_can_be_awaited(make: Make) -> None:
    future = make()

    async def main() -> object:
        asyncio.get_running_loop().call_soon(value, future, 5)
        return await future

    assert asyncio.run(main()) == 5


def test_cancelling_what_awaits_it_cancels_the_task(make: Make) -> None:
    future = make()

    async def main() -> None:
        waiting = asyncio.ensure_future(asyncio.wrap_future(future))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(main())
    assert future.cancelled()


def test_a_future_is_no_argument(make: Make) -> None:
    with pytest.raises(TypeError, match="pass its result"):
        pickle.dumps(make())
