"""Which hub to join, and with which keys: what a client, a worker and the command line have in common."""

from __future__ import annotations

import os
from typing import NamedTuple

from .core.access import Role
from .transport.curve import Credentials
from .transport.endpoints import Address, parse_address

YES = {"1", "true", "yes", "on"}


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
        As a user wrote it; None: the one in the ticket.
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
        There is no ticket, or it cannot be used.
    """
    hub = parse_address(address) if address is not None else None
    if hub is not None and (hub.scheme == "ipc" or insecure or _says_insecure()) and ticket is None:
        return HubChoice(hub, None)  # a directory that only this user can enter, or a network that is trusted
    from .security.finding import find_ticket  # a private mesh needs none of it

    found = find_ticket(hub, role, os.fspath(ticket) if ticket is not None else None)
    keys = Credentials(found.hub_key, found.public_key, found.secret_key)
    return HubChoice(hub or parse_address(found.hub), keys)


def _says_insecure() -> bool:
    return os.environ.get("TASKMESH_INSECURE", "").lower() in YES


__all__ = ["HubChoice", "choose_hub"]
