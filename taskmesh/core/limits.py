"""Limits: how much of anything a peer may send. Every bound of the protocol stands here, and in docs/protocol.md.

They are far above what a mesh of ours sends, and low enough that no message makes its reader do much more, or keep much
more, than the bytes in it are worth. Decoding checks them (`wire`), once; the machines rely on that.
"""

from __future__ import annotations

NUMBER = (1 << 62) - 1
"""Of specs and tasks: a store has 63 bits for them."""

WORD = (1 << 64) - 1
"""Of ids, fences and sequence numbers: they travel as 64 bits."""

EPOCH = (1 << 32) - 1
"""Of registrations: an envelope has 32 bits for them."""

TASKS = 1 << 17
"""Of one chunk, and so of every offset: its books are lists of ranges, which cost time by their length."""

LEAF_TASKS = 1 << 16
"""Of one leaf, and the largest `chunksize`: a chunk may be nearly full when another leaf is added to it."""

ARRAY = 1 << 16
"""Elements of an array: msgpack makes room for as many as are announced before they come."""

HELD = 4096
"""Entries of a daemon's heartbeat."""

ATTEMPTS = (1 << 31) - 1
"""Of one task: a dose has 32 bits for them."""

SLOTS = 1 << 16
"""Of one daemon."""

PRIORITY = 1000
"""The highest; the lowest is as far below 0. Each one in use has a queue of its own."""

VALID_S = 1 << 40
"""Seconds of a ticket."""

SPECS = 100_000
"""Functions of one session that are not retired."""

NAME = 1000
"""Characters of the name of a function or a peer."""

HOST = 255
"""Characters."""

WORDS = 10_000
"""Characters of a reason."""

SHORT = 64
"""Characters of a role or a release."""

ENDPOINT = 300
"""Characters."""

REPORT = 64 * 1024
"""Bytes in which a daemon says how a runner died: each task that it ran is told all of them."""

BODY = 256 * 1024 - 64
"""Bytes of a frame behind its envelope; messages of more travel as fragments of exactly so many."""

MESSAGE = 1 << 33
"""Bytes that a peer may make us put together."""

RESULT = (1 << 32) - 1
"""Bytes of what one task, or those that are reported together, return: a msgpack bin has 32 bits for its length."""


def printable(text: str, most: int = NAME) -> str:
    """`text` as it may stand in a log or on a terminal: at most so long, and nothing in it that moves a cursor."""
    text = text[:most]
    return text if text.isprintable() else text.encode("unicode_escape", "backslashreplace").decode("ascii")[:most]
