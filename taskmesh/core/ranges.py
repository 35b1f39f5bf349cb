"""Sets of task offsets as short, sorted lists of half-open ranges `(lo, hi)`.

Work is tracked by ranges because tasks come and go in runs: a chunk of 512 tasks is nearly always one range, and
stays a handful of them while its pieces are out. Every function returns a new list and keeps the result sorted,
disjoint and free of empty ranges.
"""

from __future__ import annotations

from collections.abc import Iterable

Range = tuple[int, int]
Ranges = list[Range]


def subtract(ranges: Ranges, lo: int, hi: int) -> Ranges:
    """What of `ranges` lies outside `[lo, hi)`."""
    if len(ranges) == 1:  # the usual case, and the hot one
        a, b = ranges[0]
        if lo <= a and b <= hi:
            return []
        if hi <= a or b <= lo:
            return ranges
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
    return [(max(a, lo), min(b, hi)) for a, b in ranges if a < hi and lo < b]


def add(ranges: Ranges, lo: int, hi: int) -> Ranges:
    """`ranges` and `[lo, hi)` together; neighbours are merged."""
    if lo >= hi:
        return ranges
    merged: Ranges = []
    for a, b in sorted([*ranges, (lo, hi)]):
        if merged and a <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(b, merged[-1][1]))
        else:
            merged.append((a, b))
    return merged


def count(ranges: Iterable[Range]) -> int:
    """How many offsets there are in `ranges`."""
    return sum(b - a for a, b in ranges)


def covers(ranges: Ranges, offset: int) -> bool:
    """Whether `offset` is in `ranges`."""
    return any(a <= offset < b for a, b in ranges)
