"""A private hub: started by its client, alive as long as its client, gone without trace.

The child gets the read end of a pipe whose write end only the client holds: when that closes, however the client ended,
the child ends. Its sockets live in a 0700 directory, which it removes, and the client too; what two SIGKILLs leave
behind is removed by the next start, which knows a dead directory by its lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from .errors import MeshStartError
from .transport.endpoints import MAX_IPC_PATH

START_TIMEOUT_S = 30.0
END_TIMEOUT_S = 5.0
RESTARTS_PER_MINUTE = 5
SWEEP_AFTER_S = 60.0
LOCK = "lock"


def _prefix() -> str:
    return f"taskmesh-{os.getuid()}-"


def _make_directory() -> str:
    """A fresh 0700 directory whose sockets have paths that are short enough."""
    base = tempfile.gettempdir()
    if len(os.path.join(base, _prefix() + "12345678", "l999999")) > MAX_IPC_PATH:
        base = "/tmp"
    _sweep(base)
    return tempfile.mkdtemp(prefix=_prefix(), dir=base)


def _sweep(base: str) -> None:
    """Remove directories of ours whose hub is dead: nobody holds their lock."""
    for path in Path(base).glob(f"{_prefix()}*"):
        with contextlib.suppress(OSError):
            if path.stat().st_uid != os.getuid() or time.time() - path.stat().st_mtime < SWEEP_AFTER_S:
                continue
            with open(path / LOCK, "a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)


class PrivateHub:
    """The process of a private mesh: hub and daemon in one.

    Parameters
    ----------
    workers
        How many runners.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self.directory = _make_directory()
        self._deaths: list[float] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._life = -1
        self._ready = -1
        self._closed = False
        self._lock = threading.Lock()  # one thread revives the hub while another closes the mesh
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    @property
    def control(self) -> str:
        """The endpoint of the control channel."""
        return f"ipc://{self.directory}/c"

    @property
    def pid(self) -> int:
        """Process id of the hub."""
        assert self._process is not None
        return self._process.pid

    def _start(self) -> None:
        life_read, self._life = os.pipe()
        self._ready, ready_write = os.pipe()
        config = {
            "directory": self.directory, "workers": self._workers, "life": life_read, "ready": ready_write,
            "parent": os.getpid(), "sys_path": [p or os.getcwd() for p in sys.path if isinstance(p, str)],
        }  # fmt: skip
        code = f"import sys; sys.path[:] = {config['sys_path']!r}; from taskmesh.cli.joined import main; main()"
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code, json.dumps(config)],
                pass_fds=[life_read, ready_write],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        finally:
            os.close(life_read)
            os.close(ready_write)

    def wait_ready(self) -> None:
        """Return when the hub listens.

        Raises
        ------
        MeshStartError
            It ended instead, or took too long.
        """
        with self._lock:
            ready = self._take("_ready")
        if ready < 0:
            return  # it was closed meanwhile
        try:
            poll = select.poll()
            poll.register(ready, select.POLLIN)
            readable = poll.poll(START_TIMEOUT_S * 1000.0)
            said = os.read(ready, 1) if readable else b""
        finally:
            os.close(ready)
        if said:
            return
        assert self._process is not None
        if readable:
            code = self._process.wait(END_TIMEOUT_S)
            self.close()
            raise MeshStartError(
                f"the private mesh ended with exit code {code} while it started; what it printed is above"
            )
        self.close()
        raise MeshStartError(f"the private mesh did not start within {START_TIMEOUT_S:g} s")

    def revive(self) -> None:
        """Start the hub again if it has died; its client then offers again what is unsettled.

        Raises
        ------
        MeshStartError
            It dies again and again.
        """
        with self._lock:
            if self._closed or self._process is None or self._process.poll() is None:
                return
            now = time.monotonic()
            self._deaths = [t for t in self._deaths if now - t < 60.0] + [now]
            if len(self._deaths) > RESTARTS_PER_MINUTE:
                raise MeshStartError(
                    f"the private mesh died {len(self._deaths)} times within a minute, the last time with exit code "
                    f"{self._process.returncode}; not starting it again"
                )
            os.close(self._take("_life"))
            self._start()
        self.wait_ready()

    def _take(self, name: str) -> int:
        """A descriptor, for whoever closes it: its number may soon be another file's."""
        fd: int = getattr(self, name)
        setattr(self, name, -1)
        return fd

    def _close_pipes(self) -> None:
        for name in ("_life", "_ready"):
            fd = self._take(name)
            if fd >= 0:
                with contextlib.suppress(OSError):  # in a fork, whose parent may have been in the middle of it
                    os.close(fd)

    def close(self) -> None:
        """End the hub and everything below it, and remove its directory. May be called twice."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._close_pipes()
        if self._process is not None:
            try:
                self._process.wait(END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def abandon(self) -> None:
        """In a fork: the hub belongs to the parent, so let go of its life-line without ending it."""
        self._closed = True
        self._close_pipes()
        if self._process is not None:
            self._process.returncode = 0  # not our child: never wait for it, never warn about it
