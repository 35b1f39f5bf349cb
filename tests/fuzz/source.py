"""Where a target's decisions come from: the bytes of an input, or Hypothesis, which can shrink them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from hypothesis import strategies as st

T = TypeVar("T")
DRAWN_BYTES = 200


class Source(Protocol):
    """Answers questions, until it has nothing more to say."""

    @property
    def spent(self) -> bool:
        """Whether every further answer is 0."""

    def below(self, limit: int) -> int:
        """A number from 0 on, below `limit`."""

    def rest(self) -> bytes:
        """Everything that is left."""


class Bytes:
    """Answers from the bytes of an input."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def spent(self) -> bool:
        """Whether all bytes are read."""
        return self._at >= len(self._data)

    def below(self, limit: int) -> int:
        """One byte for few choices, eight for very many."""
        size = 1 if limit <= 1 << 8 else 2 if limit <= 1 << 16 else 8
        part = self._data[self._at : self._at + size]
        self._at += size
        return int.from_bytes(part, "little") % limit

    def rest(self) -> bytes:
        """The bytes that were not read."""
        part, self._at = self._data[self._at :], len(self._data)
        return part


class Drawn:
    """Answers from Hypothesis. It is never spent: whoever asks says how often."""

    spent = False

    def __init__(self, data: st.DataObject) -> None:
        self._data = data

    def below(self, limit: int) -> int:
        """A number that shrinks towards 0."""
        return self._data.draw(st.integers(0, limit - 1))

    def rest(self) -> bytes:
        """Some bytes."""
        return self._data.draw(st.binary(max_size=DRAWN_BYTES))


def pick(source: Source, choices: Sequence[T]) -> T:
    """One of them; the first is the simplest."""
    return choices[source.below(len(choices))]


def chance(source: Source, one_in: int) -> bool:
    """True once in so many times."""
    return source.below(one_in) == one_in - 1
