"""The daemon's side of its nursery and of its runners' pipes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Collection, Iterator

from taskmesh.wire.pipe import ANSWER, FORKED, REQUEST, Frames

from . import cells

HIDDEN = ("TASKMESH_TICKET",)
"""What a worker does not pass on to tasks of others: where its ticket is."""
READ_BYTES = 256 * 1024
MAX_READS = 16

_SPACE = memoryview(bytearray(READ_BYTES))
"""What a pipe is read into, and copied from at once. A `recv` of that size would take a new block of it from the heap
each time, cut it down to what has come, and leave the heap in pieces."""


class NurseryProcess:
    """The nursery, started by exec so that it is single-threaded and small. Start it before anything else.

    Parameters
    ----------
    host
        What this machine is called.
    sys_path
        Where runners look for modules.
    hidden
        Variables of the environment that runners do not have.
    """

    def __init__(self, host: str, sys_path: list[str], hidden: Collection[str] = ()) -> None:
        self.sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        code = (
            f"import sys; sys.path[:] = {sys_path!r}; from taskmesh_worker.nursery import main; "
            f"main({theirs.fileno()}, {os.getpid()}, {host!r})"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env={name: value for name, value in os.environ.items() if name not in hidden},
            start_new_session=True,
        )
        theirs.close()
        self.pid = self._process.pid

    def fork(self, number: int) -> RunnerPipe:
        """Ask for a runner; its pid comes as an answer.

        Raises
        ------
        OSError
            The nursery is dead.
        """
        ours, theirs = socket.socketpair()
        fd = cells.create()
        try:
            socket.send_fds(self.sock, [REQUEST.pack(number)], [theirs.fileno(), fd])
        except OSError:
            ours.close()
            os.close(fd)
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        return RunnerPipe(number, ours, cells.Cells(fd))

    def answers(self) -> Iterator[tuple[bool, int, int]]:
        """`(forked, number, pid or wait status)` for each answer.

        Raises
        ------
        ConnectionError
            The nursery is dead, and so are its runners.
        """
        while True:
            try:
                data = self.sock.recv(ANSWER.size, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            if not data:
                raise ConnectionError("the nursery is dead")
            kind, number, value = ANSWER.unpack(data)
            yield kind == FORKED, number, value

    def close(self) -> None:
        """End the nursery and every runner. Returns when the nursery is gone."""
        self.sock.close()
        try:
            self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class RunnerPipe:
    """One runner's socketpair and cells. Never waits: what the runner does not read yet is kept here."""

    def __init__(self, number: int, sock: socket.socket, words: cells.Cells) -> None:
        self.number = number
        self.sock = sock
        self.cells = words
        self.pid: int | None = None  # until the nursery has said
        self.killed = False  # by us
        self.bytes = 0  # of memory, when it was last measured
        self._frames = Frames()
        self._out: deque[memoryview] = deque()

    def send(self, buffers: list[bytes | memoryview]) -> None:
        """Queue buffers and write what can be written."""
        self._out.extend(memoryview(b) for b in buffers if len(b))
        self.write()

    @property
    def backlog(self) -> bool:
        """Whether something waits to be written."""
        return bool(self._out)

    def write(self) -> None:
        """Write until the pipe is full. A broken pipe drops everything: the nursery reports the death."""
        out = self._out
        while out:
            try:
                sent = self.sock.sendmsg([out[i] for i in range(min(len(out), 64))])
            except BlockingIOError:
                return
            except OSError:
                out.clear()
                return
            while sent:
                head = out[0]
                if sent < len(head):
                    out[0] = head[sent:]
                    return
                sent -= len(head)
                out.popleft()

    def read(self) -> Iterator[tuple[int, bytes]]:
        """Frames that have arrived, as `(kind, body)`; bounded, so that no runner starves the others."""
        for _ in range(MAX_READS):
            try:
                size = self.sock.recv_into(_SPACE)
            except (BlockingIOError, ConnectionError):
                return
            if not size:
                return
            yield from self._frames.feed(_SPACE[:size])
            if size < READ_BYTES // 4:
                return

    def kill(self) -> None:
        """End the runner and whatever its tasks started. Before its pid is known: as soon as it is."""
        self.killed = True
        if self.pid is not None:
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                return

    def forked(self, pid: int) -> None:
        """The nursery says who it is."""
        self.pid = pid
        if self.killed:
            self.kill()

    def signal(self, number: int) -> None:
        """Send the runner a signal; whatever its tasks started does not get it."""
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def hang_up(self) -> None:
        """The runner ends when it has read everything."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Let go of the pipe and the cells."""
        self.sock.close()
        self.cells.close()
