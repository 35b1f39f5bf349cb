"""What a hub needs of a store. `tests/store` holds every implementation to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..core.records import Record, Snapshot


class Store(Protocol):
    """Keeps records. All methods belong to the hub's thread, and none but `load` and `close` waits for a disk.

    Attributes
    ----------
    committed
        Every batch up to this ticket will survive the death of this process and of the machine.
    error
        Why the last commit failed, in words for people ("the disk is full: …"), or None. A store with an error keeps
        what it was given in memory and goes on trying; the hub takes no new work meanwhile.
    """

    @property
    def committed(self) -> int: ...
    @property
    def error(self) -> str | None: ...

    def load(self) -> Snapshot:
        """Everything stored, once, before the first `append`."""

    def append(self, record: Record) -> None:
        """Add a record to the current batch."""

    def flush(self) -> int:
        """End the current batch and hand it on to be committed.

        Returns
        -------
        int
            Its ticket; tickets rise. With nothing appended, the ticket of the batch before.
        """

    def close(self) -> None:
        """Commit everything, and let go. A second time it does nothing.

        Raises
        ------
        StoreError
            Not everything could be committed. The store is closed all the same.
        """


OpenStore = Callable[[Callable[[], None]], Store]
"""Opens a store; it calls what it is given when `committed` has risen or `error` has changed, from any thread."""
