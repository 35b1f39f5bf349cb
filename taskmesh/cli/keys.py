"""The keys of a hub that is started here: where they are, and its first tickets."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..transport.endpoints import Address
from ..transport.versions import host_name
from .exits import CommandError, ExitCode

if TYPE_CHECKING:
    from ..hub import Hub
    from ..security.keyring import Keyring


@contextmanager
def keyring(
    address: Address, directory: Path | None, insecure: bool, reached_by: str | None
) -> Iterator[Keyring | None]:
    """The keys of the hub that is going to listen at `address`; None if it needs none.

    Its first tickets are there before it is, if its port is known: whoever waits for it to listen needs one then. The
    keys of a hub on a free port, which nobody would find again, are gone with it, unless a directory was named.

    Raises
    ------
    KeysError
        They cannot be had; the message says why, and what to do.
    CommandError
        Something was said of keys, and there are to be none.
    """
    if insecure or address.scheme == "ipc":
        given = "--keys" if directory is not None else "--advertise" if reached_by is not None else None
        if given is not None:
            why = "with --insecure" if insecure else f"at {address}, which only its owner can enter,"
            raise CommandError(ExitCode.USAGE, f"{given} is of no use: a hub {why} has no keys and no tickets")
        yield None
        return
    from ..security.keyring import Keyring
    from ..security.places import default_keys_directory, nameless_directory, sweep_ephemeral

    sweep_ephemeral()
    lasting = directory is not None or address.port != 0
    where = directory or (default_keys_directory(address) if address.port else nameless_directory())
    ring = Keyring.open(where)
    try:
        if address.port:
            ring.first_tickets(reached_by or str(_reachable(address)))
        yield ring
    finally:
        if lasting:
            ring.close()
        else:
            ring.remove()


def publish(hub: Hub, ring: Keyring, reached_by: str | None) -> None:
    """The hub listens: keep its keys by its port, and make its first tickets."""
    from ..security.places import ephemeral_directory, nameless_directory

    if ring.directory == nameless_directory().absolute():
        directory = ephemeral_directory(hub.address.port)
        with contextlib.suppress(FileNotFoundError):
            directory.rmdir()
        ring.move(directory.absolute())
    hub.publish(reached_by or str(_reachable(hub.address)))


def address_in_tickets(hub: Address, reached_by: str | None) -> str:
    """What the tickets of a hub that listens at `hub` say."""
    return reached_by or str(_reachable(hub))


def _reachable(address: Address) -> Address:
    """A hub that listens on every address is reached by this machine's name."""
    return address._replace(host=host_name()) if address.host in ("0.0.0.0", "::") else address
