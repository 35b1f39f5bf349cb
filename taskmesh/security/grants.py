"""The register of tickets: how the file is written and read that says which tickets a hub has ever made.

JSON, with of each ticket the public half of its key alone. What is no register is refused as a whole: a hub must not
start with some of its tickets missing, or with one that was revoked and is not so any more. `keyring` keeps the file.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ..core.access import NEVER, Grant, Role
from ..errors import KeysError
from . import keys
from .files import quoted
from .ticket import iso, name_fault

FORMAT = 1


def written(grants: list[Grant]) -> bytes:
    """The contents of a register with these tickets."""
    entries = [
        {
            "name": g.name,
            "role": g.role.value,
            "key": keys.text(g.key),
            "created_at": g.created_at,
            "expires_at": _or_none(g.expires_at),
            "revoked_at": _or_none(g.revoked_at),
        }
        for g in grants
    ]
    return (json.dumps({"version": FORMAT, "grants": entries}, indent=1) + "\n").encode()


def _or_none(at: float) -> float | None:
    return at if at < NEVER else None


def read(data: bytes, path: Path) -> list[Grant]:
    """The tickets in a register.

    Parameters
    ----------
    data
        The contents of the file.
    path
        Where it is, for the error.

    Raises
    ------
    KeysError
        It is damaged, or of a newer release.
    """
    try:
        content = json.loads(data)
        if type(content) is dict and type(content.get("version")) is int and content["version"] > FORMAT:
            raise newer(path)
        grants = [_grant(entry) for entry in content["grants"]]
        if len({g.name for g in grants}) < len(grants) or len({g.key for g in grants}) < len(grants):
            raise damaged(path, "two tickets have one name or one key")
    except (ValueError, KeyError, TypeError, RecursionError):
        raise damaged(path, "it is no register of tickets") from None
    return grants


def _grant(entry: Any) -> Grant:
    name, created_at = entry["name"], entry["created_at"]
    ends = [NEVER if entry[key] is None else entry[key] for key in ("expires_at", "revoked_at")]
    if not isinstance(name, str) or name_fault(name) is not None:
        raise ValueError("a name")
    if any(type(at) not in (int, float) for at in (created_at, *ends)):
        raise ValueError("a time")
    return Grant(name, Role(entry["role"]), keys.raw(entry["key"]), created_at, ends[0], ends[1])


def damaged(path: Path, why: str) -> KeysError:
    """What to say of a file in a keys directory that makes no sense."""
    return KeysError(
        f"{path} is damaged ({why}): put it back from a copy; or, to start anew, move {quoted(path.parent)} away: "
        f"the hub makes new keys, and everybody needs a new ticket"
    )


def newer(path: Path) -> KeysError:
    """What to say of one that only a later release can read."""
    return KeysError(f"{path} is of a newer release of taskmesh")


def document(grants: list[Grant], now: float) -> list[dict[str, Any]]:
    """Tickets as a list for people and scripts: no secrets, and of keys the fingerprint.

    Parameters
    ----------
    grants
        The tickets.
    now
        Seconds since the epoch.
    """
    return [
        {
            "name": g.name,
            "role": g.role.value,
            "created": iso(g.created_at),
            "expires": iso(g.expires_at),
            "state": "revoked" if g.revoked_at < NEVER else "good" if g.objection(now) is None else "expired",
            "fingerprint": fingerprint(g.key),
        }
        for g in grants
    ]


def fingerprint(key: bytes) -> str:
    """What a key is called where people compare: the first 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(key).hexdigest()[:16]
