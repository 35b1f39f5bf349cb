"""What has happened, as the hub's shell tells it to the scheduler. Each is answered by actions."""

from __future__ import annotations

from typing import NamedTuple

from .access import LOCAL, Grant
from .messages import LinkMessage, Register


class Received(NamedTuple):
    """A link message of a live registration, in order and once."""

    instance: int
    message: LinkMessage


class Joined(NamedTuple):
    """A registration request; `local`: of a daemon in the hub's process. The answer is `Admit`, `Refuse` or `Again`.

    `holder`: the ticket that it came with.
    """

    request: Register
    local: bool = False
    holder: Grant = LOCAL


class LaneDown(NamedTuple):
    """The lane of a registration lost its peer."""

    instance: int
    epoch: int


class NoLane(NamedTuple):
    """No lane could be opened for an instance that was just admitted: it has not joined after all.

    `known`: as the `Admit` said.
    """

    instance: int
    known: bool


class Revoked(NamedTuple):
    """A ticket is good no more, and `why`: whoever came with it has to go."""

    ticket: str
    why: str


class Delivered(NamedTuple):
    """A client has acknowledged its next so many `Results` messages."""

    instance: int
    messages: int


class Committed(NamedTuple):
    """The store has committed the first so many `Persist` records of this hub's life."""

    records: int


class StoreFails(NamedTuple):
    """The store cannot take more, and `why`; None: it can again."""

    why: str | None


class Tick(NamedTuple):
    """Everything that could be read has been read: dispatch, and act on time."""


class Drain(NamedTuple):
    """Take no new sessions; finish what those that are there have submitted, and still submit."""


class Stop(NamedTuple):
    """The hub ends, and everything it had for its store is committed."""


Event = Received | Joined | LaneDown | NoLane | Revoked | Delivered | Committed | StoreFails | Tick | Drain | Stop
