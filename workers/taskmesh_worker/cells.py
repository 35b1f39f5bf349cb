"""Claim and limit: two 8-byte words of memory that a runner shares with its daemon.

The runner writes `claimed`, the end of what it is about to run, and then reads `limit`. The daemon lowers `limit`,
waits at least 1 ms, and reads `claimed`. One of the two therefore sees the other's word: the wait is longer than any
store takes to leave a processor's buffer. (Dekker's argument, with time in place of a fence.)

`claimed` is `end << 12 | length`, so that one store also says where the claim begins: length is at most 4,095. Both are
aligned, so that loads and stores are single instructions.
"""

from __future__ import annotations

import mmap
import os

from taskmesh.wire.pipe import CLAIM_BITS, CLAIM_MOST

CLAIMED, LIMIT = 0, 1
SIZE = 16


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
    """The two words, mapped. Closes `fd`, which the mapping does not need."""

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, SIZE)
        os.close(fd)
        self.words = memoryview(self._map).cast("Q")

    def claimed(self) -> tuple[int, int]:
        """The positions `[lo, hi)` that the runner claimed last."""
        word = self.words[CLAIMED]
        end = word >> CLAIM_BITS
        return end - (word & CLAIM_MOST), end

    def set_limit(self, limit: int) -> None:
        """Let the runner claim up to position `limit`, exclusive."""
        self.words[LIMIT] = limit

    def close(self) -> None:
        """Unmap the words."""
        self.words.release()
        self._map.close()
