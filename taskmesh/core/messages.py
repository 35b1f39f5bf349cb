"""The messages that travel, as types. How they look as bytes is the business of `taskmesh.wire`.

On a link (submit, sink, lanes) messages arrive in order and exactly once. On control each request has one reply.
NamedTuples, because they cost a third of a frozen dataclass to build, and these are built for every chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from .chunk import Chunk


class Form(IntEnum):
    """How the outcome of a range of tasks is packed into its blob."""

    LIST = 1  # one pickle of a list with one result for each task
    EACH = 2  # u32 count, u32 sizes, then one pickle for each task
    ERROR = 3  # one task that raised: a pickled `(type name, message, traceback, pickled exception or None)`
    LOST = 4  # one task that its runner did not end itself: msgpack map, written by hub or daemon, never a pickle
    CANCELLED = 5  # tasks that were cancelled, before they started or by an interrupt: nothing


class Outcome(NamedTuple):
    """What became of the tasks at offsets `[lo, hi)` of a chunk."""

    spec: int
    first: int
    lo: int
    hi: int
    form: int
    blob: bytes


class Limits(NamedTuple):
    """What each task of a spec may take. `timeout_s` in seconds and `memory` in bytes: 0 means no limit."""

    timeout_s: float = 0.0
    memory: int = 0
    at_most_once: bool = False


NO_LIMITS = Limits()


# ---- client to hub, on submit -----------------------------------------------------------------------------------


class Spec(NamedTuple):
    """A function and its options, sent once; `init` is the digest of the initializer to run first, or empty."""

    spec: int
    name: str
    digest: bytes
    init: bytes
    priority: int
    limits: Limits = NO_LIMITS


class Body(NamedTuple):
    """A pickled function, named by its digest. Client to hub and hub to daemon."""

    digest: bytes
    data: bytes


class Submit(NamedTuple):
    """A chunk of new tasks; or, with `left`, what has not ended of one that a hub has been offered before."""

    spec: int
    chunk: Chunk
    left: Sequence[tuple[int, int]] = ()


class Cancel(NamedTuple):
    """Cancel what has not started among the tasks at offsets `[lo, hi)` of a chunk; `interrupt`: what runs, too."""

    spec: int
    first: int
    lo: int
    hi: int
    interrupt: bool = False


class Retire(NamedTuple):
    """The client's function is gone and its tasks are settled: the spec may be forgotten."""

    spec: int


class Close(NamedTuple):
    """The session ends; whatever is left of it is cancelled."""


# ---- hub to client, on its lane ---------------------------------------------------------------------------------


class Results(NamedTuple):
    """Outcomes for a client. What they speak of is settled: the client frees those payloads."""

    outcomes: list[Outcome]


class Cancelled(NamedTuple):
    """The hub's word on a `Cancel`: offsets that it was too late for. What was cancelled comes as an outcome."""

    spec: int
    first: int
    kept: list[tuple[int, int]]


class Rejected(NamedTuple):
    """The hub does not take this chunk, and `why`: nothing of it will run."""

    spec: int
    first: int
    why: str


class Goodbye(NamedTuple):
    """The hub needs nothing more of this peer, or is going away (`why` says so); `back`: it will return."""

    why: str
    back: bool = False


# ---- hub to daemon, on its lane ---------------------------------------------------------------------------------


class Dispatch(NamedTuple):
    """A lease: run the tasks at offsets `[lo, hi)` of this chunk."""

    fence: int
    session: int
    spec: int
    name: str
    digest: bytes
    init: bytes
    attempt: int
    solo: bool
    lo: int
    hi: int
    limits: Limits
    chunk: Chunk


class Revoke(NamedTuple):
    """Give back what has not started among offsets `[lo, hi)` of a lease; `interrupt`: end what runs of it, too."""

    fence: int
    lo: int
    hi: int
    interrupt: bool = False


class Forget(NamedTuple):
    """A session is over: nobody wants the outcomes of its tasks any more."""

    session: int


class Settled(NamedTuple):
    """Outcomes that the hub will never need again, as `(fence, lo, hi)`: the daemon frees them."""

    parts: list[tuple[int, int, int]]


# ---- daemon to hub, on sink -------------------------------------------------------------------------------------


class Finished(NamedTuple):
    """Outcome of part of a lease. `busy_s` is the time in seconds that the runner spent on it."""

    fence: int
    session: int
    busy_s: float
    outcome: Outcome


class Done(NamedTuple):
    """Outcomes from a daemon."""

    entries: list[Finished]


class Strike(NamedTuple):
    """A runner died while it ran one of the tasks at offsets `[lo, hi)` of a lease.

    When that is exactly one task, it is a strike against it. `report` says how the runner died.
    """

    fence: int
    lo: int
    hi: int
    report: bytes


class GiveBack(NamedTuple):
    """Parts of a lease that did not start, or that nobody wants any more, and, after a `Revoke`, the parts that did."""

    fence: int
    returned: list[tuple[int, int]]
    kept: list[tuple[int, int]]


class Holding(NamedTuple):
    """What a daemon still holds of a lease: offsets that wait or run there, and have no outcome yet."""

    fence: int
    session: int
    spec: int
    first: int
    attempt: int
    solo: bool
    ranges: list[tuple[int, int]]


class Inventory(NamedTuple):
    """The first message on a new link from a daemon that was registered before, after its unsettled outcomes."""

    holdings: list[Holding]


class NeedBody(NamedTuple):
    """The daemon does not have this function (any more)."""

    digest: bytes


class Slots(NamedTuple):
    """How many tasks the daemon can run at once now; 0 while it drains."""

    slots: int


class Leaving(NamedTuple):
    """The daemon has nothing left and goes; it waits for `Goodbye`."""


# ---- control ----------------------------------------------------------------------------------------------------


class Register(NamedTuple):
    """A peer asks to take part.

    `attempt` rises with each try of one instance; `seen` is the last sequence number that it received on its link
    from the registration `(incarnation, epoch)` it had before (zeros: none). `key` is the public key of this
    registration alone; empty where there are no keys. `secret` proves, when it registers again, that it is the same.
    """

    role: str
    instance: int
    attempt: int
    incarnation: int
    epoch: int
    seen: int
    name: str
    host: str
    pid: int
    slots: int
    version: str
    python: str
    key: bytes = b""
    secret: bytes = b""


class Registered(NamedTuple):
    """Welcome. `resume`: the link goes on, the hub has received `seen`; else both sides start from 1.

    `largest`: the longest message that the hub takes, in bytes.
    """

    incarnation: int
    epoch: int
    resume: bool
    seen: int
    lane: str
    inbox: str
    version: str
    largest: int


class Refused(NamedTuple):
    """No, and why. `again`: it may be asked again later, because what is lacking may come."""

    why: str
    again: bool = False


class Heartbeat(NamedTuple):
    """I am alive, and have received `seen`; a daemon's runners hold `held`, as `(fence, lo, hi)`."""

    instance: int
    incarnation: int
    epoch: int
    seen: int
    held: list[tuple[int, int, int]]


class HeartbeatReply(NamedTuple):
    """`known`: the hub still counts this registration as live. `seen` acknowledges; it has sent up to `last`.

    `received` is what has come: more than `seen` when what it led to is not stored yet.
    """

    known: bool
    seen: int
    last: int
    received: int


class StatusRequest(NamedTuple):
    """How are things?"""


class StatusReply(NamedTuple):
    """The hub's statistics as a JSON document."""

    document: bytes


class CreateTicket(NamedTuple):
    """An admin wants a ticket for the public key `key`; `valid_s` is for how many seconds, 0 for ever."""

    name: str
    role: str
    key: bytes
    valid_s: int


class RevokeTicket(NamedTuple):
    """An admin wants a ticket to be good no more."""

    name: str


class ListTickets(NamedTuple):
    """An admin asks which tickets there are."""


class Tickets(NamedTuple):
    """Done; and the tickets that there are now, as a JSON list."""

    document: bytes


LinkMessage = (
    Spec | Body | Submit | Cancel | Retire | Close | Results | Cancelled | Rejected | Goodbye
    | Dispatch | Revoke | Forget | Settled | Done | Strike | GiveBack | Inventory | NeedBody | Slots | Leaving
)  # fmt: skip
ControlMessage = (
    Register | Registered | Refused | Heartbeat | HeartbeatReply | StatusRequest | StatusReply
    | CreateTicket | RevokeTicket | ListTickets | Tickets
)  # fmt: skip
