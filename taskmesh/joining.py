"""Which hub to join, and with which keys: what a client, a worker and the command line have in common."""

from __future__ import annotations

import os
from collections.abc import Callable
from time import monotonic, sleep
from typing import TYPE_CHECKING, NamedTuple

from .core.access import Role
from .errors import HubUnreachable, NoTicket, TicketError
from .transport.curve import Credentials
from .transport.diagnosis import diagnose, listens
from .transport.endpoints import DEFAULT_PORT, Address, parse_address

if TYPE_CHECKING:
    from .security.ticket import Ticket

DEFAULT_HUB = f"tcp://127.0.0.1:{DEFAULT_PORT}"
AGAIN_S = 0.2
NEVER = float("inf")
YES = {"1", "true", "yes", "on"}

NOT_TOGETHER = (
    "a ticket and --insecure (insecure=True) do not go together: a hub has keys, or it has none. Leave out one "
    "of them; $TASKMESH_TICKET counts as well"
)


class HubChoice(NamedTuple):
    """A hub's address, and the keys to join it with; None for one without keys."""

    address: Address
    credentials: Credentials | None


def choose_hub(
    address: str | None, ticket: str | os.PathLike[str] | None, insecure: bool, role: Role = Role.CLIENT
) -> HubChoice:
    """Find the hub and the keys.

    Parameters
    ----------
    address
        As a user wrote it; None: the one in the ticket, and without keys port 5555 of this machine.
    ticket
        Path of a ticket; None: `$TASKMESH_TICKET`, or what is found for the address.
    insecure
        Whether to go without keys; `$TASKMESH_INSECURE` says the same.
    role
        What the ticket has to be for.

    Raises
    ------
    AddressError
        The address is none.
    TicketError
        There is no ticket, or it cannot be used; or there is one although there are to be no keys.
    """
    hub = parse_address(address) if address is not None else None
    if hub is not None and hub.scheme == "ipc":
        return HubChoice(hub, None)  # a directory that only this user can enter
    if insecure and ticket is not None:
        raise TicketError(NOT_TOGETHER)
    if insecure or (ticket is None and _says_insecure()):
        return HubChoice(hub or parse_address(DEFAULT_HUB), None)
    from .security.finding import find_ticket  # a private mesh needs none of it

    found = find_ticket(hub, role, os.fspath(ticket) if ticket is not None else None)
    return HubChoice(hub or parse_address(found.hub), credentials_of(found))


def credentials_of(ticket: Ticket) -> Credentials:
    """What of a ticket a connection needs."""
    return Credentials(ticket.hub_key, ticket.public_key, ticket.secret_key, ticket.name)


def await_hub(
    address: str | None,
    ticket: str | os.PathLike[str] | None,
    insecure: bool,
    role: Role = Role.CLIENT,
    timeout_s: float = NEVER,
    waiting: Callable[[Address], None] | None = None,
) -> HubChoice:
    """As `choose_hub`, but a hub of this machine that is not there yet, and has no tickets yet, is waited for.

    Parameters
    ----------
    address, ticket, insecure, role
        As there.
    timeout_s
        For how many seconds.
    waiting
        Called once with its address if it has to be waited for.

    Raises
    ------
    AddressError, TicketError
        As there.
    HubUnreachable
        It did not come in time.
    """
    deadline = monotonic() + timeout_s
    while True:
        try:
            return choose_hub(address, ticket, insecure, role)
        except NoTicket:
            hub = parse_address(address) if address is not None else None
            if hub is None or not hub.is_local or listens(hub):
                raise
            if monotonic() >= deadline:
                raise HubUnreachable(f"no hub answered within {timeout_s:g} s: {diagnose(hub)}") from None
        if waiting is not None:
            waiting(hub)
            waiting = None
        sleep(min(AGAIN_S, max(0.0, deadline - monotonic())))


def _says_insecure() -> bool:
    return os.environ.get("TASKMESH_INSECURE", "").lower() in YES


__all__ = ["HubChoice", "await_hub", "choose_hub", "credentials_of"]
