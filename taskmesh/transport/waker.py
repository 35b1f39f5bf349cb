"""Wakes a loop from other threads, through a pipe that it watches."""

from __future__ import annotations

import contextlib
import os
import threading

from .loop import Loop


class Waker:
    """A pipe with `loop` at its reading end."""

    def __init__(self, loop: Loop) -> None:
        self._lock = threading.RLock()  # a signal handler may submit, too
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        loop.watch(self._read, self._drain)

    def wake(self) -> None:
        """Make the loop look at the time again. Nothing, after `close`."""
        with self._lock:
            if self._write >= 0:
                with contextlib.suppress(BlockingIOError):  # it is awake already
                    os.write(self._write, b"w")

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._read, 4096)

    def close(self) -> None:
        """Close the pipe. When the loop does not run any more."""
        with self._lock:
            fds, self._read, self._write = (self._read, self._write), -1, -1
        for fd in fds:
            if fd >= 0:
                os.close(fd)

    def abandon(self) -> None:
        """In a fork: another thread of the parent may have held the lock."""
        self._lock = threading.RLock()
        self.close()
