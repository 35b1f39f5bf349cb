"""A process that may open no more files: it says that it is itself which lacks them, and leaves nothing open behind."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from taskmesh.client import Client
from taskmesh.complaints import Complaints
from taskmesh.core import messages as m
from taskmesh.door import Door
from taskmesh.errors import AddressError, StoreError
from taskmesh.hub import Hub, HubConfig
from taskmesh.lanes import Lanes
from taskmesh.security.keyring import Keyring
from taskmesh.store import opener
from taskmesh.transport.endpoints import Address
from taskmesh.transport.files import open_files
from taskmesh.transport.loop import Loop
from taskmesh.transport.membership import Membership
from taskmesh.transport.sockets import Context, new_context
from taskmesh.wire.stream import Stream, pack_control

from .test_membership import REGISTER, WELCOME, Peer

ENOUGH = 100
LOOPBACK = Address("tcp", "127.0.0.1", 0)


@contextlib.contextmanager
def spare_files(count: int) -> Iterator[None]:
    """In the block this process may open so many more files."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    taken = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + ENOUGH, limits[1]))
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        for _ in range(count):
            os.close(taken.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for file in taken:
            os.close(file)


def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + 10.0
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.001)  # ZeroMQ closes in a thread of its own


@pytest.fixture
def context() -> Iterator[Context]:
    made = new_context()
    made.socket(0).close()  # its threads have started
    yield made
    made.destroy(linger=0)


def test_a_peer_without_files_for_its_lane_does_not_blame_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    said = []
    for count in range(ENOUGH):
        peer = Peer(monkeypatch)
        try:
            try:
                with spare_files(count):
                    peer.hears(pack_control(WELCOME))
            except AddressError as error:
                said.append(str(error))
            assert not peer.refused
            if peer.welcomed:
                break
        finally:
            peer.close()
    assert len(said) >= 3, "lane, monitor and outbox take some"
    assert all("this process may have" in why for why in said)


def test_a_peer_without_files_for_control_says_so(context: Context) -> None:
    loop, said = Loop(), []
    for count in range(ENOUGH):
        try:
            with spare_files(count):
                member = Membership(context, loop, "tcp://127.0.0.1:1", REGISTER, Owner())
        except AddressError as error:
            said.append(str(error))
        else:
            member.close(0)
            break
    assert len(said) >= 2, "control and its monitor take some"
    assert all("this process may have" in why for why in said)
    loop.close()


class Owner:
    """Is told nothing."""

    def on_welcome(self, welcome: m.Registered) -> None: ...

    def on_message(self, message: m.LinkMessage) -> None: ...

    def on_refused(self, why: str) -> None: ...

    def on_lost(self) -> None: ...


def test_a_client_that_runs_out_of_files_ends_with_that_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def on_time(self: Membership, now: float) -> None:
        raise AddressError("cannot open another socket")

    monkeypatch.setattr(Membership, "on_time", on_time)
    client = Client("ipc:///tmp/no-such/c", "poor")
    with pytest.raises(AddressError, match="cannot open another socket"):
        client.start(10.0)
    client._thread.join(10.0)


# ---- the hub ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", [Address("ipc", "/tmp/no-such", 0), Address("tcp", "192.0.2.1", 5555)])
def test_a_lane_that_cannot_be_bound_is_closed(context: Context, address: Address) -> None:
    loop = Loop()
    lanes = Lanes(context, loop, None, lambda lane: None, Door(None, Complaints(), context, loop))
    before = open_files(0)
    for _ in range(5):
        with pytest.raises(AddressError, match="cannot listen"):
            lanes.open(address, 7, Stream(1, 1), WELCOME)
    until(lambda: open_files(0) <= before, "sockets were left open")
    loop.close()


def test_a_hub_that_lacks_files_at_its_start_leaves_nothing_open(context: Context, tmp_path: Path) -> None:
    ring = Keyring.open(tmp_path / "keys")
    config = HubConfig(LOOPBACK, None, store=opener(f"sqlite://{tmp_path}/hub.db"), keyring=ring, events=True)
    loop, failed = Loop(), 0
    try:
        for count in range(ENOUGH):
            before = open_files(0)
            try:
                with spare_files(count):
                    hub = Hub(config, context, loop)
            except (AddressError, StoreError, OSError):
                failed += 1
                until(lambda before=before: open_files(0) <= before, f"with {count} files some were left open")  # type: ignore[misc]
                assert not loop._readers
            else:
                hub.close("that was all")
                break
    finally:
        loop.close()
        ring.close()
    assert 5 < failed < ENOUGH - 1
