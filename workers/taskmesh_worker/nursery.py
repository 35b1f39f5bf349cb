"""The nursery: a small child of the daemon that forks runners and reports their end.

Forking from here costs 2 ms and a few megabytes, because this process is single-threaded and holds nothing but the
standard library and cloudpickle. The daemon asks over a socketpair: `number` with two file descriptors (the runner's
socket and its cells); the answers are `F number pid` and `G number status`. A runner's death is its wait status, and
never an end-of-file, which a grandchild could hold open.

Lifelines: SIGKILL on the parent's death from daemon to nursery and from nursery to runner; where the system has no
such signal, end-of-file on the socketpairs ends both.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import select
import signal
import socket
import sys

import cloudpickle  # noqa: F401  (loaded here so that every runner shares its pages)

from taskmesh.wire.pipe import ANSWER, FORKED, GONE, REQUEST

from . import runner

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Ask for SIGKILL when the parent dies; exit now if it is already gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


class Nursery:
    """Forks on request, reaps, reports; exits when the daemon hangs up."""

    def __init__(self, control: socket.socket, host: str) -> None:
        self._control = control
        self._host = host
        self._children: dict[int, int] = {}  # pid: number

    def run(self) -> None:
        """Serve until the daemon closes its end, then end every runner."""
        wake, wake_write = os.pipe()
        for fd in (wake, wake_write):
            os.set_blocking(fd, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        try:
            while True:
                readable, _, _ = select.select([self._control.fileno(), wake], [], [])
                if wake in readable:
                    with contextlib.suppress(BlockingIOError):
                        os.read(wake, 4096)
                    self._reap()
                if self._control.fileno() in readable and not self._serve(wake, wake_write):
                    return
        finally:
            for pid in self._children:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)

    def _serve(self, *wakes: int) -> bool:
        data, fds, _, _ = socket.recv_fds(self._control, REQUEST.size, 2)
        if not data:
            return False
        (number,) = REQUEST.unpack(data)
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become_runner(parent, fds, wakes)
        for fd in fds:
            os.close(fd)
        self._children[pid] = number
        self._control.send(ANSWER.pack(FORKED, number, pid))
        return True

    def _become_runner(self, parent: int, fds: list[int], wakes: tuple[int, ...]) -> None:
        code = 1
        try:
            os.setsid()  # so that whatever a task starts can be ended with it, and Ctrl-C does not come here
            die_with_parent(parent)
            signal.set_wakeup_fd(-1)
            self._control.close()
            for fd in wakes:
                os.close(fd)
            runner.main(socket.socket(fileno=fds[0]), fds[1], self._host)
            code = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(code)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            number = self._children.pop(pid, None)
            if number is not None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)  # what its tasks had started
                self._control.send(ANSWER.pack(GONE, number, status))


def main(fd: int, parent: int, host: str) -> None:
    """Entry point of the nursery's process; `fd` is its end of the socketpair with the daemon."""
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # both come from a terminal, and are the daemon's business
    gc.freeze()  # the pages of what is loaded now stay shared between the runners
    with contextlib.suppress(ConnectionError, BrokenPipeError):
        Nursery(socket.socket(fileno=fd), host).run()
