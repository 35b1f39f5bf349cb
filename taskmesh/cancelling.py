"""Callers that asked the hub to cancel tasks, and wait for its word.

Any number of callers may ask for the same task. Each waits for all that it asked for, together, and for a second at the
most: what the hub has not said by then may have started.
"""

from __future__ import annotations

import threading
from collections.abc import Collection

from .core.ranges import Ranges, normal

CANCEL_WAIT_S = 1.0
Key = tuple[int, int]  # spec and number of a task


class Question:
    """What one caller asked, and what of it has no answer yet."""

    __slots__ = ("_answered", "left")

    def __init__(self, keys: Collection[Key]) -> None:
        self.left = set(keys)
        self._answered = threading.Event()
        if not keys:
            self._answered.set()

    def answer(self, key: Key) -> None:
        """The hub has spoken about one task, or it has ended."""
        self.left.discard(key)
        if not self.left:
            self._answered.set()

    def end(self) -> None:
        """There will be no answer."""
        self._answered.set()

    def wait(self) -> None:
        """Return when there is an answer for everything, at the latest after a second."""
        self._answered.wait(CANCEL_WAIT_S)


class Questions:
    """The questions of all callers."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._asked: dict[Key, list[Question]] = {}

    def ask(self, keys: Collection[Key]) -> Question:
        """Before the messages are sent; `forget` it afterwards."""
        question = Question(keys)
        with self._lock:
            for key in keys:
                self._asked.setdefault(key, []).append(question)
        return question

    def answered(self, spec: int, first: int, ranges: Ranges) -> None:
        """The hub has spoken about these offsets of a chunk."""
        if not self._asked:
            return
        with self._lock:
            for lo, hi in normal(ranges):
                for number in range(first + lo, first + hi):
                    for question in self._asked.get((spec, number), ()):
                        question.answer((spec, number))

    def forget(self, question: Question, keys: Collection[Key]) -> None:
        """Its caller does not wait any more."""
        with self._lock:
            for key in keys:
                others = [other for other in self._asked.pop(key, ()) if other is not question]
                if others:
                    self._asked[key] = others

    def end(self) -> None:
        """The session is over: nobody waits."""
        with self._lock:
            for questions in self._asked.values():
                for question in questions:
                    question.end()
