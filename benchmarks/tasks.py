"""The functions that the peers' workers run.

They stand in a module of their own that imports next to nothing, because every worker of every peer imports
it, and they are plain module-level functions, so that every peer can pickle them by name.
"""

import os
import time


def nothing() -> None:
    """Cost nothing: what is left is the price of the queue."""


def nothing_with(_item: int) -> None:
    """Cost nothing, for `map`, which needs a function of one item."""


def same(payload: bytes) -> bytes:
    """Give back what was sent: the price of moving it."""
    return payload


def sleep_for(seconds: float) -> None:
    """Occupy a worker without using a core, so that scheduling shows even on a machine with few cores."""
    time.sleep(seconds)


def pid_after(seconds: float) -> int:
    """Say which process ran this, late enough that a second worker gets its turn."""
    time.sleep(seconds)
    return os.getpid()


def recorded_sleep(path: str, number: int, seconds: float) -> None:
    """Say in a file which task starts in which process, then sleep."""
    record(path, number)
    time.sleep(seconds)


def record(path: str, number: int) -> None:
    """Append a number and this process to a file, in one write."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, b"%d %d\n" % (number, os.getpid()))
    os.close(file)
