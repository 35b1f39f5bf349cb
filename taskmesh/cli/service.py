"""How a hub or a worker stops: the first Ctrl-C or SIGTERM drains, the second stops at once.

A hub whose work is stored stops at once at SIGTERM: whoever manages services wants a restart, and not a wait. SIGHUP,
from a terminal that was closed, is like SIGTERM; below nohup it is ignored.

Signals wake the loop through a pipe, so that a drain begins at once and between two rounds, never inside one.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Protocol

from ..transport.loop import Loop
from .exits import BY_SIGNAL, ExitCode
from .logs import notices

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # the last: the terminal was closed
SAY_EVERY_S = 5.0
NEVER = float("inf")


class Service(Protocol):
    """What can be drained."""

    @property
    def stored(self) -> bool:
        """Whether stopping at once loses nothing, because somebody goes on later."""

    def drain(self) -> None:
        """Take nothing new, finish what is there."""

    @property
    def drained(self) -> bool:
        """Whether nothing is left."""

    def left(self) -> str:
        """What is left to finish, in words; empty: nothing that anybody would have to wait for."""


class Stopper:
    """Drains a service at the first signal, stops its loop when it is drained or at the second signal.

    Parameters
    ----------
    loop
        What the service runs on.
    service
        What to drain.
    cost
        What a second signal costs, in words.
    """

    def __init__(self, loop: Loop, service: Service, cost: str) -> None:
        self._loop = loop
        self._service = service
        self._cost = cost
        self._draining = False
        self._said = ""
        self._say_at = 0.0
        self.exit_code: int = ExitCode.OK
        self._wake, wake_write = os.pipe()
        for fd in (self._wake, wake_write):
            os.set_blocking(fd, False)
        self._heeded = [n for n in SIGNALS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]  # nohup
        for number in self._heeded:
            signal.signal(number, _nothing)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        loop.watch(self._wake, self._read)
        loop.add_part(self)

    def _read(self) -> None:
        for number in os.read(self._wake, 64):
            if number in self._heeded:
                self._on_signal(number)

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGINT and sys.stderr.isatty():
            print(file=sys.stderr)  # the terminal has echoed ^C
        if self._draining:
            notices.warning("stopping at once")
            self.exit_code = BY_SIGNAL + number
            self._loop.stopping = True
            for known in self._heeded:
                signal.signal(known, signal.SIG_DFL)  # whatever hangs now: a third one ends it
            return
        if number != signal.SIGINT and self._service.stored:
            notices.info("stopping; what is left is stored, and goes on when a hub is started here again")
            self._loop.stopping = True
            return
        self._draining = True
        self._service.drain()
        self._said = self._service.left()
        self._say_at = self._loop.now() + SAY_EVERY_S
        if self._said:
            notices.info("draining: %s; Ctrl-C again stops at once, %s", self._said, self._cost)
        else:
            notices.info("draining: nothing is left to finish")

    def on_time(self, now: float) -> None:
        """Stop when nothing is left; say now and then what is."""
        if not self._draining:
            return
        if self._service.drained:
            self._loop.stopping = True
        elif now >= self._say_at:
            self._say_at = now + SAY_EVERY_S
            left = self._service.left()
            if left and left != self._said:
                self._said = left
                notices.info("draining: %s", left)

    def next_deadline(self) -> float:
        """When to look again."""
        return self._say_at if self._draining else NEVER


def _nothing(number: int, frame: FrameType | None) -> None:
    """Being handled is enough: the pipe wakes the loop."""
