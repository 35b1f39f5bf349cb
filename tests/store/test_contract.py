"""What every store does. A store that is added is added to `STORES`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

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
)
from taskmesh.store import OpenStore, Store, opener

from .model import Bell, Model, chunk, commit, outcome, plain, spec

HUGE = (1 << 64) - 5  # sessions are unsigned
SESSION: list[Record] = [PutSession(HUGE, "script.py", "laptop", b"proof", "client"), PutSpec(HUGE, spec())]


STORES: dict[str, Callable[[Path], str]] = {"sqlite": lambda directory: f"sqlite://{directory}/hub.db"}
"""By kind: the URL of a store in a directory."""


class Opened:
    """A store that can be closed and opened again."""

    def __init__(self, url: str) -> None:
        open_store = opener(url)
        assert open_store is not None
        self._open: OpenStore = open_store
        self.bell = Bell()
        self.store: Store = open_store(self.bell)

    def write(self, *records: Record) -> int:
        return commit(self.store, self.bell, *records)

    def expect_after_reopening(self, *records: Record) -> None:
        """The store holds exactly what these records come to."""
        self.store.close()
        self.store = self._open(self.bell)
        assert plain(self.store.load()) == Model(records).plain()


@pytest.fixture(params=STORES)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opened]:
    it = Opened(STORES[request.param](tmp_path))
    yield it
    it.store.close()


def test_a_new_store_is_empty(opened: Opened) -> None:
    assert plain(opened.store.load()) == ([], {})
    assert opened.store.committed == 0
    assert opened.store.error is None


def test_tickets_rise_with_each_batch_and_an_empty_flush_gives_the_last_one(opened: Opened) -> None:
    assert opened.store.flush() == 0
    first = opened.write(*SESSION)
    second = opened.write(PutBody(b"d" * 16, b"body"))
    assert 0 < first < second == opened.store.flush() == opened.store.committed


def test_what_was_committed_comes_back_as_it_was(opened: Opened) -> None:
    records: list[Record] = [
        *SESSION,
        PutSpec(HUGE, spec(1, "größer")),
        PutSession(7, "", "box", b"p" * 16, "laptop"),
        PutBody(b"d" * 16, b"\0body"),
        PutChunk(HUGE, 0, chunk(0), [(0, 4)]),
        PutChunk(HUGE, 0, chunk(4, 300, 200), [(0, 10), (20, 300)]),
        PutOutcome(HUGE, outcome(1, 8, 3, 9, b"later")),
        PutOutcome(HUGE, outcome(0, 0, 1, 2)),
        PutOutcome(HUGE, outcome(0, 0, 0, 1, b"")),
    ]
    opened.write(*records)
    opened.expect_after_reopening(*records)


@pytest.mark.parametrize("apart", [True, False], ids=["each committed", "in one batch"])
@pytest.mark.parametrize(
    "records",
    [
        [PutChunk(HUGE, 0, chunk(0), [(0, 4)]), PutLeft(HUGE, 0, 0, [(1, 2), (3, 4)])],
        [PutChunk(HUGE, 0, chunk(0), [(0, 4)]), PutLeft(HUGE, 0, 0, [(1, 2)]), PutLeft(HUGE, 0, 0, [])],
        [PutChunk(HUGE, 0, chunk(0), [(0, 4)]), PutChunk(HUGE, 0, chunk(0, fill=b"y"), [(2, 4)])],
        [PutChunk(HUGE, 0, chunk(6), []), PutLeft(HUGE, 0, 6, [(0, 1)])],
        [PutOutcome(HUGE, outcome()), DropOutcome(HUGE, 0, 0, 0, 1)],
        [PutOutcome(HUGE, outcome()), PutOutcome(HUGE, outcome(lo=2, hi=3)), PutOutcome(HUGE, outcome(blob=b"new"))],
        [PutOutcome(HUGE, outcome()), DropOutcome(HUGE, 0, 0, 0, 1), PutOutcome(HUGE, outcome(blob=b"again"))],
        [PutOutcome(HUGE, outcome()), PutOutcome(HUGE, outcome(hi=2)), DropOutcome(HUGE, 0, 0, 0, 1)],
        [PutBody(b"d" * 16, b"one"), PutBody(b"d" * 16, b"two")],
        [PutBody(b"d" * 16, b"one"), DropBody(b"d" * 16), PutBody(b"d" * 16, b"two")],
        [PutBody(b"d" * 16, b"one"), DropBody(b"d" * 16)],
        [PutChunk(HUGE, 0, chunk(5), [(0, 4)]), PutSpec(HUGE, spec(name="g"))],
        [PutChunk(HUGE, 0, chunk(5), [(0, 4)]), PutOutcome(HUGE, outcome()), DropSpec(HUGE, 0)],
        [PutChunk(HUGE, 0, chunk(5), [(0, 4)]), DropSpec(HUGE, 0), PutSpec(HUGE, spec(name="new"))],
        [PutChunk(HUGE, 0, chunk(5), [(0, 4)]), PutOutcome(HUGE, outcome()), DropSession(HUGE)],
        [PutChunk(HUGE, 0, chunk(5), [(0, 4)]), DropSession(HUGE), *SESSION],
        [DropOutcome(1, 2, 3, 4, 5), DropSpec(1, 2), DropSession(3), DropBody(b"?"), PutLeft(HUGE, 0, 9, [(0, 1)])],
    ],
    ids=lambda records: "-".join(type(record).__name__ for record in records),
)
def test_records_of_one_thing_come_to_the_same_together_and_apart(
    opened: Opened, records: list[Record], apart: bool
) -> None:
    opened.write(*SESSION)
    if apart:
        for record in records:
            opened.write(record)
    else:
        opened.write(*records)
    opened.expect_after_reopening(*SESSION, *records)


def test_how_far_a_spec_was_submitted_outlives_its_chunks(opened: Opened) -> None:
    ended: list[Record] = [PutChunk(HUGE, 0, chunk(0, 100), [(0, 100)]), PutLeft(HUGE, 0, 0, [])]
    opened.write(*SESSION, *ended)
    opened.expect_after_reopening(*SESSION, *ended)
    assert opened.store.load().sessions[0].specs[0].submitted == 100


def test_closing_commits_what_was_appended_and_a_second_time_does_nothing(opened: Opened) -> None:
    for record in SESSION:
        opened.store.append(record)
    opened.store.close()
    opened.store.close()
    opened.expect_after_reopening(*SESSION)


def test_outcomes_keep_their_order_across_a_restart(opened: Opened) -> None:
    first: list[Record] = [*SESSION, *(PutOutcome(HUGE, outcome(lo=lo, hi=lo + 1)) for lo in (5, 3))]
    then: list[Record] = [PutOutcome(HUGE, outcome(lo=lo, hi=lo + 1)) for lo in (4, 1)]
    opened.write(*first)
    opened.expect_after_reopening(*first)
    opened.write(*then)
    opened.expect_after_reopening(*first, *then)
