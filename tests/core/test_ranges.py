"""Ranges against sets: whatever is done to a list of ranges, the set of its offsets says what should come out."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from taskmesh.core.ranges import Ranges, add, count, covers, normal, overlap, subtract, union, within, without

BOUND = st.integers(0, 30)


def offsets(ranges: Ranges) -> set[int]:
    return {offset for lo, hi in ranges for offset in range(lo, hi)}


class RangesAgainstSets(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.ranges: Ranges = []
        self.model: set[int] = set()

    @rule(lo=BOUND, hi=BOUND)
    def adds(self, lo: int, hi: int) -> None:
        before = list(self.ranges)
        after = add(self.ranges, lo, hi)
        assert self.ranges == before, "the old list is left alone"
        self.ranges = after
        self.model |= set(range(lo, hi))

    @rule(lo=BOUND, hi=BOUND)
    def subtracts(self, lo: int, hi: int) -> None:
        if lo < hi:
            before = list(self.ranges)
            after = subtract(self.ranges, lo, hi)
            assert self.ranges == before, "the old list is left alone"
            self.ranges = after
            self.model -= set(range(lo, hi))

    @rule(lo=BOUND, hi=BOUND)
    def overlaps(self, lo: int, hi: int) -> None:
        if lo >= hi:
            return
        found = overlap(self.ranges, lo, hi)
        assert offsets(found) == self.model & set(range(lo, hi))
        assert all(a < b for a, b in found)

    @invariant()
    def they_are_sorted_disjoint_and_full(self) -> None:
        assert offsets(self.ranges) == self.model
        assert count(self.ranges) == len(self.model)
        assert all(lo < hi for lo, hi in self.ranges)
        assert all(a[1] <= b[0] for a, b in zip(self.ranges, self.ranges[1:], strict=False))

    @rule(offset=BOUND)
    def covers_what_is_in_them(self, offset: int) -> None:
        assert covers(self.ranges, offset) == (offset in self.model)


TestRangesAgainstSets = RangesAgainstSets.TestCase
TestRangesAgainstSets.settings = settings(max_examples=60, stateful_step_count=30)


@given(st.lists(st.tuples(BOUND, BOUND)))
def test_added_neighbours_are_merged(pairs: list[tuple[int, int]]) -> None:
    ranges: Ranges = []
    for lo, hi in pairs:
        ranges = add(ranges, lo, hi)
    assert all(a[1] < b[0] for a, b in itertools.pairwise(ranges))


@settings(max_examples=300)
@given(st.sets(st.integers(0, 99), min_size=30, max_size=60), st.integers(0, 99), st.integers(1, 40))
def test_many_ranges_are_searched_and_come_out_as_few_do(model: set[int], lo: int, length: int) -> None:
    ranges: Ranges = []
    for offset in model:
        ranges = add(ranges, offset, offset + 1)
    hi, kept = lo + length, list(ranges)
    assert offsets(overlap(ranges, lo, hi)) == model & set(range(lo, hi))
    for result, expected in (
        (subtract(ranges, lo, hi), model - set(range(lo, hi))),
        (add(ranges, lo, hi), model | set(range(lo, hi))),
    ):
        assert offsets(result) == expected
        assert all(a < b for a, b in result) and all(a[1] <= b[0] for a, b in itertools.pairwise(result))
    assert ranges == kept, "the old list is left alone"


PAIRS = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 5)), max_size=30)


@settings(max_examples=300)
@given(PAIRS, PAIRS)
def test_many_at_once_come_out_as_one_by_one(ours: list[tuple[int, int]], theirs: list[tuple[int, int]]) -> None:
    ranges = normal((lo, lo + length) for lo, length in ours)
    other = [(lo, lo + length) for lo, length in theirs]
    a, b = offsets(ranges), offsets(other)
    for result, expected in (
        (without(ranges, other), a - b),
        (within(ranges, other), a & b),
        (union(ranges, normal(other)), a | b),
    ):
        assert offsets(result) == expected
        assert all(lo < hi for lo, hi in result)
        assert all(x[1] <= y[0] for x, y in itertools.pairwise(result))
