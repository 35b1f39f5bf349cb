"""The journal: a hub's records on their way to its store, and what waits for them to be safe there.

Clients' messages are acknowledged when what they led to is committed. The store commits in a thread of its own and
wakes the hub's loop through a pipe.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterable
from typing import Protocol

from .core.records import Record, Snapshot
from .lanes import Lane
from .store.base import OpenStore
from .transport.loop import Loop


class Listener(Protocol):
    """Whom the journal tells."""

    def on_committed(self, records: int) -> None:
        """The first so many records of this hub's life are safe."""

    def on_permitted(self, lane: Lane) -> None:
        """More may be acknowledged on this lane."""

    def on_store_error(self, why: str | None) -> None:
        """The store cannot commit, and why; None: it can again."""


class Journal:
    """Records of one hub.

    Raises
    ------
    StoreError
        The store cannot be opened.
    """

    def __init__(self, open_store: OpenStore, loop: Loop, listener: Listener) -> None:
        self._loop = loop
        self._listener = listener
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        try:
            self._store = open_store(self._wake)
        except BaseException:
            os.close(self._wake_read)
            os.close(self._wake_write)
            raise
        self._records = 0
        self._flushed = 0
        self._batches: deque[tuple[int, int, list[tuple[Lane, int]]]] = deque()  # ticket, records, acknowledgements
        self._error: str | None = None
        loop.watch(self._wake_read, self._on_wake)

    def load(self) -> Snapshot:
        """What was stored before."""
        return self._store.load()

    def append(self, record: Record) -> None:
        """One more record."""
        self._store.append(record)
        self._records += 1

    def flush(self, lanes: Iterable[Lane], now: float) -> None:
        """End of a round: commit what came. What `lanes` of clients have received is acknowledged when that is done."""
        received = [
            (lane, link.seen)
            for lane in lanes
            if (link := lane.stream.link).permitted is not None and link.seen > link.permitted
        ]
        if self._records > self._flushed or (received and self._batches):
            ticket = self._store.flush()
            self._flushed = self._records
            self._batches.append((ticket, self._records, received))
        else:
            for lane, seen in received:
                lane.stream.link.permit(seen, now)

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full: it is awake already; closed: nobody cares any more
            os.write(self._wake_write, b"w")

    def _on_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)
        committed, now = self._store.committed, self._loop.now()
        records = 0
        while self._batches and self._batches[0][0] <= committed:
            _, records, received = self._batches.popleft()
            for lane, seen in received:
                lane.stream.link.permit(seen, now)
                self._listener.on_permitted(lane)
        if records:
            self._listener.on_committed(records)
        if self._store.error != self._error:
            self._error = self._store.error
            self._listener.on_store_error(self._error)

    def close(self) -> None:
        """Commit everything, and let go of the store.

        Raises
        ------
        StoreError
            Not everything could be committed.
        """
        self._store.flush()
        try:
            self._store.close()
        finally:
            self._loop.forget(self._wake_read)
            os.close(self._wake_read)
            os.close(self._wake_write)
