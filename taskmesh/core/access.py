"""Access: which key may connect where, and what it may ask for.

Rules (docs/security.md):

- A *grant* is the hub's record of a ticket: a public key with a role, good until it is revoked or expires.
- A ticket's key opens control, an admin's the events channel too, and nothing else. Whoever registers names a fresh
  key; that key is the registration from then on: it alone may connect to the registration's lane, and to the inbox of
  its role.
- A frame counts if the key of its connection is that of the registration that its envelope names.
- A key that is not known may connect to nothing.

Public keys are 32 raw bytes, times are seconds since the epoch, because an expiry outlives the process.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from ..errors import LocalProtocolError

KEY_BYTES = 32
NEVER = float("inf")
CONTROL, SUBMIT, SINK, EVENTS = "control", "submit", "sink", "events"
"""Channels by name; that of a lane is `lane_domain(epoch)`."""


class Role(StrEnum):
    """What a ticket is for."""

    ADMIN = "admin"  # tickets, everybody's status; may submit as well
    CLIENT = "client"  # submits, and sees its own
    WORKER = "worker"  # runs tasks


PEERS = {Role.ADMIN: "client", Role.CLIENT: "client", Role.WORKER: "daemon"}
"""As what a ticket's holder may register."""
MANAGERS = {Role.ADMIN}
"""Who may make and revoke tickets, and sees everybody's sessions."""
INBOXES = {SUBMIT: "client", SINK: "daemon"}
"""Who may connect to an inbox."""


class Grant(NamedTuple):
    """A ticket as the hub keeps it. `expires_at`, `revoked_at`: infinity if it is never, or not yet."""

    name: str
    role: Role
    key: bytes
    created_at: float
    expires_at: float = NEVER
    revoked_at: float = NEVER

    @property
    def manages(self) -> bool:
        """Whether its holder may make and revoke tickets, and sees everybody's sessions."""
        return self.role in MANAGERS

    def may_be(self, peer: str) -> bool:
        """Whether its holder may register as this kind of peer. Where there are no keys, everybody may."""
        return self is LOCAL or PEERS[self.role] == peer

    def objection(self, now: float) -> str | None:
        """Why it is not good any more; None if it is."""
        if self.revoked_at < NEVER:
            return f"the ticket {self.name!r} was revoked"
        if now >= self.expires_at:
            return f"the ticket {self.name!r} has expired"
        return None


LOCAL = Grant("", Role.ADMIN, b"", 0.0)
"""Whoever comes by a directory that only this user can enter, or to a hub without keys: may do everything."""


class Registration(NamedTuple):
    """A live registration: its epoch, who registered as what, and with which ticket."""

    epoch: int
    instance: int
    peer: str
    ticket: str


def lane_domain(epoch: int) -> str:
    """The channel name of a registration's lane."""
    return f"lane-{epoch}"


class Access:
    """Grants by name and by key, and the keys of live registrations.

    Parameters
    ----------
    grants
        What is in the hub's register.
    own
        The hub's public key.
    """

    def __init__(self, grants: Iterable[Grant] = (), own: bytes = b"") -> None:
        self._own = own
        self._grants: dict[str, Grant] = {}
        self._by_key: dict[bytes, str] = {}
        self._live: dict[bytes, Registration] = {}
        self._keys: dict[int, bytes] = {}  # of live registrations, by epoch
        self._said: set[str] = set()  # tickets whose end was told by `ended`
        for grant in grants:
            self.put(grant)

    def put(self, grant: Grant) -> None:
        """A new ticket, or a changed one."""
        self._grants[grant.name] = grant
        self._by_key[grant.key] = grant.name

    def grant(self, name: str) -> Grant | None:
        """The ticket of that name."""
        return self._grants.get(name)

    # ---- connections ----------------------------------------------------------------------------------------

    def objection(self, domain: str, key: bytes, now: float) -> str | None:
        """Why a connection of `key` to a channel is not let in; None: it is."""
        live = self._live.get(key)
        if domain == CONTROL:
            return None if live is not None else self.ticket_objection(key, now)
        if live is None:
            if domain == EVENTS:
                return self._events_objection(key, now)
            return "a key that is no live registration's (a stranger, or a peer's connection of before)"
        if domain == lane_domain(live.epoch) or INBOXES.get(domain) == live.peer:
            return None
        return f"the key of {live.peer} {live.instance:x}, which is not for that"

    def _events_objection(self, key: bytes, now: float) -> str | None:
        grant = self.holder(key)
        if grant is not None and not grant.manages:
            return f"the {grant.role} ticket {grant.name!r} may not read events: that takes an admin ticket"
        return self.ticket_objection(key, now)

    def ticket_objection(self, key: bytes, now: float) -> str | None:
        """Why `key` is not that of a good ticket."""
        grant = self.holder(key)
        return "a key of no ticket" if grant is None else grant.objection(now)

    def holder(self, key: bytes) -> Grant | None:
        """The ticket whose key this is."""
        name = self._by_key.get(key)
        return self._grants[name] if name is not None else None

    # ---- registrations --------------------------------------------------------------------------------------

    def enter(self, key: bytes, live: Registration) -> None:
        """A registration begins; `key` is its own from now on."""
        self._live[key] = live
        self._keys[live.epoch] = key

    def leave(self, epoch: int) -> None:
        """A registration is over; its key is nobody's."""
        key = self._keys.pop(epoch, None)
        if key is not None:
            del self._live[key]

    def may_use(self, key: bytes) -> bool:
        """Whether a registration may name this key as its own: nobody else may have it, no ticket and no hub either."""
        return len(key) == KEY_BYTES and key != self._own and key not in self._live and key not in self._by_key

    def registration(self, key: bytes) -> Registration | None:
        """The live registration whose key this is."""
        return self._live.get(key)

    def speaks_for(self, key: bytes, epoch: int) -> bool:
        """Whether what comes from `key` is of the registration `epoch`."""
        return self._keys.get(epoch) == key

    # ---- time -----------------------------------------------------------------------------------------------

    def ended(self, now: float) -> list[Grant]:
        """Tickets that were revoked or have expired since this was last asked.

        One that is good again, because a clock was wrong and was set back, will end once more.
        """
        bad = [grant for grant in self._grants.values() if grant.objection(now) is not None]
        ended = [grant for grant in bad if grant.name not in self._said]
        self._said = {grant.name for grant in bad}
        return ended

    def next_expiry(self) -> float:
        """When the next ticket expires."""
        return min((g.expires_at for g in self._grants.values() if g.name not in self._said), default=NEVER)

    def check(self) -> None:
        """Compare the indexes.

        Raises
        ------
        LocalProtocolError
            They disagree.
        """
        if {live.epoch: key for key, live in self._live.items()} != self._keys:
            raise LocalProtocolError("keys of registrations by epoch and by key differ")
        if any(self._grants[name].key != key for key, name in self._by_key.items()):
            raise LocalProtocolError("tickets by name and by key differ")
        if self._live.keys() & self._by_key.keys():
            raise LocalProtocolError("a ticket's key is that of a registration, too")
