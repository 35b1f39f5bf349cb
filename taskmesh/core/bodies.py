"""Functions as the hub keeps them: unopened, by digest, as long as some spec refers to them."""

from __future__ import annotations

from collections import Counter


class Bodies:
    """Pickled functions and how many specs refer to each. An empty digest means none, and is ignored."""

    def __init__(self) -> None:
        self._data: dict[bytes, bytes] = {}
        self._references: Counter[bytes] = Counter()

    def refer(self, *digests: bytes) -> None:
        """One more spec needs these."""
        self._references.update(digest for digest in digests if digest)

    def put(self, digest: bytes, data: bytes) -> bool:
        """Keep a body, if any spec needs it. Returns whether it is new."""
        if not self._references[digest] or digest in self._data:
            return False
        self._data[digest] = data
        return True

    def get(self, digest: bytes) -> bytes | None:
        """The body, or None when it is not here."""
        return self._data.get(digest)

    def release(self, *digests: bytes) -> list[bytes]:
        """One spec less needs these; returns those that nobody needs any more, which are dropped."""
        dropped = []
        for digest in filter(None, digests):
            self._references[digest] -= 1
            if self._references[digest] <= 0:
                del self._references[digest]
                self._data.pop(digest, None)
                dropped.append(digest)
        return dropped
