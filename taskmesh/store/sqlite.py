"""A store in one SQLite file: what was committed survives the death of the hub and of the machine.

The hub's thread appends records to a list and hands lists to one writer thread, which is the only one that waits for
the disk. The writer takes all batches that have gathered, reduces them to their effect (`changes.py`) and commits that
in one transaction; only then does `committed` rise. So after any crash the file holds the effect of a prefix of the
batches, and at least of those up to `committed`.

When a commit fails, nothing of it is in the file, and its changes stay in memory: they are tried again with the next
batch, and every second, until the disk has room (or whatever it was) again.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from queue import Empty, SimpleQueue

from ..core.records import Record, Snapshot
from ..errors import StoreError
from .changes import Changes
from .reading import last_position, load
from .schema import STATEMENTS, describe, open_database, roll_back

log = logging.getLogger("taskmesh.store")

RETRY_S = 1.0
GATHER_S = (
    0.005  # after the first batch: more of them cost one commit together, and what is short-lived is never written
)
SLACK_BYTES = 8 << 20  # a file with more unused pages than this is made smaller
VACUUM_PAGES = 500  # at a time, so that a batch does not wait for long
CLOSE = None

Batch = tuple[int, list[Record]]


class SqliteStore:
    """See `taskmesh.store.base.Store`.

    Parameters
    ----------
    path
        The file; it is created if need be, readable by its owner alone, and its directory too. No other process may
        use it meanwhile.
    wake
        Called from the writer thread after each commit, and whenever `error` changes.

    Raises
    ------
    StoreError
        The file cannot be used; the message says why, and what to do.
    """

    def __init__(self, path: Path, wake: Callable[[], None]) -> None:
        self.path = path
        self.committed = 0
        self.error: str | None = None
        self._wake = wake
        self._ticket = 0
        self._batch: list[Record] = []
        self._queue: SimpleQueue[Batch | None] = SimpleQueue()
        self._database = open_database(path)
        self._positions = count(last_position(self._database) + 1)
        self._closed = False
        self._writer = threading.Thread(target=self._run, name="taskmesh-store", daemon=True)
        self._writer.start()

    def load(self) -> Snapshot:
        """Everything stored, once, before the first `append`.

        Raises
        ------
        StoreError
            The file is damaged.
        """
        try:
            return load(self._database)
        except (sqlite3.Error, ValueError) as error:
            raise StoreError(describe(error, self.path)) from error

    def append(self, record: Record) -> None:
        """Add a record to the current batch."""
        self._batch.append(record)

    def flush(self) -> int:
        """Hand the current batch to the writer thread.

        Returns
        -------
        int
            Its ticket, or that of the batch before if nothing was appended.
        """
        if self._batch:
            self._ticket += 1
            self._queue.put((self._ticket, self._batch))
            self._batch = []
        return self._ticket

    def close(self) -> None:
        """Commit everything, and let go of the file.

        Raises
        ------
        StoreError
            Not everything could be committed.
        """
        if self._closed:
            return
        self._closed = True
        self.flush()
        self._queue.put(CLOSE)
        self._writer.join()
        self._database.close()  # the last connection: SQLite moves what is in the log into the file
        if self.committed < self._ticket:
            raise StoreError(f"not everything could be stored in {self.path}: {self.error}")

    # ---- the writer thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._write()
        except BaseException as error:  # a bug; the hub has to know that nothing is stored any more
            log.critical("the store's writer has ended", exc_info=True)
            self.error = f"{self.path} is not written any more: {type(error).__name__}: {error}"
            self._tell()

    def _write(self) -> None:
        changes, ticket, closing = Changes(self._positions), 0, False
        while not closing:
            gathered, closing = self._gather(RETRY_S if ticket > self.committed else None)
            for number, batch in gathered:
                changes.apply(batch)
                ticket = number
            if ticket == self.committed:
                continue
            try:
                self._commit(changes)
            except Exception as error:  # whatever it is, the hub is told, and nothing is lost from memory
                self._failed(error)
                continue
            changes = Changes(self._positions)
            self.committed = ticket
            if self.error is not None:
                log.warning("the store works again: everything is in %s", self.path)
                self.error = None
            self._tell()
            if not closing:  # somebody waits for the end, and to make a large file small takes minutes
                self._shrink()

    def _gather(self, timeout_s: float | None) -> tuple[list[Batch], bool]:
        """Wait for a batch (for so long, or for ever); then those that come soon after. True: they are the last."""
        gathered: list[Batch] = []
        try:
            batch = self._queue.get(timeout=timeout_s)
            if batch is not CLOSE:
                time.sleep(GATHER_S)
            while batch is not CLOSE:
                gathered.append(batch)
                batch = self._queue.get_nowait()
        except Empty:
            return gathered, False
        return gathered, True

    def _commit(self, changes: Changes) -> None:
        database = self._database
        database.execute("BEGIN IMMEDIATE")
        try:
            for name, rows in changes.statements():
                database.executemany(STATEMENTS[name], rows)
            database.execute("COMMIT")
        except BaseException:
            roll_back(database)
            raise

    def _failed(self, error: Exception) -> None:
        if isinstance(error, sqlite3.Error):
            self._try("PRAGMA wal_checkpoint(TRUNCATE)")  # gives back the room that the log takes
        text = describe(error, self.path)
        if text != self.error:
            unexpected = not isinstance(error, sqlite3.Error)
            log.error("%s; it is tried again every second", text, exc_info=error if unexpected else None)
            self.error = text
            self._tell()

    def _tell(self) -> None:
        try:
            self._wake()
        except Exception:
            log.exception("the hub could not be told about a commit")

    def _shrink(self) -> None:
        """While nothing waits: give unused pages back to the disk."""
        while self._queue.empty() and self._unused_bytes() > SLACK_BYTES:
            if not self._try(f"PRAGMA incremental_vacuum({VACUUM_PAGES})") or not self._try("PRAGMA wal_checkpoint"):
                return

    def _unused_bytes(self) -> int:
        try:
            (pages,) = self._database.execute("PRAGMA freelist_count").fetchone()
            (size,) = self._database.execute("PRAGMA page_size").fetchone()
        except sqlite3.Error:  # the next commit will say so
            return 0
        return int(pages * size)

    def _try(self, statement: str) -> bool:
        try:
            self._database.execute(statement).fetchall()
        except sqlite3.Error as error:
            log.debug("%s: %s", statement, error)
            return False
        return True
