"""What a store keeps: records that the scheduler wants written, and what comes back when a hub starts again.

Records are written in the order in which they were made; a store may commit any prefix of them, and nothing else.
"""

from __future__ import annotations

from typing import NamedTuple

from .chunk import Chunk
from .messages import Outcome, Spec
from .ranges import Ranges


class PutSession(NamedTuple):
    """A client has joined, for the first time or with another ticket; `proof` is a digest of its secret."""

    session: int
    name: str
    host: str
    proof: bytes = b""
    ticket: str = ""


class DropSession(NamedTuple):
    """A session is over: so are its specs, chunks and outcomes."""

    session: int


class PutSpec(NamedTuple):
    """A new spec of a session."""

    session: int
    spec: Spec


class DropSpec(NamedTuple):
    """A spec was retired and nothing of it is left; nor are there outcomes of it."""

    session: int
    number: int


class PutBody(NamedTuple):
    """A function, or an initializer. The same digest may come again, and changes nothing."""

    digest: bytes
    data: bytes


class DropBody(NamedTuple):
    """No spec refers to this body any more."""

    digest: bytes


class PutChunk(NamedTuple):
    """A chunk was accepted: its ranges `left` are to be run. Every task of its spec up to its end is submitted."""

    session: int
    spec: int
    chunk: Chunk
    left: Ranges


class PutLeft(NamedTuple):
    """What has not ended of a chunk is now `left`. Nothing left: the chunk itself is not needed any more."""

    session: int
    spec: int
    first: int
    left: Ranges


class PutOutcome(NamedTuple):
    """An outcome that its client has not acknowledged. (Session, spec, first, lo, hi) names it."""

    session: int
    outcome: Outcome


class DropOutcome(NamedTuple):
    """The client has this outcome."""

    session: int
    spec: int
    first: int
    lo: int
    hi: int


Record = (
    PutSession | DropSession | PutSpec | DropSpec | PutBody | DropBody | PutChunk | PutLeft | PutOutcome | DropOutcome
)


class SpecSnapshot(NamedTuple):
    """A spec as it was stored. `submitted`: every task with a smaller number was accepted."""

    spec: Spec
    submitted: int
    chunks: list[tuple[Chunk, Ranges]]


class SessionSnapshot(NamedTuple):
    """A session as it was stored; `outcomes` in the order in which they were put."""

    session: int
    name: str
    host: str
    specs: list[SpecSnapshot]
    outcomes: list[Outcome]
    proof: bytes = b""
    ticket: str = ""


class Snapshot(NamedTuple):
    """Everything that a store holds."""

    sessions: list[SessionSnapshot]
    bodies: dict[bytes, bytes]
