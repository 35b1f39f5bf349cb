"""Blocks: how many items of a map leaf a runner claims at once.

A claim costs a runner as much as dozens of items that do nothing. How long an item takes by itself is known only here,
where it is called: what the daemon measures has the claim in it. So a runner feels its way, from one item on, and
whatever takes long makes it begin again. Pure: time is an argument.
"""

from __future__ import annotations

BLOCK_S = 0.0005
"""Seconds of work to claim at once: a block can neither be taken back nor split between runners."""

BELOW_S = 1e-6
"""Items that take longer than this, claims not counted, are claimed one by one."""


class Blocks:
    """The block sizes of a runner. Attribute `size`: how many items to claim next.

    Doubles with each block whose items were very short, as far as `BLOCK_S` of work. After a block that was not so, the
    next item is claimed alone: where one is long, its neighbours may be.
    """

    __slots__ = ("_function", "size")

    def __init__(self) -> None:
        self.size = 1
        self._function = (0, 0)

    def begin(self, session: int, spec: int) -> None:
        """A dose of this function: if it is another one than before, its items may be of any length."""
        if self._function != (session, spec):
            self._function = (session, spec)
            self.size = 1

    def ran(self, items: int, seconds: float) -> None:
        """A block of `items` took so many seconds in the function."""
        each_s = seconds / items
        self.size = 1 if each_s >= BELOW_S else max(1, min(2 * self.size, int(BLOCK_S / max(each_s, 1e-9))))
