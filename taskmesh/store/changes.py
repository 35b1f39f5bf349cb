"""What several batches of records come to, as rows to write. Pure: `sqlite.py` runs the statements.

Records that undo each other within one commit never reach the disk: a chunk that was accepted and has ended meanwhile,
an outcome that its client already has. What stays of them is how far their spec was submitted, so that a chunk that is
offered again is known. The rule: after `statements()` the tables are as if every record had been written by itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import Any

from ..core.messages import Outcome, Spec
from ..core.ranges import Ranges
from ..core.records import (
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
)

Rows = list[tuple[Any, ...]]


def signed(number: int) -> int:
    """An unsigned 64-bit number as the signed one with the same bits: SQLite's integers have a sign."""
    return number - (1 << 64) if number >= 1 << 63 else number


def unsigned(number: int) -> int:
    """The inverse of `signed`."""
    return number + (1 << 64) if number < 0 else number


class _SpecChanges:
    """What became of one spec. None in `chunks` and `outcomes`: whatever is stored under this key goes."""

    __slots__ = ("chunks", "dropped", "left", "outcomes", "spec", "submitted")

    def __init__(self, dropped: bool) -> None:
        self.dropped = dropped
        self.spec: Spec | None = None
        self.submitted = 0
        self.chunks: dict[int, PutChunk | None] = {}
        self.left: dict[int, Ranges] = {}  # of chunks that are stored already
        self.outcomes: dict[tuple[int, int, int], tuple[int, Outcome] | None] = {}


class _SessionChanges:
    """What became of one session."""

    __slots__ = ("dropped", "session", "specs")

    def __init__(self, dropped: bool) -> None:
        self.dropped = dropped
        self.session: PutSession | None = None
        self.specs: dict[int, _SpecChanges] = {}


class Changes:
    """The effect of the batches that one commit will hold.

    Parameters
    ----------
    positions
        Gives the next position of an outcome or of a chunk's leaves. It must go on rising from one commit to the next.
    """

    def __init__(self, positions: count[int]) -> None:
        self._positions = positions
        self._sessions: dict[int, _SessionChanges] = {}
        self._bodies: dict[bytes, bytes] = {}
        self._dropped_bodies: set[bytes] = set()

    def apply(self, batch: Iterable[Record]) -> None:
        """Add the records of a batch, in order."""
        for record in batch:
            _APPLY[type(record)](self, record)

    def _session(self, session: int) -> _SessionChanges:
        found = self._sessions.get(session)
        if found is None:
            found = self._sessions[session] = _SessionChanges(dropped=False)
        return found

    def _spec(self, session: int, number: int) -> _SpecChanges:
        specs = self._session(session).specs
        found = specs.get(number)
        if found is None:
            found = specs[number] = _SpecChanges(dropped=False)
        return found

    def _put_session(self, record: PutSession) -> None:
        self._session(record.session).session = record

    def _drop_session(self, record: DropSession) -> None:
        self._sessions[record.session] = _SessionChanges(dropped=True)

    def _put_spec(self, record: PutSpec) -> None:
        self._spec(record.session, record.spec.spec).spec = record.spec

    def _drop_spec(self, record: DropSpec) -> None:
        self._session(record.session).specs[record.number] = _SpecChanges(dropped=True)

    def _put_body(self, record: PutBody) -> None:
        self._bodies.setdefault(record.digest, record.data)

    def _drop_body(self, record: DropBody) -> None:
        self._bodies.pop(record.digest, None)
        self._dropped_bodies.add(record.digest)

    def _put_chunk(self, record: PutChunk) -> None:
        changes, chunk = self._spec(record.session, record.spec), record.chunk
        changes.submitted = max(changes.submitted, chunk.first + chunk.end)
        changes.chunks[chunk.first] = record if record.left else None
        changes.left.pop(chunk.first, None)

    def _put_left(self, record: PutLeft) -> None:
        changes, first = self._spec(record.session, record.spec), record.first
        if not record.left:
            changes.chunks[first] = None
            changes.left.pop(first, None)
        elif first not in changes.chunks:
            changes.left[first] = record.left
        else:
            new = changes.chunks[first]
            if new is not None:
                changes.chunks[first] = new._replace(left=record.left)

    def _put_outcome(self, record: PutOutcome) -> None:
        outcome = record.outcome
        changes = self._spec(record.session, outcome.spec)
        changes.outcomes[outcome.first, outcome.lo, outcome.hi] = (next(self._positions), outcome)

    def _drop_outcome(self, record: DropOutcome) -> None:
        self._spec(record.session, record.spec).outcomes[record.first, record.lo, record.hi] = None

    def statements(self) -> Iterator[tuple[str, Rows]]:
        """Names of statements (sql/statements.sql) and their rows, in the order in which to run them."""
        rows: dict[str, Rows] = {}

        def write(name: str, *row: object) -> None:
            rows.setdefault(name, []).append(row)

        for session, changes in self._sessions.items():
            key = signed(session)
            if changes.dropped:
                for name in DROP_SESSION:
                    write(name, key)
            if changes.session is not None:
                write("put_session", key, *changes.session[1:])
            for number, spec in changes.specs.items():
                self._write_spec(write, key, number, spec)
        for digest in self._dropped_bodies:
            write("drop_body", digest)
        for digest, data in self._bodies.items():
            write("put_body", digest, data)
        for name in ORDER:
            if name in rows:
                yield name, rows[name]

    def _write_spec(self, write: Callable[..., None], key: int, number: int, changes: _SpecChanges) -> None:
        if changes.dropped:
            for name in DROP_SPEC:
                write(name, key, number)
        if changes.spec is not None:
            spec, limits = changes.spec, changes.spec.limits
            write(
                "put_spec", key, number, spec.name, spec.digest, spec.init, spec.priority,
                limits.timeout_s, limits.memory, limits.at_most_once,
            )  # fmt: skip
        if changes.submitted:
            write("raise_submitted", changes.submitted, key, number)
        for first, put in changes.chunks.items():
            write("drop_leaves", key, number, first)
            write("drop_chunk", key, number, first)
            if put is not None:
                chunk, leaves = put.chunk, next(self._positions)
                write("put_leaves", leaves, chunk.sizes, chunk.items, chunk.payload)
                write(
                    "put_chunk", key, number, first, chunk.base, chunk.count, chunk.grain, json.dumps(put.left), leaves
                )
        for first, left in changes.left.items():
            write("put_remaining", json.dumps(left), key, number, first)
        for (first, lo, hi), entry in changes.outcomes.items():
            write("drop_outcome", key, number, first, lo, hi)
            if entry is not None:
                position, outcome = entry
                write("put_outcome", position, key, number, first, lo, hi, outcome.form, outcome.blob)


DROP_SESSION = (
    "drop_session_outcomes", "drop_session_leaves", "drop_session_chunks", "drop_session_specs", "drop_session",
)  # fmt: skip
DROP_SPEC = ("drop_spec_outcomes", "drop_spec_leaves", "drop_spec_chunks", "drop_spec")
ORDER = (
    *DROP_SESSION, "put_session", *DROP_SPEC, "put_spec", "raise_submitted",
    "drop_leaves", "drop_chunk", "put_leaves", "put_chunk", "put_remaining",
    "drop_outcome", "put_outcome", "drop_body", "put_body",
)  # fmt: skip

_APPLY: dict[type, Callable[[Changes, Any], None]] = {
    PutSession: Changes._put_session,
    DropSession: Changes._drop_session,
    PutSpec: Changes._put_spec,
    DropSpec: Changes._drop_spec,
    PutBody: Changes._put_body,
    DropBody: Changes._drop_body,
    PutChunk: Changes._put_chunk,
    PutLeft: Changes._put_left,
    PutOutcome: Changes._put_outcome,
    DropOutcome: Changes._drop_outcome,
}
