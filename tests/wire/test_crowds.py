"""Crowds of strangers at a process that may open only so many files."""

from __future__ import annotations

import resource
import socket
import sys
from collections.abc import Iterator

import pytest

from taskmesh.transport.crowds import LONGEST_S, Crowds
from tests.system.processes import until

FILES = 400

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux filters what a listening socket is sent")


@pytest.fixture
def few_files() -> Iterator[None]:
    """This process may open few files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Something to connect to."""
    with socket.create_server(("127.0.0.1", 0), backlog=FILES) as made:
        yield made


def connects(listener: socket.socket) -> bool:
    try:
        socket.create_connection(listener.getsockname(), 0.2).close()
    except TimeoutError:
        return False
    listener.accept()[0].close()
    return True


def test_a_crowd_is_shut_out_and_who_is_there_stays_connected(few_files: None, listener: socket.socket) -> None:
    crowds = Crowds(tcp=True)
    crowds.look(0, 0.0)
    assert connects(listener)
    friend = socket.create_connection(listener.getsockname())
    ours, _ = listener.accept()
    strangers: list[socket.socket] = []
    try:
        while not crowds.shut:
            strangers.append(socket.create_connection(listener.getsockname()))
            strangers.append(listener.accept()[0])
            crowds.look(0, 0.0)
        assert 100 < len(strangers) < FILES
        assert not connects(listener)
        friend.sendall(b"still here")
        assert ours.recv(100) == b"still here"
    finally:
        for stranger in strangers:
            stranger.close()
    crowds.look(0, 0.0)
    assert not crowds.shut
    until(lambda: connects(listener), "who comes is let in again")
    friend.close()
    ours.close()


def test_many_peers_are_no_crowd(few_files: None, listener: socket.socket) -> None:
    crowds = Crowds(tcp=True)
    crowds.look(0, 0.0)
    peers = [socket.create_connection(listener.getsockname()) for _ in range(150)]
    peers += [listener.accept()[0] for _ in range(150)]
    crowds.look(len(peers) // 8, 0.0)
    assert not crowds.shut
    for peer in peers:
        peer.close()


def test_who_may_open_many_files_is_looked_at_seldom_and_who_has_no_ports_never() -> None:
    assert Crowds(tcp=False).due == float("inf")
    crowds = Crowds(tcp=True)
    crowds.look(0, 10.0)
    assert 10.0 < crowds.due <= 10.0 + LONGEST_S
