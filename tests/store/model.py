"""What a store must hold after a sequence of records, said in the plainest way; and stores to try it on."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from taskmesh.core.chunk import Chunk, pack_sizes
from taskmesh.core.messages import Form, Limits, Outcome, Spec
from taskmesh.core.ranges import Ranges
from taskmesh.core.records import (
    DropBody,
    DropOutcome,
    DropSession,
    DropSpec,
    PutBody,
    PutChunk,
    PutLeft,
    PutOutcome,
    PutSession,
    PutSpec,
    Record,
    Snapshot,
)
from taskmesh.store import Store
from taskmesh.store.sqlite import SqliteStore

DEADLINE_S = 60.0


def chunk(first: int = 0, tasks: int = 4, size: int = 10, fill: bytes = b"x") -> Chunk:
    """A chunk of `tasks` calls of `size` bytes each."""
    return Chunk(first, 0, tasks, pack_sizes([size] * tasks), b"", 1, fill * (size * tasks))


def spec(number: int = 0, name: str = "f") -> Spec:
    """A spec with every option set."""
    return Spec(number, name, b"d" * 16, b"", -3, Limits(1.5, 1 << 30, True))


def outcome(number: int = 0, first: int = 0, lo: int = 0, hi: int = 1, blob: bytes = b"result") -> Outcome:
    """Some outcome."""
    return Outcome(number, first, lo, hi, int(Form.LIST), blob)


# A chunk without `_starts` and such: what two equal ones have in common.
PlainChunk = tuple[int, int, int, bytes, bytes, int, bytes]
PlainSpec = tuple[Spec, int, list[tuple[PlainChunk, Ranges]]]
PlainSession = tuple[int, str, str, list[PlainSpec], list[Outcome], bytes, str]
Plain = tuple[list[PlainSession], dict[bytes, bytes]]


def plain_chunk(c: Chunk) -> PlainChunk:
    """A chunk's fields."""
    return c.first, c.base, c.count, c.sizes, c.items, c.grain, c.payload


def plain(snapshot: Snapshot) -> Plain:
    """A snapshot that can be compared."""
    return [
        (
            s.session, s.name, s.host,
            [(p.spec, p.submitted, [(plain_chunk(c), list(left)) for c, left in p.chunks]) for p in s.specs],
            s.outcomes, s.proof, s.ticket,
        )
        for s in snapshot.sessions
    ], snapshot.bodies  # fmt: skip


class Model:
    """What is stored when `records` have been written, each by itself."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self.sessions: dict[int, tuple[str, str, bytes, str]] = {}
        self.specs: dict[tuple[int, int], Spec] = {}
        self.submitted: dict[tuple[int, int], int] = {}
        self.chunks: dict[tuple[int, int, int], tuple[Chunk, Ranges]] = {}
        self.outcomes: dict[tuple[int, int, int, int, int], Outcome] = {}
        self.bodies: dict[bytes, bytes] = {}
        for record in records:
            self.apply(record)

    def apply(self, record: Record) -> None:
        """Write one record."""
        match record:
            case PutSession(session, name, host, proof, ticket):
                self.sessions[session] = (name, host, proof, ticket)
            case DropSession(session):
                self.sessions.pop(session, None)
                for table in (self.specs, self.submitted, self.chunks, self.outcomes):
                    self._drop(table, (session,))
            case PutSpec(session, new):
                self.specs[session, new.spec] = new
                self.submitted.setdefault((session, new.spec), 0)
            case DropSpec(session, number):
                for table in (self.specs, self.submitted, self.chunks, self.outcomes):
                    self._drop(table, (session, number))
            case PutBody(digest, data):
                self.bodies.setdefault(digest, data)
            case DropBody(digest):
                self.bodies.pop(digest, None)
            case PutChunk(session, number, new, left):
                self.submitted[session, number] = max(self.submitted[session, number], new.first + new.count)
                self.chunks[session, number, new.first] = (new, left)
                self._ended(session, number, new.first)
            case PutLeft(session, number, first, left):
                if (session, number, first) in self.chunks:
                    self.chunks[session, number, first] = (self.chunks[session, number, first][0], left)
                    self._ended(session, number, first)
            case PutOutcome(session, new):
                key = (session, new.spec, new.first, new.lo, new.hi)
                self.outcomes.pop(key, None)
                self.outcomes[key] = new
            case DropOutcome(session, number, first, lo, hi):
                self.outcomes.pop((session, number, first, lo, hi), None)

    def _ended(self, *key: int) -> None:
        session, number, first = key
        if not self.chunks[session, number, first][1]:
            del self.chunks[session, number, first]

    @staticmethod
    def _drop(table: dict[Any, Any], prefix: tuple[int, ...]) -> None:
        for key in [key for key in table if key[: len(prefix)] == prefix]:
            del table[key]

    def plain(self) -> Plain:
        """What `load` must return, by `plain`."""
        return [
            (
                session, name, host,
                [
                    (
                        each, self.submitted[session, number],
                        [
                            (plain_chunk(c), left)
                            for key, (c, left) in sorted(self.chunks.items())
                            if key[:2] == (session, number)
                        ],
                    )
                    for (owner, number), each in sorted(self.specs.items())
                    if owner == session
                ],
                [each for key, each in self.outcomes.items() if key[0] == session], proof, ticket,
            )
            for session, (name, host, proof, ticket) in sorted(self.sessions.items())
        ], dict(self.bodies)  # fmt: skip


class Bell:
    """A `wake` that can be waited for, with a deadline."""

    def __init__(self) -> None:
        self._rung = threading.Condition()
        self.count = 0
        self.threads: set[str] = set()

    def __call__(self) -> None:
        with self._rung:
            self.count += 1
            self.threads.add(threading.current_thread().name)
            self._rung.notify_all()

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until `condition` holds; it is looked at after every ring."""
        ends = time.monotonic() + DEADLINE_S
        with self._rung:
            while not condition():
                assert time.monotonic() < ends, f"not in time: {what}"
                self._rung.wait(timeout=0.1)


def commit(store: Store, bell: Bell, *records: Record) -> int:
    """Append, flush, and wait until it is committed."""
    for record in records:
        store.append(record)
    ticket = store.flush()
    bell.until(lambda: store.committed >= ticket, f"ticket {ticket} (error: {store.error})")
    return ticket


def crashed(path: Path, to: Path, wal_bytes: int | None = None) -> Path:
    """The files as they are now, copied to a new directory: what a hub finds that is started after a crash."""
    to.mkdir(parents=True)
    copy = to / path.name
    shutil.copyfile(path, copy)
    copy.chmod(0o600)
    wal = Path(f"{path}-wal")
    if wal.exists():
        Path(f"{copy}-wal").write_bytes(wal.read_bytes()[:wal_bytes])
    return copy


def stored(path: Path) -> Plain:
    """What a store's file holds."""
    store = SqliteStore(path, lambda: None)
    try:
        return plain(store.load())
    finally:
        store.close()
