"""Whether a lane's peer is there, whoever else connects to its port."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import zmq

from taskmesh.transport.curve import Credentials, Zap, fresh, guard, present
from taskmesh.transport.loop import Loop
from taskmesh.transport.presence import Presence
from taskmesh.transport.sockets import Context, Socket, bind, close, connect, make, new_context
from tests.system.processes import until

HTTP = b"GET / HTTP/1.1\r\nHost: hub\r\n\r\n"
GREETING = b"\xff" + bytes(8) + b"\x7f\x03"


class LaneWorld:
    """A lane on loopback that one key may enter, and its peer."""

    def __init__(self) -> None:
        self.context: Context = new_context()
        self.loop = Loop()
        public, secret = zmq.curve_keypair()
        self.peer_keys = fresh(public.decode())
        self.hub_key = public.decode()
        self.refused = 0
        self._zap = Zap(self.context, self.loop, self._admits)
        self.lane = make(self.context, zmq.PUSH)
        guard(self.lane, secret.decode(), "lane-1")
        self.endpoint = bind(self.lane, "tcp://127.0.0.1:0")
        self.presence = Presence(self.lane)
        self.losses = 0
        self.peer = self.connected(self.peer_keys)

    def _admits(self, domain: str, key: bytes, address: str) -> bool:
        admitted = zmq.utils.z85.encode(key).decode() == self.peer_keys.public_key
        self.refused += not admitted
        return admitted

    def connected(self, keys: Credentials) -> Socket:
        sock = make(self.context, zmq.PULL)
        present(sock, keys)
        sock.setsockopt(zmq.RECONNECT_IVL, -1)
        connect(sock, self.endpoint)
        return sock

    def turn(self) -> bool:
        """A round of the loop. Returns whether the lane can send, so that its peer is connected."""
        self._zap._read()
        self.losses += self.presence.lost()
        return bool(int(self.lane.get(zmq.EVENTS)) & zmq.POLLOUT)

    def plain(self, data: bytes) -> None:
        """Somebody connects, says something, and is gone when the lane has noticed."""
        port = int(self.endpoint.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), 10.0) as connection:
            until(lambda: self.turn() and self.presence._open - self.presence._peers, "it was accepted")
            connection.sendall(data)
        until(lambda: self.turn() and not self.presence._open - self.presence._peers, "its end was noticed")

    def close(self) -> None:
        self._zap.close()
        self.context.destroy(linger=0)
        self.loop.close()


@pytest.fixture
def world() -> Iterator[LaneWorld]:
    made = LaneWorld()
    until(made.turn, "the peer is connected")
    yield made
    made.close()


@pytest.mark.parametrize("data", [b"", HTTP, GREETING], ids=["nothing", "http", "half a greeting"])
def test_a_lane_is_not_lost_because_somebody_else_hangs_up(world: LaneWorld, data: bytes) -> None:
    for _ in range(5):
        world.plain(data)
    assert world.losses == 0
    close(world.peer)
    until(lambda: not world.turn() and world.losses, "the peer's end was noticed")
    assert world.losses == 1


def test_a_lane_is_not_lost_because_another_key_is_refused(world: LaneWorld) -> None:
    other = world.connected(fresh(world.hub_key))
    until(lambda: world.turn() and world.refused, "it was refused", 20)  # and may be gone by then
    close(other)
    until(lambda: world.turn() and not world.presence._open - world.presence._peers, "its end was noticed", 20)
    assert world.losses == 0


def test_who_was_there_first_and_says_nothing_does_not_hide_the_end_of_the_peer_for_long() -> None:
    world = LaneWorld()
    port = int(world.endpoint.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), 10.0):
        until(lambda: world.turn() and len(world.presence._peers) in (1, 2), "the peer is connected")
        close(world.peer)
        until(lambda: not world.turn() and world.losses == 1, "its end was noticed", 20)
    world.close()


def test_thousands_of_connections_that_nobody_has_read_of_do_not_stop_the_socket(world: LaneWorld) -> None:
    port = int(world.endpoint.rpartition(":")[2])
    for _ in range(2500):  # a monitor of libzmq's would be full after 2,000 events, and its I/O thread wait
        socket.create_connection(("127.0.0.1", port), 10.0).close()
    assert world.lane.send(b"still here") is None
    until(lambda: int(world.peer.get(zmq.EVENTS)) & zmq.POLLIN, "the peer has it")
    until(lambda: world.turn() and not world.presence._open - world.presence._peers, "all of that was read", 30)
    assert world.losses == 0
