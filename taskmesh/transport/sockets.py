"""Making sockets as this project needs them, and saying clearly when one cannot be had."""

from __future__ import annotations

import errno
import os
import resource
from typing import Any
from weakref import WeakKeyDictionary

import zmq

from ..errors import AddressError

HIGH_WATER = 2000  # messages; a fuse: links keep at most 512 in flight
MAX_SOCKETS = 16_384
HANDSHAKE_MS = 5000  # a connection that has not said by then whose it is, is cut off
EVENTS = zmq.EVENTS
NOBLOCK, POLLIN = int(zmq.NOBLOCK), int(zmq.POLLIN)  # arithmetic on enum members is slow
Context = zmq.Context[Any]
Socket = zmq.Socket[Any]
_monitors: WeakKeyDictionary[Socket, Socket] = WeakKeyDictionary()


def new_context(io_threads: int = 1) -> Context:
    """A context that allows many lanes; the limit has to be set before the first socket.

    Also raises the soft limit of open files to the hard one, because every lane takes three.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    context = zmq.Context(io_threads)
    context.set(zmq.MAX_SOCKETS, MAX_SOCKETS)
    return context


def make(context: Context, kind: int, linger_ms: int = 0) -> Socket:
    """A socket with this project's defaults.

    Raises
    ------
    AddressError
        No more sockets or files may be opened; the message says which limit to raise.
    """
    try:
        sock: Socket = context.socket(kind)
    except zmq.ZMQError as error:
        raise no_more(error) from error
    sock.setsockopt(zmq.LINGER, linger_ms)
    sock.setsockopt(zmq.SNDHWM, HIGH_WATER)
    sock.setsockopt(zmq.RCVHWM, HIGH_WATER)
    sock.setsockopt(zmq.MAXMSGSIZE, 1 << 20)  # frames have at most 256 KiB; a foreign peer may try more
    sock.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    if kind == zmq.REQ:
        sock.setsockopt(zmq.REQ_RELAXED, 1)
        sock.setsockopt(zmq.REQ_CORRELATE, 1)
    return sock


def no_more(error: Exception) -> AddressError:
    """What to raise when ZeroMQ cannot open a socket, or a monitor, which takes two."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return AddressError(
        f"cannot open another socket ({error}): this process may have {soft} open files "
        f"(ulimit -n) and {MAX_SOCKETS} sockets"
    )


def bind(sock: Socket, endpoint: str) -> str:
    """Bind, and return the endpoint as it became (port 0 picked).

    Raises
    ------
    AddressError
        In use, not ours, or not permitted: one clear line; or no more files may be opened.
    """
    _require_file()
    _watch_connection(sock, endpoint)
    wanted = f"{endpoint[:-1]}*" if endpoint.startswith("tcp:") and endpoint.endswith(":0") else endpoint
    if endpoint.startswith("tcp://["):
        sock.setsockopt(zmq.IPV6, 1)
    try:
        sock.bind(wanted)
    except zmq.ZMQError as error:
        reasons = {
            zmq.EADDRINUSE: "it is in use; is another hub running there? Choose another with --listen",
            zmq.EADDRNOTAVAIL: "that address is not one of this machine's",
            errno.ENODEV: "that address is not one of this machine's",
        }
        raise AddressError(f"cannot listen on {endpoint}: {reasons.get(error.errno or 0, str(error))}") from error
    bound: str = sock.getsockopt_string(zmq.LAST_ENDPOINT)
    return bound


def _require_file() -> None:
    """libzmq aborts the process that has no file for what it binds."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        raise no_more(error) from error


def connect(sock: Socket, endpoint: str) -> None:
    """Connect; this does not wait for anybody to be there."""
    _watch_connection(sock, endpoint)
    if "[" in endpoint:
        sock.setsockopt(zmq.IPV6, 1)
    sock.connect(endpoint)


def _watch_connection(sock: Socket, endpoint: str) -> None:
    """Notice a connection whose other machine is gone. Only there, and later than the 15 s of the roster's verdict: a
    process that was merely stopped for a while must keep its lane.
    """
    if endpoint.startswith("tcp:"):
        sock.setsockopt(zmq.HEARTBEAT_IVL, 5000)
        sock.setsockopt(zmq.HEARTBEAT_TIMEOUT, 30_000)
        sock.setsockopt(zmq.HEARTBEAT_TTL, 30_000)


def put(sock: Socket, frame: bytes) -> bool:
    """Send without waiting; False when the socket is full or has no peer."""
    try:
        sock.send(frame, NOBLOCK)
    except zmq.Again:
        return False
    return True


def get(sock: Socket) -> bytes | None:
    """Receive one frame without waiting; None when there is none.

    A message of several frames, which no peer of ours sends, comes as an empty one, which nothing decodes.
    """
    got = get_message(sock)
    return None if got is None else got[1]


def get_message(sock: Socket) -> tuple[zmq.Frame, bytes] | None:
    """As `get`, with what ZeroMQ knows of the frame."""
    if not int(sock.get(EVENTS)) & POLLIN:  # half of what the exception costs
        return None
    try:
        message = sock.recv(NOBLOCK, copy=False)
    except zmq.Again:
        return None
    if message.more:  # asked of the message: the socket would take longer to answer than to receive it
        sock.recv_multipart(NOBLOCK)
        return message, b""
    return message, message.bytes


def disconnect_monitor(sock: Socket) -> Socket:
    """A socket that becomes readable when `sock` loses a peer. It is closed with it.

    Raises
    ------
    AddressError
        No more sockets or files may be opened.
    """
    monitor = monitor_of(sock, zmq.EVENT_DISCONNECTED)
    keep_monitor(sock, monitor)
    return monitor


def monitor_of(sock: Socket, events: int) -> Socket:
    """A socket on which ZeroMQ tells of these events of another.

    Raises
    ------
    AddressError
        No more sockets or files may be opened.
    """
    try:
        monitor: Socket = sock.get_monitor_socket(events)
    except zmq.ZMQError as error:
        raise no_more(error) from error
    monitor.setsockopt(zmq.LINGER, 0)
    return monitor


def keep_monitor(sock: Socket, monitor: Socket) -> None:
    """`monitor` is that of `sock`, and closed with it."""
    _monitors[sock] = monitor


def forget_monitor(sock: Socket) -> Socket | None:
    """The monitor of `sock`, which is kept no longer."""
    return _monitors.pop(sock, None)


def close(sock: Socket, linger_ms: int = 0) -> None:
    """Close a socket and its monitor; what is unsent is kept for `linger_ms`."""
    if sock.closed:
        return
    sock.disable_monitor()
    monitor = forget_monitor(sock)
    if monitor is not None:
        monitor.close(linger=0)
    sock.close(linger=linger_ms)
