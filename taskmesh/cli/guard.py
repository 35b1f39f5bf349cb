"""Nobody gets in by accident: what a hub without keys means, and directories that are this user's alone."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ..errors import AddressError
from ..security.files import holds_only
from ..transport.endpoints import Address, is_socket_name
from .logs import notices

HUB_RISK = "a task is code, so whoever reaches this port can run anything on the workers: it is an open shell"
WORKER_RISK = "a task is code, so whoever answers there can run anything here, as you"


def warn_insecure(address: Address, risk: str) -> None:
    """Say at every start what it means to have no keys."""
    whom = "other users of this machine can reach it" if address.is_local else "whoever is on the network can reach it"
    notices.warning("%s is neither encrypted nor authenticated (--insecure), and %s: %s", address, whom, risk)


def private_directory(path: str) -> Path:
    """The directory of an ipc:// hub, made if need be, which nobody else may enter.

    Raises
    ------
    AddressError
        It cannot be made, or others may enter it: then they could run tasks.
    """
    directory = Path(path)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.stat()
    except OSError as error:
        raise AddressError(f"cannot listen in {path}: {error.strerror}") from error
    if status.st_uid != os.geteuid():
        raise AddressError(
            f"cannot listen in {path}: it belongs to another user (uid {status.st_uid}), who could run tasks as you"
        )
    if stat.S_IMODE(status.st_mode) & 0o077:
        remedy = "chmod 700 it first" if holds_only(directory, _is_of_a_hub) else "choose a directory of your own"
        raise AddressError(f"cannot listen in {path}: others may enter it, and could run tasks; {remedy}")
    return directory


def _is_of_a_hub(name: str) -> bool:
    return name == "lock" or is_socket_name(name)
