"""Crowds of strangers: connections of nobody that is registered must not use up the files that this process may open.

libzmq accepts whoever connects, and cuts off those that do not finish a handshake within `HANDSHAKE_MS`. When no file
is left to accept with, its I/O thread tries again and again, at the price of a whole core, and peers that lost a
connection cannot come back. So before that the kernel is told to drop what asks for new connections (by a filter on
every listening socket), until most of those that are there have gone. Connections that exist do not notice. Whoever
tries to come in meanwhile is let in a few seconds later, since TCP asks again.

Linux only; elsewhere there is no such filter, and nothing is done.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import resource
import socket
import struct
import sys

from .files import PER_PEER, open_files

log = logging.getLogger("taskmesh.hub")

SHUT_AT, OPEN_AT = 0.6, 0.2  # parts of the files that peers have left over
LEAST_ROOM = 64  # files; with fewer left over, peers come and go, and strangers are not what is wrong
SHORTEST_S, LONGEST_S = 0.05, 1.0  # between two looks: more often where a crowd needs less time
PER_S = 65_536  # files that a crowd may need to be looked at once a second
SAY_EVERY_S = 5.0
NEVER = float("inf")
_ATTACH, _DETACH = 26, 27  # SO_ATTACH_FILTER, SO_DETACH_FILTER
_RETURN = 0x06  # BPF_RET | BPF_K


class Crowds:
    """Watches how many files are open; attribute `due` is when `look` should be called.

    Parameters
    ----------
    tcp
        Whether anybody else can connect at all.
    """

    def __init__(self, tcp: bool) -> None:
        self.shut = False
        self._base: int | None = None  # files that are open without anybody here
        self._said_at = -NEVER
        self._limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._every_s = max(SHORTEST_S, min(LONGEST_S, self._limit / PER_S))
        self.due = 0.0 if tcp and sys.platform == "linux" else NEVER

    def look(self, peers: int, now: float) -> None:
        """Shut out newcomers, or let them in again. `peers`: how many are registered."""
        self.due = now + self._every_s
        count = open_files(self._limit)
        if self._base is None:
            self._base = count
        known = self._base + PER_PEER * peers
        room, strangers = self._limit - known, count - known
        if self.shut and strangers <= OPEN_AT * room:
            self.shut = not _filter(attach=False)
        elif not self.shut and room >= LEAST_ROOM and strangers > SHUT_AT * room:
            self.shut = _filter(attach=True)
            if now - self._said_at >= SAY_EVERY_S:
                self._said_at = now
                log.warning(
                    "%d connections of nobody that is registered, of %d open files (ulimit -n): letting nobody "
                    "connect until most of them have gone", strangers, self._limit,
                )  # fmt: skip


def _filter(attach: bool) -> bool:
    """Have every listening TCP socket of this process drop what arrives, or not any more. False: it cannot be done."""
    program = ctypes.create_string_buffer(struct.pack("HBBI", _RETURN, 0, 0, 0))  # keep 0 bytes of each packet
    wanted = struct.pack("HP", 1, ctypes.addressof(program))
    try:
        files = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:  # not even that can be opened
        return False
    for file in files:
        try:
            listening = socket.socket(fileno=file)
        except OSError:  # no socket, or gone
            continue
        try:
            with contextlib.suppress(OSError):
                inet = listening.family in (socket.AF_INET, socket.AF_INET6)
                if inet and listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    listening.setsockopt(socket.SOL_SOCKET, *((_ATTACH, wanted) if attach else (_DETACH, 0)))
        finally:
            listening.detach()
    return True
