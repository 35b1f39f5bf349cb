"""Where a map's items come from: iterables, taken in step, a leaf at a time.

Pickled as columns, one for each iterable. Lists and ranges are cut, which is several times faster than to go through
their items; and a piece of a range is a range, of some forty bytes: its numbers are made where they are used.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from time import monotonic
from typing import Any

from .core.chunking import Chunking
from .errors import PayloadError
from .wire.payload import describe, dump


class Columns:
    """The arguments of a map by columns, until the shortest ends.

    Of an iterator no more is taken than `zip` takes: it may have been given twice, or wait for somebody.

    Parameters
    ----------
    iterables
        One or more.
    """

    def __init__(self, iterables: tuple[Iterable[Any], ...]) -> None:
        self._whole: list[tuple[int, Sequence[Any]]] = []  # what can be cut, and the column that it is
        others: list[Iterable[Any]] = []
        for column, iterable in enumerate(iterables):
            if type(iterable) is list or type(iterable) is range:
                self._whole.append((column, iterable))
            else:
                others.append(iterable)
        self._single = iter(others[0]) if len(others) == 1 else None
        self._rows = zip(*others, strict=False) if len(others) > 1 else None
        self._taken = 0

    def take(self, size: int) -> list[Sequence[Any]]:
        """The next items of each, equally many: `size`, or fewer when one of the iterables ends."""
        cuts = [whole[self._taken : self._taken + size] for _, whole in self._whole]
        size = min([size, *map(len, cuts)])
        columns: list[Sequence[Any]] = []
        if self._single is not None:
            columns.append(list(islice(self._single, size)))
            size = len(columns[0])
        elif self._rows is not None:
            rows = list(islice(self._rows, size))
            columns += map(list, zip(*rows, strict=True))
            size = len(rows)
        self._taken += size
        for (column, _), cut in zip(self._whole, cuts, strict=True):
            columns.insert(column, cut if len(cut) == size else cut[:size])
        return columns if size else []


class Source:
    """Leaves and their numbers of items, until there are no more. Attribute `exhausted`: whether that is known.

    Parameters
    ----------
    columns
        The items.
    chunking
        How many items go in a leaf.
    name
        Of the function, for errors.
    """

    def __init__(self, columns: Columns, chunking: Chunking, name: str) -> None:
        self._columns = columns
        self.chunking = chunking
        self._name = name
        self.exhausted = False

    def leaf(self, at_most: int | None = None) -> tuple[bytes, int] | None:
        """The next leaf, of at most so many items; None when there are no more items.

        Raises
        ------
        PayloadError
            An item cannot be pickled.
        """
        size = self.chunking.leaf_items
        if at_most is not None:
            size = min(size, at_most)
        began = monotonic()
        columns = self._columns.take(size)
        count = len(columns[0]) if columns else 0
        if count < size:
            self.exhausted = True
            if not count:
                return None
        took_s = monotonic() - began
        try:
            data = dump(columns[0] if len(columns) == 1 else tuple(columns))
        except Exception as error:
            type_name, text = describe(error)
            raise PayloadError(f"cannot pickle an item for {self._name}: {type_name}: {text}") from error
        self.chunking.pickled(count, len(data), took_s)
        return data, count
