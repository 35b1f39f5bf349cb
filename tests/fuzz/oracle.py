"""What an input must not do: raise what is not declared, take too long, or take memory out of proportion."""

from __future__ import annotations

import resource
import signal
import time
import traceback
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from .source import Bytes, Source

ROOT = Path(__file__).parent.parent.parent
HANG_S = 20.0
"""Seconds of this process's own time, for everything that one input leads to."""
JUMP_BYTES = 128 << 20
"""The process may grow by so much over one input, which has a few hundred bytes."""

Run = Callable[[Source], None]


class Broken(AssertionError):
    """A rule was broken, although nothing was raised."""


class Hang(BaseException):
    """No end after `HANG_S`. Not an `Exception`: nobody may swallow it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What an input did. `where`: the same for inputs that found the same."""

    target: str
    where: str
    text: str
    data: bytes


def judge(target: str, run: Run, data: bytes) -> Finding | None:
    """Run one input; what is wrong, if anything."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    signal.signal(signal.SIGVTALRM, _hangs)
    signal.setitimer(signal.ITIMER_VIRTUAL, HANG_S)
    try:
        run(Bytes(data))
    except (Exception, Hang) as error:
        return Finding(target, _where(error), "".join(traceback.format_exception(error)), data)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    if grown > JUMP_BYTES:
        return Finding(target, "memory", f"{grown:,} bytes of memory for {len(data)} bytes", data)
    return None


def _hangs(number: int, frame: FrameType | None) -> None:
    raise Hang(f"no end after {HANG_S:g} s")


def _where(error: BaseException) -> str:
    """Type of an error and the last line of ours that it came by."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(str(ROOT))]
    last = frames[-1] if frames else None
    place = f"{Path(last.filename).relative_to(ROOT)}:{last.name}" if last is not None else "?"
    return f"{type(error).__name__} in {place}"


def fair_memory(size: int) -> int:
    """How much memory decoding may take: an array is made as long as it says, so arrays in arrays cost a square."""
    return (1 << 20) + min(2 * size * size, 100 << 20) + 128 * size


def measured(run: Callable[[], None], size: int) -> None:
    """Run a decoder and see what it allocates.

    Raises
    ------
    Broken
        More than is fair for `size` bytes.
    """
    tracemalloc.start()
    try:
        run()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    if peak > fair_memory(size):
        raise Broken(f"{peak:,} bytes of memory for an input of {size}")


class Stopwatch:
    """Time of this thread that single events take."""

    def __init__(self, most_s: float) -> None:
        self._most_s = most_s
        self._since = 0.0

    def start(self) -> None:
        """An event begins."""
        self._since = time.thread_time()

    def stop(self, what: object) -> None:
        """It has ended.

        Raises
        ------
        Broken
            It took too long.
        """
        took_s = time.thread_time() - self._since
        if took_s > self._most_s:
            raise Broken(f"{took_s:.1f} s for {str(what)[:200]}")
