"""Where a hub keeps what it has accepted: nowhere but in its memory, or in SQLite."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

from ..errors import StoreError
from .base import OpenStore, Store

__all__ = ["OpenStore", "Store", "default_store_url", "opener", "store_path"]

SCHEME = "sqlite://"
FORMS = "A store is sqlite:///ABSOLUTE/PATH (three slashes), or memory"


def opener(url: str) -> OpenStore | None:
    """What opens the store that `url` names; None for `memory`: then a hub keeps everything itself, as long as it runs.

    Parameters
    ----------
    url
        `memory`, or `sqlite:///ABSOLUTE/PATH`; the path is taken as it is, without escapes.

    Raises
    ------
    StoreError
        It is no store. What is returned raises it where the store cannot be used; the message says why, and what to do.
    """
    path = store_path(url)
    if path is None:
        return None

    def opened(wake: Callable[[], None]) -> Store:
        from .sqlite import SqliteStore  # a private mesh need not import SQLite

        return SqliteStore(path, wake)

    return opened


def store_path(url: str) -> Path | None:
    """The file that a store's `url` names, None for `memory`.

    Raises
    ------
    StoreError
        It is none.
    """
    if url == "memory":
        return None
    scheme, colon, _ = url.partition(":")
    if scheme != "sqlite" or not colon:
        raise StoreError(f"{url!r} is no store that taskmesh has. {FORMS}")
    place = url.removeprefix(SCHEME)
    if place == url or not place.startswith("/") or not place.strip("/") or place.startswith("/~") or "\0" in place:
        rest = url.removeprefix("sqlite:").lstrip("/")
        meant = Path(rest).expanduser() if rest.startswith("~") else Path(rest or "path/to/hub.db")
        raise StoreError(f"{url!r} does not name a file by an absolute path. Write {SCHEME}{meant.absolute()}")
    return Path(place)


def default_store_url(hub: int | str) -> str:
    """Where a hub keeps its work if nothing else is said: in the user's state directory, a file for each hub.

    Parameters
    ----------
    hub
        Its port, or, if it has none, what else tells it from other hubs: its directory.
    """
    name = str(hub)
    if not re.fullmatch(r"[\w.-]{1,60}", name, re.ASCII):
        plain = re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-")[-60:]
        name = f"{plain}-{hashlib.sha256(name.encode(errors='surrogateescape')).hexdigest()[:8]}"
    state = os.environ.get("XDG_STATE_HOME", "")
    base = Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state"
    return f"{SCHEME}{base / 'taskmesh' / f'hub-{name}.db'}"
