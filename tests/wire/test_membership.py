"""What answers on control may be no hub: a peer is told so, and goes on living."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from taskmesh.core import messages as m
from taskmesh.transport import membership
from taskmesh.transport.curve import Credentials
from taskmesh.transport.endpoints import foreign
from taskmesh.transport.handshake import BELIEVED_AFTER
from taskmesh.transport.loop import Loop
from taskmesh.transport.membership import Membership
from taskmesh.transport.sockets import new_context
from taskmesh.wire.stream import pack_control

REGISTER = m.Register("client", 7, 0, 0, 0, 0, "n", "h", 1, 0, "1.0", "3.11", b"", b"")
WELCOME = m.Registered(5, 1, False, 0, "ipc:///tmp/no-such/l1", "ipc:///tmp/no-such/s", "1.0", 1 << 30)


class Peer:
    """Owns a membership, and hands it replies. `refused`: why it was not let in."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refused: list[str] = []
        self.welcomed = 0
        self._replies: list[bytes] = []
        self._context, self._loop = new_context(), Loop()
        self.member = Membership(self._context, self._loop, "ipc:///tmp/no-such/c", REGISTER, self)
        monkeypatch.setattr(membership, "get", lambda sock: self._replies.pop(0) if self._replies else None)

    def hears(self, *replies: bytes) -> None:
        self._replies += replies
        self.member._read_control()

    def close(self) -> None:
        self.member.close(0)
        self._context.destroy(linger=0)
        self._loop.close()

    def on_welcome(self, welcome: m.Registered) -> None:
        self.welcomed += 1

    def on_message(self, message: m.LinkMessage) -> None:
        raise AssertionError(message)

    def on_refused(self, why: str) -> None:
        self.refused.append(why)

    def on_lost(self) -> None:
        raise AssertionError("nothing is lost")


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Peer]:
    made = Peer(monkeypatch)
    yield made
    made.close()


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"",
        pack_control(WELCOME._replace(epoch=1 << 40)),
        pack_control(WELCOME._replace(lane="inproc://lane")),
        pack_control(WELCOME._replace(lane="tcp://:::")),
        pack_control(WELCOME._replace(inbox="tcp://no port")),
        pack_control(WELCOME._replace(inbox="ipc://" + "x" * 200)),
    ],
    ids=["http", "empty", "epoch", "inproc", "lane", "inbox", "path"],
)
def test_a_welcome_that_is_none_is_a_refusal(peer: Peer, reply: bytes) -> None:
    peer.hears(reply)
    assert len(peer.refused) == 1
    assert "is no hub of this release" in peer.refused[0]
    assert not peer.welcomed
    assert not peer.member.registered


def test_a_link_that_cannot_go_on_where_the_hub_says_is_a_refusal(peer: Peer) -> None:
    peer.hears(pack_control(WELCOME))
    assert peer.welcomed == 1
    peer.member.join_again()
    peer.hears(pack_control(WELCOME._replace(epoch=2, resume=True, seen=1000)))
    assert "cannot resume from 1000" in peer.refused[0]
    assert peer.welcomed == 1


def test_an_acknowledgement_of_what_was_never_sent_changes_nothing(peer: Peer) -> None:
    peer.hears(pack_control(WELCOME), pack_control(m.HeartbeatReply(True, 1 << 60, 1 << 60, 1 << 60)))
    assert peer.member.registered
    assert not peer.refused


def test_who_answers_in_a_directory_that_others_can_change_is_not_believed(
    peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o777)
    peer.member._endpoint = f"ipc://{tmp_path}/c"
    peer.hears(pack_control(WELCOME))
    assert "others may write to" in peer.refused[0]
    assert not peer.member.registered


def test_whose_directory_an_endpoint_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o755)  # who may not write to a socket does not connect to it
    endpoint = f"ipc://{tmp_path}/c"
    assert foreign(endpoint) is None
    assert foreign("tcp://127.0.0.1:5555") is None
    assert foreign("ipc:///tmp/no-such/c") is None
    owner = tmp_path.stat()
    other = os.stat_result((owner.st_mode, *owner[1:4], 4711, *owner[5:]))
    monkeypatch.setattr(os, "stat", lambda path: other)
    assert "belongs to another user (uid 4711)" in str(foreign(endpoint))


# ---- connections that end at once -------------------------------------------------------------------------------


class Slammer:
    """Takes every connection, and ends it. `met`: how many there were."""

    def __init__(self) -> None:
        self.met = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                connection, _ = self._listener.accept()
                self.met += 1
                connection.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


def test_a_peer_whose_handshakes_fail_does_not_knock_all_the_time() -> None:
    context, loop, slammer, owner = new_context(), Loop(), Slammer(), Silent()
    ticket = Credentials(*(half.decode() for half in (zmq.curve_keypair()[0], *zmq.curve_keypair())))
    member = Membership(context, loop, slammer.endpoint, REGISTER, owner, ticket=ticket)
    loop.add_part(member)
    rounds, end = 0, time.monotonic() + 15.0
    try:
        while rounds < 3:
            loop.step()
            assert time.monotonic() < end
            if member.trouble is not None and member._control is None:
                rounds += 1
                member.trouble = None
        assert slammer.met <= 3 * (BELIEVED_AFTER + 1), "it waits between them"
        assert member.next_deadline() > loop.now()
    finally:
        member.close(0)
        slammer.close()
        loop.close()
        context.destroy(linger=0)


class Silent:
    """An owner that nothing is expected of."""

    def on_welcome(self, welcome: m.Registered) -> None:
        raise AssertionError(welcome)

    def on_message(self, message: m.LinkMessage) -> None:
        raise AssertionError(message)

    def on_refused(self, why: str) -> None:
        raise AssertionError(why)

    def on_lost(self) -> None: ...
