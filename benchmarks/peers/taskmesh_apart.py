"""taskmesh as a fleet has it: hub and worker daemon are processes of their own, here on loopback.

They have keys, as they have by default: everything is encrypted and authenticated.
"""

import os
import re
import select
import subprocess
import sys
import time

from benchmarks.peers import taskmesh_private
from taskmesh import Mesh

READY_WITHIN_S = 30.0
STOPPED_WITHIN_S = 10.0
ADDRESS = re.compile(rb"tcp://127\.0\.0\.1:\d+")


class Adapter(taskmesh_private.Adapter):
    """A mesh that joined a hub: everything but start and stop is the same."""

    insecure = False

    def __init__(self) -> None:
        super().__init__()
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, workers: int) -> None:
        hub = self._spawn("hub", "--listen", "tcp://127.0.0.1:0", stdout=subprocess.PIPE)
        address = read_address(hub)
        self._spawn("worker", address, "-n", str(workers), stdout=subprocess.DEVNULL)
        self._mesh = Mesh(address, insecure=self.insecure)

    def stop(self) -> None:
        """Client, worker, hub: each leaves while the one that it says goodbye to is still there."""
        try:
            super().stop()
        finally:
            for process in reversed(self._processes):
                end(process)

    def _spawn(self, *arguments: str, stdout: int) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "taskmesh", *arguments, *(["--insecure"] if self.insecure else [])],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
        )
        self._processes.append(process)
        return process


def read_address(hub: subprocess.Popen[bytes]) -> str:
    """Wait for the hub's ready line and return the address in it.

    Raises
    ------
    RuntimeError
        The hub ended instead.
    TimeoutError
        It said nothing of the kind within READY_WITHIN_S.
    """
    assert hub.stdout is not None
    deadline = time.monotonic() + READY_WITHIN_S
    said = b""
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([hub.stdout], [], [], left)[0]:
            break
        piece = os.read(hub.stdout.fileno(), 4096)
        if not piece:
            raise RuntimeError(f"taskmesh hub ended with code {hub.wait(STOPPED_WITHIN_S)} before it was ready")
        said += piece
        if b"\n" in said and (found := ADDRESS.search(said)):
            return found.group().decode()
    raise TimeoutError(f"taskmesh hub named no address within {READY_WITHIN_S:g} s; it said {said!r}")


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to stop, and see to it that it does."""
    process.terminate()
    try:
        process.wait(STOPPED_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
