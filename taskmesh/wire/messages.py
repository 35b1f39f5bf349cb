"""Messages to bytes and back: msgpack arrays, as documented in docs/protocol.md.

Every body is one msgpack array whose first element is the kind. Decoding trusts nothing: sizes, types and ranges are
checked here, once, and whatever does not fit is a `PeerProtocolError`, which the shells count, log and drop. How much
of anything may be sent is in `core.limits`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import msgpack

from ..core import limits
from ..core import messages as m
from ..core.access import KEY_BYTES
from ..core.chunk import Chunk
from ..core.identity import DIGEST_BYTES, digest_of
from ..core.limits import NUMBER, TASKS
from ..errors import LocalProtocolError, PeerProtocolError

Message = m.LinkMessage | m.ControlMessage

KINDS: dict[int, type[Message]] = {
    1: m.Spec, 2: m.Body, 3: m.Submit, 4: m.Cancel, 5: m.Retire, 6: m.Close,
    10: m.Results, 11: m.Cancelled, 12: m.Goodbye, 13: m.Rejected,
    20: m.Dispatch, 21: m.Revoke, 22: m.Forget, 23: m.Settled,
    30: m.Done, 31: m.Strike, 32: m.GiveBack, 33: m.NeedBody, 34: m.Slots, 35: m.Leaving, 36: m.Inventory,
    40: m.Register, 41: m.Registered, 42: m.Refused, 43: m.Heartbeat, 44: m.HeartbeatReply,
    45: m.StatusRequest, 46: m.StatusReply,
    47: m.CreateTicket, 48: m.RevokeTicket, 49: m.ListTickets, 50: m.Tickets,
}  # fmt: skip
_NUMBER = {cls: kind for kind, cls in KINDS.items()}
SECRET_BYTES = 16
_KEPT_BYTES = 1 << 20
_FORMS = frozenset(map(int, m.Form))
_OF_ONE = frozenset(map(int, (m.Form.ERROR, m.Form.LOST)))
_SHOWN = 300  # characters of what is wrong: it may quote what a peer sent


def _chunk_fields(value: object) -> tuple[object, ...]:
    if not isinstance(value, Chunk):
        raise LocalProtocolError(f"cannot send a {type(value).__name__}")
    return (
        value.first, value.base, value.count, value.sizes, value.items, value.grain, value.payload,
    )  # fmt: skip


_packers: list[msgpack.Packer] = []  # those that nobody uses now


def encode(message: Message) -> bytes:
    """`message` as one msgpack array.

    Each packer begins with a buffer of 256 KiB. Made anew for every message, those broke up the heap of a process,
    which grew by half a megabyte with each million tasks. So packers are used again, but for those that a large message
    has made large.
    """
    try:
        packer = _packers.pop()
    except IndexError:  # the first, or others are at it: in another thread, or below us in a signal handler
        packer = msgpack.Packer(default=_chunk_fields)
    data: bytes = packer.pack((_NUMBER[type(message)], *message))
    if len(data) < _KEPT_BYTES:
        _packers.append(packer)
    return data


def decode(data: bytes | memoryview) -> Message:
    """The message in `data`.

    Raises
    ------
    PeerProtocolError
        The bytes are not a message: not msgpack, of an unknown kind, or with fields that make no sense.
    """
    try:
        kind, *fields = msgpack.unpackb(
            data, use_list=False, strict_map_key=True, max_array_len=min(len(data), limits.ARRAY)
        )
        if type(kind) is not int:
            raise PeerProtocolError("the kind of a message is a number")
        return check(KINDS[kind], fields)
    except PeerProtocolError:
        raise
    except Exception as error:  # a peer's bytes: msgpack has many ways to refuse them, all mean the same here
        raise PeerProtocolError(f"not a message: {type(error).__name__}: {error}"[:_SHOWN]) from error


def check(cls: type[Message], fields: list[Any]) -> Message:
    """The message of kind `cls` that these fields are, arrays among them as tuples.

    Raises
    ------
    Exception
        They are none. `PeerProtocolError` says why; anything else is as good.
    """
    build, schema, numbers, sizes = _DECODERS[cls]
    if [type(field) for field in fields] != schema:
        raise PeerProtocolError(f"the fields of {cls.__name__} have the wrong types")
    for place, least, most in numbers:
        if not least <= fields[place] <= most:
            raise PeerProtocolError(f"{cls._fields[place]} of {cls.__name__} is not between {least} and {most}")
    for place, most in sizes:
        if len(fields[place]) > most:
            raise PeerProtocolError(f"{cls._fields[place]} of {cls.__name__} is longer than {most}")
    return build(fields)


# ---- checks, one per shape ----------------------------------------------------------------------------------------


def _range(lo: int, hi: int) -> None:
    if not 0 <= lo < hi <= TASKS:
        raise PeerProtocolError(f"[{lo}, {hi}) is not a range of tasks")


def _ranges(values: Sequence[Any]) -> list[tuple[int, int]]:
    ranges = []
    for lo, hi in values:
        if type(lo) is not int or type(hi) is not int:
            raise PeerProtocolError("a range of tasks is two numbers")
        _range(lo, hi)
        ranges.append((lo, hi))
    return ranges


def _chunk(fields: Sequence[Any]) -> Chunk:
    if [type(field) for field in fields] != [int, int, int, bytes, bytes, int, bytes]:
        raise PeerProtocolError("the fields of a chunk have the wrong types")
    chunk = Chunk(*fields)
    fault = chunk.fault()
    if fault:
        raise PeerProtocolError(f"chunk {chunk.first}: {fault}")
    return chunk


def _outcome(fields: Sequence[Any]) -> m.Outcome:
    if [type(field) for field in fields] != [int, int, int, int, int, bytes]:
        raise PeerProtocolError("the fields of an outcome have the wrong types")
    spec, first, lo, hi, form, _ = fields
    _range(lo, hi)
    if not 0 <= spec <= NUMBER or not 0 <= first <= NUMBER:
        raise PeerProtocolError("an outcome of a spec or task that is none")
    if form not in _FORMS or (form in _OF_ONE and hi != lo + 1):
        raise PeerProtocolError(f"an outcome of form {form} that speaks of {hi - lo} tasks")
    return m.Outcome._make(fields)


def _submit(f: Sequence[Any]) -> m.Submit:
    chunk, left = _chunk(f[1]), _ranges(f[2])
    if chunk.base:
        raise PeerProtocolError("a new chunk starts at offset 0")
    if left and (left[-1][1] > chunk.count or any(a[1] > b[0] for a, b in pairwise(left))):
        raise PeerProtocolError("what is left of a chunk is not inside it, or not in order")
    return m.Submit(f[0], chunk, left)


def _dispatch(f: Sequence[Any]) -> m.Dispatch:
    _digests(f[4], f[5])
    chunk = _chunk(f[11])
    if not chunk.base <= f[8] < f[9] <= chunk.end:
        raise PeerProtocolError(f"[{f[8]}, {f[9]}) is not inside its chunk")
    return m.Dispatch._make((*f[:10], _limits(f[10]), chunk))


def _digests(digest: bytes, init: bytes = b"") -> None:
    if len(digest) != DIGEST_BYTES or len(init) not in (0, DIGEST_BYTES):
        raise PeerProtocolError(f"a digest has {DIGEST_BYTES} bytes")


def _spec(f: Sequence[Any]) -> m.Spec:
    _digests(f[2], f[3])
    return m.Spec._make((*f[:5], _limits(f[5])))


def _body(f: Sequence[Any]) -> m.Body:
    """All that name a digest share its body: whoever could choose it would have others run what they never sent."""
    if digest_of(f[1]) != f[0]:
        raise PeerProtocolError("a function whose digest is another one's")
    return m.Body(*f)


def _need_body(f: Sequence[Any]) -> m.NeedBody:
    _digests(f[0])
    return m.NeedBody(*f)


def _finished(fields: Sequence[Any]) -> m.Finished:
    if [type(field) for field in fields] != [int, int, float, tuple]:
        raise PeerProtocolError("the fields of a finished range have the wrong types")
    if fields[0] < 0 or fields[1] < 0 or not 0.0 <= fields[2] < math.inf:
        raise PeerProtocolError("a finished range with a negative field, or a time that is no time")
    return m.Finished(fields[0], fields[1], fields[2], _outcome(fields[3]))


def _cancel(f: Sequence[Any]) -> m.Cancel:
    _range(f[2], f[3])
    return m.Cancel(*f)


def _revoke(f: Sequence[Any]) -> m.Revoke:
    _range(f[1], f[2])
    return m.Revoke(*f)


def _strike(f: Sequence[Any]) -> m.Strike:
    _range(f[1], f[2])
    return m.Strike(*f)


def _limits(fields: Sequence[Any]) -> m.Limits:
    if [type(field) for field in fields] != [float, int, bool]:
        raise PeerProtocolError("the fields of limits have the wrong types")
    if not 0.0 <= fields[0] < math.inf or not 0 <= fields[1] <= limits.NUMBER:
        raise PeerProtocolError("a limit that is none")
    return m.Limits(*fields)


def _parts(values: Sequence[Any]) -> list[tuple[int, int, int]]:
    parts = []
    for fence, lo, hi in values:
        if not type(fence) is type(lo) is type(hi) is int or fence < 0:
            raise PeerProtocolError("not a part of a lease")
        _range(lo, hi)
        parts.append((fence, lo, hi))
    return parts


def _holding(fields: Sequence[Any]) -> m.Holding:
    if [type(field) for field in fields] != [int, int, int, int, int, bool, tuple] or min(fields[:5]) < 0:
        raise PeerProtocolError("the fields of a holding have the wrong types, or are negative")
    if max(fields[2:4]) > limits.NUMBER or fields[4] > limits.ATTEMPTS:
        raise PeerProtocolError("a holding of a spec, task or attempt that is none")
    return m.Holding._make((*fields[:6], _ranges(fields[6])))


def _register(f: Sequence[Any]) -> m.Register:
    if len(f[12]) not in (0, KEY_BYTES) or len(f[13]) not in (0, SECRET_BYTES):
        raise PeerProtocolError(f"a key has {KEY_BYTES} bytes, a secret {SECRET_BYTES}")
    role, name, host = limits.printable(f[0]), limits.printable(f[6]), limits.printable(f[7])  # for logs and status
    return m.Register._make((role, *f[1:6], name, host, *f[8:]))


def _heartbeat(f: Sequence[Any]) -> m.Heartbeat:
    if len(f[4]) > limits.HELD:
        raise PeerProtocolError(f"a heartbeat that names more than {limits.HELD} ranges")
    return m.Heartbeat._make((*f[:4], _parts(f[4])))


def _why(cls: Callable[..., Message]) -> Callable[[Sequence[Any]], Message]:
    """Reasons are shown to people, on a terminal or in a log."""

    def build(f: Sequence[Any]) -> Message:
        return cls(*(limits.printable(field, limits.WORDS) if type(field) is str else field for field in f))

    return build


def _registered(f: Sequence[Any]) -> m.Registered:
    if not all(endpoint.startswith(("tcp://", "ipc://")) and endpoint.isprintable() for endpoint in f[4:6]):
        raise PeerProtocolError("a lane or inbox that is no endpoint")
    return m.Registered(*f)


def _plain(cls: Callable[..., Message]) -> Callable[[Sequence[Any]], Message]:
    return lambda fields: cls(*fields)


_SCHEMAS: dict[type[Message], tuple[list[type], Callable[[Sequence[Any]], Message] | None]] = {
    m.Spec: ([int, str, bytes, bytes, int, tuple], _spec),
    m.Body: ([bytes, bytes], _body),
    m.Submit: ([int, tuple, tuple], _submit),
    m.Cancel: ([int, int, int, int, bool], _cancel),
    m.Retire: ([int], None),
    m.Close: ([], None),
    m.Results: ([tuple], lambda f: m.Results([_outcome(o) for o in f[0]])),
    m.Cancelled: ([int, int, tuple], lambda f: m.Cancelled(f[0], f[1], _ranges(f[2]))),
    m.Goodbye: ([str, bool], _why(m.Goodbye)),
    m.Rejected: ([int, int, str], _why(m.Rejected)),
    m.Dispatch: ([int, int, int, str, bytes, bytes, int, bool, int, int, tuple, tuple], _dispatch),
    m.Revoke: ([int, int, int, bool], _revoke),
    m.Forget: ([int], None),
    m.Settled: ([tuple], lambda f: m.Settled(_parts(f[0]))),
    m.Done: ([tuple], lambda f: m.Done([_finished(e) for e in f[0]])),
    m.Strike: ([int, int, int, bytes], _strike),
    m.GiveBack: (
        [int, tuple, tuple],
        lambda f: m.GiveBack(f[0], _ranges(f[1]), _ranges(f[2])),
    ),
    m.Inventory: ([tuple], lambda f: m.Inventory([_holding(h) for h in f[0]])),
    m.NeedBody: ([bytes], _need_body),
    m.Slots: ([int], None),
    m.Leaving: ([], None),
    m.Register: ([str, int, int, int, int, int, str, str, int, int, str, str, bytes, bytes], _register),
    m.Registered: ([int, int, bool, int, str, str, str, int], _registered),
    m.Refused: ([str, bool], _why(m.Refused)),
    m.Heartbeat: ([int, int, int, int, tuple], _heartbeat),
    m.HeartbeatReply: ([bool, int, int, int], None),
    m.StatusRequest: ([], None),
    m.StatusReply: ([bytes], None),
    m.CreateTicket: ([str, str, bytes, int], None),
    m.RevokeTicket: ([str], None),
    m.ListTickets: ([], None),
    m.Tickets: ([bytes], None),
}
_NUMBERS: dict[str, tuple[int, int]] = {
    "spec": (0, limits.NUMBER), "first": (0, limits.NUMBER), "lo": (0, limits.TASKS), "hi": (0, limits.TASKS),
    "priority": (-limits.PRIORITY, limits.PRIORITY), "epoch": (0, limits.EPOCH), "attempt": (0, limits.ATTEMPTS),
    "slots": (0, limits.SLOTS), "instance": (1, limits.WORD), "valid_s": (0, limits.VALID_S),
}  # fmt: skip
"""By name of a field: the least and the most. Any other number is between 0 and 2^64 - 1."""

_SIZES: dict[str, int] = {
    "name": limits.NAME, "host": limits.HOST, "why": limits.WORDS, "report": limits.REPORT, "role": limits.SHORT,
    "version": limits.SHORT, "python": limits.SHORT, "lane": limits.ENDPOINT, "inbox": limits.ENDPOINT,
    "key": KEY_BYTES,
}  # fmt: skip
"""By name of a field: how many characters or bytes. Any other may have as many as its frames."""

_Decoder = tuple[Callable[[Sequence[Any]], Message], list[type], list[tuple[int, int, int]], list[tuple[int, int]]]


def _decoder(cls: type[Message]) -> _Decoder:
    schema, build = _SCHEMAS[cls]
    named = list(enumerate(zip(cls._fields, schema, strict=True)))
    numbers = [(place, *_NUMBERS.get(name, (0, limits.WORD))) for place, (name, kind) in named if kind is int]
    sizes = [(place, _SIZES[name]) for place, (name, _) in named if name in _SIZES]
    return build or _plain(cls), schema, numbers, sizes


_DECODERS: dict[type[Message], _Decoder] = {cls: _decoder(cls) for cls in _SCHEMAS}
