"""Finding the ticket for a hub: the one that was named, or the one that lies where this user's tickets lie.

Which of several: that of exactly the role before an admin's, which does for a client as well; the hub's own directory
before `tickets`; and of what is left the newest. A ticket that would be the right one but cannot be used is an error:
to try another in silence would hide that somebody else may have read it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ..core.access import Role
from ..errors import NoTicket, TicketError
from ..transport.endpoints import DEFAULT_PORT, Address, parse_address
from .places import configuration
from .ticket import Ticket, load_ticket, read_ticket, remedy

DOES_FOR = {Role.ADMIN: (Role.ADMIN,), Role.CLIENT: (Role.CLIENT, Role.ADMIN), Role.WORKER: (Role.WORKER,)}
"""Which tickets do for a role, best first."""


class Found(NamedTuple):
    """A ticket, and where it was. `own`: in the keys directory of a hub of this user, on this machine."""

    path: Path
    own: bool
    ticket: Ticket
    hub: Address

    def is_for(self, address: Address) -> bool:
        """Whether it is for the hub at `address`."""
        if self.hub.port != address.port or self.hub.scheme != address.scheme:
            return False
        return self.hub.host.lower() == address.host.lower() or (
            address.is_local and (self.own or self.hub.is_local) and address.scheme == "tcp"
        )


def find_ticket(address: Address | None, role: Role, explicit: str | None) -> Ticket:
    """The ticket to use at a hub; parameters and errors are those of `find`."""
    return find(address, role, explicit).ticket


def find(address: Address | None, role: Role, explicit: str | None) -> Found:
    """The ticket to use at a hub, and where it is.

    Parameters
    ----------
    address
        The hub's; None: the only one that there is a ticket for, or that on port 5555.
    role
        What for.
    explicit
        A path that was given. Without it `$TASKMESH_TICKET`, and then the directories of this user are looked through.

    Raises
    ------
    TicketError
        There is none, it cannot be used, or there are several; with the remedy.
    """
    named = explicit or os.environ.get("TASKMESH_TICKET")
    if named:
        return _named(Path(named).expanduser(), role)
    there = list(_candidates(address, role))
    candidates = [found for found in there if address is None or found.is_for(address)]
    if not candidates:
        raise NoTicket(_nothing(address, role, there))
    if address is None:
        candidates = _of_one_hub(candidates)
    now = time.time()
    good = [found for found in candidates if found.ticket.objection(now) is None]
    best = DOES_FOR[role]
    chosen = min(good or candidates, key=lambda f: (best.index(f.ticket.role), not f.own, -_changed(f.path)))
    return chosen if good else chosen._replace(ticket=read_ticket(chosen.path))  # which says what is wrong with it


def _named(path: Path, role: Role) -> Found:
    ticket = read_ticket(path)
    if ticket.role not in DOES_FOR[role]:
        raise TicketError(
            f"{path}: the ticket {ticket.name!r} is one for role {ticket.role}, and here one for {role} is needed: "
            f"{remedy(role)}"
        )
    return Found(path, False, ticket, parse_address(ticket.hub))


def _candidates(address: Address | None, role: Role) -> Iterable[Found]:
    """Tickets that do for the role, with unusable ones as an error.

    A hub's own directory is named by its port, so that what is wrong with another hub's is of no concern.
    """
    base = configuration()
    port = "*" if address is None else str(address.port)
    for pattern in (f"hub-{port}", f"free-{port}"):
        for directory in sorted(base.glob(pattern)):
            for fitting in DOES_FOR[role]:
                path = directory / f"{fitting}.ticket"
                if not _is_missing(path):
                    yield _found(path, own=True)
    for path in sorted((base / "tickets").glob("*.ticket")):
        found = _found(path, own=False)
        if found.ticket.role in DOES_FOR[role]:
            yield found


def _is_missing(path: Path) -> bool:
    """Whether there is no such file. What cannot be looked at is there, and reading it says why it cannot."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _found(path: Path, own: bool) -> Found:
    ticket = load_ticket(path)
    return Found(path, own, ticket, parse_address(ticket.hub))


def _of_one_hub(candidates: list[Found]) -> list[Found]:
    hubs = {found.hub: found for found in reversed(candidates)}
    if len(hubs) > 1:
        usual = [found for found in candidates if found.hub.port == DEFAULT_PORT]
        usual = [found for found in usual if found.own] or usual
        if len({found.hub for found in usual}) == 1:
            return usual
        listed = ", ".join(f"{hub} ({found.path})" for hub, found in sorted(hubs.items()))
        raise TicketError(f"there are tickets for several hubs, name one by its address or its ticket: {listed}")
    return candidates


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _nothing(address: Address | None, role: Role, others: list[Found]) -> str:
    """Why no ticket was found. `others`: what is there for other addresses; of this user's own hubs with this port."""
    where = f"the hub at {address}" if address is not None else "any hub"
    near = next((f"; {f.path} is for {f.hub}: if that is the same hub, give this one" for f in others if f.own), "")
    step = ". Or run" if near else ": run"
    return (
        f"there is no {role} ticket for {where} on this machine{near}{step} `{remedy(role)}` on the hub's machine, "
        f"bring the file here, and give it by --ticket, ticket= or $TASKMESH_TICKET (or --insecure, insecure=True, if "
        f"the hub was started with it)"
    )
