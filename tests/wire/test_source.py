"""The arguments of a map, as leaves: what `zip` gives, and no more taken than it takes; lists and ranges are cut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count, islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmesh.core.chunking import Chunking
from taskmesh.errors import PayloadError
from taskmesh.source import Columns, Source
from taskmesh.wire.payload import loads

RANGES = st.builds(range, st.integers(-9, 9), st.integers(-99, 99), st.sampled_from([-7, -1, 1, 3]))
LISTS = st.lists(st.integers(), max_size=99)


class Counted(Iterator[int]):
    """An iterator that knows how many were taken from it."""

    def __init__(self, items: Iterable[int]) -> None:
        self._items = iter(items)
        self.taken = 0

    def __next__(self) -> int:
        item = next(self._items)
        self.taken += 1
        return item


def columns_of(source: Source, at_most: int | None = None) -> Iterator[tuple[Any, ...]]:
    """What a runner finds in each leaf."""
    while not source.exhausted:
        leaf = source.leaf(at_most)
        if leaf is not None:
            data, items = leaf
            loaded = loads(data)
            columns = loaded if type(loaded) is tuple else (loaded,)
            assert {len(column) for column in columns} == {items}
            yield columns


def rows_of(source: Source) -> list[tuple[Any, ...]]:
    return [row for columns in columns_of(source) for row in zip(*columns, strict=True)]


@given(st.lists(RANGES | LISTS | LISTS.map(tuple), min_size=1, max_size=4), st.none() | st.integers(1, 40))
def test_rows_are_those_of_zip(iterables: list[Iterable[int]], chunksize: int | None) -> None:
    expected = list(zip(*iterables, strict=False))
    assert rows_of(Source(Columns(tuple(iterables)), Chunking(chunksize), "f")) == expected


@given(st.lists(RANGES | LISTS, min_size=1, max_size=4), st.integers(0, 3))
def test_no_more_is_taken_than_zip_takes(contents: list[Iterable[int]], cut: int) -> None:
    ours, theirs = (contents[:cut] + [Counted(content) for content in contents[cut:]] for _ in range(2))
    rows_of(Source(Columns(tuple(ours)), Chunking(), "f"))
    for _ in zip(*theirs, strict=False):
        pass
    counted = [(one, other) for one, other in zip(ours, theirs, strict=True) if isinstance(one, Counted)]
    assert all(isinstance(other, Counted) and one.taken <= other.taken for one, other in counted)


def test_one_iterator_may_be_given_twice() -> None:
    letters = iter("abcdefg")
    assert rows_of(Source(Columns((letters, range(9), letters)), Chunking(), "f")) == [
        ("a", 0, "b"),
        ("c", 1, "d"),
        ("e", 2, "f"),
    ]


def test_a_range_travels_as_a_range() -> None:
    source = Source(Columns((range(0, 1_000_000, 3), count())), Chunking(), "f")
    numbers, counted = next(columns_of(source))
    assert numbers == range(0, 48, 3)
    assert counted == list(range(16))
    alone = Source(Columns((range(10**6),)), Chunking(10_000), "f")
    leaf = alone.leaf()
    assert leaf is not None
    assert len(leaf[0]) < 64
    assert loads(leaf[0]) == range(10_000)


def test_a_range_may_be_longer_than_len_can_say() -> None:
    start = 10**30
    source = Source(Columns((range(start, start * 2),)), Chunking(), "f")
    found = [column[0] for (column,) in islice(columns_of(source), 3)]
    assert found == [start, start + 16, start + 48]


def test_a_list_may_grow_while_its_items_are_taken() -> None:
    items = list(range(20))
    found: list[int] = []
    for (column,) in columns_of(Source(Columns((items,)), Chunking(), "f"), at_most=10):
        found += column
        if len(items) < 25:
            items += [20, 21, 22, 23, 24]
    assert found == list(range(25))


def test_leaves_are_no_longer_than_asked() -> None:
    sizes = [len(column) for (column,) in columns_of(Source(Columns((range(10),)), Chunking(), "f"), at_most=4)]
    assert sizes == [4, 4, 2]


def test_nothing_is_taken_beside_an_empty_range() -> None:
    other = Counted(range(5))
    assert rows_of(Source(Columns((other, range(0))), Chunking(), "f")) == []
    assert other.taken == 0


def test_what_is_no_iterable_is_refused_at_once() -> None:
    nothing: Any = 5
    with pytest.raises(TypeError, match="not iterable"):
        Source(Columns((range(3), nothing)), Chunking(), "f")


def test_an_item_that_cannot_be_pickled_is_named_with_its_function() -> None:
    with pytest.raises(PayloadError, match="cannot pickle an item for f: TypeError"):
        Source(Columns(([iter("a"), (letter for letter in "b")],)), Chunking(), "f").leaf()
