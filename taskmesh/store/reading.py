"""Reading a store's file back, when a hub starts."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict

from ..core.chunk import Chunk
from ..core.messages import Limits, Outcome, Spec
from ..core.ranges import Ranges
from ..core.records import SessionSnapshot, Snapshot, SpecSnapshot
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
    chunks: dict[tuple[int, int], list[tuple[Chunk, Ranges]]] = defaultdict(list)
    rows = database.execute(
        "SELECT session, spec, first, base, count, sizes, items, grain, payload, remaining "
        "FROM chunk JOIN leaves ON id = leaves ORDER BY session, spec, first"
    )
    for session, spec, *fields, remaining in rows:
        chunks[session, spec].append((Chunk(*fields), [(lo, hi) for lo, hi in json.loads(remaining)]))
    specs: dict[int, list[SpecSnapshot]] = defaultdict(list)
    rows = database.execute(
        "SELECT session, submitted, timeout_s, memory, at_most_once, number, name, digest, init, priority "
        "FROM spec ORDER BY session, number"
    )
    for session, submitted, timeout_s, memory, at_most_once, *fields in rows:
        spec = Spec._make((*fields, Limits(timeout_s, memory, bool(at_most_once))))
        specs[session].append(SpecSnapshot(spec, submitted, chunks[session, spec.spec]))
    outcomes: dict[int, list[Outcome]] = defaultdict(list)
    for session, *fields in database.execute(
        "SELECT session, spec, first, lo, hi, form, blob FROM outcome ORDER BY position"
    ):
        outcomes[session].append(Outcome(*fields))
    sessions = [
        SessionSnapshot(unsigned(session), name, host, specs[session], outcomes[session])
        for session, name, host in database.execute("SELECT session, name, host FROM session")
    ]
    sessions.sort(key=lambda each: each.session)
    return Snapshot(sessions, dict(database.execute("SELECT digest, data FROM body")))
