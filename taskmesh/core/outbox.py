"""The outbox: outcomes on their way to a client, until it has them.

They wait until the next tick, are sent together, and are kept until the client has acknowledged the message. When the
client joins again under a new link, everything that it has not acknowledged waits again.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from .messages import Outcome
from .ranges import Ranges, add, subtract

RESULTS_BYTES = 128 * 1024  # outcomes are gathered into messages of about this size
ON_WAY_BYTES = 32 << 20  # about so much is on its way at a time, or one message; the rest waits here alone
ON_WAY = 512  # messages on their way at a time: what waits here does not wait in the link as well
WEIGHT = 256  # bytes that an outcome is counted as besides its blob


class Ended(NamedTuple):
    """An outcome and where it came from: offsets `[lo, hi)` of a daemon's lease.

    Without an outcome it is a duplicate: the daemon may forget it when the client has everything that was sent before.
    """

    outcome: Outcome | None
    daemon: int
    fence: int
    lo: int
    hi: int


class Outbox:
    """Outcomes for one client, in order."""

    def __init__(self) -> None:
        self._waiting: deque[Ended] = deque()
        self._sent: deque[list[Ended]] = deque()
        self.bytes = 0  # of all these outcomes, and what is kept around each
        self._on_way = 0  # bytes of those that were sent
        self._index: dict[tuple[int, int], Ranges] | None = None  # by chunk; once it was asked for

    def __len__(self) -> int:
        return len(self._waiting) + sum(map(len, self._sent))

    def add(self, ended: Ended) -> None:
        """One more to send."""
        self._waiting.append(ended)
        self.bytes += _weight(ended)
        if self._index is not None:
            self._note(ended)

    @property
    def can_send(self) -> bool:
        """Whether something waits, and may be sent now."""
        return bool(self._waiting) and self._has_room

    @property
    def _has_room(self) -> bool:
        return len(self._sent) < ON_WAY and self._on_way < ON_WAY_BYTES

    def send(self) -> tuple[list[list[Outcome]], list[Ended]]:
        """What to send now.

        Returns
        -------
        tuple[list[list[Outcome]], list[Ended]]
            The outcomes for each message, and duplicates that nothing unacknowledged stands before.
        """
        messages: list[list[Outcome]] = []
        batch: list[Ended] = []
        outcomes: list[Outcome] = []
        size = 0
        waiting = self._waiting
        while waiting:
            outcome = waiting[0].outcome
            if outcome is not None:
                if outcomes and size + len(outcome.blob) > RESULTS_BYTES:
                    messages.append(outcomes)
                    self._sent.append(batch)
                    batch, outcomes, size = [], [], 0
                if not outcomes and not self._has_room:
                    break
                outcomes.append(outcome)
                size += len(outcome.blob) + 32
                self._on_way += _weight(waiting[0])
            batch.append(waiting.popleft())
        if outcomes:
            messages.append(outcomes)
            self._sent.append(batch)
        elif self._sent:
            self._sent[-1] += batch
        else:
            return messages, batch
        return messages, []

    def acknowledged(self, messages: int) -> list[Ended]:
        """The client has the next so many messages: what was in them."""
        there = [ended for _ in range(min(messages, len(self._sent))) for ended in self._sent.popleft()]
        for ended in there if self._index is not None else ():
            self._forget(ended)
        size = sum(map(_weight, there))
        self.bytes -= size
        self._on_way -= size
        return there

    def pending(self, spec: int, first: int) -> Ranges:
        """The offsets of a chunk whose outcomes the client has not acknowledged."""
        if self._index is None:
            self._index = {}
            for ended in (*(ended for batch in self._sent for ended in batch), *self._waiting):
                self._note(ended)
        return self._index.get((spec, first), [])

    def _note(self, ended: Ended) -> None:
        if ended.outcome is not None and self._index is not None:
            key = (ended.outcome.spec, ended.outcome.first)
            self._index[key] = add(self._index.get(key, []), ended.lo, ended.hi)

    def _forget(self, ended: Ended) -> None:
        if ended.outcome is not None and self._index is not None:
            key = (ended.outcome.spec, ended.outcome.first)
            left = subtract(self._index.get(key, []), ended.lo, ended.hi)
            if left:
                self._index[key] = left
            else:
                self._index.pop(key, None)

    def weigh(self) -> int:
        """What `bytes` should be."""
        return sum(map(_weight, (*self._waiting, *(ended for batch in self._sent for ended in batch))))

    def again(self) -> None:
        """The client has a new link: what it has not acknowledged waits again, in order."""
        for batch in reversed(self._sent):
            self._waiting.extendleft(reversed(batch))
        self._sent.clear()
        self._on_way = 0

    def everything(self) -> list[Ended]:
        """What is here: the session is over."""
        self.again()
        return list(self._waiting)


def _weight(ended: Ended) -> int:
    return 0 if ended.outcome is None else WEIGHT + len(ended.outcome.blob)
