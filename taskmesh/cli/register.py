"""Where a hub's tickets are recorded, as `taskmesh ticket` finds it: with the hub if it runs, in its files if not."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ..core import messages as m
from ..core.access import Role
from ..errors import HubUnreachable, KeysError, NoTicket, RegistrationRefused
from ..security.audit import Audit
from ..security.finding import find
from ..security.grants import document
from ..security.keyring import HUB_KEY, Keyring, KeysInUse
from ..security.places import default_keys_directory
from ..security.ticket import Ticket, load_ticket
from ..transport.endpoints import Address, parse_address
from .asking import ask, no_hub
from .exits import CommandError, ExitCode
from .options import DEFAULT_HUB

SHOWN = ("name", "role", "state", "created", "expires", "fingerprint")
ADMIN_TICKET = f"{Role.ADMIN}.ticket"
Entries = list[dict[str, str]]
Request = m.CreateTicket | m.RevokeTicket | m.ListTickets


class Where(NamedTuple):
    """What was said of where the register is: a keys directory, a hub's address, an admin ticket, a time to wait."""

    keys: str | None
    hub: str | None
    ticket: str | None
    timeout_s: float


class Register(Protocol):
    """The tickets of one hub."""

    running: bool
    """Whether the hub runs, and so acts at once."""

    def advertised(self) -> tuple[str, str]:
        """The address and the public key of the hub, for a new ticket."""

    def change(self, request: Request, change: Callable[[Keyring], object]) -> Entries:
        """Have a hub do what is requested, or change its files; all tickets as they are then."""


class Files:
    """The register of a hub that does not run."""

    running = False

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def advertised(self) -> tuple[str, str]:
        """See `Register`."""
        for role in Role:
            path = self._keyring.ticket_path(role.value)
            if path.exists():
                return load_ticket(path).hub, self._keyring.public_key
        raise KeysError(f"no ticket in {self._keyring.directory} tells the hub's address: say it with --address")

    def change(self, request: Request, change: Callable[[Keyring], object]) -> Entries:
        """See `Register`."""
        change(self._keyring)
        self._note(request)
        return document(self._keyring.grants, time.time())

    def _note(self, request: Request) -> None:
        """Write it to the audit log, as the hub does; `by` no ticket, but by whoever may change the files."""
        audit = Audit(self._keyring.directory / "audit.jsonl")
        if isinstance(request, m.CreateTicket):
            valid_s = request.valid_s or None
            audit.write("ticket created", name=request.name, role=request.role, valid_s=valid_s, by=None)
        elif isinstance(request, m.RevokeTicket):
            audit.write("ticket revoked", name=request.name, by=None)
        audit.close()


class Running:
    """The register of a hub that runs, or should."""

    running = True

    def __init__(self, address: Address, ticket: Ticket, timeout_s: float, otherwise: str = "") -> None:
        self._address = address
        self._ticket = ticket
        self._timeout_s = timeout_s
        self._otherwise = otherwise  # what to do if it does not run

    def advertised(self) -> tuple[str, str]:
        """See `Register`."""
        return self._ticket.hub, self._ticket.hub_key

    def change(self, request: Request, change: Callable[[Keyring], object]) -> Entries:
        """See `Register`."""
        try:
            reply = ask(self._address, self._ticket, request, self._timeout_s)
        except RegistrationRefused:  # which is a kind of the next
            raise
        except HubUnreachable as error:
            raise HubUnreachable(f"{error}{self._otherwise}") from None
        entries = _entries(reply.document) if isinstance(reply, m.Tickets) else None
        if entries is None:
            raise no_hub(self._address)
        return entries


def _entries(data: bytes) -> Entries | None:
    """A hub's list of tickets, if it is one."""
    try:
        listed: Any = json.loads(data)
        return [{key: str(entry[key]) for key in SHOWN} for entry in listed]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


@contextmanager
def register_of(where: Where) -> Iterator[Register]:
    """The register that is meant.

    Raises
    ------
    KeysError, TicketError
        There is none, or it cannot be used.
    CommandError
        The hub that was named has no tickets.
    """
    address = parse_address(where.hub) if where.hub else None
    if address is not None and address.scheme == "ipc":
        raise CommandError(
            ExitCode.USAGE, f"a hub at {address} has no tickets: whoever may enter its directory may join"
        )
    directory, ticket = _place(where, address)
    if directory is not None:
        try:
            keyring = Keyring.open(directory)
        except KeysInUse:
            if ticket is None:
                ticket = find(address, Role.ADMIN, str(_kept(directory))).ticket
        else:
            with closing(keyring):
                yield Files(keyring)
            return
    assert ticket is not None
    otherwise = ""
    if where.keys and directory is None:
        otherwise = f". If it is stopped, run this as {_owner(Path(where.keys))}"
    yield Running(address or parse_address(ticket.hub), ticket, where.timeout_s, otherwise)


def _place(where: Where, address: Address | None) -> tuple[Path | None, Ticket | None]:
    """The keys directory if it is on this machine, and the admin ticket if there is one; one of them, at least."""
    if where.keys:
        directory = Path(where.keys)
        if not os.path.exists(directory / HUB_KEY):
            raise KeysError(f"{directory} is no keys directory of a hub: there is no {HUB_KEY} in it")
        explicit = where.ticket or (None if _is_ours(directory) else str(_kept(directory)))
        ticket = find(address, Role.ADMIN, explicit).ticket if explicit else None
        return directory if _is_ours(directory) else None, ticket
    try:
        found = find(address, Role.ADMIN, where.ticket)
    except NoTicket:
        directory = default_keys_directory(address or parse_address(DEFAULT_HUB))
        if (address is None or address.is_local) and _is_ours(directory):
            return directory, None  # the admin ticket is kept elsewhere
        if (address is None or address.is_local) and not (where.ticket or directory.exists()):
            start = "taskmesh hub" if address is None else f"taskmesh hub --listen {address}"
            raise NoTicket(
                f"no hub was started here yet: {start} (or say where it has its keys, by --keys; or give an admin "
                f"ticket of a hub elsewhere, by --ticket)"
            ) from None
        raise
    home = found.path.parent
    return home if _is_ours(home) else None, found.ticket


def _kept(directory: Path) -> Path:
    """The admin ticket in a keys directory that cannot be changed from here, now.

    Raises
    ------
    KeysError
        It is not there; with what to do without.
    """
    path = directory / ADMIN_TICKET
    if path.exists():
        return path
    without = "stop the hub: who may change its files needs no ticket"
    if not _is_ours(directory):
        without = f"stop the hub, and run this as {_owner(directory)}"
    raise KeysError(
        f"there is no {ADMIN_TICKET} in {directory}: give another by --ticket; or, if there is none, {without}"
    )


def _owner(directory: Path) -> str:
    """Who may change the files of a hub, which is somebody else."""
    uid = (directory / HUB_KEY).stat().st_uid
    return f"the user to whom its files belong (uid {uid}); docs/security.md says how"


def _is_ours(directory: Path) -> bool:
    """Whether a hub of this user has its keys there. What root would write there, another user's hub could not read."""
    try:
        return (directory / HUB_KEY).stat().st_uid == os.geteuid()
    except OSError:
        return False
