"""What runs: the task, or the block of very short items, that a runner has claimed and not finished.

The loops of `runner` write its attributes, by plain assignment: a call would cost them a few percent. The handlers of
signals read it, and cut the block, while a task runs; see "signals" in `runner`. They act during the call of a task
only. All is written before that, and read after it, so they find it whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import length_hint
from typing import Any

from taskmesh.wire.pipe import CLAIM_BITS, CLAIM_MOST

from .cells import CLAIMED
from .results import Results


class Running:
    """The call or the block that runs, by offsets in its chunk.

    Attributes
    ----------
    offset
        Of the call that runs; or of the end of the block that does, which is earlier once the block is cut.
    iterator
        Over the items of the block: how much is left of it tells which one runs. None while no block runs.
    values
        Results of that block, and of others before it.
    reported
        How many of `values` were on the way before the block began, or were reported early.
    """

    __slots__ = ("iterator", "offset", "reported", "values")

    def __init__(self) -> None:
        self.offset = 0
        self.iterator: Iterator[Any] | None = None
        self.values: list[Any] = []
        self.reported = 0

    def current(self) -> int:
        """The offset of the task that runs."""
        left = length_hint(self.iterator) + 1 if self.iterator is not None else 0
        return self.offset - left

    def report(self, results: Results) -> None:
        """Report the results of the block so far."""
        results.added(self.values, self.reported)
        self.reported = len(self.values)

    def cut(self, words: memoryview, at: int) -> None:
        """Claim no more of the block than the item that runs: what waits for a long one can be taken back now.

        Parameters
        ----------
        words
            The runner's cells.
        at
            The position of offset 0.
        """
        word = words[CLAIMED]
        end, length = word >> CLAIM_BITS, word & CLAIM_MOST
        offset = self.current()
        running = at + offset
        if self.iterator is not None and end - length <= running < end - 1:  # else: none runs yet, or the last one
            self.offset = offset + 1
            for _ in self.iterator:  # `map` finds no more
                pass
            words[CLAIMED] = (running + 1) << CLAIM_BITS | 1
