"""What somebody without a key can do: connect to any port, and say anything."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

import zmq

from taskmesh.transport.sockets import Socket

from .target import Kind, Target, curve

HTTP = b"GET / HTTP/1.1\r\nHost: hub\r\nUser-Agent: curl/8\r\nAccept: */*\r\n\r\n"
TLS = (
    bytes.fromhex("16030100c8010000c40303") + bytes(range(32)) + b"\x20" + bytes(32) + bytes.fromhex("0004130113020100")
)
SIGNATURE = b"\xff" + bytes(8) + b"\x7f"
HALF_OPEN = 300
FLOOD = 3000


def greeting(mechanism: bytes, server: int = 0, version: bytes = b"\x03\x01") -> bytes:
    """Of ZMTP 3: 64 bytes."""
    return SIGNATURE + version + mechanism.ljust(20, b"\0") + bytes([server]) + bytes(31)


def command(name: bytes, body: bytes) -> bytes:
    """A short ZMTP command."""
    data = bytes([len(name)]) + name + body
    return bytes([4, len(data)]) + data


def everywhere(target: Target, full: int, make: Callable[[], tuple[bytes, ...]]) -> int:
    """Say something to every port in turn."""
    thrown = 0
    for _ in target.times(full):
        for port in target.ports:
            thrown += target.say(port, *make())
    return thrown


def garbage(target: Target) -> int:
    return everywhere(target, 100, lambda: (target.random.randbytes(target.random.randrange(1, 4096)),))


def http(target: Target) -> int:
    return everywhere(target, 60, lambda: (HTTP,))


def tls(target: Target) -> int:
    return everywhere(target, 60, lambda: (TLS,))


def truncated_greetings(target: Target) -> int:
    whole = greeting(b"CURVE") + command(b"HELLO", bytes(194))
    return everywhere(target, 100, lambda: (whole[: target.random.randrange(1, len(whole))],))


def malformed_greetings(target: Target) -> int:
    random = target.random

    def make() -> tuple[bytes, ...]:
        made = bytearray(
            greeting(random.choice([b"CURVE", b"NULL", b"GSSAPI", b"\xff" * 20, b""]), random.randrange(256))
        )
        for _ in range(random.randrange(4)):
            made[random.randrange(64)] = random.randrange(256)
        names = [b"HELLO", b"INITIATE", b"READY", b"WELCOME", b"ERROR", b"MESSAGE", b"\xff" * 9, b""]
        return bytes(made), command(random.choice(names), random.randbytes(random.randrange(200)))

    return everywhere(target, 100, make)


def huge_frames_in_handshakes(target: Target) -> int:
    """A command that announces 2^63 bytes, and one of as many as the socket takes."""
    long = b"\x06" + (1 << 63 - 1).to_bytes(8, "big") + b"x" * 65536
    return everywhere(target, 20, lambda: (greeting(b"CURVE"), long))


def _sockets(target: Target, full: int, prepare: Callable[[Socket], None]) -> int:
    """ZeroMQ sockets of every type, prepared in some way, send to every port."""
    thrown = 0
    for _ in target.times(full):
        for port in target.ports:
            for kind in (zmq.REQ, zmq.PUSH, zmq.PULL, zmq.DEALER):
                with target.context.socket(kind) as sock:
                    sock.setsockopt(zmq.LINGER, 0)
                    sock.setsockopt(zmq.RECONNECT_IVL, -1)
                    prepare(sock)
                    sock.connect(f"tcp://127.0.0.1:{port}")
                    if kind != zmq.PULL:
                        with contextlib.suppress(zmq.Again):
                            sock.send(b"\x01\x91\x2d", zmq.NOBLOCK)
                    sock.poll(20, zmq.POLLIN if kind in (zmq.REQ, zmq.PULL) else zmq.POLLOUT)
                    thrown += 1
    return thrown


def no_mechanism(target: Target) -> int:
    return _sockets(target, 5, lambda sock: None)


def plain(target: Target) -> int:
    def prepare(sock: Socket) -> None:
        sock.plain_username, sock.plain_password = b"admin", b"admin"

    return _sockets(target, 5, prepare)


def wrong_hub_key(target: Target) -> int:
    ticket = target.tickets["client"]

    def prepare(sock: Socket) -> None:
        curve(sock, zmq.curve_keypair()[0].decode(), ticket.public_key, ticket.secret_key)

    return _sockets(target, 4, prepare)


def unknown_keys(target: Target) -> int:
    def prepare(sock: Socket) -> None:
        public, secret = zmq.curve_keypair()
        curve(sock, target.tickets["client"].hub_key, public.decode(), secret.decode())

    return _sockets(target, 4, prepare)


def a_tickets_key_everywhere(target: Target) -> int:
    """A good ticket's key opens control, and nothing else."""
    ticket = target.tickets["worker"]
    return _sockets(target, 4, lambda s: curve(s, ticket.hub_key, ticket.public_key, ticket.secret_key))


def _hold(target: Target, count: int, data: bytes = b"") -> list[socket.socket]:
    held: list[socket.socket] = []
    ports = target.ports
    for n in target.times(count):
        connection = target.connect(ports[n % len(ports)])
        if connection is None:
            break
        held.append(connection)
        if data:
            with contextlib.suppress(OSError):
                connection.sendall(data)
    return held


def half_open(target: Target) -> int:
    """Connect and say nothing, for as long as the time lasts."""
    held = _hold(target, HALF_OPEN)
    _wait(target)
    return _close(held)


def half_a_handshake(target: Target) -> int:
    """Greet as one should, and say nothing more."""
    held = _hold(target, HALF_OPEN, greeting(b"CURVE"))
    _wait(target)
    return _close(held)


def slow_loris(target: Target) -> int:
    """A handshake of one byte every tenth of a second, on many connections."""
    held = _hold(target, HALF_OPEN // 2)
    data = greeting(b"CURVE") + command(b"HELLO", bytes(194))
    for byte in data:
        if target.over:
            break
        for connection in held:
            with contextlib.suppress(OSError):
                connection.sendall(bytes([byte]))
        with contextlib.suppress(IndexError):
            held[0].settimeout(0.1)
            with contextlib.suppress(OSError):
                held[0].recv(1)
    return _close(held)


def flood(target: Target) -> int:
    """Connect and hang up, as fast as it goes."""
    thrown, ports = 0, target.ports
    for n in target.times(FLOOD):
        thrown += target.say(ports[n % len(ports)])
    return thrown


def flood_of_one_lane(target: Target) -> int:
    """The same, on the port of one lane alone: its peer must not be taken for gone."""
    port, thrown = target.ports[-1], 0
    for _ in target.times(FLOOD):
        thrown += target.say(port)
    return thrown


def flood_kept_open(target: Target) -> int:
    """Connect, and hang up when all are there."""
    held = _hold(target, FLOOD // 2)
    return _close(held)


def resets(target: Target) -> int:
    """Connect, begin, and end by a reset."""
    thrown, ports = 0, target.ports
    for n in target.times(1000):
        connection = target.connect(ports[n % len(ports)])
        if connection is None:
            continue
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, (1).to_bytes(4, "little") + bytes(4))
        with connection, contextlib.suppress(OSError):
            connection.sendall(greeting(b"CURVE")[: target.random.randrange(65)])
        thrown += 1
    return thrown


def _wait(target: Target) -> None:
    """Until the time is over; nothing will come."""
    import time

    left = target.until - time.monotonic()
    if left > 0:
        a, b = socket.socketpair()
        with a, b:
            a.settimeout(left)
            with contextlib.suppress(TimeoutError):
                a.recv(1)


def _close(held: list[socket.socket]) -> int:
    for connection in held:
        connection.close()
    return len(held)


KINDS = [
    Kind("garbage", garbage),
    Kind("HTTP", http),
    Kind("TLS", tls),
    Kind("truncated greetings", truncated_greetings),
    Kind("malformed greetings", malformed_greetings),
    Kind("huge handshake frames", huge_frames_in_handshakes),
    Kind("NULL sockets", no_mechanism),
    Kind("PLAIN sockets", plain),
    Kind("CURVE, wrong hub key", wrong_hub_key),
    Kind("CURVE, unknown keys", unknown_keys),
    Kind("CURVE, a ticket's key", a_tickets_key_everywhere),
    Kind("half-open", half_open),
    Kind("half a handshake", half_a_handshake),
    Kind("slow loris", slow_loris),
    Kind("connection flood", flood),
    Kind("flood of one lane", flood_of_one_lane),
    Kind("flood, kept open", flood_kept_open),
    Kind("resets", resets),
]
