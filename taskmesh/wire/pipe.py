"""What daemon and runner say to each other over their socketpair.

Frames are `size u64, kind u8, body`; bodies are fixed structs followed by raw bytes, because the runner's process
holds nothing but the standard library and cloudpickle. Tasks are named by their *position*: the running count of
tasks that this runner was ever handed. The claim and limit words (`cells`) speak of the same positions.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from math import inf
from struct import Struct
from typing import NamedTuple

from ..core.chunk import Chunk
from ..core.limits import RESULT
from ..core.messages import Form
from ..errors import PeerProtocolError

FRAME = Struct("<QB")
BODY, DROP, DOSE = 1, 2, 3  # daemon to runner
READY, OUTCOME, STOPPED, SUBMIT, AWAIT, RESULTS = 11, 12, 13, 14, 15, 16  # the last three are reserved

REQUEST = Struct("<Q")  # daemon to nursery: the number of a runner to fork
ANSWER = Struct("<cQq")  # nursery to daemon: kind, number, pid or wait status
FORKED, GONE = b"F", b"G"

CLAIM_BITS = 12  # of a claim word: how many tasks it claims; the rest is the position of its end
CLAIM_MOST = (1 << CLAIM_BITS) - 1

_DOSE = Struct("<QQQQQIIHHHQQQQQdBQ")
_OUTCOME = Struct("<QIBd")
_STOPPED = Struct("<QQ")
FRAME_MOST = RESULT + (1 << 21)  # bytes of a body: a payload or a blob, and what goes with it
_FORMS = frozenset({Form.LIST, Form.EACH, Form.ERROR, Form.CANCELLED})  # the others are the daemon's word

Buffers = list[bytes | memoryview]


class Reason(IntEnum):
    """Why the daemon ends a task before it has ended by itself."""

    TIMEOUT = 1
    CANCELLED = 2
    MEMORY = 3  # the runner is not told: it is killed


class Dose(NamedTuple):
    """Tasks handed to a runner: offsets `[lo, hi)` of `chunk`, at positions from `at` on.

    `block` is how many tasks may be claimed at once at most: 1, or more where they seem to be tiny. `timeout_s`:
    how long each may run, 0 for ever. `singly`: what has ended is reported before the next task is claimed. `largest`:
    how many bytes results that are reported together may have.
    """

    at: int
    session: int
    spec: int
    attempt: int
    lo: int
    hi: int
    block: int
    name: str
    digest: bytes
    init: bytes
    chunk: Chunk
    timeout_s: float = 0.0
    singly: bool = False
    largest: int = RESULT


class PipeOutcome(NamedTuple):
    """Outcome of `tasks` tasks from position `at` on; see `Form`."""

    at: int
    tasks: int
    form: int
    busy_s: float
    blob: bytes


class PipeStopped(NamedTuple):
    """The runner dropped the tasks at positions `[at, end)` without starting them, as the limit told it."""

    at: int
    end: int


def frame(kind: int, *parts: bytes | memoryview) -> Buffers:
    """A frame as buffers for `sendmsg`."""
    return [FRAME.pack(sum(map(len, parts)), kind), *parts]


def pack_dose(dose: Dose) -> Buffers:
    """A `DOSE` frame."""
    chunk, name = dose.chunk, dose.name.encode("utf-8", "surrogatepass")[:60_000]
    head = _DOSE.pack(
        dose.at, dose.session, dose.spec, dose.lo, dose.hi, dose.attempt, dose.block,
        len(name), len(dose.digest), len(dose.init),
        chunk.first, chunk.base, chunk.count, len(chunk.sizes), len(chunk.items), dose.timeout_s, dose.singly,
        dose.largest,
    )  # fmt: skip
    return frame(DOSE, head, name, dose.digest, dose.init, chunk.sizes, chunk.items, chunk.payload)


def unpack_dose(body: bytes) -> Dose:
    """The inverse of `pack_dose`."""
    (
        at, session, spec, lo, hi, attempt, block, n_name, n_digest, n_init,
        first, base, count, n_sizes, n_items, timeout_s, singly, largest,
    ) = _DOSE.unpack_from(body)  # fmt: skip
    parts, start = [], _DOSE.size
    for length in (n_name, n_digest, n_init, n_sizes, n_items):
        parts.append(body[start : start + length])
        start += length
    name, digest, init, sizes, items = parts
    chunk = Chunk(first, base, count, sizes, items, 1, body[start:])
    text = name.decode("utf-8", "replace")
    return Dose(at, session, spec, attempt, lo, hi, block, text, digest, init, chunk, timeout_s, bool(singly), largest)


def pack_outcome(outcome: PipeOutcome) -> Buffers:
    """An `OUTCOME` frame."""
    return frame(OUTCOME, _OUTCOME.pack(outcome.at, outcome.tasks, outcome.form, outcome.busy_s), outcome.blob)


def unpack_outcome(body: bytes) -> PipeOutcome:
    """The inverse of `pack_outcome`. What the hub would refuse is refused here: it travels with outcomes of others.

    Raises
    ------
    PeerProtocolError
        The runner wrote something else. What it runs is a user's, and can write anything.
    """
    if len(body) < _OUTCOME.size:
        raise PeerProtocolError(f"an outcome of {len(body)} bytes")
    at, tasks, form, busy_s = _OUTCOME.unpack_from(body)
    if form not in _FORMS or not tasks or (form == Form.ERROR and tasks != 1) or not 0.0 <= busy_s < inf:
        raise PeerProtocolError(f"an outcome of form {form} of {tasks} tasks in {busy_s} s")
    return PipeOutcome(at, tasks, form, busy_s, body[_OUTCOME.size :])


def pack_stopped(stopped: PipeStopped) -> Buffers:
    """A `STOPPED` frame."""
    return frame(STOPPED, _STOPPED.pack(stopped.at, stopped.end))


def unpack_stopped(body: bytes) -> PipeStopped:
    """The inverse of `pack_stopped`.

    Raises
    ------
    PeerProtocolError
        The runner wrote something else.
    """
    if len(body) != _STOPPED.size:
        raise PeerProtocolError(f"a word about dropped tasks of {len(body)} bytes")
    at, end = _STOPPED.unpack(body)
    if at >= end:
        raise PeerProtocolError(f"[{at}, {end}) are no positions")
    return PipeStopped(at, end)


class Frames:
    """Cuts a byte stream into frames, whatever pieces it arrives in."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes | memoryview) -> Iterator[tuple[int, bytes]]:
        """Add `data` and yield `(kind, body)` of each frame that is now whole.

        Raises
        ------
        PeerProtocolError
            A frame is longer than any may be; nothing of it is kept.
        """
        buffer = self._buffer
        buffer += data
        start, end = 0, len(buffer)
        try:
            while end - start >= FRAME.size:
                size, kind = FRAME.unpack_from(buffer, start)
                if size > FRAME_MOST:
                    start = end
                    raise PeerProtocolError(f"a frame of {size} bytes")
                if end - start - FRAME.size < size:
                    break
                body = bytes(memoryview(buffer)[start + FRAME.size : start + FRAME.size + size])
                start += FRAME.size + size
                yield kind, body
        finally:
            del buffer[:start]
