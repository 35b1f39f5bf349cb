"""What the scheduler wants done, in order, by the hub's shell."""

from __future__ import annotations

from typing import NamedTuple

from .messages import LinkMessage
from .records import Record


class Send(NamedTuple):
    """Put a message on a peer's link."""

    instance: int
    message: LinkMessage


class Persist(NamedTuple):
    """Give a record to the store."""

    record: Record


class Admit(NamedTuple):
    """Open a lane for this registration and welcome the peer; `resume`: its link goes on.

    What a `Joined` is answered by, as `Refuse` and `Again` are. It comes after all other actions, but for the `Note` of
    it, which holds only if there is a lane. `known`: the hub has something of this instance, which outlives a `NoLane`.
    """

    instance: int
    epoch: int
    role: str
    resume: bool
    known: bool


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
