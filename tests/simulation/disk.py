"""A disk that outlives its hubs, and the store on it: commits come late, and a crash loses what is not committed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from taskmesh.core import records as r
from taskmesh.core.chunk import Chunk
from taskmesh.core.messages import Outcome, Spec
from taskmesh.core.ranges import Ranges

if TYPE_CHECKING:
    from .world import World


class _Spec:
    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.submitted = 0
        self.chunks: dict[int, tuple[Chunk, Ranges]] = {}


class _Session:
    def __init__(self, name: str, host: str, proof: bytes, ticket: str) -> None:
        self.name, self.host, self.proof, self.ticket = name, host, proof, ticket
        self.specs: dict[int, _Spec] = {}
        self.outcomes: dict[tuple[int, int, int, int], Outcome] = {}


class Disk:
    """What has been committed. `commit_s`: how long a commit takes; `full`: why none can be made."""

    def __init__(self, world: World, commit_s: float) -> None:
        self.world = world
        self.rank = world.rank()
        self.commit_s = commit_s
        self.full: str | None = None
        self.sessions: dict[int, _Session] = {}
        self.bodies: dict[bytes, bytes] = {}
        self.store: MemoryStore | None = None

    def open(self, wake: Callable[[], None]) -> MemoryStore:
        """The store of a new hub."""
        self.store = MemoryStore(self, wake)
        return self.store

    def set_full(self, why: str | None) -> None:
        """Let commits fail, or work again."""
        self.full = why
        if self.store is not None:
            self.store.try_again()

    def snapshot(self) -> r.Snapshot:
        """Everything that was committed."""
        return r.Snapshot(
            [
                r.SessionSnapshot(
                    number, s.name, s.host,
                    [r.SpecSnapshot(k.spec, k.submitted, list(k.chunks.values())) for k in s.specs.values()],
                    list(s.outcomes.values()),
                    s.proof, s.ticket,
                )
                for number, s in self.sessions.items()
            ],
            dict(self.bodies),
        )  # fmt: skip

    def apply(self, record: r.Record) -> None:
        """Commit one record."""
        match record:
            case r.PutSession(session, name, host, proof, ticket):
                known = self.sessions.setdefault(session, _Session(name, host, proof, ticket))
                known.ticket = ticket
            case r.DropSession(session):
                del self.sessions[session]
            case r.PutSpec(session, spec):
                self.sessions[session].specs[spec.spec] = _Spec(spec)
            case r.DropSpec(session, number):
                del self.sessions[session].specs[number]
            case r.PutBody(digest, data):
                self.bodies[digest] = data
            case r.DropBody(digest):
                self.bodies.pop(digest, None)
            case r.PutChunk(session, number, chunk, left):
                stored = self.sessions[session].specs[number]
                stored.submitted = chunk.first + chunk.count
                stored.chunks[chunk.first] = chunk, list(left)
            case r.PutLeft(session, number, first, left):
                if left:
                    chunks = self.sessions[session].specs[number].chunks
                    chunks[first] = chunks[first][0], list(left)
                elif number in self.sessions[session].specs:
                    self.sessions[session].specs[number].chunks.pop(first, None)
            case r.PutOutcome(session, o):
                self.sessions[session].outcomes[o.spec, o.first, o.lo, o.hi] = o
            case r.DropOutcome(session, number, first, lo, hi):
                del self.sessions[session].outcomes[number, first, lo, hi]


class MemoryStore:
    """The `Store` of one hub on a disk."""

    def __init__(self, disk: Disk, wake: Callable[[], None]) -> None:
        self._disk = disk
        self._wake = wake
        self._batch: list[r.Record] = []
        self._waiting: deque[list[r.Record]] = deque()
        self._busy = False
        self._tickets = 0
        self._gone = False
        self.committed = 0
        self.error: str | None = None

    def load(self) -> r.Snapshot:
        return self._disk.snapshot()

    def append(self, record: r.Record) -> None:
        self._batch.append(record)

    def flush(self) -> int:
        if self._batch:
            self._tickets += 1
            self._waiting.append(self._batch)
            self._batch = []
            self._start()
        return self._tickets

    def _start(self) -> None:
        if self._waiting and not self._busy and not self._gone and self._disk.full is None:
            self._busy = True
            batches = len(self._waiting)
            self._disk.world.after(self._disk.commit_s, self._disk.rank, lambda: self._commit(batches))

    def _commit(self, batches: int) -> None:
        self._busy = False
        if self._gone or self._disk.full is not None:
            return
        for _ in range(batches):
            for record in self._waiting.popleft():
                self._disk.apply(record)
            self.committed += 1
        self._wake()
        self._start()

    def try_again(self) -> None:
        """The disk is full, or is not any more."""
        if not self._gone:
            self.error = self._disk.full
            self._wake()
            self._start()

    def crash(self, batches: int) -> None:
        """The hub dies; so many of the batches on the way were committed."""
        self._gone = True
        for _ in range(min(batches, len(self._waiting)) if self._disk.full is None else 0):
            for record in self._waiting.popleft():
                self._disk.apply(record)

    def close(self) -> None:
        if not self._gone:
            self.crash(len(self._waiting))
