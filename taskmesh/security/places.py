"""Where keys and tickets are if nothing else is said: below the user's configuration directory.

- `hub-PORT`: the keys of the hub on that port.
- `free-PORT`: the same for a hub that took any free port. They go with it; those of a hub that was killed are swept.
- `tickets`: tickets for hubs elsewhere, which the user was given and has put there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ..transport.endpoints import Address

LOCK = "lock"


def configuration() -> Path:
    """`$XDG_CONFIG_HOME/taskmesh`, or `~/.config/taskmesh`."""
    home = os.environ.get("XDG_CONFIG_HOME", "")
    base = Path(home) if os.path.isabs(home) else Path.home() / ".config"  # relative: ignored, says the specification
    return base / "taskmesh"


def default_keys_directory(address: Address) -> Path:
    """Where the hub at `address` keeps its keys: a directory for each port, so that hubs do not meet."""
    return configuration() / f"hub-{address.port}"


def ephemeral_directory(port: int) -> Path:
    """Where a hub that took the free port `port` keeps its keys. What one that was killed has left there is removed."""
    directory = configuration() / f"free-{port}"
    remove_unused(directory)
    return directory


def nameless_directory() -> Path:
    """Where a hub keeps its keys until it knows its port."""
    return configuration() / f"free-of-{os.getpid()}"


def sweep_ephemeral() -> None:
    """Remove the keys of hubs on free ports that have ended without doing so."""
    with contextlib.suppress(OSError):
        for directory in configuration().glob("free-*"):
            remove_unused(directory)


def remove_unused(directory: Path) -> None:
    """Remove a keys directory that nobody uses. What cannot be removed stays: it is of no use to anybody else."""
    with contextlib.suppress(OSError), _locked(directory / LOCK):
        shutil.rmtree(directory)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(fd)
