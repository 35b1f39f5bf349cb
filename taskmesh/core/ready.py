"""The ready queue: what waits for a daemon, in the order in which it should run.

Priority first, then fair share between sessions, then age. Fair share is by virtual time: a session's clock advances
by the seconds of work it was served, and the session whose clock is furthest behind is served next; one that was idle
starts at the clock of the others, so that it neither saved up nor owes. (Stride scheduling, Waldspurger and Weihl,
1995.) Chunks that need the same resources share a queue; there is one shape today.

A session that is held, because it does not fetch its results, is not among those that are looked at.

Nothing here is O(ready tasks): a piece is a range of a chunk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Generic, TypeVar

P = TypeVar("P")


@dataclass(slots=True)
class _Share(Generic[P]):
    """What one session has waiting at one priority, and how much it was served."""

    session: int
    clock_s: float = 0.0
    pieces: deque[P] = field(default_factory=deque)


class ReadyQueue(Generic[P]):
    """Pieces of work by priority, session and age. Higher priorities go first. True: something could be served."""

    def __init__(self) -> None:
        self._levels: dict[int, dict[int, _Share[P]]] = {}
        self._held: dict[int, dict[int, _Share[P]]] = {}  # by session: what it has at each priority
        self._order: list[int] = []  # priorities in use, highest first

    def __bool__(self) -> bool:
        return bool(self._order)

    def push(self, priority: int, session: int, piece: P, *, front: bool = False) -> None:
        """Add a piece behind its session's others, or before them."""
        share = self._share(priority, session)
        if front:
            share.pieces.appendleft(piece)
        else:
            share.pieces.append(piece)

    def _share(self, priority: int, session: int) -> _Share[P]:
        held = self._held.get(session)
        if held is not None:
            return held.setdefault(priority, _Share(session))
        level = self._levels.get(priority)
        if level is None:
            level = self._levels[priority] = {}
            self._order = sorted(self._levels, reverse=True)
        share = level.get(session)
        if share is None:
            clock = min((other.clock_s for other in level.values()), default=0.0)
            share = level[session] = _Share(session, clock)
        return share

    def peek(self) -> tuple[int, int, P] | None:
        """`(priority, session, piece)` that should run next, or None."""
        if not self._order:
            return None
        priority = self._order[0]
        level = self._levels[priority]
        if len(level) == 1:
            (share,) = level.values()
        else:
            share = min(level.values(), key=lambda s: s.clock_s)
        return priority, share.session, share.pieces[0]

    def pop(self, priority: int, session: int, served_s: float) -> P:
        """Take the piece that `peek` named; its session is charged `served_s` seconds."""
        level = self._levels[priority]
        share = level[session]
        share.clock_s += served_s
        piece = share.pieces.popleft()
        if not share.pieces:
            self._drop_share(priority, session)
        return piece

    def charge(self, priority: int, session: int, served_s: float) -> None:
        """A part of the session's first piece was served, and the rest of it stays."""
        self._levels[priority][session].clock_s += served_s

    def replace_first(self, priority: int, session: int, piece: P) -> None:
        """Put what is left of the session's first piece in its place."""
        self._levels[priority][session].pieces[0] = piece

    def hold(self, session: int) -> None:
        """Serve nothing of a session until it is released."""
        if session not in self._held:
            held = {priority: level[session] for priority, level in self._levels.items() if session in level}
            for priority in held:
                self._drop_share(priority, session)
            self._held[session] = held

    def release(self, session: int) -> None:
        """Serve a session again, if it was held, as one that was idle meanwhile."""
        for priority, held in self._held.pop(session, {}).items():
            share = self._share(priority, session)
            share.clock_s = max(share.clock_s, held.clock_s)
            share.pieces = held.pieces

    @property
    def held(self) -> Collection[int]:
        """The sessions that are held."""
        return self._held.keys()

    def drop_session(self, session: int) -> None:
        """Forget everything that a session has waiting."""
        self._held.pop(session, None)
        for priority in [p for p, level in self._levels.items() if session in level]:
            self._drop_share(priority, session)

    def _drop_share(self, priority: int, session: int) -> None:
        level = self._levels[priority]
        del level[session]
        if not level:
            del self._levels[priority]
            self._order.remove(priority)

    def pieces(self) -> list[tuple[int, int, P]]:
        """Everything, for cross-checks: `(priority, session, piece)`."""
        return [
            (priority, session, piece)
            for priority, level in self._levels.items()
            for session, share in level.items()
            for piece in share.pieces
        ] + [
            (priority, session, piece)
            for session, shares in self._held.items()
            for priority, share in shares.items()
            for piece in share.pieces
        ]
