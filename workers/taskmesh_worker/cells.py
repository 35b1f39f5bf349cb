"""Words of memory that a runner shares with its daemon: claim and limit, interrupts, and what a task printed last.

The runner writes `claimed`, the end of what it is about to run, and then reads `limit`. The daemon lowers `limit`,
waits at least 1 ms, and reads `claimed`. One of the two therefore sees the other's word: the wait is longer than any
store takes to leave a processor's buffer. (Dekker's argument, with time in place of a fence.)

`claimed` is `end << 12 | length`, so that one store also says where the claim begins: length is at most 4,095. All
words are aligned, so that loads and stores are single instructions. A claim may be shortened, to the item that runs:
a reader of the longer claim merely overestimated what had started.

`loading` is the task for which the runner loads a function, runs an initializer or unpickles arguments, before it
claims it: `(position + 1) << 12`, or 0. If that kills the runner, the task is to blame as one that has started; but
its time does not run yet, and it can be taken back.

Before it claims a task that has a timeout, the runner writes `since`, the time; the daemon reads the two the other way
round, so a time that it reads is never too early. `interrupt` is `(position + 1) << 2 | reason`: the task that the
daemon wants ended, and the `Reason`, for the runner's signal handler. The last lines are here because they have to
outlive a SIGKILL: `printed` is the claim, or the loading, under which they were printed, so lines of a task that has
ended are not taken for those of the next.
"""

from __future__ import annotations

import mmap
import os
import signal

from taskmesh.wire.pipe import CLAIM_BITS, CLAIM_MOST, Reason

CLAIMED, LIMIT, INTERRUPT, SINCE, PRINTED, LENGTH, LOADING = range(7)
WORDS = 7
REASON_BITS = 2
TAIL_BYTES = 2048
SIZE = 8 * WORDS + TAIL_BYTES

if hasattr(signal, "SIGRTMIN"):
    INTERRUPT_SIGNAL, FLUSH_SIGNAL = int(signal.SIGRTMIN) + 7, int(signal.SIGRTMIN) + 8
else:  # macOS
    INTERRUPT_SIGNAL, FLUSH_SIGNAL = int(signal.SIGUSR1), int(signal.SIGUSR2)


def create() -> int:
    """A file descriptor of fresh words; it has no name in any file system."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("taskmesh-cells", os.MFD_CLOEXEC)
    else:  # macOS
        import tempfile

        fd, path = tempfile.mkstemp(prefix="taskmesh-cells-")
        os.unlink(path)
    os.ftruncate(fd, SIZE)
    return fd


class Cells:
    """The words, mapped. Closes `fd`, which the mapping does not need."""

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, SIZE)
        os.close(fd)
        self._bytes = memoryview(self._map)
        self.words = self._bytes[: 8 * WORDS].cast("Q")
        self._tail = self._bytes[8 * WORDS :]

    def claimed(self) -> tuple[int, int]:
        """The positions `[lo, hi)` that the runner claimed last."""
        word = self.words[CLAIMED]
        end = word >> CLAIM_BITS
        return end - (word & CLAIM_MOST), end

    def to_blame(self) -> tuple[int, int]:
        """The positions `[lo, hi)` that are to blame if the runner dies now, or takes too much memory."""
        loading, claimed = self.words[LOADING] >> CLAIM_BITS, self.claimed()
        return (loading - 1, loading) if loading > claimed[1] else claimed

    def since_ns(self) -> int:
        """When the task that runs was claimed, if it has a timeout. Read `claimed` first."""
        return self.words[SINCE]

    def set_limit(self, limit: int) -> None:
        """Let the runner claim up to position `limit`, exclusive."""
        self.words[LIMIT] = limit

    def set_interrupt(self, position: int, reason: Reason) -> None:
        """Say which task is to end, and why. A signal makes the runner look."""
        self.words[INTERRUPT] = (position + 1) << REASON_BITS | reason

    def interrupt(self) -> tuple[int, int]:
        """The position that is to end, and the `Reason`; `(-1, 0)` when there is none."""
        word = self.words[INTERRUPT]
        return (word >> REASON_BITS) - 1, word & (1 << REASON_BITS) - 1

    def keep(self, tail: bytes) -> None:
        """Note what the task that runs has printed last."""
        self.words[LENGTH] = 0
        self._tail[: len(tail)] = tail
        self.words[PRINTED] = self.printing()
        self.words[LENGTH] = len(tail)

    def printed(self) -> bytes:
        """What the task that was claimed last has printed last, at most `TAIL_BYTES`."""
        words = self.words
        return bytes(self._tail[: words[LENGTH]]) if words[PRINTED] == self.printing() else b""

    def printing(self) -> int:
        """What tells the lines of one task from those of the next. (A claim is no shorter than one.)"""
        return self.words[LOADING] or self.words[CLAIMED]

    def close(self) -> None:
        """Unmap the words."""
        self.words.release()
        self._tail.release()
        self._bytes.release()
        self._map.close()
