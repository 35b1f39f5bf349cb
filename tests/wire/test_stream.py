"""Streams: envelopes, fragments, and what they do with frames that do not fit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmesh.core import messages as m
from taskmesh.core.identity import digest_of
from taskmesh.errors import PeerProtocolError
from taskmesh.wire.stream import MAX_BODY, Stream, open_envelope


def body(data: bytes) -> m.Body:
    return m.Body(digest_of(data), data)


def frames(stream: Stream, now: float = 0.0) -> list[bytes]:
    out: list[bytes] = []

    def put(frame: bytes) -> bool:
        out.append(frame)
        return True

    assert stream.pump(put, now)
    return out


def pair() -> tuple[Stream, Stream]:
    return Stream(7, 1), Stream(7, 1)


@pytest.mark.parametrize("size", [0, 1, MAX_BODY - 30, MAX_BODY, MAX_BODY + 1, 3 * MAX_BODY + 5])
def test_a_message_of_any_size_arrives_whole(size: int) -> None:
    here, there = pair()
    here.send(body(bytes(size)))
    here.send(m.Retire(3))
    arrived = [there.receive(open_envelope(frame), 0.0) for frame in frames(here)]
    assert [message for message in arrived if message] == [body(bytes(size)), m.Retire(3)]


def test_no_frame_is_larger_than_256_kib() -> None:
    here, _ = pair()
    here.send(body(bytes(5 * MAX_BODY)))
    assert max(map(len, frames(here))) <= 256 * 1024


def test_lost_doubled_and_reordered_frames_are_repaired_by_a_nak() -> None:
    here, there = pair()
    for number in range(6):
        here.send(m.Retire(number))
    sent = frames(here)
    arrived = [there.receive(open_envelope(sent[i]), 0.0) for i in (0, 0, 3, 1, 5)]
    assert [message for message in arrived if message] == [m.Retire(0), m.Retire(1)]
    (nak,) = frames(there, 0.2)
    assert here.receive(open_envelope(nak), 0.2) is None
    again = [there.receive(open_envelope(frame), 0.3) for frame in frames(here, 0.2)]
    assert again == [m.Retire(number) for number in range(2, 6)]


def test_a_full_socket_loses_nothing() -> None:
    here, there = pair()
    for number in range(4):
        here.send(m.Retire(number))
    taken: list[bytes] = []

    def put(frame: bytes) -> bool:
        if len(taken) == 2:
            return False
        taken.append(frame)
        return True

    assert not here.pump(put, 0.0)
    arrived = [there.receive(open_envelope(frame), 0.0) for frame in [*taken, *frames(here)]]
    assert arrived == [m.Retire(number) for number in range(4)]


def test_a_renewed_stream_goes_on_within_a_message() -> None:
    here, there = pair()
    here.send(body(bytes(3 * MAX_BODY)))
    first, *_ = frames(here)
    assert there.receive(open_envelope(first), 0.0) is None
    here.renew(7, 2, there.link.seen, 1.0)
    there.renew(7, 2, here.link.seen, 1.0)
    arrived = [there.receive(open_envelope(frame), 1.0) for frame in frames(here, 1.0)]
    assert arrived[-1] == body(bytes(3 * MAX_BODY))


def test_a_new_link_forgets_half_a_message() -> None:
    here, there = pair()
    here.send(body(bytes(3 * MAX_BODY)))
    there.receive(open_envelope(frames(here)[0]), 0.0)
    here.renew(8, 1, None, 1.0)
    there.renew(8, 1, None, 1.0)
    here.send(m.Close())
    assert [there.receive(open_envelope(frame), 1.0) for frame in frames(here, 1.0)] == [m.Close()]


def test_a_message_that_does_not_decode_is_dropped_and_the_next_one_arrives() -> None:
    here, there = pair()
    here.link.record((0, b"\xc1 nonsense"))
    here.send(m.Close())
    bad, good = frames(here)
    with pytest.raises(PeerProtocolError):
        there.receive(open_envelope(bad), 0.0)
    assert there.receive(open_envelope(good), 0.0) == m.Close()


def test_an_acknowledgement_of_what_was_never_sent_is_refused() -> None:
    here, there = pair()
    for number in range(3):
        there.send(m.Retire(number))
    (frame, *_) = frames(there)
    with pytest.raises(PeerProtocolError, match="only 0 exist"):
        here.receive(open_envelope(frame)._replace(ack=9), 0.0)


@given(st.binary(max_size=60))
def test_any_bytes_are_an_envelope_or_refused(data: bytes) -> None:
    try:
        envelope = open_envelope(data)
    except PeerProtocolError:
        return
    assert data[0] == 1
    assert envelope.flags <= 3


def test_fragments_that_are_not_full_are_refused_and_not_kept() -> None:
    here, there = pair()
    here.send(body(bytes(MAX_BODY + 100)))
    first, last = frames(here)
    short = bytearray(first[:30])
    with pytest.raises(PeerProtocolError, match="fragment of 0 bytes"):
        there.receive(open_envelope(bytes(short)), 0.0)
    with pytest.raises(PeerProtocolError):
        there.receive(open_envelope(last), 0.0)
    here.send(m.Retire(3))
    (frame,) = frames(here)
    assert there.receive(open_envelope(frame), 0.0) == m.Retire(3)


def test_a_frame_that_is_longer_than_any_may_be_is_refused() -> None:
    here, _ = pair()
    here.send(body(bytes(2 * MAX_BODY)))
    with pytest.raises(PeerProtocolError, match="too long"):
        open_envelope(frames(here)[0] + b"x")
