"""Nobody gets in by accident: an address that other machines can reach needs `--insecure`."""

from __future__ import annotations

import stat
from pathlib import Path

from ..errors import AddressError
from ..transport.endpoints import Address
from .exits import CommandError, ExitCode
from .logs import notices

HUB_RISK = "a task is code, so whoever reaches this port can run anything on the workers: it is an open shell"
WORKER_RISK = "a task is code, so whoever answers there can run anything here, as you"


def require_local(address: Address, insecure: bool, risk: str) -> None:
    """Refuse an address that is not this machine's own, unless told otherwise; then warn.

    Raises
    ------
    CommandError
        The address is not loopback or ipc, and `insecure` is false.
    """
    if address.is_local:
        return
    if not insecure:
        raise CommandError(
            ExitCode.USAGE,
            f"refusing {address}: nothing is encrypted or authenticated yet, and {risk}. "
            f"Use 127.0.0.1 or ipc://, or add --insecure on a network that you trust",
        )
    notices.warning("%s is not encrypted or authenticated (--insecure): %s", address, risk)


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
        mode = stat.S_IMODE(directory.stat().st_mode)
    except OSError as error:
        raise AddressError(f"cannot listen in {path}: {error.strerror}") from error
    if mode & 0o077:
        raise AddressError(f"cannot listen in {path}: others may enter it, and could run tasks; chmod 700 it first")
    return directory
