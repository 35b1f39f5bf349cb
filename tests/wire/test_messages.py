"""Messages survive the trip, and nonsense is refused as nonsense."""

from __future__ import annotations

import math
import threading
import tracemalloc
from collections.abc import Callable

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmesh.core import limits
from taskmesh.core import messages as m
from taskmesh.core.chunk import Chunk, pack_sizes
from taskmesh.core.identity import digest_of
from taskmesh.errors import LocalProtocolError, PeerProtocolError
from taskmesh.wire.messages import KINDS, Message, decode, encode
from taskmesh.wire.stream import pack_control, unpack_control

numbers = st.integers(0, 2**61)
ids = st.integers(1, 2**64 - 1)
small = st.integers(0, 1000)
digests = st.binary(min_size=16, max_size=16)
texts = st.text(max_size=20)
shown = texts.filter(str.isprintable)
endpoints = st.sampled_from(["tcp://127.0.0.1:7600", "ipc:///tmp/x/l1"])


@st.composite
def ranges(draw: st.DrawFn) -> tuple[int, int]:
    lo = draw(small)
    return lo, lo + draw(st.integers(1, 1000))


LIMITS = st.builds(m.Limits, st.floats(0, 1e9), st.integers(0, 2**50), st.booleans())
PARTS = st.lists(st.tuples(numbers, st.integers(0, 9), st.integers(10, 20)), max_size=3)


@st.composite
def chunks(draw: st.DrawFn) -> Chunk:
    leaves = draw(st.lists(st.binary(max_size=20), min_size=1, max_size=10))
    items = draw(st.lists(st.integers(1, 300), min_size=len(leaves), max_size=len(leaves)) | st.just([]))
    count = sum(items) if items else len(leaves)
    sizes = pack_sizes([len(leaf) for leaf in leaves])
    return Chunk(draw(numbers), 0, count, sizes, pack_sizes(items), draw(st.integers(1, 9)), b"".join(leaves))


@st.composite
def outcomes(draw: st.DrawFn) -> m.Outcome:
    lo, hi = draw(ranges())
    form = draw(st.sampled_from(list(m.Form)))
    return m.Outcome(draw(small), draw(numbers), lo, lo + 1 if form >= m.Form.ERROR else hi, form, draw(st.binary()))


@st.composite
def dispatches(draw: st.DrawFn) -> m.Dispatch:
    chunk = draw(chunks())
    lo = draw(st.integers(0, chunk.count - 1))
    hi = draw(st.integers(lo + 1, chunk.count))
    return m.Dispatch(
        draw(numbers),
        draw(ids),
        1,
        draw(texts),
        draw(digests),
        b"",
        1,
        draw(st.booleans()),
        lo,
        hi,
        draw(LIMITS),
        chunk,
    )


def spread(kind: Callable[..., Message]) -> Callable[..., Message]:
    return lambda fields: kind(*fields)


MESSAGES: dict[type[Message], st.SearchStrategy[Message]] = {
    m.Spec: st.builds(m.Spec, small, texts, digests, st.just(b""), st.integers(-1000, 1000), LIMITS),
    m.Body: st.builds(lambda data: m.Body(digest_of(data), data), st.binary()),
    m.Submit: st.builds(lambda s, c: m.Submit(s, c, [(0, c.count)] if s % 2 else []), small, chunks()),
    m.Cancel: st.builds(lambda s, f, r, i: m.Cancel(s, f, r[0], r[1], i), small, numbers, ranges(), st.booleans()),
    m.Retire: st.builds(m.Retire, small),
    m.Close: st.builds(m.Close),
    m.Results: st.builds(m.Results, st.lists(outcomes(), max_size=5)),
    m.Cancelled: st.builds(m.Cancelled, small, numbers, st.lists(ranges())),
    m.Goodbye: st.builds(m.Goodbye, shown, st.booleans()),
    m.Rejected: st.builds(m.Rejected, small, numbers, shown),
    m.Dispatch: dispatches(),
    m.Revoke: st.builds(lambda f, r, i: m.Revoke(f, r[0], r[1], i), numbers, ranges(), st.booleans()),
    m.Forget: st.builds(m.Forget, ids),
    m.Settled: st.builds(m.Settled, PARTS),
    m.Done: st.builds(m.Done, st.lists(st.builds(m.Finished, numbers, ids, st.floats(0, 1e6), outcomes()), max_size=5)),
    m.Strike: st.builds(lambda f, r, b: m.Strike(f, r[0], r[1], b), numbers, ranges(), st.binary()),
    m.GiveBack: st.builds(m.GiveBack, numbers, st.lists(ranges()), st.lists(ranges())),
    m.Inventory: st.builds(
        m.Inventory,
        st.lists(
            st.builds(m.Holding, numbers, ids, small, numbers, small, st.booleans(), st.lists(ranges(), max_size=3)),
            max_size=3,
        ),
    ),
    m.NeedBody: st.builds(m.NeedBody, digests),
    m.Slots: st.builds(m.Slots, small),
    m.Leaving: st.builds(m.Leaving),
    m.Register: st.builds(
        m.Register,
        shown,
        ids,
        small,
        ids,
        small,
        numbers,
        shown,
        shown,
        small,
        small,
        texts,
        texts,
        st.sampled_from([b"", b"k" * 32]),
        st.sampled_from([b"", b"s" * 16]),
    ),
    m.Registered: st.builds(m.Registered, ids, small, st.booleans(), numbers, endpoints, endpoints, texts, numbers),
    m.Refused: st.builds(m.Refused, shown, st.booleans()),
    m.Heartbeat: st.builds(m.Heartbeat, ids, ids, small, numbers, PARTS),
    m.HeartbeatReply: st.builds(m.HeartbeatReply, st.booleans(), numbers, numbers, numbers),
    m.StatusRequest: st.builds(m.StatusRequest),
    m.StatusReply: st.builds(m.StatusReply, st.binary()),
    m.CreateTicket: st.builds(m.CreateTicket, texts, texts, st.binary(max_size=32), st.integers(0, 2**40)),
    m.RevokeTicket: st.builds(m.RevokeTicket, texts),
    m.ListTickets: st.builds(m.ListTickets),
    m.Tickets: st.builds(m.Tickets, st.binary()),
}


def plain(value: object) -> object:
    """Comparable: a chunk by its fields, messages as tuples."""
    if isinstance(value, Chunk):
        return tuple(getattr(value, name) for name in ("first", "base", "count", "sizes", "items", "grain", "payload"))
    if isinstance(value, tuple | list):
        return tuple(plain(part) for part in value)
    return value


def test_every_kind_is_tried_here() -> None:
    assert set(MESSAGES) == set(KINDS.values())


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
def test_a_message_survives_the_trip(kind: type[Message]) -> None:
    @given(MESSAGES[kind])
    def trip(message: Message) -> None:
        arrived = decode(encode(message))
        assert type(arrived) is kind
        assert plain(arrived) == plain(message)

    trip()


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(PeerProtocolError):
        decode(data + b"\xc1")  # a byte that msgpack never uses


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.binary(max_size=9) | texts,
    lambda inner: st.lists(inner, max_size=13) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=30,
)


@given(st.sampled_from(sorted(KINDS)), st.lists(JSON, max_size=13))
def test_any_fields_are_a_message_or_refused(kind: int, fields: list[object]) -> None:
    try:
        message = decode(msgpack.packb([kind, *fields]))
    except PeerProtocolError:
        return
    assert isinstance(message, KINDS[kind])


@given(st.sampled_from(list(MESSAGES)).flatmap(lambda kind: MESSAGES[kind]), st.data())
def test_a_truncated_message_is_refused(message: Message, data: st.DataObject) -> None:
    whole = encode(message)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(PeerProtocolError):
        decode(whole[:cut])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        msgpack.packb([]),
        msgpack.packb([99]),
        msgpack.packb(7),
        msgpack.packb({"kind": 3}),
        msgpack.packb([[], 1]),
        b"\xdd\xff\xff\xff\xff",  # an array of 4 billion
        b"\x91" * 2000,  # nested too deeply
        msgpack.packb([4, 1, 0, 5, 5]),  # an empty range
        msgpack.packb([4, 1, 0, -1, 5]),
        msgpack.packb([3, 1, [0, 0, 2, b"\x01\0\0\0", b"", 1, b"x"]]),  # says two tasks, holds one
        msgpack.packb([3, 1, [0, 0, 1, b"\x02\0\0\0", b"", 1, b"x"]]),  # the leaf is shorter than its size
        msgpack.packb([3, 1, [0, 0, 0, b"\x01\0\0\0", b"\0\0\0\0", 1, b"x"]]),  # a leaf of no items
        msgpack.packb([3, 1, [0, 0, 1, b"\x01\0\0", b"", 1, b"x"]]),  # three quarters of a size
        msgpack.packb([3, 1, [0, 1, 1, b"\x01\0\0\0", b"", 1, b"x"]]),  # does not start at offset 0
        msgpack.packb([3, 1, [0, 0, 1, b"\x01\0\0\0", b"", 0, b"x"]]),  # grain 0
        msgpack.packb([10, [[1, 0, 0, 2, 3, b""]]]),  # an error of two tasks
        msgpack.packb([10, [[1, 0, 0, 2, 9, b""]]]),  # an unknown form
        msgpack.packb([10, [[-1, 0, 0, 2, 1, b""]]]),  # of a negative spec
        msgpack.packb([5, -1]),
        msgpack.packb([34, -1]),  # a negative number of slots
        msgpack.packb([32, 1, [[0.5, 1.5]], []]),  # half a task
        msgpack.packb([32, 1, [[False, True]], []]),
        msgpack.packb([32, 1, [[3, 3]], []]),
        msgpack.packb([32, 1, [[1, 2, 3]], []]),
        msgpack.packb([30, [[1, 1, math.nan, [1, 0, 0, 1, 1, b""]]]]),  # a time that is no time
        msgpack.packb([30, [[1, 1, math.inf, [1, 0, 0, 1, 1, b""]]]]),
        msgpack.packb([30, [[1, 1, -0.1, [1, 0, 0, 1, 1, b""]]]]),
        msgpack.packb([1, 1, "f", b"short", b"", 0]),  # digests have 16 bytes
        msgpack.packb([1, 1, "f", b"d" * 16, b"i" * 15, 0]),
        msgpack.packb([1, -1, "f", b"d" * 16, b"", 0]),
        msgpack.packb([2, b"d" * 70_000, b"body"]),
        msgpack.packb([2, b"d" * 16, b"body"]),  # the digest of another function
        msgpack.packb([True, 1, "f", b"d" * 16, b"", 0, [0.0, 0, False]]),  # a kind that equals 1, and is no number
        msgpack.packb([5.0, 1]),
        msgpack.packb([1, 1, "f", b"d" * 16, b"", limits.PRIORITY + 1, [0.0, 0, False]]),
        msgpack.packb([1, 1, "f" * (limits.NAME + 1), b"d" * 16, b"", 0, [0.0, 0, False]]),
        msgpack.packb([3, 1, [0, 0, 70_000, b"\x01\0\0\0", pack_sizes([70_000]), 1, b"x"]]),  # a leaf of too many
        msgpack.packb([3, 1, [0, 0, 1, b"\x01\0\0\0", b"", limits.LEAF_TASKS + 1, b"x"]]),
        msgpack.packb([3, 1, [2**62, 0, 1, b"\x01\0\0\0", b"", 1, b"x"]]),  # a number that no store can keep
        msgpack.packb([11, 1, 0, [[0, 2**63]]]),  # more offsets than a chunk can have
        msgpack.packb([31, 1, 0, 1, bytes(limits.REPORT + 1)]),
        msgpack.packb([34, limits.SLOTS + 1]),
        msgpack.packb([36, [[1, 1, 1, 0, limits.ATTEMPTS + 1, False, [[0, 1]]]]]),
        msgpack.packb([43, 1, 1, 1, 0, [[1, 0, 1]] * (limits.HELD + 1)]),
        msgpack.packb([41, 1, 2**32, False, 0, "tcp://h:1", "tcp://h:2", "1.0", 0]),  # an epoch of 33 bits
        msgpack.packb([41, 1, 1, False, 0, "http://h:1", "tcp://h:2", "1.0", 0]),
        msgpack.packb([41, 1, 1, False, 0, "tcp://h:1\0", "tcp://h:2", "1.0", 0]),
        msgpack.packb([33, b""]),
    ],
    ids=repr,
)
def test_nonsense_is_refused(body: bytes) -> None:
    with pytest.raises(PeerProtocolError):
        decode(body)


def test_a_priority_may_be_negative() -> None:
    spec = m.Spec(1, "f", b"d" * 16, b"", -1000)
    assert decode(encode(spec)) == spec


def test_what_is_no_message_cannot_be_sent() -> None:
    with pytest.raises(LocalProtocolError, match="object"):
        encode(m.Body(b"", object()))  # type: ignore[arg-type]


def test_control_refuses_other_versions_and_link_messages() -> None:
    assert unpack_control(pack_control(m.StatusRequest())) == m.StatusRequest()
    for frame in (b"", b"\x63" + encode(m.StatusRequest()), b"\x01" + encode(m.Close())):
        with pytest.raises(PeerProtocolError):
            unpack_control(frame)


# ---- what it takes --------------------------------------------------------------------------------------------------


def allocated(message: Message) -> tuple[int, int]:
    """Bytes that are still there after a message was encoded, and that there were at most."""
    tracemalloc.start()
    try:
        encode(message)
        return tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()


def test_a_small_message_takes_no_large_block_of_memory() -> None:
    encode(m.Slots(1))
    _, peak = allocated(m.Slots(2))
    assert peak < 10_000


def test_a_large_message_leaves_nothing_behind() -> None:
    left, peak = allocated(m.Body(b"d" * 16, b"x" * (8 << 20)))
    assert peak > 8 << 20
    assert left < 10_000


def test_threads_that_encode_at_the_same_time_get_their_own_message() -> None:
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(200):
            data = bytes([number]) * 1000
            body = m.Body(digest_of(data), data)
            if decode(encode(body)) != body:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_what_is_announced_costs_nothing_before_it_comes() -> None:
    nested = b"\xdd\x00\x00\xff\xff" * 800  # arrays of 65,535 in each other
    tracemalloc.start()
    with pytest.raises(PeerProtocolError):
        decode(nested)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 64 << 20
    assert len(nested) == 4000


def test_what_a_peer_calls_itself_cannot_move_a_cursor() -> None:
    """It stands in the log, the audit log and the status, and in the reason for which it is refused."""
    numbers = (1, 1, 1, 1, 0)
    request = m.Register("client\r", *numbers, "\x1b[2Jeve", "h\n10:00 all is well", 1, 0, "1.0", "3.11", b"", b"")
    arrived = decode(encode(request))
    assert isinstance(arrived, m.Register)
    assert arrived.role == r"client\r"
    assert (arrived.name, arrived.host) == (r"\x1b[2Jeve", r"h\n10:00 all is well")


def test_an_error_does_not_quote_all_that_was_sent() -> None:
    for body in (msgpack.packb(["x" * 100_000]), msgpack.packb([32, 1, [[b"\0" * 100_000, 1]], []])):
        with pytest.raises(PeerProtocolError) as caught:
            decode(body)
        assert len(str(caught.value)) < 400
