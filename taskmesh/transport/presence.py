"""Whether the one peer that a bound socket is for is still connected.

A lane's port is open to whoever can reach it, and a socket monitor says that *a* connection has ended: that of
somebody who was never let in as well as the peer's. So it is the file of the connection that counts. One handshake
succeeds, that of the peer whose key the lane admits; the connections that were open at that time are the ones that may
be its, and when the last of them has ended it is gone. (Who hangs on without a handshake is cut off after
`HANDSHAKE_MS`.)

libzmq's I/O thread waits while a monitor is full, and the owner waits for that thread when it closes the socket. So a
monitor has no limit, and is read as long as its socket is open.
"""

from __future__ import annotations

from itertools import count
from struct import Struct

import zmq

from .sockets import EVENTS, NOBLOCK, POLLIN, Socket, keep_monitor, make

_EVENT = Struct("=HI")  # of a monitor's first frame: event, and its value, a file for those of connections
_WATCHED = zmq.EVENT_ACCEPTED | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
_ACCEPTED, _SUCCEEDED = int(zmq.EVENT_ACCEPTED), int(zmq.EVENT_HANDSHAKE_SUCCEEDED)
_numbers = count()


class Presence:
    """The peer of one bound socket; attribute `monitor` is readable when `lost` should be asked.

    Raises
    ------
    AddressError
        There is no socket left for the monitor.
    """

    def __init__(self, sock: Socket) -> None:
        endpoint = f"inproc://presence-{next(_numbers)}"
        self.monitor = make(sock.context, zmq.PAIR)
        self.monitor.setsockopt(zmq.RCVHWM, 0)
        sock.monitor(endpoint, _WATCHED)
        self.monitor.connect(endpoint)
        keep_monitor(sock, self.monitor)
        self._open: set[int] = set()  # files of connections
        self._peers: set[int] = set()  # those that may be the peer's

    def lost(self) -> bool:
        """Whether the peer was connected and has gone since this was asked last."""
        lost = False
        while int(self.monitor.get(EVENTS)) & POLLIN:
            event, file = _EVENT.unpack(self.monitor.recv_multipart(NOBLOCK)[0])
            if event == _ACCEPTED:
                self._open.add(file)
            elif event == _SUCCEEDED:
                self._peers |= self._open
            else:
                self._open.discard(file)
                if file in self._peers:
                    self._peers.discard(file)
                    lost = not self._peers
        return lost
