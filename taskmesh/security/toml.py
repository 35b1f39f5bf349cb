"""The little of TOML that tickets and key files need: one table of strings and numbers, with comments.

Written by hand, because the standard library only reads it. It is read lazily: runners have no use for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def quoted(text: str) -> str:
    """`text` as a basic string: quotes, backslashes and everything that does not print are escaped."""
    return '"' + "".join(SHORT.get(c) or (c if c.isprintable() else f"\\U{ord(c):08X}") for c in text) + '"'


def document(comments: list[str], fields: Mapping[str, str | int]) -> str:
    """A table, below lines of comment."""
    lines = [f"# {comment}" for comment in comments]
    lines += [f"{key} = {quoted(value) if isinstance(value, str) else value}" for key, value in fields.items()]
    return "\n".join(lines) + "\n"


def table(data: bytes) -> dict[str, Any]:
    """The table in `data`.

    Raises
    ------
    ValueError
        It is none. The message does not quote it.
    """
    import tomllib

    try:
        return tomllib.loads(data.decode())
    except (ValueError, RecursionError):  # bad UTF-8 is a ValueError as well; deep nesting is the other
        raise ValueError("it is not TOML") from None
