"""Sets of task offsets as short, sorted lists of half-open ranges `(lo, hi)`.

Work is tracked by ranges because tasks come and go in runs: a chunk of 512 tasks is nearly always one range, and
stays a handful of them while its pieces are out. Every function returns a new list and keeps the result sorted,
disjoint and free of empty ranges. Lists that a peer sends are worked through in one go: range by range, a chunk in many
pieces would cost the square of their number.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

Range = tuple[int, int]
Ranges = list[Range]

MANY = 8  # of more ranges than this, those that are concerned are searched for: a chunk may end task by task


def subtract(ranges: Ranges, lo: int, hi: int) -> Ranges:
    """What of `ranges` lies outside `[lo, hi)`."""
    if len(ranges) == 1:  # the usual case, and the hot one
        a, b = ranges[0]
        if lo <= a and b <= hi:
            return []
        if hi <= a or b <= lo:
            return ranges
    if len(ranges) > MANY:
        i, j = _span(ranges, lo, hi)
        if i >= j:
            return ranges
        (a, _), (_, b) = ranges[i], ranges[j - 1]
        return [*ranges[:i], *([(a, lo)] if a < lo else ()), *([(hi, b)] if hi < b else ()), *ranges[j:]]
    left = []
    for a, b in ranges:
        if hi <= a or b <= lo:
            left.append((a, b))
            continue
        if a < lo:
            left.append((a, lo))
        if hi < b:
            left.append((hi, b))
    return left


def overlap(ranges: Ranges, lo: int, hi: int) -> Ranges:
    """What of `ranges` lies inside `[lo, hi)`."""
    if len(ranges) == 1:
        a, b = ranges[0]
        low, high = max(a, lo), min(b, hi)
        return [(low, high)] if low < high else []
    if len(ranges) > MANY:
        i, j = _span(ranges, lo, hi)
        ranges = ranges[i:j]
    return [(max(a, lo), min(b, hi)) for a, b in ranges if a < hi and lo < b]


def add(ranges: Ranges, lo: int, hi: int) -> Ranges:
    """`ranges` and `[lo, hi)` together; neighbours are merged."""
    if lo >= hi:
        return ranges
    if not ranges:
        return [(lo, hi)]
    if len(ranges) > MANY:
        i = bisect_left(ranges, (lo,))
        i -= 1 if i and ranges[i - 1][1] >= lo else 0
        j = bisect_right(ranges, (hi, hi), i)
        while j < len(ranges) and ranges[j][0] <= hi:
            j += 1
        if i < j:
            lo, hi = min(lo, ranges[i][0]), max(hi, ranges[j - 1][1])
        return [*ranges[:i], (lo, hi), *ranges[j:]]
    return normal([*ranges, (lo, hi)])


def normal(ranges: Iterable[Range]) -> Ranges:
    """`ranges` in order, those that overlap or touch merged."""
    merged: Ranges = []
    for a, b in sorted(ranges):
        if merged and a <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(b, merged[-1][1]))
        else:
            merged.append((a, b))
    return merged


def without(ranges: Ranges, cuts: Sequence[Range]) -> Ranges:
    """What of `ranges` lies outside all of `cuts`, which may come in any order and overlap."""
    if len(cuts) <= MANY:
        for lo, hi in cuts:
            ranges = subtract(ranges, lo, hi)
        return ranges
    left: Ranges = []
    ordered, start = normal(cuts), 0
    for a, b in ranges:
        while start < len(ordered) and ordered[start][1] <= a:
            start += 1
        for place in range(start, len(ordered)):
            lo, hi = ordered[place]
            if lo >= b:
                break
            if a < lo:
                left.append((a, lo))
            a = hi
        if a < b:
            left.append((a, b))
    return left


def within(ranges: Ranges, parts: Sequence[Range]) -> Ranges:
    """What of `ranges` lies inside any of `parts`, which may come in any order and overlap."""
    if len(parts) == 1:
        return overlap(ranges, *parts[0])
    return [part for lo, hi in normal(parts) for part in overlap(ranges, lo, hi)]


def union(ranges: Ranges, more: Ranges) -> Ranges:
    """Both together; neighbours are merged."""
    if len(more) == 1:
        return add(ranges, *more[0])
    return normal([*ranges, *more])


def _span(ranges: Ranges, lo: int, hi: int) -> tuple[int, int]:
    """Which of many ranges, from one place to another, have something in `[lo, hi)`."""
    i = bisect_left(ranges, (lo,))
    i -= 1 if i and ranges[i - 1][1] > lo else 0
    return i, bisect_left(ranges, (hi,), i)


def count(ranges: Sequence[Range]) -> int:
    """How many offsets there are in `ranges`."""
    if len(ranges) == 1:
        return ranges[0][1] - ranges[0][0]
    return sum(b - a for a, b in ranges)


def covers(ranges: Ranges, offset: int) -> bool:
    """Whether `offset` is in `ranges`."""
    return any(a <= offset < b for a, b in ranges)
