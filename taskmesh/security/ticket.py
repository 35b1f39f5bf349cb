"""Tickets: one small text file that lets its holder join a hub in a role, and no more.

A ticket names the hub by address and public key, so that its holder cannot be led to another one, and holds a key pair
of its own, of which the hub knows the public half. Whoever can read the file can use it; so it is refused if others
can. Errors name the file and what to do, and never quote it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..core.access import NEVER, Role
from ..errors import AddressError, TicketError
from ..transport.endpoints import parse_address
from . import keys, toml
from .files import Unsafe, quoted, read_private, reason, write_private

FORMAT = 1
NAME_CHARACTERS = 60
HARM = "could act as you"
LAST_S = 253_402_300_800.0  # the year 10000, which no timestamp can say: for ever
ALLOWS = {
    Role.ADMIN: "It makes and revokes tickets, sees everything, and submits tasks: code that runs on every worker.",
    Role.CLIENT: "It submits tasks, which are code that runs on every worker.",
    Role.WORKER: "It takes tasks and sees their arguments.",
}
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
LONGEST_S = 100 * 366 * 86_400


@dataclass(frozen=True, slots=True)
class Ticket:
    """What lets a peer join a hub. Keys are Z85 text; `expires_at` is in seconds since the epoch, `NEVER` for ever."""

    hub: str
    hub_key: str
    public_key: str
    secret_key: str = field(repr=False)
    role: Role
    name: str
    expires_at: float = NEVER

    def objection(self, now: float) -> str | None:
        """Why it is not good any more, as far as the ticket itself can tell; None if it is."""
        if now < self.expires_at:
            return None
        return f"the ticket {self.name!r} has expired on {iso(self.expires_at)}"


def read_ticket(path: str | Path) -> Ticket:
    """The ticket in a file, if it can be used.

    Raises
    ------
    TicketError
        There is none, it is damaged, others can read it, or it has expired; with the remedy.
    """
    ticket = load_ticket(path)
    objection = ticket.objection(time.time())
    if objection is not None:
        raise TicketError(f"{path}: {objection}; get a new one: {remedy(ticket.role)}")
    return ticket


def load_ticket(path: str | Path) -> Ticket:
    """The ticket in a file, whether it has expired or not.

    Raises
    ------
    TicketError
        As by `read_ticket`.
    """
    path = Path(path)
    try:
        data = read_private(path, "ticket", HARM, shared=True)
    except FileNotFoundError:
        raise TicketError(f"{path}: there is no such ticket; the hub's owner makes one: {remedy()}") from None
    except Unsafe as error:
        why = str(error) if _looks_like_one(path) else "this is no ticket"
        raise TicketError(f"{path}: {why}") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        why = reason(error) if isinstance(error, OSError) else "no file can have this name"
        raise TicketError(f"{path}: the ticket cannot be read ({why})") from None
    try:
        return _ticket(toml.table(data))
    except ValueError as error:
        raise TicketError(f"{path}: this is not a ticket that can be used: {error}; {_instead(path)}") from None


def _looks_like_one(path: Path) -> bool:
    """Whether a file that was refused was meant to be a ticket: then the remedy is one for this file."""
    if not path.is_file():
        return True  # and what is wrong with it has been said
    try:
        with open(path, "rb") as file:
            return b"\nticket" in b"\n" + file.read(4096)
    except OSError:
        return True


def write_ticket(path: str | Path, ticket: Ticket, *, replace: bool = True) -> None:
    """Write a ticket to a file that only we can read: whole, or not at all.

    Parameters
    ----------
    path
        The file; its directory exists.
    ticket
        What to write.
    replace
        Whether a file that is there is replaced.

    Raises
    ------
    TicketError
        It cannot be written, or is there and shall not be replaced.
    """
    path = Path(path)
    try:
        text = ticket_text(ticket)
    except ValueError as error:
        raise TicketError(f"{path}: this is not a ticket that could be used: {error}") from None
    try:
        write_private(path, text.encode(), replace=replace)
    except FileExistsError:
        raise TicketError(
            f"{path}: this file exists, and is not overwritten; choose another with --out, or remove it"
        ) from None
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else "no file can have this name"
        raise TicketError(f"{path}: the ticket cannot be written ({why})") from None


def _instead(path: Path) -> str:
    """What to do about a ticket that is damaged. One of the hub's own is not made again by the hub."""
    if not (path.parent / "hub.key").exists():
        return f"make another: {remedy()}"
    stopped = "stop the hub, " if path.stem == Role.ADMIN else ""
    where, file = quoted(path.parent), quoted(path)
    role = path.stem if path.stem in {role.value for role in Role} else "ROLE"
    return f"{stopped}remove it, and make another: {remedy(role)} --keys {where} --out {file}"


def remedy(role: str | None = None) -> str:
    """The command that makes a ticket."""
    return f"taskmesh ticket create --role {role or 'ROLE'} --name NAME"


# ---- the text -------------------------------------------------------------------------------------------------------


def ticket_text(ticket: Ticket) -> str:
    """A ticket as the text of its file.

    Raises
    ------
    ValueError
        One of its fields makes no sense, and would not be read again.
    """
    fields: dict[str, str | int] = {
        "ticket": FORMAT,
        "hub": ticket.hub,
        "hub_key": ticket.hub_key,
        "role": ticket.role.value,
        "name": ticket.name,
        "expires": iso(ticket.expires_at),
        "public_key": ticket.public_key,
        "secret_key": ticket.secret_key,
    }
    _ticket(fields)
    comments = [
        "A taskmesh ticket: whoever can read this file can use it. Keep it like an ssh key (chmod 600).",
        f"Role {ticket.role}. {ALLOWS[ticket.role]}",
        f"Use: {_use(ticket.role)}, or TASKMESH_TICKET=FILE.",
    ]
    return toml.document(comments, fields)


def _use(role: Role) -> str:
    return {
        Role.ADMIN: "taskmesh status --ticket FILE, taskmesh ticket list --ticket FILE",
        Role.CLIENT: "Mesh(ticket=FILE)",
        Role.WORKER: "taskmesh worker --ticket FILE",
    }[role]


def _ticket(table: Mapping[str, Any]) -> Ticket:
    """The ticket in a table.

    Raises
    ------
    ValueError
        It is none; the message names the field, and does not quote it.
    """
    if type(table.get("ticket")) is not int:
        raise ValueError("it does not begin as one")
    if table["ticket"] != FORMAT:
        raise ValueError("it is of another release of taskmesh")
    for name in ("hub", "hub_key", "role", "name", "expires", "public_key", "secret_key"):
        if not isinstance(table.get(name), str):
            raise ValueError(f"{name} is missing" if name not in table else f"{name} is no text")
    for name in ("hub_key", "public_key", "secret_key"):
        if not keys.is_key(table[name]):
            raise ValueError(f"{name} is no key of {keys.KEY_CHARACTERS} characters")
    if not keys.is_pair(table["public_key"], table["secret_key"]):
        raise ValueError("secret_key does not belong to public_key")
    if table["role"] not in {role.value for role in Role}:
        raise ValueError("role is none of admin, client, worker")
    fault = name_fault(table["name"])
    if fault is not None:
        raise ValueError(f"name {fault}")
    try:
        parse_address(table["hub"])
    except AddressError:
        raise ValueError("hub is no address") from None
    return Ticket(
        hub=table["hub"],
        hub_key=table["hub_key"],
        public_key=table["public_key"],
        secret_key=table["secret_key"],
        role=Role(table["role"]),
        name=table["name"],
        expires_at=_parse_iso(table["expires"]),
    )


def name_fault(name: str) -> str | None:
    """What is wrong with the name of a ticket; None if nothing is. It becomes the name of a file, and is logged."""
    if not name or name != name.strip() or name.strip(".") == "":
        return "is empty, or begins or ends with a space"
    if len(name) > NAME_CHARACTERS:
        return f"is longer than {NAME_CHARACTERS} characters"
    if not name.isprintable():
        return "has characters that do not print"
    return "has a path separator in it" if "/" in name or "\\" in name else None


# ---- time -----------------------------------------------------------------------------------------------------------


def iso(at: float) -> str:
    """A time in seconds since the epoch as `2026-12-24T18:00:00Z`; "never" if it is infinite or out of the calendar."""
    if not at < LAST_S:
        return "never"
    return datetime.fromtimestamp(max(at, 0.0), UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _parse_iso(text: str) -> float:
    if text == "never":
        return NEVER
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("expires is no time such as 2026-12-24T18:00:00Z") from None
    if at.tzinfo is None:
        raise ValueError("expires does not say in which time zone: end it with Z")
    return at.timestamp()


def parse_validity(text: str) -> int:
    """How long a ticket shall be good, in seconds: `90m`, `12h`, `30d`, `8w`; 0 for `never`.

    Raises
    ------
    ValueError
        It says nothing of the kind.
    """
    if text.strip() == "never":
        return 0
    number, unit = text.strip()[:-1], text.strip()[-1:]
    if unit not in UNITS or not (number.isascii() and number.isdecimal() and len(number) <= 10) or not int(number):
        raise ValueError(f"{text!r} is no time: write for example 90m, 12h, 30d, 8w or never")
    seconds = int(number) * UNITS[unit]
    if seconds > LONGEST_S:
        raise ValueError(f"{text!r} is more than a hundred years: write never")
    return seconds
