"""`Mesh.map`: many calls as few messages, and their results in order, lazily.

Items are pickled into leaves, and leaves are gathered into chunks, as `core.chunking` says. Outcomes are opened in the
consumer's thread, when their turn comes.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import CancelledError
from time import monotonic
from typing import Any, NamedTuple

from .client import Client
from .core import messages as m
from .core.identity import task_id
from .core.ranges import Ranges
from .outcomes import contents, open_failure, unreadable
from .places import Place
from .source import Source
from .wire.payload import loads


class _Part(NamedTuple):
    """Offsets `[lo, hi)` of an outcome: all of it, unless a part of it had come before. Or why they never ran."""

    lo: int
    hi: int
    outcome: m.Outcome | BaseException


class _Chunk:
    """A chunk that was sent: the parts of it that have arrived, by offset, and how much was given out."""

    __slots__ = ("count", "first", "given", "parts")

    def __init__(self, first: int, count: int) -> None:
        self.first = first
        self.count = count
        self.given = 0
        self.parts: dict[int, _Part] = {}


class MapRun:
    """One `map` call: feeds the source to the client, and gives out results in order.

    Parameters
    ----------
    client, place
        Where the calls go.
    source
        Where the items come from.
    buffer
        How many items may be out at once beyond those given out; None: all of them.
    deadline
        Monotonic time at which to stop waiting, or None.
    """

    def __init__(
        self,
        client: Client,
        place: Place,
        source: Source,
        buffer: int | None,
        deadline: float | None,
    ) -> None:
        self._client = client
        self._place = place
        self._source = source
        self._buffer = buffer
        self._deadline = deadline
        self._changed = threading.Condition(threading.Lock())
        self._chunks: deque[_Chunk] = deque()
        self._by_first: dict[int, _Chunk] = {}
        self._early: dict[int, list[_Part]] = {}  # of chunks that are still being sent
        self._error: BaseException | None = None
        self._waiting_for: tuple[int, int] | None = None
        self._out = 0
        self._sent = False  # perhaps: it is written first
        self._dropped = False

    # ---- in -------------------------------------------------------------------------------------------------

    def feed(self) -> None:
        """Send items until the buffer is full or the source is exhausted."""
        while not self._source.exhausted and (self._buffer is None or self._out < self._buffer):
            self._feed_chunk()

    def _feed_chunk(self) -> None:
        leaves: list[bytes] = []
        items: list[int] = []
        size = total = 0
        chunking, began = self._source.chunking, monotonic()
        try:
            while not self._source.exhausted and not chunking.is_whole(total, size, monotonic() - began):
                room = None if self._buffer is None else self._buffer - self._out - total
                if room is not None and room <= 0:
                    break
                leaf = self._source.leaf(room)
                if leaf is None:
                    break
                leaves.append(leaf[0])
                items.append(leaf[1])
                size += len(leaf[0])
                total += leaf[1]
        finally:
            if leaves:
                self._send(leaves, items, total)

    def _send(self, leaves: list[bytes], items: list[int], total: int) -> None:
        self._sent = True
        first, count = self._client.submitter.submit_items(
            self._place, leaves, items, self._source.chunking.grain, self
        )
        with self._changed:
            chunk = _Chunk(first, count)
            self._chunks.append(chunk)
            self._by_first[first] = chunk
            for part in self._early.pop(first, ()):
                chunk.parts[part.lo] = part
        self._out += total

    def deliver(self, outcome: m.Outcome, fresh: Ranges) -> None:
        """Called by the receive thread."""
        self._arrived(outcome.first, fresh, outcome)

    def refuse(self, first: int, left: Ranges, error: BaseException) -> None:
        """Called by the receive thread: the hub did not take a chunk."""
        self._arrived(first, left, error)

    def _arrived(self, first: int, fresh: Ranges, outcome: m.Outcome | BaseException) -> None:
        with self._changed:
            chunk = self._by_first.get(first)
            for lo, hi in fresh:
                part = _Part(lo, hi, outcome)
                if chunk is None:
                    self._early.setdefault(first, []).append(part)
                else:
                    chunk.parts[lo] = part
                    if self._waiting_for == (first, lo):
                        self._changed.notify()

    def fail(self, error: BaseException) -> None:
        """Called by the receive thread: nothing more will come."""
        with self._changed:
            self._error = error
            self._changed.notify()

    # ---- out ------------------------------------------------------------------------------------------------

    def batches(self) -> Iterator[list[Any]]:
        """Lists of results, in order. Leaving early cancels what has not started."""
        try:
            while True:
                if not self._chunks:
                    if self._source.exhausted:
                        self._sent = False  # nothing of it is out any more
                        return
                    self.feed()
                    continue
                part = self._next()
                values, error = self._open(part)
                if values:
                    yield values
                if error is not None:
                    try:
                        raise error
                    finally:
                        error = None
                self._out -= part.hi - part.lo
                if self._buffer is not None:
                    self.feed()
        finally:
            self.drop()

    def drop(self) -> None:
        """Nobody wants the rest. May be called at any time, as finalizers are."""
        if self._sent and not self._dropped:
            self._dropped = True
            self._client.drop(self)

    def _next(self) -> _Part:
        """The part whose turn it is.

        Raises
        ------
        TimeoutError
            It did not come in time.
        """
        chunk = self._chunks[0]
        self._client.before_waiting(self._place.spec)
        with self._changed:
            while chunk.given not in chunk.parts:
                if self._error is not None:
                    raise self._error
                self._waiting_for = (chunk.first, chunk.given)
                left = None if self._deadline is None else self._deadline - monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError(f"map of {self._place.name}: the next result did not come in time")
                self._changed.wait(left)
            self._waiting_for = None
            part = chunk.parts.pop(chunk.given)
            chunk.given = part.hi
            if chunk.given == chunk.count:
                self._chunks.popleft()
                del self._by_first[chunk.first]
        return part

    def _open(self, part: _Part) -> tuple[list[Any], BaseException | None]:
        """The values in a part, and what comes after them when it is an error."""
        name, outcome = self._place.name, part.outcome
        if isinstance(outcome, BaseException):
            return [], outcome
        if outcome.form == m.Form.CANCELLED:
            return [], CancelledError()
        if outcome.form >= m.Form.ERROR:
            task = task_id(self._place.session, self._place.number, outcome.first + outcome.lo)
            return [], open_failure(outcome, name, task)
        values: list[Any] = []
        try:
            if outcome.form == m.Form.LIST:
                values = contents(outcome)
                if (part.lo, part.hi) != (outcome.lo, outcome.hi):
                    values = values[part.lo - outcome.lo : part.hi - outcome.lo]
            else:
                for pickled in contents(outcome)[part.lo - outcome.lo : part.hi - outcome.lo]:
                    values.append(loads(pickled))
        except (Exception, SystemExit) as error:
            return values, unreadable(error, name)
        return values, None
