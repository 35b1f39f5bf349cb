"""What the scheduler wants done, in order, by the hub's shell; and the events that are not messages."""

from __future__ import annotations

from typing import NamedTuple

from .access import LOCAL, Grant
from .messages import LinkMessage, Register
from .records import Record


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
    """No lane could be opened for an instance that was just admitted: it has not joined after all."""

    instance: int


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


class Send(NamedTuple):
    """Put a message on a peer's link."""

    instance: int
    message: LinkMessage


class Persist(NamedTuple):
    """Give a record to the store."""

    record: Record


class Admit(NamedTuple):
    """Open a lane for this registration and welcome the peer; `resume`: its link goes on.

    What a `Joined` is answered by, as `Refuse` and `Again` are: it comes after all other actions.
    """

    instance: int
    epoch: int
    role: str
    resume: bool


class Again(NamedTuple):
    """The same registration was asked for again: repeat the reply."""

    instance: int


class Refuse(NamedTuple):
    """Turn a peer away; `again`: it may ask again later."""

    why: str
    again: bool = False


class Dismiss(NamedTuple):
    """The peer is gone, or told to go: close its lane once its link is empty, or at once when it is dead.

    `put_out`: nothing of it counts any more, and its lane is kept as long as it takes to hear why.
    """

    instance: int
    dead: bool
    put_out: bool = False


class Dropped(NamedTuple):
    """A peer sent what it may not: to be counted, and logged now and then."""

    text: str


class Note(NamedTuple):
    """Something that the log should say."""

    level: int
    text: str


Action = Send | Persist | Admit | Again | Refuse | Dismiss | Dropped | Note
