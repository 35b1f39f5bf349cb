"""Whether the one peer that a bound socket is for is still connected.

A lane's port is open to whoever can reach it, and a socket monitor says that *a* connection has ended: that of
somebody who was never let in as well as the peer's. So it is the file of the connection that counts. One handshake
succeeds, that of the peer whose key the lane admits; the connections that were open at that time are the ones that may
be its, and when the last of them has ended it is gone. (A connection without a handshake is cut off
after `HANDSHAKE_MS`.)

libzmq's I/O thread waits while a monitor is full, and the owner waits for that thread when it closes the socket. So a
monitor has no limit, and is read as long as its socket is open.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from struct import Struct

import zmq

from .sockets import EVENTS, NOBLOCK, POLLIN, Socket, close, keep_monitor, make, no_more

EVENT = Struct("=HI")  # of a monitor's first frame: event, and its value, a file for those of connections
_ACCEPTED, _SUCCEEDED = int(zmq.EVENT_ACCEPTED), int(zmq.EVENT_HANDSHAKE_SUCCEEDED)
_ENDED, _FAILED = int(zmq.EVENT_DISCONNECTED), int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)
_numbers = count()


class Presence:
    """The peer of one bound socket; attribute `monitor` is readable when `lost` should be asked.

    Raises
    ------
    AddressError
        There is no socket left for the monitor.
    """

    def __init__(self, sock: Socket) -> None:
        self.monitor = watched(sock, _ACCEPTED | _SUCCEEDED | _ENDED | _FAILED)
        self.failures: list[int] = []
        """ZeroMQ's reasons of handshakes that failed before a key was shown; for whoever asks to take."""
        self._open: set[int] = set()  # files of connections
        self._peers: set[int] = set()  # those that may be the peer's

    def lost(self) -> bool:
        """Whether the peer was connected and has gone since this was asked last."""
        lost = False
        for event, file in _events(self.monitor):
            if event == _ACCEPTED:
                self._open.add(file)
            elif event == _SUCCEEDED:
                self._peers |= self._open
            elif event == _FAILED:
                self.failures.append(file)
            else:
                self._open.discard(file)
                if file in self._peers:
                    self._peers.discard(file)
                    lost = not self._peers
        return lost


def watched(sock: Socket, events: int) -> Socket:
    """A monitor of a socket, without a limit, that is closed with it.

    Raises
    ------
    AddressError
        There is no socket left for the monitor.
    """
    endpoint = f"inproc://presence-{next(_numbers)}"
    monitor = make(sock.context, zmq.PAIR)
    monitor.setsockopt(zmq.RCVHWM, 0)
    try:
        sock.monitor(endpoint, events)
    except zmq.ZMQError as error:
        close(monitor)
        raise no_more(error) from error
    monitor.connect(endpoint)
    keep_monitor(sock, monitor)
    return monitor


def failure_monitor(sock: Socket) -> Socket:
    """A monitor of handshakes that fail before a key was shown; see `failures`.

    Raises
    ------
    AddressError
        There is no socket left for it.
    """
    return watched(sock, _FAILED)


def failures(monitor: Socket) -> list[int]:
    """ZeroMQ's reasons, since this was asked last."""
    return [reason for _, reason in _events(monitor)]


def _events(monitor: Socket) -> Iterator[tuple[int, int]]:
    while int(monitor.get(EVENTS)) & POLLIN:
        yield EVENT.unpack(monitor.recv_multipart(NOBLOCK)[0])
