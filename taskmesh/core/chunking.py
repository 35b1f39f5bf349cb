"""Chunking: how many items of a `map` are pickled together, and when what was pickled goes to the hub.

Nobody guesses a chunk size: daemons hand ranges of items to their runners by measured time, even within a leaf. So this
is about the cost of messages alone: leaves and chunks grow while items are small and come fast, and what comes slowly
does not wait for company.
"""

from __future__ import annotations

from .limits import LEAF_TASKS

LEAF_ITEMS = 4000
"""Items of a leaf at most: no more than a runner may claim at once."""

FIRST_ITEMS = 16
"""Items of the first leaf: while the next ones are pickled, the function is being measured."""

LEAF_BYTES = 64 * 1024

CHUNK_BYTES = 112 * 1024
"""And a leaf more: from 128 KiB on, malloc takes fresh pages from the system for each message."""

CHUNK_ITEMS = 65_536

LEAVES_EACH = 4
"""Leaves that each worker should have of what may be out, if that is limited."""

SLOW_S = 0.001
"""Seconds after which what was gathered goes, and which a leaf of items that come fast does not take;"""

FULL_S = 0.003
"""or these, when items are small and come fast."""


class Chunking:
    """The sizes of one map. Attributes: `leaf_items`, how many items the next leaf takes; `grain`, see `Chunk`.

    Parameters
    ----------
    chunksize
        How many items the user wants to be handed out together, or None. Then so many are a leaf, however large they
        are, and how slowly they come.
    buffersize
        How many items may be out at once, or None: any number. Then each of the `workers` has several leaves to take.
    workers
        How many tasks are likely to run at once.
    """

    __slots__ = ("_fixed", "_leaves", "_most", "grain", "leaf_items")

    def __init__(self, chunksize: int | None = None, buffersize: int | None = None, workers: int = 1) -> None:
        self.grain = 1 if chunksize is None else min(chunksize, LEAF_TASKS)
        self._most = LEAF_ITEMS if chunksize is None else self.grain
        if buffersize is not None:
            self._most = min(self._most, max(1, buffersize // (LEAVES_EACH * workers)))
        self._fixed = chunksize is not None and buffersize is None
        self.leaf_items = self._most if self._fixed else min(FIRST_ITEMS, self._most)
        self._leaves = 0

    def pickled(self, items: int, size: int, took_s: float) -> None:
        """A leaf of `items` came to `size` bytes, and it took `took_s` seconds to get the items.

        Leaves double up to their full size, unless the items are large or come slowly.
        """
        self._leaves += 1
        if not self._fixed:
            fits = max(1, LEAF_BYTES * items // max(size, 1))
            wanted = max(1, self.leaf_items // 2) if took_s > SLOW_S else self.leaf_items * 2
            self.leaf_items = min(self._most, fits, wanted)

    def is_whole(self, items: int, size: int, seconds: float) -> bool:
        """Whether a chunk of so many items and bytes, gathered for so many seconds, takes no more leaves.

        The first leaf of a map goes alone: while the next ones are pickled, the function is being measured.
        """
        gather_s = FULL_S if self.leaf_items == LEAF_ITEMS else SLOW_S
        return items > 0 and (self._leaves == 1 or items >= CHUNK_ITEMS or size >= CHUNK_BYTES or seconds > gather_s)
