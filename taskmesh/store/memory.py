"""A store that keeps nothing: what a hub has accepted lives as long as its process."""

from __future__ import annotations

from ..core.records import Record, Snapshot


class MemoryStore:
    """Every batch counts as committed at once, and nothing comes back."""

    def __init__(self) -> None:
        self.committed = 0
        self.error: str | None = None
        self._appended = False

    def load(self) -> Snapshot:
        """Nothing."""
        return Snapshot([], {})

    def append(self, record: Record) -> None:
        """Forget the record."""
        self._appended = True

    def flush(self) -> int:
        """The ticket of a batch that is committed already."""
        if self._appended:
            self._appended = False
            self.committed += 1
        return self.committed

    def close(self) -> None:
        """Nothing to let go of."""
