"""Whoever takes the hub's place, its ports or the number of a session: nobody who is honest gives up because of it."""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskmesh import Mesh
from taskmesh.core import messages as m

from .guarded import Guarded
from .processes import Fleet, free_ports, until
from .raw import RawPeer, keys_of, new_keys
from .tasks import double, hold

GREETING_BYTES, HELLO_BYTES = 64, 202
LANES = 10


class Squatter:
    """Listens where a hub did, and says what nobody needs the hub's key for: that it does not let anybody in."""

    def __init__(self, port: int, mechanism: bytes) -> None:
        self._mechanism = mechanism
        self.met = 0
        self._listener = socket.create_server(("127.0.0.1", port))
        self._listener.settimeout(0.1)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        open_until_the_end = []
        while not self._ended.is_set():
            with contextlib.suppress(OSError):
                connection, _ = self._listener.accept()
                open_until_the_end.append(connection)
                connection.settimeout(2.0)
                self.met += 1
                self._refuse(connection)
        for connection in open_until_the_end:
            connection.close()

    def _refuse(self, connection: socket.socket) -> None:
        connection.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00" + self._mechanism.ljust(20, b"\0") + b"\1" + bytes(31))
        wanted = GREETING_BYTES + (HELLO_BYTES if self._mechanism == b"CURVE" else 0)
        while wanted > 0:
            said = connection.recv(wanted)
            if not said:
                return
            wanted -= len(said)
        if self._mechanism == b"CURVE":
            connection.sendall(b"\x04\x0a\x05ERROR\x03400")

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self._listener.close()


@pytest.fixture
def lasting(tmp_path: Path) -> Iterator[Fleet]:
    """A hub that can be started again at its address, and has one runner."""
    port = free_ports(4 + LANES)
    fleet = Fleet(tmp_path, f"tcp://127.0.0.1:{port}", ["--lanes", f"{port + 4}-{port + 3 + LANES}"])
    try:
        yield fleet
    finally:
        fleet.end()


@pytest.mark.parametrize("mechanism", [b"CURVE", b"NULL"])
def test_what_anybody_could_say_in_the_place_of_a_hub_ends_nobody(
    lasting: Fleet, tmp_path: Path, mechanism: bytes
) -> None:
    worker = lasting.worker()
    with Mesh(lasting.address) as mesh:
        held = mesh.submit(hold, str(tmp_path), "held")
        until((tmp_path / "held.started").exists, "it runs")
        lasting.hub.process.kill()
        lasting.hub.ends()
        squatter = Squatter(int(lasting.address.rpartition(":")[2]), mechanism)
        try:
            until(lambda: squatter.met >= 6, "client and worker have been refused, and have asked again", 30)
        finally:
            squatter.close()
        lasting.start_hub()
        (tmp_path / "held.go").touch()
        assert held.result(30) == "held"
        assert mesh.submit(double, 2).result(30) == 4
    assert worker.process.poll() is None, worker.output


def test_who_finds_no_lane_free_asks_again(tmp_path: Path) -> None:
    port = free_ports(5)
    fleet = Fleet(tmp_path, f"tcp://127.0.0.1:{port}", ["--lanes", f"{port + 4}-{port + 4}"])
    try:
        with socket.create_server(("127.0.0.1", port + 4)) as taken:  # by another user of this machine
            worker = fleet._start("worker", fleet.address, "-n", "1")
            until(lambda: "no free port" in fleet.hub.output, "it was refused")
            assert taken.fileno() >= 0
            assert worker.process.poll() is None
        worker.says("has joined")
    finally:
        fleet.end()


def test_who_has_said_goodbye_does_not_speak_for_the_next_one_of_its_number(guarded: Guarded) -> None:
    first = guarded.joins("client")
    first.send(m.Close())
    assert isinstance(next(first.hears()), m.Goodbye)
    other = guarded.create("other", "client")
    own, secret = new_keys(other.hub_key), secrets.token_bytes(16)
    # `first` acknowledges nothing more, so that its lane is kept for a second.
    again = guarded.joins("client")
    again.send(m.Close())
    welcome = None

    def taken_over() -> bool:
        nonlocal welcome
        welcome = guarded.raw.ask(guarded.raw.request("client", again.instance, own.raw, secret), keys_of(other))
        return isinstance(welcome, m.Registered)

    until(taken_over, "its number is free")
    assert isinstance(welcome, m.Registered)
    successor = RawPeer(guarded.raw, other, "client", again.instance, own, secret, welcome)
    with guarded.counts("dropped_frames"):
        again.send(m.Close())
    assert successor.beat().known


def test_the_audit_log_is_not_filled_by_names(guarded: Guarded) -> None:
    own = new_keys(guarded.worker.hub_key)
    request = guarded.raw.request("daemon", 77, own.raw, b"s" * 16, name="n" * 1000, host="h" * 255)
    assert isinstance(guarded.raw.ask(request, keys_of(guarded.worker)), m.Registered)
    entry = guarded.audit("registered")[-1]
    assert (entry["name"], entry["host"]) == ("n" * 64, "h" * 64)
