"""Targets: everything that turns bytes of a peer, a runner, a file or a user into something typed.

Each either returns what is valid, or raises the one error that it declares.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from taskmesh.core.limits import BODY, TASKS
from taskmesh.core.messages import Dispatch, Outcome, Submit
from taskmesh.errors import AddressError, LocalProtocolError, PeerProtocolError, TaskmeshError
from taskmesh.security.ticket import load_ticket
from taskmesh.store.reading import load
from taskmesh.store.schema import open_database
from taskmesh.transport.endpoints import parse_address, parse_ports
from taskmesh.wire import pipe
from taskmesh.wire.messages import KINDS, decode, encode
from taskmesh.wire.payload import load_each
from taskmesh.wire.stream import Stream, open_envelope, pack_control, unpack_control

from .grammar import EDGES, Known, packed
from .oracle import Broken, measured
from .source import Source, chance, pick

MEASURED_BELOW = 16  # of 256 inputs: measuring memory makes one several times slower


def message(source: Source) -> None:
    """The body of a link message, as it comes."""
    weigh = source.below(256) < MEASURED_BELOW
    data = source.rest()
    if weigh:
        measured(lambda: _decoded(data), len(data))
    else:
        _decoded(data)


def grammar(source: Source) -> None:
    """A message of ours, disturbed: it gets further than random bytes do."""
    _decoded(packed(source, Known()))


def _decoded(data: bytes) -> None:
    try:
        made = decode(data)
    except PeerProtocolError as error:
        if len(str(error)) > 500:
            raise Broken(f"an error text of {len(str(error))} characters") from error
        return
    if type(made) not in KINDS.values():
        raise Broken(f"decoded to {made!r}")
    again = encode(made)
    if encode(decode(again)) != again:
        raise Broken(f"{made!r} does not survive the trip")
    _sensible(made)


def _sensible(made: Any) -> None:
    """What the machines rely on."""
    chunk = made.chunk if isinstance(made, Submit | Dispatch) else None
    if chunk is not None:
        for lo, hi in ((chunk.base, chunk.base + 1), (chunk.end - 1, chunk.end)):
            if chunk.cut(lo, hi).fault():
                raise Broken(f"a cut of a chunk is none: {chunk.cut(lo, hi).fault()}")
        chunk.whole_leaves(chunk.base, chunk.end)
    for name in ("lo", "hi"):
        if not 0 <= getattr(made, name, 0) <= TASKS:
            raise Broken(f"{made!r} is of more tasks than a chunk can have")


def control(source: Source) -> None:
    """A request or a reply on control."""
    data = packed(source, Known()) if source.below(2) else source.rest()
    try:
        made = unpack_control((b"\x01" if not chance(source, 20) else b"") + data)
    except PeerProtocolError:
        return
    if unpack_control(pack_control(made)) != made:
        raise Broken(f"{made!r} does not survive the trip")


def stream(source: Source) -> None:
    """Frames of a peer, some of them ours and disturbed, on the stream of a registration that it has."""
    honest, ours = Stream(7, 1), Stream(7, 1)
    with contextlib.suppress(PeerProtocolError):
        ours.send(decode(packed(source, Known())))  # type: ignore[arg-type]
    frames: list[bytes] = []
    while not source.spent and len(frames) < 40:
        frames.append(_frame(source, len(frames)))
    for frame in frames:
        with contextlib.suppress(PeerProtocolError):
            envelope = open_envelope(frame)
            ours.receive(envelope, 1.0)
            honest.receive(envelope, 1.0)
        for each in (ours, honest):
            each.link.check()
            each.pump(lambda frame: True, 1.0)
            each.link.on_time(1.0)
            each.link.next_deadline()
            if each._parts_bytes > BODY * len(frames):
                raise Broken(f"{each._parts_bytes} bytes are kept of {len(frames)} frames")
            if len(each._parts) * 8 > each._parts_bytes:
                raise Broken(f"{len(each._parts)} parts without bytes are kept")


def _frame(source: Source, number: int) -> bytes:
    if chance(source, 20):
        return source.rest()[:100]
    flags = source.below(5)
    seq = number + 1 if not chance(source, 6) else pick(source, EDGES)
    ack = source.below(3) if not chance(source, 6) else pick(source, EDGES)
    epoch, incarnation = pick(source, (1, 1, 1, 2, 2**32 - 1)), pick(source, (7, 7, 7, 0, 2**64 - 1))
    body = pick(source, (b"", b"\x91\x06", b"x", packed(source, Known())))
    if flags == 1 and not chance(source, 4):
        body = bytes(BODY)
    clipped = (max(0, n) % 2**64 for n in (incarnation, seq, ack))
    return b"".join((bytes((1, flags)), epoch.to_bytes(4, "little"), *(n.to_bytes(8, "little") for n in clipped), body))


def runner_pipe(source: Source) -> None:
    """What a runner's task has written into its pipe."""
    frames, pieces = pipe.Frames(), source.rest()
    cut = len(pieces) // 2
    with contextlib.suppress(PeerProtocolError):
        for piece in (pieces[:cut], pieces[cut:]):
            for kind, body in frames.feed(piece):
                if kind == pipe.OUTCOME:
                    said = pipe.unpack_outcome(body)
                    outcome = Outcome(1, 0, 0, said.tasks, said.form, said.blob)
                    if said.tasks <= TASKS:
                        _decoded(encode(_done(outcome, said.busy_s)))
                elif kind == pipe.STOPPED:
                    pipe.unpack_stopped(body)
    if len(frames._buffer) > len(pieces):
        raise Broken("more is kept than was written")


def _done(outcome: Outcome, busy_s: float) -> Any:
    from taskmesh.core.messages import Done, Finished

    return Done([Finished(1, 1, busy_s, outcome)])


def each(source: Source) -> None:
    """A blob of several pickles, unopened. Whoever opens it takes any error for that of its tasks."""
    with contextlib.suppress(Exception):
        blob = source.rest()
        measured(lambda: _unused(load_each(blob)), len(blob))


def _unused(value: object) -> None:
    """Nothing is done with it."""


_LINES: list[Callable[[Source], Any]] = [
    lambda source: source.below(3),
    lambda source: pick(source, [n for n in EDGES if -(2**63) <= n < 2**63]),
    lambda source: pick(source, (b"", b"d" * 16, b"\1\0\0\0", b"\xff" * 8, b"x")),
    lambda source: pick(
        source, ("f", "[[0, 1]]", "[]", "[[0, 2], [1, 3]]", "[" * 3000, "nonsense", "5", "[[0, 1e400]]")
    ),
    lambda source: pick(source, (0.0, 1.5, -1.0, float("inf"))),
]
_GOOD: dict[str, dict[str, Any]] = {
    "session": {"session": 1, "name": "n", "host": "h"},
    "spec": {
        "session": 1, "number": 1, "name": "f", "digest": b"d" * 16, "init": b"", "priority": 0, "timeout_s": 0.0,
        "memory": 0, "at_most_once": 0, "submitted": 1,
    },
    "leaves": {"id": 1, "sizes": b"\1\0\0\0", "items": b"", "payload": b"x"},
    "chunk": {
        "session": 1, "spec": 1, "first": 0, "base": 0, "count": 1, "grain": 1, "remaining": "[[0, 1]]", "leaves": 1,
    },
    "outcome": {"position": 1, "session": 1, "spec": 1, "first": 0, "lo": 0, "hi": 1, "form": 1, "blob": b""},
    "body": {"digest": b"d" * 16, "data": b"body"},
}  # fmt: skip
_STORE: list[Any] = []


def store(source: Source) -> None:
    """Rows of a hub's store: SQLite keeps anything in any column. What is read is what a hub can go on with."""
    if not _STORE:
        folder = TemporaryDirectory()
        _STORE.extend((folder, open_database(Path(folder.name) / "store")))
    database: sqlite3.Connection = _STORE[1]
    database.execute("BEGIN")
    try:
        for table, good in _GOOD.items():
            row = {name: pick(source, _LINES)(source) if chance(source, 12) else v for name, v in good.items()}
            names = ", ".join(row)
            with contextlib.suppress(sqlite3.Error):
                database.execute(f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * len(row))})", [*row.values()])
        with contextlib.suppress(sqlite3.Error, ValueError):
            snapshot = load(database)
            _restored(snapshot)
    finally:
        database.execute("ROLLBACK")


def _restored(snapshot: Any) -> None:
    from taskmesh.core.scheduler import Scheduler
    from taskmesh.core.timing import Timing

    scheduler = Scheduler("1.0", "3.11", 0.0, Timing(recovery_s=0.0), durable=True)
    scheduler.restore(snapshot, 0.0)
    scheduler.check()


def text(source: Source) -> None:
    """What a user, an environment variable or a ticket says where an address, ports or a ticket belong."""
    data = source.rest()
    made = "".join(_TOKENS[byte % len(_TOKENS)] for byte in data[:12])
    for words in (made, data.decode("utf-8", "surrogateescape"), data.decode("latin-1")):
        for read in (parse_address, lambda t: parse_address(t, port_zero=True), parse_ports):
            with contextlib.suppress(AddressError):
                read(words)


_TOKENS = (
    "tcp://", "ipc://", "inproc://", "/", "/tmp/x", "[::1]", "127.0.0.1", "localhost", ":", "5555", "0", "65536", "-",
    "5600", " ", "\0", "\udc80", "\ud800", "\u0665", "é", "%", "@", "[", "]", "*", "9" * 5000, "_", "+", "\n", "::",
    "x" * 200,
)  # fmt: skip


def ticket(source: Source) -> None:
    """A ticket's file."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "ticket"
        path.write_bytes(source.rest())
        path.chmod(0o600)
        with contextlib.suppress(TaskmeshError):
            load_ticket(path)


def examples() -> dict[str, list[bytes]]:
    """Inputs to begin with, by target: a message of each kind, and some texts."""
    bodies = [bytes((255, *_first(kind))) for kind in KINDS]
    outcome = b"".join(pipe.pack_outcome(pipe.PipeOutcome(0, 2, 1, 0.5, b"blob")))
    stopped = b"".join(pipe.pack_stopped(pipe.PipeStopped(2, 3)))
    return {
        "message": bodies,
        "pipe": [outcome + stopped, b"".join(pipe.frame(pipe.READY)) + outcome],
        "text": [b"tcp://127.0.0.1:5555", b"ipc:///tmp/x", b"[::1]:7", b"5600-6599"],
        "each": [b"\2\0\0\0\1\0\0\0\1\0\0\0ab"],
    }


def _first(kind: int) -> bytes:
    """The first message of a kind that the grammar makes and that is one."""
    from random import Random

    from .grammar import message as made
    from .source import Bytes

    chances = Random(kind)
    for _ in range(10_000):
        with contextlib.suppress(PeerProtocolError, LocalProtocolError, OverflowError, ValueError):
            data = encode(made(Bytes(chances.randbytes(600)), Known(), (KINDS[kind],)))
            decode(data)
            return data
    raise LookupError(f"the grammar never makes a {KINDS[kind].__name__} that is one")
