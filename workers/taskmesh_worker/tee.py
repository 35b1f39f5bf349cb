"""What a task prints goes where it always went, and its last lines also to memory that outlives the runner.

Only what goes through `sys.stdout` and `sys.stderr` is seen: what C code or a child writes to the descriptors is not.
A runner that prints nothing pays nothing: lines belong to the claim under which they are written.
"""

from __future__ import annotations

import io
import sys

from .cells import TAIL_BYTES, Cells


class Tail:
    """The end of what the claimed task has printed."""

    def __init__(self, cells: Cells) -> None:
        self._cells: Cells | None = cells
        self._claim = -1
        self._text = b""

    def add(self, text: str) -> None:
        """The task prints `text`."""
        cells = self._cells
        if cells is None:
            return
        claim = cells.printing()
        if claim != self._claim:
            self._claim, self._text = claim, b""
        self._text = (self._text + text[-TAIL_BYTES:].encode("utf-8", "backslashreplace"))[-TAIL_BYTES:]
        cells.keep(self._text)

    def close(self) -> None:
        """In a fork: what is printed from now on is no task's."""
        self._cells = None


class TeeStream(io.TextIOWrapper):
    """A standard stream whose text is noted before it is written."""

    def __init__(self, stream: io.TextIOWrapper, tail: Tail) -> None:
        super().__init__(
            stream.buffer, stream.encoding, stream.errors, None, stream.line_buffering, stream.write_through
        )
        self._original = stream  # it would close what it wraps if it were collected
        self._tail = tail

    def write(self, text: str, /) -> int:
        """Write, as the stream did."""
        self._tail.add(text)
        return super().write(text)


def tee(cells: Cells) -> Tail:
    """Let the standard streams of this process note what is printed."""
    tail = Tail(cells)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if type(stream) is io.TextIOWrapper:
            stream.flush()
            setattr(sys, name, TeeStream(stream, tail))
    return tail
