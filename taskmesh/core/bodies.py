"""Functions as the hub keeps them: unopened, by digest, as long as some spec refers to them."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .leases import DaemonState


class Bodies:
    """Pickled functions and how many specs refer to each. An empty digest means none, and is ignored."""

    def __init__(self) -> None:
        self._data: dict[bytes, bytes] = {}
        self._references: Counter[bytes] = Counter()
        self._brought: dict[bytes, int] = {}  # by which session; 0: it was stored
        self.bytes: Counter[int] = Counter()  # of what is here, by session
        self._holders: defaultdict[bytes, dict[int, DaemonState]] = defaultdict(dict)  # daemons that were given each

    def refer(self, *digests: bytes) -> None:
        """One more spec needs these."""
        self._references.update(digest for digest in digests if digest)

    def wants(self, digest: bytes) -> bool:
        """Whether a spec needs this body, and it is not here."""
        return digest not in self._data and self._references[digest] > 0

    def put(self, digest: bytes, data: bytes, session: int = 0) -> bool:
        """Keep a body that a session has brought, if any spec needs it. Returns whether it is new."""
        if not self.wants(digest):
            return False
        self._data[digest] = data
        self._brought[digest] = session
        self.bytes[session] += len(data)
        return True

    def get(self, digest: bytes) -> bytes | None:
        """The body, or None when it is not here."""
        return self._data.get(digest)

    def give(self, digest: bytes, daemon: DaemonState) -> bytes | None:
        """The body, if it is here and the daemon does not have it; from now on it has."""
        if digest in daemon.bodies:
            return None
        data = self._data.get(digest)
        if data is not None:
            self.given(digest, daemon)
        return data

    def given(self, digest: bytes, daemon: DaemonState) -> None:
        """A daemon is sent a body that is here."""
        daemon.bodies.add(digest)
        self._holders[digest][daemon.instance] = daemon

    def forget_daemon(self, daemon: DaemonState) -> None:
        """A daemon has lost what it was given, or is gone."""
        for digest in daemon.bodies:
            self._holders[digest].pop(daemon.instance, None)
        daemon.bodies.clear()

    def release(self, *digests: bytes) -> list[bytes]:
        """One spec less needs these; returns those that nobody needs any more, which are dropped."""
        dropped = []
        for digest in filter(None, digests):
            self._references[digest] -= 1
            if self._references[digest] <= 0:
                del self._references[digest]
                self._drop(digest)
                for daemon in self._holders.pop(digest, {}).values():
                    daemon.bodies.discard(digest)
                    daemon.repaired.pop(digest, None)
                dropped.append(digest)
        return dropped

    def _drop(self, digest: bytes) -> None:
        data = self._data.pop(digest, None)
        if data is not None:
            session = self._brought.pop(digest)
            self.bytes[session] -= len(data)
            if not self.bytes[session]:
                del self.bytes[session]
