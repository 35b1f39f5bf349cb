"""Frames between daemon and runner."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmesh.core.chunk import Chunk, pack_sizes
from taskmesh.wire.pipe import (
    DOSE,
    OUTCOME,
    STOPPED,
    Buffers,
    Dose,
    Frames,
    PipeOutcome,
    PipeStopped,
    pack_dose,
    pack_outcome,
    pack_stopped,
    unpack_dose,
    unpack_outcome,
    unpack_stopped,
)


def dose(name: str = "f", init: bytes = b"") -> Dose:
    chunk = Chunk(40, 3, 4, pack_sizes([2, 1]), pack_sizes([1, 3]), 1, b"abc")
    return Dose(9, 2**64 - 1, 5, 2, 4, 7, 64, name, b"d" * 16, init, chunk)


def flat(buffers: Buffers) -> bytes:
    return b"".join(buffers)


@pytest.mark.parametrize("name", ["f", "", "größe", "x" * 100_000, "\udc80"])
def test_a_dose_survives_the_trip(name: str) -> None:
    ((kind, body),) = Frames().feed(flat(pack_dose(dose(name, b"i" * 16))))
    arrived = unpack_dose(body)
    assert kind == DOSE
    assert arrived[:7] == dose()[:7]
    assert arrived.digest == b"d" * 16
    assert arrived.init == b"i" * 16
    assert (arrived.chunk.first, arrived.chunk.base, arrived.chunk.count) == (40, 3, 4)
    assert (arrived.chunk.sizes, arrived.chunk.items, arrived.chunk.payload) == (
        pack_sizes([2, 1]),
        pack_sizes([1, 3]),
        b"abc",
    )
    assert len(arrived.name) <= 60_000
    assert arrived.name == name or len(name) > 60_000 or "\udc80" in name


@given(st.lists(st.integers(1, 40), max_size=60))
def test_frames_arrive_whatever_pieces_they_come_in(pieces: list[int]) -> None:
    outcome = PipeOutcome(7, 3, 1, 0.25, b"blob")
    data = flat(pack_outcome(outcome)) + flat(pack_stopped(PipeStopped(10, 12))) + flat(pack_dose(dose()))
    frames, arrived, start = Frames(), [], 0
    for size in [*pieces, len(data)]:
        arrived += list(frames.feed(data[start : start + size]))
        start += size
    assert [kind for kind, _ in arrived] == [OUTCOME, STOPPED, DOSE]
    assert unpack_outcome(arrived[0][1]) == outcome
    assert unpack_stopped(arrived[1][1]) == PipeStopped(10, 12)


def test_a_reader_that_stops_early_loses_no_later_frame() -> None:
    frames = Frames()
    data = flat(pack_stopped(PipeStopped(1, 2))) + flat(pack_stopped(PipeStopped(3, 4)))
    for _ in frames.feed(data):
        break
    assert [unpack_stopped(body) for _, body in frames.feed(b"")] == [PipeStopped(3, 4)]
