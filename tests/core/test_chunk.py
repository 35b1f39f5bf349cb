"""Cutting chunks: a cut is the fewest whole leaves that hold a range, and offsets keep their meaning in it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmesh.core.chunk import Chunk, pack_sizes, unpack_sizes


def chunk_of(leaves: list[int], *, items: bool, first: int = 0) -> Chunk:
    """Each task is one byte, its offset, so that a cut shows what is in it."""
    total = sum(leaves)
    payload = bytes(range(total)) if total < 256 else bytes(total)
    sizes = leaves if items else [1] * total
    return Chunk(first, 0, total, pack_sizes(sizes), pack_sizes(leaves) if items else b"", 1, payload)


@given(
    leaves=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    items=st.booleans(),
    cuts=st.lists(st.tuples(st.integers(0, 99), st.integers(1, 99)), min_size=1, max_size=4),
)
def test_a_cut_of_a_cut_holds_its_range_in_whole_leaves_and_nothing_more(
    leaves: list[int], items: bool, cuts: list[tuple[int, int]]
) -> None:
    cut = chunk_of(leaves, items=items)
    bounds = {sum(leaves[:n]) for n in range(len(leaves) + 1)} if items else set(range(cut.count + 1))
    for start, length in cuts:
        lo = cut.base + start % cut.count
        hi = min(cut.end, lo + length)
        cut = cut.cut(lo, hi)
        assert cut.fault() is None
        assert cut.payload == bytes(range(cut.base, cut.end))
        assert cut.base == max(bound for bound in bounds if bound <= lo)
        assert cut.end == min(bound for bound in bounds if bound >= hi)


def test_a_cut_of_everything_is_the_chunk_itself() -> None:
    chunk = chunk_of([3, 2], items=True)
    assert chunk.cut(0, 5) is chunk


def test_a_cut_between_leaves_is_found() -> None:
    chunk = Chunk(7, 0, 9, pack_sizes([1, 1, 1]), pack_sizes([4, 2, 3]), 1, b"abc")
    assert [chunk.whole_leaves(0, hi) for hi in range(1, 10)] == [1, 2, 3, 4, 4, 6, 6, 6, 9]
    assert chunk.whole_leaves(4, 5) == 5, "no leaf ends there: cut it"
    assert chunk.cut(4, 9).whole_leaves(4, 8) == 6, "in a cut as well"
    calls = Chunk(7, 0, 3, pack_sizes([1, 1, 1]), b"", 1, b"abc")
    assert calls.whole_leaves(0, 2) == 2


@given(st.lists(st.integers(0, 2**32 - 1)))
def test_sizes_travel_as_little_endian_words(values: list[int]) -> None:
    packed = pack_sizes(values)
    assert list(unpack_sizes(packed)) == values
    assert packed == b"".join(value.to_bytes(4, "little") for value in values)


GOOD = Chunk(5, 0, 3, pack_sizes([4, 2]), pack_sizes([2, 1]), 1, b"abcdef")


def test_a_good_chunk_has_no_fault() -> None:
    assert GOOD.fault() is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("first", -1), ("base", -1), ("grain", 0), ("grain", -4), ("count", 0), ("count", 4), ("count", -3),
        ("sizes", pack_sizes([4, 3])), ("sizes", pack_sizes([6])), ("sizes", b"abc"), ("sizes", b""),
        ("items", b""), ("items", pack_sizes([3, 0])), ("items", b"abcde"), ("items", pack_sizes([1, 1, 1])),
        ("items", pack_sizes([2**32 - 1, 4])), ("payload", b"abcde"), ("payload", b""),
    ],
)  # fmt: skip
def test_a_table_that_does_not_fit_is_a_fault(field: str, value: int | bytes) -> None:
    fields = {name: getattr(GOOD, name) for name in ("first", "base", "count", "sizes", "items", "grain", "payload")}
    assert Chunk(**(fields | {field: value})).fault() is not None
