"""What waits for a runner, the functions that it needs, and how long they took before."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator

from taskmesh.core.credit import Pace
from taskmesh.core.ranges import Ranges, overlap, subtract

from .plan_state import Piece, Work

BODIES_KEPT = 512
PACES_KEPT = 4096


class Queue:
    """Pieces of leases in the order in which they are to run. `tasks`: how many tasks they hold."""

    def __init__(self) -> None:
        self._pieces: deque[Piece] = deque()
        self.tasks = 0

    def __len__(self) -> int:
        return len(self._pieces)

    def __iter__(self) -> Iterator[Piece]:
        return iter(self._pieces)

    @property
    def first(self) -> Piece:
        """The piece that is to run next."""
        return self._pieces[0]

    def push(self, piece: Piece, front: bool = False) -> None:
        """Queue a piece, last or first."""
        self.tasks += piece.hi - piece.lo
        if front:
            self._pieces.appendleft(piece)
        else:
            self._pieces.append(piece)

    def pop(self) -> Piece:
        """Take the first piece."""
        piece = self._pieces.popleft()
        self.tasks -= piece.hi - piece.lo
        return piece

    def postpone(self) -> None:
        """The first piece has to wait for its function: it goes behind all others."""
        self._pieces.rotate(-1)

    def drain(self) -> list[Piece]:
        """Take everything."""
        pieces = list(self._pieces)
        self._pieces.clear()
        self.tasks = 0
        return pieces

    def take(self, work: Work, ranges: Ranges) -> Ranges:
        """Take what waits of these offsets of a lease, and say which that was."""
        taken: Ranges = []
        for piece in self.drain():
            left: Ranges = [(piece.lo, piece.hi)]
            if piece.work is work:
                for lo, hi in ranges:
                    taken += overlap(left, lo, hi)
                    left = subtract(left, lo, hi)
            for lo, hi in left:
                self.push(piece._replace(lo=lo, hi=hi))
        return taken


class Bodies:
    """Functions by digest, the least recently used forgotten first; and those that the hub was asked for."""

    def __init__(self) -> None:
        self._bodies: OrderedDict[bytes, bytes] = OrderedDict()
        self._asked: set[bytes] = set()

    def put(self, digest: bytes, data: bytes) -> None:
        """A function came."""
        self._bodies[digest] = data
        self._asked.discard(digest)
        while len(self._bodies) > BODIES_KEPT:
            self._bodies.popitem(last=False)

    def get(self, digest: bytes) -> bytes | None:
        """A function that is used, or None: it has to be asked for."""
        body = self._bodies.get(digest)
        if body is not None:
            self._bodies.move_to_end(digest)
        return body

    def ask(self, digest: bytes) -> bool:
        """Whether to ask for a function now: only once."""
        if digest in self._asked:
            return False
        self._asked.add(digest)
        return True

    def ask_again(self) -> None:
        """Whoever was asked does not know any more."""
        self._asked.clear()


class Paces:
    """What was measured of specs, by session and spec; the least recently dispatched are forgotten."""

    def __init__(self) -> None:
        self._paces: OrderedDict[tuple[int, int], Pace] = OrderedDict()

    def get(self, key: tuple[int, int]) -> Pace:
        """The pace of a spec that was dispatched just now."""
        pace = self._paces.setdefault(key, Pace())
        self._paces.move_to_end(key)
        if len(self._paces) > PACES_KEPT:
            self._paces.popitem(last=False)
        return pace

    def forget(self, session: int) -> None:
        """A session is over."""
        for key in [key for key in self._paces if key[0] == session]:
            del self._paces[key]
