"""Reading a store's file back, when a hub starts. What is in it is checked as if a peer had sent it: see `wire`."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from typing import Any, cast

from ..core.chunk import Chunk
from ..core.limits import NUMBER
from ..core.messages import Outcome, Results, Spec, Submit
from ..core.ranges import Ranges
from ..core.records import SessionSnapshot, Snapshot, SpecSnapshot
from ..wire.messages import check
from .changes import unsigned


def last_position(database: sqlite3.Connection) -> int:
    """The highest position that an outcome or a chunk's leaves have."""
    (outcome,) = database.execute("SELECT coalesce(max(position), 0) FROM outcome").fetchone()
    (leaves,) = database.execute("SELECT coalesce(max(id), 0) FROM leaves").fetchone()
    return int(max(outcome, leaves))


def load(database: sqlite3.Connection) -> Snapshot:
    """Everything that is stored: sessions and specs by number, chunks by their first task, outcomes as they were put.

    Raises
    ------
    sqlite3.Error, ValueError
        The file is damaged.
    """
    try:
        return _load(database)
    except sqlite3.Error:
        raise
    except Exception as error:  # SQLite keeps anything in any column; whatever does not fit means the same
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _load(database: sqlite3.Connection) -> Snapshot:
    chunks: dict[tuple[int, int], list[tuple[Chunk, Ranges]]] = defaultdict(list)
    rows = database.execute(
        "SELECT session, spec, first, base, count, sizes, items, grain, payload, remaining "
        "FROM chunk JOIN leaves ON id = leaves ORDER BY session, spec, first"
    )
    for session, spec, *fields in rows:
        chunks[session, spec].append(read_chunk(spec, fields))
    specs: dict[int, list[SpecSnapshot]] = defaultdict(list)
    rows = database.execute(
        "SELECT session, submitted, timeout_s, memory, at_most_once, number, name, digest, init, priority "
        "FROM spec ORDER BY session, number"
    )
    for session, submitted, *fields in rows:
        known = read_spec(fields)
        specs[session].append(SpecSnapshot(known, _number(submitted), chunks[session, known.spec]))
    outcomes: dict[int, list[Outcome]] = defaultdict(list)
    for session, *fields in database.execute(
        "SELECT session, spec, first, lo, hi, form, blob FROM outcome ORDER BY position"
    ):
        outcomes[session].append(read_outcome(fields))
    sessions = [
        SessionSnapshot(
            unsigned(session), str(name), str(host), specs[session], outcomes[session], bytes(proof), str(ticket)
        )
        for session, name, host, proof, ticket in database.execute(
            "SELECT session, name, host, proof, ticket FROM session"
        )
    ]
    sessions.sort(key=lambda each: each.session)
    bodies = {bytes(digest): bytes(data) for digest, data in database.execute("SELECT digest, data FROM body")}
    return Snapshot(sessions, bodies)


def read_chunk(spec: Any, fields: list[Any]) -> tuple[Chunk, Ranges]:
    """A chunk, and what of it has not ended.

    Raises
    ------
    Exception
        The row is none.
    """
    *table, remaining = fields
    submit = cast(Submit, check(Submit, [spec, tuple(table), tuple(json.loads(remaining))]))
    if not submit.left:
        raise ValueError(f"nothing of chunk {submit.chunk.first} is left")
    return submit.chunk, list(submit.left)


def read_spec(fields: list[Any]) -> Spec:
    """A function of a session.

    Raises
    ------
    Exception
        The row is none.
    """
    timeout_s, memory, at_most_once, *rest = fields
    return cast(Spec, check(Spec, [*rest, (timeout_s, memory, bool(at_most_once))]))


def read_outcome(fields: list[Any]) -> Outcome:
    """An outcome that its client has not acknowledged.

    Raises
    ------
    Exception
        The row is none.
    """
    (outcome,) = cast(Results, check(Results, [(tuple(fields),)])).outcomes
    return outcome


def _number(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value <= NUMBER:
        raise ValueError(f"{value!r} is no number of tasks")
    return value
