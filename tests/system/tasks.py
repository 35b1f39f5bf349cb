"""Functions for these tests that runners can import."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, NoReturn

from taskmesh import TaskInfo, current_task


def double(x: int) -> int:
    """Twice `x`."""
    return 2 * x


def add(*values: int) -> int:
    """Sum of the arguments."""
    return sum(values)


def sleep(seconds: float) -> float:
    """Sleep, then return how long."""
    time.sleep(seconds)
    return seconds


def pid(_: object = None) -> int:
    """The runner's process id."""
    return os.getpid()


def environment(_: object = None) -> dict[str, str]:
    """What it sees of its environment."""
    return dict(os.environ)


def information(_: object = None) -> TaskInfo | None:
    """What `current_task()` says."""
    return current_task()


def fail(error: BaseException) -> NoReturn:
    """Raise `error`."""
    raise error


def hold(directory: str, name: str) -> str:
    """Say that it has started, then wait until it is let go."""
    path = Path(directory)
    _started(path / f"{name}.started")
    while not (path / f"{name}.go").exists():
        time.sleep(0.005)
    return name


def note(directory: str, name: str) -> str:
    """Append a line to a file, so that every start is counted."""
    _started(Path(directory) / f"{name}.started")
    return name


def _started(path: Path) -> None:
    """Append this process to a file, which is never there without a whole line in it."""
    line = f"{os.getpid()}\n"
    new = path.with_name(f"{path.name}.{os.getpid()}")
    new.write_text(line)
    try:
        os.link(new, path)
    except FileExistsError:
        with open(path, "a") as file:
            file.write(line)
    finally:
        new.unlink()


def tally(path: str, n: int, seconds: float = 0.0) -> int:
    """Append `n`, this process and the time to a file in one write, so that every execution is on record."""
    if seconds:
        time.sleep(seconds)
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, b"%d %d %d\n" % (n, os.getpid(), time.monotonic_ns()))
    os.close(file)
    return n


def keywords(**values: Any) -> dict[str, Any]:
    """Its keyword arguments."""
    return values


class Counter:
    """Counts its calls."""

    def __init__(self, start: int = 0) -> None:
        self.count = start

    def __call__(self, by: int = 1) -> int:
        self.count += by
        return self.count

    def plus(self, by: int) -> int:
        """A method."""
        return self.count + by

    @classmethod
    def named(cls, name: str) -> str:
        """A class method."""
        return f"{cls.__name__} {name}"

    @staticmethod
    def fixed() -> int:
        """A static method."""
        return 7


class BreaksWhenLoaded:
    """Can be pickled, but not unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _break, ()


def _break() -> NoReturn:
    raise RuntimeError("broken when loaded")


class BreaksWhenPickled:
    """Cannot be pickled."""

    def __reduce__(self) -> NoReturn:
        raise RuntimeError("broken when pickled")


class TwoArguments(Exception):
    """Its `args` do not fit its constructor, so it can be pickled but not unpickled."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")
        self.sum = one + two


class HoldsUnpicklable(Exception):
    """Cannot be pickled."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = BreaksWhenPickled()
