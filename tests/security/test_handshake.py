"""What a connecting side is told when no connection comes about: real sockets and keys, and things that are no hub."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import zmq

from taskmesh.cli.asking import ask
from taskmesh.core.access import Role
from taskmesh.core.messages import Refused, StatusReply, StatusRequest
from taskmesh.errors import HubUnreachable, RegistrationRefused
from taskmesh.security import keys
from taskmesh.security.ticket import Ticket
from taskmesh.transport.diagnosis import mechanism
from taskmesh.transport.endpoints import Address
from taskmesh.transport.handshake import (
    HANGS_UP,
    NEEDS_TICKET,
    NO_HUB,
    NO_KEYS_THERE,
    OTHER_KEY,
    REFUSED,
    HandshakeWatch,
    explained,
)
from taskmesh.transport.sockets import Context, Socket
from taskmesh.wire.stream import pack_control, unpack_control

HUB, KNOWN, UNKNOWN = keys.new_pair(), keys.new_pair(), keys.new_pair()
ANSWER = StatusReply(b"{}")


def ticket(address: Address, pair: tuple[str, str] = KNOWN, hub_key: str = HUB[0]) -> Ticket:
    return Ticket(str(address), hub_key, *pair, Role.ADMIN, "mine")


class FakeHub:
    """Answers every request on control; with keys it lets in `KNOWN` alone, as long as `open`."""

    def __init__(self, context: Context, with_keys: bool) -> None:
        self.open = True
        self.replies = [pack_control(ANSWER)]
        self._zap: Socket = context.socket(zmq.REP)
        self._zap.bind("inproc://zeromq.zap.01")
        self._control: Socket = context.socket(zmq.REP)
        if with_keys:
            self._control.curve_server = True
            self._control.curve_publickey, self._control.curve_secretkey = (half.encode() for half in HUB)
            self._control.zap_domain = b"control"
        self.address = Address("tcp", "127.0.0.1", self._control.bind_to_random_port("tcp://127.0.0.1"))
        self._stop, stop = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, args=(stop,))
        self._thread.start()

    def _serve(self, stop: socket.socket) -> None:
        poller = zmq.Poller()
        for source in (self._zap, self._control, stop):
            poller.register(source, zmq.POLLIN)
        while True:
            ready = dict(poller.poll())
            if stop.fileno() in ready:
                break
            if self._zap in ready:
                _, request, _, _, _, _, key = self._zap.recv_multipart()
                known = self.open and key == keys.raw(KNOWN[0])
                self._zap.send_multipart([b"1.0", request, b"200" if known else b"400", b"", b"", b""])
            if self._control in ready:
                unpack_control(self._control.recv())
                self._control.send(self.replies[0])
        stop.close()
        for sock in (self._zap, self._control):
            sock.close(linger=0)

    def close(self) -> None:
        """End its thread."""
        self._stop.close()
        self._thread.join()


@pytest.fixture
def context() -> Iterator[Context]:
    """A context of the hub's and of what watches."""
    context: Context = zmq.Context()
    yield context
    context.destroy(linger=0)


@pytest.fixture
def hub(context: Context) -> Iterator[Callable[[bool], FakeHub]]:
    """Starts fake hubs, with keys or without."""
    with ExitStack() as stack:

        def start(with_keys: bool = True) -> FakeHub:
            started = FakeHub(context, with_keys)
            stack.callback(started.close)
            return started

        yield start


@pytest.fixture
def dropper() -> Iterator[Address]:
    """Takes every connection and ends it: a tunnel whose other end is away."""
    listener = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            connection, _ = listener.accept()
            connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    address = Address("tcp", "127.0.0.1", listener.getsockname()[1])
    yield address
    ended.set()
    socket.create_connection(listener.getsockname()).close()
    thread.join()
    listener.close()


def refusal(address: Address, given: Ticket | None) -> str:
    """Why a question is refused, which is known long before the timeout."""
    started = time.monotonic()
    with pytest.raises(RegistrationRefused) as caught:
        ask(address, given, StatusRequest(), 20)
    assert time.monotonic() - started < 10
    return str(caught.value)


# ---- asking ---------------------------------------------------------------------------------------------------------


def test_a_hub_answers_who_has_a_ticket(hub: Callable[[bool], FakeHub]) -> None:
    address = hub(True).address
    assert ask(address, ticket(address), StatusRequest(), 10) == ANSWER


def test_a_hub_without_keys_answers_who_has_none(hub: Callable[[bool], FakeHub]) -> None:
    assert ask(hub(False).address, None, StatusRequest(), 10) == ANSWER


def test_a_ticket_that_the_hub_does_not_know_or_that_was_revoked(hub: Callable[[bool], FakeHub]) -> None:
    fake = hub(True)
    assert refusal(fake.address, ticket(fake.address, UNKNOWN)).endswith(REFUSED)
    fake.open = False
    assert refusal(fake.address, ticket(fake.address)).endswith(REFUSED)


def test_no_ticket_at_a_hub_with_keys(hub: Callable[[bool], FakeHub]) -> None:
    assert refusal(hub(True).address, None).endswith(NEEDS_TICKET)


def test_a_ticket_at_a_hub_without_keys(hub: Callable[[bool], FakeHub]) -> None:
    address = hub(False).address
    assert refusal(address, ticket(address)).endswith(NO_KEYS_THERE)


def test_a_ticket_for_a_hub_with_another_key(hub: Callable[[bool], FakeHub]) -> None:
    address = hub(True).address
    assert refusal(address, ticket(address, hub_key=UNKNOWN[0])).endswith(OTHER_KEY)


def test_something_that_ends_every_connection(dropper: Address) -> None:
    assert refusal(dropper, ticket(dropper)).endswith(NO_HUB)
    assert refusal(dropper, None).endswith(NO_HUB)


def test_something_that_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = Address("tcp", "127.0.0.1", silent.getsockname()[1])
        with pytest.raises(HubUnreachable, match=r"within 0\.2 s: something listens") as caught:
            ask(address, ticket(address), StatusRequest(), 0.2)
    assert not isinstance(caught.value, RegistrationRefused)


def test_nobody_there() -> None:
    nobody = Address("tcp", "127.0.0.1", 1)
    with pytest.raises(HubUnreachable, match=r"nothing listens on tcp://127\.0\.0\.1:1"):
        ask(nobody, ticket(nobody), StatusRequest(), 0.2)


def test_a_refusal_is_shown_and_not_obeyed(hub: Callable[[bool], FakeHub]) -> None:
    fake = hub(True)
    fake.replies = [pack_control(Refused("only an admin may \x1b[2J"))]
    assert refusal(fake.address, ticket(fake.address)) == r"only an admin may \x1b[2J"


def test_an_answer_that_is_none(hub: Callable[[bool], FakeHub]) -> None:
    fake = hub(True)
    fake.replies = [b"hello"]
    assert "is no hub of this release" in refusal(fake.address, ticket(fake.address))


# ---- watching -------------------------------------------------------------------------------------------------------


class Watched:
    """A connecting socket with its watch."""

    def __init__(self, context: Context, given: Ticket | None) -> None:
        self.sock: Socket = context.socket(zmq.REQ)
        self.sock.setsockopt(zmq.RECONNECT_IVL, 10)
        self.watch = HandshakeWatch(self.sock, given is not None)
        if given is not None:
            self.sock.curve_serverkey = given.hub_key.encode()
            self.sock.curve_publickey, self.sock.curve_secretkey = given.public_key.encode(), given.secret_key.encode()

    def fails(self) -> str:
        """Wait for the failure."""
        while (why := self.watch.failure()) is None:
            assert self.watch.monitor.poll(10_000)
        return why

    def close(self) -> None:
        """Close both."""
        self.watch.close()
        self.watch.close()
        self.sock.close(linger=0)


def test_all_is_well(context: Context, hub: Callable[[bool], FakeHub]) -> None:
    fake = hub(True)
    watched = Watched(context, ticket(fake.address))
    assert watched.watch.failure() is None  # nothing has happened yet
    watched.sock.connect(str(fake.address))
    assert watched.watch.monitor.poll(10_000)
    assert watched.watch.failure() is None
    assert not watched.watch.final
    watched.close()


def test_a_refusal_is_final_and_is_said_again(context: Context, hub: Callable[[bool], FakeHub]) -> None:
    fake = hub(True)
    watched = Watched(context, ticket(fake.address, UNKNOWN))
    watched.sock.connect(str(fake.address))
    assert watched.fails() == REFUSED
    assert watched.watch.failure() == REFUSED
    assert watched.watch.final
    watched.close()


def test_a_hub_behind_a_tunnel_may_come_back(
    context: Context, hub: Callable[[bool], FakeHub], dropper: Address
) -> None:
    fake = hub(True)
    watched = Watched(context, ticket(fake.address))
    watched.sock.connect(str(dropper))
    assert watched.fails() == HANGS_UP
    assert not watched.watch.final
    assert explained(HANGS_UP, dropper, True) == (NO_HUB, False)
    watched.sock.connect(str(fake.address))
    end = time.monotonic() + 10
    while watched.watch.failure() is not None:
        assert watched.watch.monitor.poll(10_000) and time.monotonic() < end
    watched.close()


# ---- the mechanism --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("with_keys", "spoken"), [(True, "CURVE"), (False, "NULL")])
def test_a_hub_says_whether_it_has_keys(hub: Callable[[bool], FakeHub], with_keys: bool, spoken: str) -> None:
    assert mechanism(hub(with_keys).address) == spoken


@pytest.mark.parametrize("says", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"x" * 100, b"\xff" * 9])
def test_what_is_no_hub_speaks_no_mechanism(says: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def serve() -> None:
            connection, _ = other.accept()
            connection.recv(100)
            connection.sendall(says)
            connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        assert mechanism(Address("tcp", "127.0.0.1", other.getsockname()[1])) is None
        thread.join()
    assert mechanism(Address("tcp", "127.0.0.1", 1)) is None


@pytest.mark.parametrize("given", [True, False])
def test_what_is_known_needs_no_question(given: bool) -> None:
    nobody = Address("tcp", "127.0.0.1", 1)
    assert explained(REFUSED, nobody, given) == (REFUSED, True)
    assert explained(HANGS_UP, nobody, given) == (NO_HUB, False)
