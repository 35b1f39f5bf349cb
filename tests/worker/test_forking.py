"""The daemon's end of a runner's pipe."""

from __future__ import annotations

import socket
import tracemalloc
from collections.abc import Iterator

import pytest

from taskmesh.wire import pipe
from taskmesh_worker import cells
from taskmesh_worker.forking import READ_BYTES, RunnerPipe


@pytest.fixture
def ends() -> Iterator[tuple[RunnerPipe, socket.socket]]:
    """A daemon's end, and the runner's."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    daemon = RunnerPipe(1, ours, cells.Cells(cells.create()))
    yield daemon, theirs
    daemon.close()
    theirs.close()


def test_what_arrives_in_pieces_is_read_as_frames(ends: tuple[RunnerPipe, socket.socket]) -> None:
    daemon, runner = ends
    data = b"".join([*pipe.frame(pipe.OUTCOME, b"first"), *pipe.frame(pipe.READY), *pipe.frame(pipe.OUTCOME, b"last")])
    runner.sendall(data[:20])
    assert list(daemon.read()) == [(pipe.OUTCOME, b"first")]
    runner.sendall(data[20:])
    assert list(daemon.read()) == [(pipe.READY, b""), (pipe.OUTCOME, b"last")]
    assert list(daemon.read()) == []


def test_a_frame_is_not_overwritten_by_what_another_pipe_brings(ends: tuple[RunnerPipe, socket.socket]) -> None:
    daemon, runner = ends
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    other = RunnerPipe(2, ours, cells.Cells(cells.create()))
    runner.sendall(b"".join([*pipe.frame(pipe.OUTCOME, b"a" * 9), *pipe.frame(pipe.OUTCOME, b"b" * 9)]))
    theirs.sendall(b"".join(pipe.frame(pipe.OUTCOME, b"c" * 40)))
    reading = daemon.read()
    first = next(reading)
    between = list(other.read())
    assert [first, *reading] == [(pipe.OUTCOME, b"a" * 9), (pipe.OUTCOME, b"b" * 9)]
    assert between == [(pipe.OUTCOME, b"c" * 40)]
    other.close()
    theirs.close()


def test_a_small_frame_takes_no_large_block_of_memory(ends: tuple[RunnerPipe, socket.socket]) -> None:
    daemon, runner = ends
    runner.sendall(b"".join(pipe.frame(pipe.OUTCOME, b"x")))
    tracemalloc.start()
    try:
        assert list(daemon.read()) == [(pipe.OUTCOME, b"x")]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < READ_BYTES // 8
