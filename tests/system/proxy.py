"""A TCP proxy between peers and a hub, which does to their connections what bad networks do.

It listens on another loopback address under the hub's own ports, so that nothing but that address has to be rewritten
in what the hub says (in the replies on its control port). One thread serves all connections; commands from the test
run in that thread too, one after the other. Stalls and limits keep bytes waiting, as a network would: what a
program has written is never lost without its connection being lost as well.
"""

from __future__ import annotations

import contextlib
import random
import selectors
import socket
import struct
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from time import monotonic

from .ports import FAR, NEAR

READ_BYTES = 64 * 1024
KEPT_BYTES = 256 * 1024  # on the way in one direction of one connection; more waits in the sender's buffers
RST = struct.pack("ii", 1, 0)  # SO_LINGER: on, no time: closing sends a reset
NEVER = float("inf")


class Way(Enum):
    """A direction."""

    UP = "from the peer to the hub"
    DOWN = "from the hub to the peer"


class Keep(Enum):
    """Who still believes in a half-open connection."""

    PEER = "the peer"
    HUB = "the hub"
    BOTH = "both: whatever they say is swallowed"


@dataclass(eq=False)
class Half:
    """One direction of a connection: bytes that were read from `source` and are not yet written to `sink`."""

    source: socket.socket
    sink: socket.socket
    way: Way
    kept: bytearray = field(default_factory=bytearray)


@dataclass(eq=False)
class Connection:
    """A peer's connection and ours to the hub in its name. `port` is the hub's. `mute`: what comes is thrown away."""

    near: socket.socket
    far: socket.socket
    port: int
    mute: bool = False
    closed: bool = False
    late_at: float = 0.0  # the peer's side was cut; what it had written goes to the hub then

    def __post_init__(self) -> None:
        self.up = Half(self.near, self.far, Way.UP)
        self.down = Half(self.far, self.near, Way.DOWN)


class Proxy:
    """Listens on `NEAR` for each of `ports`, and passes on to `FAR`.

    Parameters
    ----------
    ports
        Of the hub: control first, then submit, sink and lanes.
    seed
        For which connections are chosen when only some are.

    Attributes
    ----------
    accepted, cut
        How many connections there were, and how many of them were reset on purpose.
    overtaken
        How many bytes arrived after those of a newer connection.
    """

    def __init__(self, ports: Iterable[int], seed: int = 0) -> None:
        self._random = random.Random(seed)
        self._selector = selectors.DefaultSelector()
        self._connections: set[Connection] = set()
        self._of: dict[socket.socket, Connection] = {}
        self._stalled_until = {Way.UP: 0.0, Way.DOWN: 0.0}
        self._rate = NEVER
        self._allowance = {Way.UP: 0.0, Way.DOWN: 0.0}
        self._refilled_at = monotonic()
        self._cut_every = NEVER
        self._cut_share = 1.0
        self._cut_at = NEVER
        self._cut_late_at = NEVER
        self._commands: list[Callable[[], None]] = []
        self._stopping = False
        self.accepted = self.cut = self.overtaken = 0
        self._listeners: dict[socket.socket, int] = {}
        all_ports = list(ports)
        self._control = all_ports[0]
        for port in all_ports:
            listener = socket.create_server((NEAR, port), backlog=64)
            listener.setblocking(False)
            self._listeners[listener] = port
            self._selector.register(listener, selectors.EVENT_READ)
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    # ---- what a test says -----------------------------------------------------------------------------------

    def reset(self, share: float = 1.0) -> None:
        """Cut this share of all connections now, both sides with a reset."""
        self._do(lambda: self._reset(share))

    def reset_every(self, seconds: float, share: float = 1.0) -> None:
        """Cut this share of all connections every so many seconds; `NEVER` ends it."""

        def begin() -> None:
            self._cut_every, self._cut_share = seconds, share
            self._cut_at = monotonic() + seconds

        self._do(begin)

    def stall(self, seconds: float, *ways: Way) -> None:
        """Pass nothing on for a while, in these directions (without any: in both); then go on where it was."""

        def begin() -> None:
            for way in ways or tuple(Way):
                self._stalled_until[way] = monotonic() + seconds

        self._do(begin)

    def half_open(self, keep: Keep, share: float = 1.0) -> None:
        """Let only `keep` believe in this share of the connections that there are; new ones are good."""

        def begin() -> None:
            for connection in self._some(share):
                self._half_open(connection, keep)

        self._do(begin)

    def overtake(self, gather_s: float, late_s: float) -> None:
        """Let new connections overtake old ones: keep back what peers write for `gather_s`, then cut their side, and
        give what was kept to the hub `late_s` later, when the peers have long been there again.
        """

        def begin() -> None:
            now = monotonic()
            for connection in self._connections:
                connection.late_at = now + gather_s + late_s
            self._cut_late_at = now + gather_s

        self._do(begin)

    def limit(self, bytes_per_second: float) -> None:
        """Pass on at most so much in each direction, all connections together; `NEVER`: no limit."""

        def begin() -> None:
            self._rate = bytes_per_second

        self._do(begin)

    def close(self) -> None:
        """Cut everything and stop."""
        with contextlib.suppress(RuntimeError):
            self._do(self._stop)
        self._thread.join(5.0)

    @property
    def connections(self) -> int:
        """How many there are now."""
        return len(self._connections)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _do(self, command: Callable[[], None]) -> None:
        """Run a command in the proxy's thread; returns when it has run."""
        done = threading.Event()
        self._commands.append(command)
        self._commands.append(done.set)
        self._wake_write.send(b"w")
        if not done.wait(10.0):
            raise RuntimeError("the proxy's thread does not answer")

    # ---- its thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping:
            for key, mask in self._selector.select(self._wait()):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                if sock is self._wake_read:
                    self._obey()
                elif sock in self._listeners:
                    self._accept(sock)
                elif (connection := self._of.get(sock)) is not None:
                    self._serve(connection, sock, mask)
            now = monotonic()
            if now >= self._cut_at:
                self._reset(self._cut_share)
                self._cut_at = now + self._cut_every
            if now >= self._cut_late_at:
                self._cut_late_at = NEVER
                self._cut_near()
            self._refill(now)
            for connection in list(self._connections):
                self._watch(connection, now)

    def _wait(self) -> float:
        now = monotonic()
        times = [
            self._cut_at,
            self._cut_late_at,
            *(c.late_at for c in self._connections if c.late_at > now),
            *(until for until in self._stalled_until.values() if until > now),
        ]
        if self._rate != NEVER:
            times.append(now + 0.01)
        return max(0.0, min(1.0, min(times) - now))

    def _obey(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_read.recv(4096)
        while self._commands:
            self._commands.pop(0)()

    def _accept(self, listener: socket.socket) -> None:
        try:
            near, _ = listener.accept()
        except OSError:
            return
        port = self._listeners[listener]
        try:
            far = socket.create_connection((FAR, port), timeout=1.0)
        except OSError:  # nobody listens there: the peer has to hear it
            _cut(near)
            return
        connection = Connection(near, far, port)
        self.accepted += 1
        self._connections.add(connection)
        for sock in (near, far):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._of[sock] = connection

    def _serve(self, connection: Connection, sock: socket.socket, mask: int) -> None:
        into = connection.up if sock is connection.near else connection.down
        out_of = connection.down if sock is connection.near else connection.up
        try:
            if mask & selectors.EVENT_READ:
                self._read(connection, into)
            if mask & selectors.EVENT_WRITE and out_of.kept:
                del out_of.kept[: out_of.sink.send(out_of.kept)]
        except BlockingIOError:
            return
        except OSError:
            self._end(connection, reset=True)

    def _read(self, connection: Connection, half: Half) -> None:
        data = half.source.recv(READ_BYTES if self._rate == NEVER else 1024)
        if not data:
            for rest in (connection.up, connection.down):
                with contextlib.suppress(OSError):
                    rest.sink.send(rest.kept)
            self._end(connection, reset=False)
        elif not connection.mute:
            self._allowance[half.way] -= len(data)
            if half.way is Way.DOWN and connection.port == self._control:
                data = data.replace(f"tcp://{FAR}:".encode(), f"tcp://{NEAR}:".encode())
            half.kept += data

    def _refill(self, now: float) -> None:
        elapsed, self._refilled_at = now - self._refilled_at, now
        for way in Way:
            most = self._rate / 10
            self._allowance[way] = min(most, self._allowance[way] + self._rate * elapsed) if elapsed else most

    def _watch(self, connection: Connection, now: float) -> None:
        """Ask for what a connection can go on with."""
        if connection.closed:
            return
        if connection.late_at and self._cut_late_at == NEVER:
            self._deliver_late(connection, now)
            return
        for sock, into, out_of in (
            (connection.near, connection.up, connection.down),
            (connection.far, connection.down, connection.up),
        ):
            events = 0
            if sock.fileno() >= 0:
                passing = now >= self._stalled_until[into.way] and self._allowance[into.way] > 0
                if connection.mute or (passing and len(into.kept) < KEPT_BYTES):
                    events |= selectors.EVENT_READ
                if out_of.kept and now >= self._stalled_until[out_of.way] and not connection.late_at:
                    events |= selectors.EVENT_WRITE
            self._ask(sock, events)

    def _ask(self, sock: socket.socket, events: int) -> None:
        known = self._selector.get_map().get(sock) if sock.fileno() >= 0 else None
        if known is None:
            if events:
                self._selector.register(sock, events)
        elif not events:
            self._selector.unregister(sock)
        elif known.events != events:
            self._selector.modify(sock, events)

    # ---- faults ---------------------------------------------------------------------------------------------

    def _some(self, share: float) -> list[Connection]:
        connections = sorted(self._connections, key=lambda connection: connection.port)
        return self._random.sample(connections, round(share * len(connections)))

    def _reset(self, share: float) -> None:
        for connection in self._some(share):
            self.cut += 1
            self._end(connection, reset=True)

    def _half_open(self, connection: Connection, keep: Keep) -> None:
        connection.mute = True
        connection.up.kept.clear()
        connection.down.kept.clear()
        for sock, keeper in ((connection.near, Keep.PEER), (connection.far, Keep.HUB)):
            if keep not in (keeper, Keep.BOTH):
                self._ask(sock, 0)
                self._of.pop(sock, None)
                _cut(sock)

    def _cut_near(self) -> None:
        """The peers' side of the connections that are to be overtaken."""
        for connection in self._connections:
            if connection.late_at:
                self.overtaken += len(connection.up.kept)
                self._ask(connection.near, 0)
                self._ask(connection.far, 0)
                self._of.pop(connection.near, None)
                _cut(connection.near)

    def _deliver_late(self, connection: Connection, now: float) -> None:
        if now < connection.late_at:
            return
        if connection.up.kept:
            self._ask(connection.far, selectors.EVENT_WRITE)
        else:
            self._end(connection, reset=False)

    def _end(self, connection: Connection, reset: bool) -> None:
        if connection.closed:
            return
        connection.closed = True
        self._connections.discard(connection)
        for sock in (connection.near, connection.far):
            self._ask(sock, 0)
            self._of.pop(sock, None)
            if reset:
                _cut(sock)
            else:
                sock.close()

    def _stop(self) -> None:
        self._stopping = True
        for connection in list(self._connections):
            self._end(connection, reset=True)
        for sock in (*self._listeners, self._wake_read):
            self._selector.unregister(sock)
            sock.close()
        self._wake_write.close()
        self._selector.close()


def _cut(sock: socket.socket) -> None:
    """Close with a reset: what was on the way is lost, and the other side knows."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
    sock.close()
