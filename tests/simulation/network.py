"""Sockets of a virtual network, with as much of the ZeroMQ interface as the shells use.

A connection keeps order and loses what is on the way when it breaks. The connecting side makes it again and keeps what
it had not yet sent; the bound side forgets. Two hosts can be cut off from each other (connections break), stalled
(everything comes, later), and a connection can break at one end only (half-open: the other end notices after 30 s, as
ZMTP heartbeats would have it). Frames of PUSH sockets may come twice or out of order, as silent reconnects make them.
"""

from __future__ import annotations

from collections import deque
from random import Random
from struct import Struct
from typing import TYPE_CHECKING, Any, cast

import zmq

from taskmesh.transport import sockets

if TYPE_CHECKING:
    from .process import Process
    from .world import World

HIGH_WATER = 2000
RECONNECT_S = 0.05
RECONNECT_MOST_S = 1.0
HALF_OPEN_S = 30.0
MONITORED = Struct("=HI")  # what a monitor says: event, and the file of a connection


class Network:
    """Who is bound where, and what is wrong between which hosts."""

    def __init__(self, world: World, latency_s: float, mess: float) -> None:
        self.world = world
        self.latency_s = latency_s
        self.mess = mess  # the part of PUSHed frames that come twice or too early
        self.bound: dict[str, Socket] = {}
        self.cut_until: dict[str, float] = {}  # by host: until when it can reach nobody
        self.stalled_until: dict[str, float] = {}
        self.connections: list[Connection] = []
        self.contexts: list[Context] = []
        self._ports = 6000

    def close(self) -> None:
        """Nobody is there any more: nothing of this network outlives it."""
        for context in self.contexts:
            context.kill()

    def port(self) -> int:
        """A port that nobody has."""
        self._ports += 1
        return self._ports

    def reachable(self, a: str, b: str) -> bool:
        """Whether two hosts can connect."""
        return all(self.cut_until.get(host, 0.0) <= self.world.now for host in (a, b))

    def stall(self, a: str, b: str) -> float:
        """Until when nothing arrives between two hosts."""
        return max(self.stalled_until.get(a, 0.0), self.stalled_until.get(b, 0.0))

    def of(self, host: str) -> list[Connection]:
        """The connections of a host."""
        return [c for c in self.connections if host in (c.dialled.process.host, c.bound.process.host)]

    def cut(self, host: str, seconds: float) -> None:
        """Break every connection of a host, and let it make none for a while."""
        self.cut_until[host] = self.world.now + seconds
        for connection in self.of(host):
            connection.break_off()


class Connection:
    """From a socket that dialled to one that is bound."""

    def __init__(self, network: Network, dialled: Socket, bound: Socket) -> None:
        self.network = network
        self.dialled = dialled
        self.bound = bound
        self.rank = network.world.rank()
        self.up = True
        self._random = Random(network.world.seed << 20 | self.rank)
        self._last = {True: 0.0, False: 0.0}
        network.connections.append(self)

    def carry(self, frame: Any, *, upward: bool) -> None:
        """Put a frame on the way; it is lost if the connection breaks before it comes."""
        target = self.bound if upward else self.dialled
        network, now = self.network, self.network.world.now
        delay = network.latency_s * (0.5 + self._random.random())
        at = max(self._last[upward], network.stall(self.dialled.process.host, self.bound.process.host), now + delay)
        messy = network.mess and target.kind == zmq.PULL and self._random.random() < network.mess
        if messy and self._random.random() < 0.5:
            network.world.faults["reordered"] += 1
            at += network.latency_s * 3  # those that follow come first
        else:
            self._last[upward] = at
            if messy:
                network.world.faults["doubled"] += 1
                network.world.at(at + delay, self.rank, lambda: self._arrive(target, frame))
        network.world.at(at, self.rank, lambda: self._arrive(target, frame))

    def _arrive(self, target: Socket, frame: Any) -> None:
        if self.up and not target.closed:
            target.arrive(self, frame)

    def break_off(self, *, dialled_knows: bool = True, bound_knows: bool = True) -> None:
        """The connection is gone; an end that does not know finds out when its heartbeats fail."""
        if not self.up:
            return
        self.up = False
        self.network.connections.remove(self)
        world, latency = self.network.world, self.network.latency_s
        world.after(latency if dialled_knows else HALF_OPEN_S, self.rank, lambda: self.dialled.lost(self))
        world.after(latency if bound_knows else HALF_OPEN_S, self.rank, lambda: self.bound.lost(self))


class Context:
    """Makes the sockets of one process."""

    def __init__(self, network: Network, process: Process) -> None:
        self.network = network
        self.process = process
        self.sockets: list[Socket] = []
        self.monitored: dict[str, Socket] = {}  # by the endpoint where somebody is about to listen
        network.contexts.append(self)

    def socket(self, kind: int) -> Socket:
        """A new socket."""
        sock = Socket(self, kind)
        self.sockets.append(sock)
        return sock

    def kill(self) -> None:
        """The process is dead: its connections break."""
        for sock in list(self.sockets):
            sock.close()


class Socket:
    """One socket; see the module."""

    def __init__(self, context: Context, kind: int) -> None:
        self.context = context
        self.kind = kind
        self.process = context.process
        self.closed = False
        self.rank = context.network.world.rank()
        self.inbox: deque[tuple[Connection | None, Any]] = deque()
        self._pending: deque[bytes] = deque()  # sent before there was a connection
        self._connections: list[Connection] = []
        self._endpoint = ""
        self._bound = False
        self._reconnect = True
        self._dials = 0
        self._request = 0  # of REQ: the newest one
        self._reply_to: tuple[Connection, int] | None = None  # of REP
        self._monitor: Socket | None = None
        self._watched = 0  # events that it is told of

    # ---- the interface of zmq ------------------------------------------------------------------------------------

    def setsockopt(self, option: int, value: int) -> None:
        """Only one option matters here."""
        if option == zmq.RECONNECT_IVL and value < 0:
            self._reconnect = False

    def getsockopt_string(self, option: int) -> str:
        """The endpoint that it is bound to."""
        return self._endpoint

    def get(self, option: int) -> int:
        """Whether there is something to read."""
        return int(zmq.POLLIN) if option == zmq.EVENTS and self.inbox else 0

    def bind(self, endpoint: str) -> None:
        """Listen."""
        if endpoint.endswith(":*"):
            endpoint = f"{endpoint[:-1]}{self.context.network.port()}"
        if endpoint in self.context.network.bound:
            raise zmq.ZMQError(zmq.EADDRINUSE)
        self.context.network.bound[endpoint] = self
        self._endpoint, self._bound = endpoint, True

    def connect(self, endpoint: str) -> None:
        """Dial; it does not wait."""
        if endpoint in self.context.monitored:
            self.context.monitored.pop(endpoint)._monitor = self
            return
        self._endpoint = endpoint
        self.context.network.world.after(self.context.network.latency_s, self.rank, self._dial)

    def send(self, frame: bytes, flags: int = 0) -> None:
        """Send without waiting.

        Raises
        ------
        zmq.Again
            Nobody is there, or too much waits.
        """
        if self.kind == zmq.REQ:
            self._request += 1
            self.inbox.clear()
            self._pending.clear()
            for connection in self._connections:
                connection.carry((self._request, frame), upward=True)
            if not self._connections:
                self._pending.append(frame)
        elif self.kind == zmq.REP:
            assert self._reply_to is not None, "a reply without a request"
            (connection, number), self._reply_to = self._reply_to, None
            connection.carry((number, frame), upward=False)
        elif self._connections:
            self._connections[0].carry(frame, upward=not self._bound)
        elif self._bound or len(self._pending) >= HIGH_WATER:
            raise zmq.Again
        else:
            self._pending.append(frame)

    def recv(self, flags: int = 0, copy: bool = True) -> zmq.Frame:
        """Read one frame; as it is read with `copy=False`, which says as well whether more follow: none do.

        Raises
        ------
        zmq.Again
            There is none.
        """
        if not self.inbox:
            raise zmq.Again
        connection, frame = self.inbox.popleft()
        if self.kind == zmq.REP:
            assert connection is not None
            self._reply_to = connection, frame[0]
        return zmq.Frame(bytes(frame[1]) if self.kind in (zmq.REP, zmq.REQ) else bytes(frame))

    def recv_multipart(self, flags: int = 0) -> list[bytes]:
        """Read one message: of a monitor, the only one that has several frames, the first says all."""
        return [self.recv(flags).bytes]

    def get_monitor_socket(self, events: int) -> Socket:
        """A socket that becomes readable when this one loses a peer, if that is watched: nothing else happens here."""
        monitor = self.context.socket(zmq.PAIR)
        if events & zmq.EVENT_DISCONNECTED:
            self._monitor, self._watched = monitor, events
        return monitor

    def monitor(self, endpoint: str, events: int) -> None:
        """What happens to this socket is said to the one that connects to `endpoint` next."""
        self.context.monitored[endpoint] = self
        self._watched = events

    def disable_monitor(self) -> None:
        """Nothing more is said about this socket."""
        self._monitor = None

    def close(self, linger: int | None = None) -> None:
        """Let go. What was sent is on the way, and comes before the other side notices."""
        if self.closed:
            return
        self.closed = True
        sockets.forget_monitor(cast(Any, self))
        self.context.sockets.remove(self)
        if self._bound:
            self.context.network.bound.pop(self._endpoint, None)
        for connection in self._connections:
            self.context.network.world.after(self.context.network.latency_s * 4, connection.rank, connection.break_off)

    # ---- what happens to it --------------------------------------------------------------------------------------

    def _dial(self) -> None:
        if self.closed or self._connections:
            return
        network = self.context.network
        other = network.bound.get(self._endpoint)
        if other is None or not network.reachable(self.process.host, other.process.host):
            if self._reconnect:
                self._dials += 1
                wait = min(RECONNECT_S * 2 ** min(self._dials, 5), RECONNECT_MOST_S)
                network.world.after(wait, self.rank, self._dial)
            else:
                network.world.after(network.latency_s, self.rank, lambda: self._say(zmq.EVENT_DISCONNECTED))
            return
        self._dials = 0
        connection = Connection(network, self, other)
        self._connections.append(connection)
        other._connections.append(connection)
        other._say(zmq.EVENT_ACCEPTED, connection.rank)
        other._say(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        other.process.poke()
        while self._pending:
            frame = self._pending.popleft()
            connection.carry((self._request, frame) if self.kind == zmq.REQ else frame, upward=True)

    def arrive(self, connection: Connection, frame: Any) -> None:
        """A frame has come."""
        if self.kind == zmq.REQ and frame[0] != self._request:
            return
        if self.kind == zmq.REQ or len(self.inbox) < HIGH_WATER:
            self.inbox.append((connection, frame))
        self.process.loop.arrived(self)
        self.process.poke()

    def lost(self, connection: Connection) -> None:
        """A connection of this socket is gone, and it knows."""
        if self.closed or connection not in self._connections:
            return
        self._connections.remove(connection)
        self._say(zmq.EVENT_DISCONNECTED, connection.rank)
        if not self._bound and self._reconnect:
            self.context.network.world.after(RECONNECT_S, self.rank, self._dial)

    def _say(self, event: int, file: int = 0) -> None:
        if self._monitor is not None and not self._monitor.closed and self._watched & event:
            self._monitor.inbox.append((None, MONITORED.pack(event, file)))
            self.process.loop.arrived(self._monitor)
            self.process.poke()
