"""The window: how much a session may have unsettled, and where callers wait when it is full.

A submitter that is faster than the mesh would fill the memory of client and hub. So a call waits at admission, before
anything of it is recorded and without a lock, until enough has ended. Nothing waits anywhere else. What is unsettled is
weighed by `core.session`.

Rules: what is larger than the window goes when nothing else is unsettled. The receive thread, which brings what the
others wait for, never waits; a thread that runs an event loop does not either, and is told instead. Whoever has waited
goes on when an eighth of the window is free, so that a full window is not entered and left for every task; and first
come, first served, or large calls would never find the room that small ones take.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections import deque
from collections.abc import Callable
from threading import get_ident
from time import monotonic

from .errors import WindowFull

log = logging.getLogger("taskmesh")

WINDOW = 256 * 1024 * 1024
TELL_AFTER_S = 10.0


def in_event_loop() -> bool:
    """Whether this thread runs an asyncio event loop, which must not be blocked."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return False
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class Window:
    """Lets callers in while there is room.

    Parameters
    ----------
    size
        Bytes that may be unsettled.
    timeout
        Seconds that a caller waits for room; None: as long as it takes.
    weight
        Tells how many bytes are unsettled.
    over
        Tells whether the session can go on; nobody waits when it cannot.
    """

    def __init__(self, size: int, timeout: float | None, weight: Callable[[], int], over: Callable[[], bool]) -> None:
        self.size = size
        self._timeout = timeout
        self._weight = weight
        self._over = over
        self._turns: deque[int] = deque()  # threads that wait, in the order in which they came
        self._changed = threading.Condition()

    @property
    def waiting(self) -> int:
        """How many callers wait for room."""
        return len(self._turns)

    def fits(self, more: int) -> bool:
        """Whether there is room for `more` bytes, and no other thread has waited for longer.

        A thread that runs an event loop cannot wait for its turn, so it need not.
        """
        if self._turns and self._turns[0] != get_ident() and not in_event_loop():
            return False
        weight = self._weight()
        return weight + more <= self.size or not weight

    def calls_left(self, each: int) -> int:
        """How many calls of `each` bytes there is room for, but one at least."""
        return max(1, (self.size - self._weight()) // each)

    def wait(self, more: int) -> None:
        """Return when it is this thread's turn and there is room for `more` bytes, or when the session is over.

        The turn is kept until `leave`, so that nobody else takes the room that there is.

        Raises
        ------
        WindowFull
            There was none in time; or the caller runs an event loop.
        """
        if self.fits(more):
            return
        if in_event_loop():
            raise WindowFull(
                f"{self._state(more)}; submit would block the event loop of this thread: await some of the futures "
                f"first, submit in another thread (asyncio.to_thread), or make the mesh with a larger window="
            )
        began, told = monotonic(), False
        with self._changed:
            while not (self._over() or (self._has_turn() and self._room(more))):
                now = monotonic()
                left = None if self._timeout is None else began + self._timeout - now
                if left is not None and left <= 0:
                    raise WindowFull(
                        f"{self._state(more)}, and not enough has ended within window_timeout={self._timeout:g} s: "
                        f"wait for results before you submit more, add workers, or make the mesh with a larger window="
                    )
                if not told and now - began >= TELL_AFTER_S:
                    told = True
                    log.warning("submit has waited for %d s: %s", now - began, self._state(more))
                quiet = None if told else max(0.0, began + TELL_AFTER_S - now)
                self._changed.wait(min((t for t in (left, quiet) if t is not None), default=None))

    def _has_turn(self) -> bool:
        """Whether this thread comes next. It gets in line if it is not: a signal handler in it may have left for it."""
        thread = get_ident()
        if thread not in self._turns:
            self._turns.append(thread)
        return self._turns[0] == thread

    def leave(self) -> None:
        """This thread has taken its room, or has given up: it is the next one's turn."""
        with self._changed, contextlib.suppress(ValueError):
            self._turns.remove(get_ident())
            self._changed.notify_all()

    def _room(self, more: int) -> bool:
        weight = self._weight()
        return not weight or weight + more <= self.size - self.size // 8

    def _state(self, more: int) -> str:
        return (
            f"{_size(self._weight())} of calls are unsettled, and the window of this mesh is {_size(self.size)} "
            f"(this call: {_size(more)})"
        )

    def changed(self) -> None:
        """Something has ended. Called by the receive thread after each message, so it costs nothing while none wait.

        (A caller takes its turn before it looks at the weight, so it cannot be missed.)
        """
        if self._turns:
            with self._changed:
                self._changed.notify_all()


def _size(number: int) -> str:
    return f"{number / 2**20:.1f} MiB" if number >= 2**20 else f"{number:,} bytes"
