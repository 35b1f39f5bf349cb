"""The window: who waits for room, for how long, and who does not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from taskmesh import TaskmeshError, WindowFull
from taskmesh.window import Window

LONG = 20.0


class Books:
    """What is unsettled, as the test says."""

    def __init__(self) -> None:
        self.weight = 0
        self.over = False

    def window(self, size: int = 800, timeout: float | None = 0.05) -> Window:
        return Window(size, timeout, lambda: self.weight, lambda: self.over)


@pytest.fixture
def books() -> Books:
    return Books()


def in_thread(call: Callable[[], None]) -> tuple[threading.Thread, list[BaseException]]:
    """Run `call` in a thread; what it raises is appended to the list."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, raised


def test_what_is_larger_than_the_window_goes_alone(books: Books) -> None:
    books.window().wait(10_000)
    books.weight = 1
    with pytest.raises(WindowFull):
        books.window().wait(10_000)


def test_a_full_window_says_how_much_is_unsettled_and_what_to_do(books: Books) -> None:
    books.weight = 3 * 2**20
    with pytest.raises(
        TimeoutError, match=r"3\.0 MiB of calls are unsettled.*800 bytes.*window_timeout=0.05 s"
    ) as info:
        books.window().wait(10)
    assert isinstance(info.value, TaskmeshError)


def test_who_waits_goes_on_when_an_eighth_is_free(books: Books) -> None:
    books.weight = 800
    window = books.window(timeout=LONG)
    thread, raised = in_thread(lambda: window.wait(1))
    while not window.waiting:
        thread.join(0.001)
    books.weight = 700
    window.changed()
    thread.join(0.05)
    assert thread.is_alive(), "an eighth is not free yet"
    books.weight = 699
    window.changed()
    thread.join(LONG)
    assert not thread.is_alive()
    assert not raised


def test_first_come_first_served(books: Books) -> None:
    books.weight = 600
    window = books.window(timeout=LONG)
    thread, raised = in_thread(lambda: window.wait(500))
    while not window.waiting:
        thread.join(0.001)
    assert not window.fits(1), "there is room, but not before the other one"
    books.weight = 100
    window.changed()
    thread.join(LONG)
    assert not thread.is_alive()
    assert not window.fits(1), "it has not taken its room yet"
    with pytest.raises(WindowFull):
        books.window().wait(1000)
    assert not raised


def test_an_event_loop_need_not_wait_for_its_turn(books: Books) -> None:
    books.weight = 600
    window = books.window(timeout=LONG)
    thread, raised = in_thread(lambda: window.wait(500))
    while not window.waiting:
        thread.join(0.001)

    async def submits() -> bool:
        return window.fits(1)

    assert asyncio.run(submits())
    books.over = True
    window.changed()
    thread.join(LONG)
    assert not raised


def test_whoever_gives_up_does_not_hold_up_the_others(books: Books) -> None:
    books.weight = 800
    window = books.window()
    with pytest.raises(WindowFull):
        window.wait(500)
    window.leave()
    books.weight = 600
    thread, raised = in_thread(lambda: window.wait(1))
    thread.join(LONG)
    assert not thread.is_alive()
    assert not raised


def test_nobody_waits_for_a_session_that_is_over(books: Books) -> None:
    books.weight = 800
    window = books.window(timeout=None)
    thread, raised = in_thread(lambda: window.wait(1))
    while not window.waiting:
        thread.join(0.001)
    books.over = True
    window.changed()
    thread.join(LONG)
    assert not thread.is_alive()
    assert not raised


def test_an_event_loop_is_not_blocked(books: Books) -> None:
    books.weight = 800
    window = books.window(timeout=None)

    async def submits() -> None:
        window.wait(1)

    with pytest.raises(WindowFull, match="would block the event loop"):
        asyncio.run(submits())
