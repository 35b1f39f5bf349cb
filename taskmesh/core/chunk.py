"""A chunk: consecutive tasks of one spec as a list of leaves.

A leaf is one small pickle: one call (from `submit`) or several items (from `map`). The core never opens a leaf; it
knows only how many bytes and how many tasks each has. So a chunk can be cut between leaves without unpickling, and
a piece of a leaf is handed out as the whole leaf and a range of its items.

Offsets are counted from the first task of the chunk as it was submitted, and keep their meaning in every cut:
task number = `first` + offset, wherever a piece has travelled.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left, bisect_right
from itertools import accumulate

from .limits import LEAF_TASKS, NUMBER, TASKS

SIZE = "I"  # leaf sizes travel as little-endian unsigned 32-bit integers


def pack_sizes(values: list[int]) -> bytes:
    """Little-endian u32 array of `values`, as it travels."""
    packed = array(SIZE, values)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def unpack_sizes(data: bytes) -> array[int]:
    """The inverse of `pack_sizes`.

    Raises
    ------
    ValueError
        `data` is not a whole number of u32.
    """
    unpacked = array(SIZE)
    unpacked.frombytes(data)
    if sys.byteorder == "big":
        unpacked.byteswap()
    return unpacked


class Chunk:
    """Leaves of consecutive tasks.

    Attributes
    ----------
    first : int
        Number of the first task of the chunk as submitted: with session and spec, the chunk's identity.
    base : int
        Offset of the first task in `payload`; 0 unless this is a cut.
    count : int
        How many tasks the leaves hold.
    sizes : bytes
        u32 for each leaf: its size in bytes.
    items : bytes
        u32 for each leaf: how many tasks it holds. Empty: one each, and every leaf is a call.
    grain : int
        Tasks are handed out in multiples of this many (the user's `chunksize`), 1 by default.
    payload : bytes
        The leaves, one behind the other.
    """

    __slots__ = ("_bounds", "_starts", "base", "count", "first", "grain", "items", "payload", "sizes")

    def __init__(
        self, first: int, base: int, count: int, sizes: bytes, items: bytes, grain: int, payload: bytes
    ) -> None:
        self.first = first
        self.base = base
        self.count = count
        self.sizes = sizes
        self.items = items
        self.grain = grain
        self.payload = payload
        self._starts: list[int] | None = None
        self._bounds: list[int] | None = None

    @property
    def end(self) -> int:
        """Offset behind the last task in `payload`."""
        return self.base + self.count

    @property
    def weight(self) -> int:
        """How many bytes it holds."""
        return len(self.payload) + len(self.sizes) + len(self.items)

    def fault(self) -> str | None:
        """Why the tables do not fit the payload, or None: what a peer sends is checked once, on arrival."""
        if len(self.sizes) % 4 or len(self.items) % 4:
            return "the leaf tables are not whole numbers of u32"
        sizes = unpack_sizes(self.sizes)
        if sum(sizes) != len(self.payload):
            return f"the leaves should have {sum(sizes)} bytes, and have {len(self.payload)}"
        if self.items and len(self.items) != len(self.sizes):
            return "one leaf table is longer than the other"
        tasks = unpack_sizes(self.items) if self.items else None
        held = sum(tasks) if tasks is not None else len(sizes)
        if held != self.count or not self.count or (tasks is not None and 0 in tasks):
            return f"the leaves hold {held} tasks, and should hold {self.count}"
        if self.first < 0 or self.base < 0 or self.grain < 1:
            return "a negative number, or a grain below 1"
        if self.end > TASKS or self.grain > LEAF_TASKS or (tasks is not None and max(tasks) > LEAF_TASKS):
            return f"more than {TASKS} tasks, or a leaf or grain of more than {LEAF_TASKS}"
        if self.first + TASKS > NUMBER:
            return "a number of 63 bits or more"
        return None

    def cut(self, lo: int, hi: int) -> Chunk:
        """The fewest whole leaves that hold the tasks at offsets `[lo, hi)`."""
        if lo <= self.base and hi >= self.end:
            return self
        starts, bounds = self._tables()
        if bounds is None:
            a, b = lo - self.base, hi - self.base
            base, tasks = lo, hi - lo
        else:
            a = bisect_right(bounds, lo - self.base) - 1
            b = bisect_left(bounds, hi - self.base)
            base, tasks = self.base + bounds[a], bounds[b] - bounds[a]
        return Chunk(
            self.first,
            base,
            tasks,
            self.sizes[4 * a : 4 * b],
            self.items[4 * a : 4 * b],
            self.grain,
            self.payload[starts[a] : starts[b]],
        )

    def whole_leaves(self, lo: int, hi: int) -> int:
        """The end of the last leaf that ends in `(lo, hi]`, or `hi` when none does: where a cut costs least.

        A leaf that is cut in the middle travels twice, and is unpickled twice.
        """
        _, bounds = self._tables()
        if bounds is None:
            return hi
        end = self.base + bounds[bisect_right(bounds, hi - self.base) - 1]
        return end if end > lo else hi

    def _tables(self) -> tuple[list[int], list[int] | None]:
        """Where each leaf starts in the payload, and, when leaves hold several tasks, with which task it starts."""
        if self._starts is None:
            self._starts = [0, *accumulate(unpack_sizes(self.sizes))]
            if self.items:
                self._bounds = [0, *accumulate(unpack_sizes(self.items))]
        return self._starts, self._bounds
