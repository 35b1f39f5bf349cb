"""Lanes: one PUSH socket for each registration of each peer, and the stream that runs over it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import zmq

from .core import messages as m
from .core.access import lane_domain
from .door import Door
from .errors import AddressError
from .transport.endpoints import Address
from .transport.loop import Loop
from .transport.presence import Presence
from .transport.sockets import Context, Socket, bind, close, make, put
from .wire.stream import Stream

RETRY_FULL_S = 0.01
NEVER = float("inf")


@dataclass(slots=True, eq=False)
class Lane:
    """A registered peer's lane and stream. `results`: numbers of the `Results` messages it has not acknowledged."""

    instance: int
    stream: Stream
    sock: Socket
    presence: Presence
    welcome: m.Registered
    full_until: float = 0.0
    results: deque[int] = field(default_factory=deque)

    def send(self, message: m.LinkMessage) -> None:
        """Record a message on the link; `pump` puts it on the wire."""
        self.stream.send(message)
        if isinstance(message, m.Results):
            self.results.append(self.stream.link.last)

    def delivered(self) -> int:
        """How many more `Results` messages the peer has acknowledged since this was last asked."""
        acked, results, count = self.stream.link.acked, self.results, 0
        while results and results[0] <= acked:
            results.popleft()
            count += 1
        return count

    def pump(self, now: float) -> bool:
        """Put on the wire what can go. Returns whether the lane is to be looked at again when time has passed."""
        link, sock = self.stream.link, self.sock
        link.on_time(now)
        if now >= self.full_until:
            self.full_until = 0.0 if self.stream.pump(lambda frame: put(sock, frame), now) else now + RETRY_FULL_S
        return bool(self.full_until) or link.next_deadline() != NEVER

    def due(self) -> float:
        """When that is."""
        return self.full_until or self.stream.link.next_deadline()


class Lanes:
    """Every registered peer's lane, by instance and by epoch.

    Parameters
    ----------
    context, loop
        Where sockets are made and watched.
    ports
        First and last port to bind lanes to; None: any free ones.
    lost
        Called with a lane that has lost its peer.
    door
        Guards each lane, and is told of handshakes that failed there.
    """

    def __init__(
        self,
        context: Context,
        loop: Loop,
        ports: tuple[int, int] | None,
        lost: Callable[[Lane], None],
        door: Door,
    ) -> None:
        self._context = context
        self._loop = loop
        self._ports = ports
        self._lost = lost
        self._door = door
        self._next_port = ports[0] if ports else 0
        self.by_instance: dict[int, Lane] = {}
        self.by_epoch: dict[int, Lane] = {}

    def open(self, address: Address, instance: int, stream: Stream, welcome: m.Registered) -> Lane:
        """Bind a lane for a registration; `welcome` gets its endpoint.

        Raises
        ------
        AddressError
            There is no port or socket left for it.
        """
        sock, endpoint = self._bind(address, lane_domain(stream.epoch))
        try:
            presence = Presence(sock)
        except AddressError:
            close(sock)
            raise
        lane = Lane(instance, stream, sock, presence, welcome._replace(lane=endpoint))
        self.by_instance[instance] = self.by_epoch[stream.epoch] = lane
        self._loop.watch(presence.monitor, lambda: self._read_monitor(lane))
        return lane

    def _bind(self, address: Address, domain: str) -> tuple[Socket, str]:
        sock = make(self._context, zmq.PUSH)
        self._door.guard(sock, domain)
        try:
            return sock, self._bind_somewhere(sock, address)
        except AddressError:
            close(sock)
            raise

    def _bind_somewhere(self, sock: Socket, address: Address) -> str:
        if address.scheme == "ipc":
            self._next_port += 1
            return bind(sock, address.lane(self._next_port))
        if self._ports is None:
            return bind(sock, address.lane(0))
        first, last = self._ports
        for _ in range(last - first + 1):
            port = self._next_port
            self._next_port = first if port >= last else port + 1
            with suppress(AddressError):
                return bind(sock, address.lane(port))
        raise AddressError(f"no free port for another lane between {first} and {last}; choose more with --lanes")

    def _read_monitor(self, lane: Lane) -> None:
        lost, failed = lane.presence.lost(), lane.presence.failures
        while failed:
            self._door.failed(lane_domain(lane.stream.epoch), failed.pop())
        if lost:
            self._lost(lane)

    def close(self, lane: Lane, linger_ms: int = 0) -> None:
        """Let go of a lane's sockets. It stays `by_instance` if another one has taken its place there."""
        self.by_epoch.pop(lane.stream.epoch, None)
        if self.by_instance.get(lane.instance) is lane:
            del self.by_instance[lane.instance]
        self._loop.forget(lane.presence.monitor)
        close(lane.sock, linger_ms)
        if lane.welcome.lane.startswith("ipc://"):  # one for each registration: they must not pile up
            Path(lane.welcome.lane.removeprefix("ipc://")).unlink(missing_ok=True)
