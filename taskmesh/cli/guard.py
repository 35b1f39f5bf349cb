"""Nobody gets in by accident: what a hub without keys means, and directories that are this user's alone."""

from __future__ import annotations

import os
import platform
import re
import stat
from pathlib import Path

from ..errors import AddressError
from ..security.files import holds_only
from ..transport.endpoints import Address
from .logs import notices

OWN = re.compile(r"lock|[csre]|l\d+")  # what a hub has in its ipc:// directory
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
        remedy = "chmod 700 it first" if holds_only(directory, OWN) else "choose a directory of your own"
        raise AddressError(f"cannot listen in {path}: others may enter it, and could run tasks; {remedy}")
    return directory


def host_name() -> str:
    """What this machine is called."""
    return platform.node() or "localhost"
