"""Hostile messages, made from the definitions of the messages: a new one, or a new field, needs no word here.

A field is filled by its name where ids have to be right to get anywhere (a session, a fence, a range), by its type
otherwise; and now and then with what stands at the edge of something.
"""

from __future__ import annotations

import struct
import types
import typing
from copy import deepcopy
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cache
from typing import Any

import msgpack

from taskmesh.core.chunk import Chunk, pack_sizes
from taskmesh.core.identity import digest_of
from taskmesh.core.limits import ATTEMPTS, NAME, NUMBER, TASKS, WORD
from taskmesh.core.messages import Outcome
from taskmesh.errors import LocalProtocolError
from taskmesh.wire.messages import KINDS, Message, encode

from .source import Source, chance, pick

EDGES = (
    0, 1, 2, 7, 255, 256, 4095, 4096, 65_535, 65_536, TASKS - 1, TASKS, TASKS + 1, ATTEMPTS, ATTEMPTS + 1,
    2**32 - 1, 2**32, 2**53, NUMBER - 1, NUMBER, NUMBER + 1, 2**63 - 1, 2**63, WORD - 1, WORD, -1, -(2**31), -(2**63),
)  # fmt: skip
TEXTS = (
    "f",
    "",
    "größe",
    "client",
    "daemon",
    "1.0",
    "3.11",
    "\x1b[2J",
    "a\nb\0",
    "x" * NAME,
    "y" * (NAME + 1),
    "\U0001f600",
    "tcp://h:1",
)
FLOATS = (0.0, 1e-9, 0.001, 1.0, 1e6, 1e300, 5e-324, float("inf"), float("nan"), -1.0, -0.0)
BODIES = (b"body", b"", b"other body", b"init")
DIGESTS = (*(digest_of(body) for body in BODIES), b"d" * 16, b"")
REPORT: bytes = msgpack.packb(
    {"kind": "lost", "host": "h", "worker": "w", "pid": 1, "exitcode": 1, "signal": None, "oom": False, "output": ""}
)


@dataclass
class Known:
    """Ids that mean something to whoever is spoken to: what a peer has learned, or guessed."""

    sessions: list[int] = field(default_factory=lambda: [1, 2, 3])
    fences: list[int] = field(default_factory=lambda: [0, 1, 2])
    blobs: tuple[bytes, ...] = (b"", b"blob", struct.pack("<II", 1, 0), struct.pack("<I", 2**32 - 1), REPORT)

    def learn(self, fence: int) -> None:
        """A lease was seen; the newest are remembered, and what comes next is guessed."""
        self.fences = [*self.fences[-6:], fence, fence + 1]


def message(source: Source, known: Known, kinds: tuple[type[Message], ...]) -> Message:
    """A message of one of `kinds`, more or less sensible."""
    return typing.cast(Message, build(pick(source, kinds), source, known))


def build(cls: Any, source: Source, known: Known) -> Any:
    """A NamedTuple with hostile fields."""
    values = [value(name, hint, source, known) for name, hint in _hints(cls).items()]
    made = cls(*values)
    if {"lo", "hi"} <= set(cls._fields) and not chance(source, 12):
        made = made._replace(hi=made.lo + 1 + source.below(4))
    if cls is Outcome and made.form >= 3 and not chance(source, 12):
        made = made._replace(hi=made.lo + 1)
    return made


def value(name: str, hint: Any, source: Source, known: Known) -> Any:
    """What may stand in a field of this name and type."""
    origin = typing.get_origin(hint)
    if hint is int:
        return number(name, source, known)
    if hint is bool:
        return source.below(2) == 1
    if hint is float:
        return pick(source, FLOATS)
    if hint is str:
        return pick(source, TEXTS)
    if hint is bytes:
        return _bytes(name, source, known)
    if hint is Chunk:
        return chunk(source)
    if origin is tuple:
        return _tuple(len(typing.get_args(hint)), source, known)
    if origin in (list, typing.get_origin(typing.Sequence[int])):
        (inner,) = typing.get_args(hint)
        many = 60 if chance(source, 40) else source.below(4)
        return [value(name, inner, source, known) for _ in range(many)]
    if isinstance(hint, type) and issubclass(hint, tuple) and hasattr(hint, "_fields"):
        return build(hint, source, known)
    if isinstance(hint, types.UnionType):
        return value(name, pick(source, typing.get_args(hint)), source, known)
    if isinstance(hint, type) and issubclass(hint, IntEnum):
        return pick(source, list(hint))
    raise TypeError(f"the grammar does not know what a {hint} is, in a field called {name}")


@cache
def _hints(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def number(name: str, source: Source, known: Known) -> int:
    """An id that exists, a small number, or one at an edge."""
    if chance(source, 16):
        return pick(source, EDGES)
    if name in ("session", "instance"):
        return pick(source, known.sessions)
    if name in ("fence", "parts", "held"):
        return pick(source, known.fences)
    if name == "form":
        return 1 + source.below(6)
    if name in ("slots", "attempt", "pid"):
        return 1 + source.below(4)
    return source.below(5)


def _bytes(name: str, source: Source, known: Known) -> bytes:
    if name in ("digest", "init"):
        return pick(source, DIGESTS)
    if name == "data":
        return pick(source, BODIES)
    if name == "blob":
        return pick(source, known.blobs)
    return pick(source, (REPORT, b"", b"x", b"k" * 32, b"s" * 16, b"x" * 70_000))


def _tuple(length: int, source: Source, known: Known) -> tuple[int, ...]:
    """A range, or a part of a lease."""
    lo = number("lo", source, known)
    hi = number("hi", source, known) if chance(source, 12) else lo + 1 + source.below(4)
    return (lo, hi) if length == 2 else (number("fence", source, known), lo, hi)


def chunk(source: Source) -> Chunk:
    """A chunk; its tables fit unless it is to be a wrong one."""
    leaves = [1 + source.below(5) for _ in range(1 + source.below(4))]
    items = pack_sizes(leaves) if source.below(2) else b""
    count = sum(leaves) if items else len(leaves)
    grain, first = pick(source, (1, 1, 3, TASKS)), source.below(12)
    made = Chunk(first, 0, count, pack_sizes(leaves), items, grain, bytes(sum(leaves)))
    if chance(source, 12):
        place = pick(source, ("first", "base", "count", "grain"))
        setattr(made, place, pick(source, EDGES))
    elif chance(source, 12):
        setattr(made, pick(source, ("sizes", "items")), pick(source, (b"", b"\0", b"\xff" * 8, pack_sizes([0]))))
    return made


# ---- bytes ----------------------------------------------------------------------------------------------------------


def packed(source: Source, known: Known, kinds: tuple[type[Message], ...] = tuple(KINDS.values())) -> bytes:
    """A message as bytes; now and then some of its parts are replaced, doubled, left out or cut."""
    made = message(source, known, kinds)
    try:
        data = encode(made)
    except (LocalProtocolError, OverflowError, ValueError):  # a number that msgpack has no room for
        return b"\x90"
    if chance(source, 3):
        tree = msgpack.unpackb(data, strict_map_key=False)
        for _ in range(1 + source.below(3)):
            _disturb(tree, source)
        data = bytes(msgpack.packb(tree))
    return data[: source.below(len(data) + 1)] if chance(source, 20) else data


STRANGE: tuple[Any, ...] = (
    None, True, -1, WORD, 0.5, float("nan"), "text", "", b"", b"\xff\xfe", [], [[]], {}, {"kind": 3}, [0] * 20,
    msgpack.ExtType(5, b"x"), msgpack.Timestamp(1), "x" * 300,
)  # fmt: skip


def _disturb(tree: list[Any], source: Source) -> None:
    """Change something somewhere in nested lists."""
    while True:
        if not tree:
            tree.append(deepcopy(pick(source, STRANGE)))
            return
        place = source.below(min(len(tree), 200))
        inner = tree[place]
        if isinstance(inner, list) and not chance(source, 3):
            tree = inner
            continue
        what = source.below(5)
        if what == 0:
            tree[place] = deepcopy(pick(source, STRANGE))
        elif what == 1:
            del tree[place]
        elif what == 2:
            tree.insert(place, inner)
        elif what == 3:
            tree[place] = [inner]
        else:
            tree[place] = pick(source, EDGES)
        return
