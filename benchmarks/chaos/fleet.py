"""The processes that chaos is made with: a hub and daemons, which can be killed and started again.

The rule: what `Fleet.end` returns from, on every path, has ended everything that the fleet started.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from tests.system.namespaces import Hosts

STARTED_WITHIN_S = 30.0
STOPPED_WITHIN_S = 15.0
DISK, MEMORY = STORES = "disk", "memory"
LANES = 400
"""Ports for lanes: each registration takes one."""


class Member:
    """One process, under a name, with its output in a file.

    Attributes
    ----------
    starts
        How often it was started.
    expected_dead
        Somebody killed it: its end is no surprise.
    """

    def __init__(self, name: str, command: Sequence[str], folder: Path) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self.starts = 0
        self.expected_dead = False
        self._command = list(command)
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of the last start."""
        assert self._process is not None, "start() comes first"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Of the last start."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Start it (again)."""
        self.starts += 1
        self.expected_dead = False
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def wait_for(self, text: str) -> None:
        """Wait until it has printed `text`.

        Raises
        ------
        RuntimeError
            It ended instead, or took too long.
        """
        deadline = time.monotonic() + STARTED_WITHIN_S
        while text not in (said := self.log.read_text(errors="replace")):
            if not self.running or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} did not say {text!r}; it said:\n{said}")
            time.sleep(0.02)

    def family(self) -> list[psutil.Process]:
        """The process and everything below it."""
        with contextlib.suppress(psutil.Error):
            root = psutil.Process(self.pid)
            return [root, *root.children(recursive=True)]
        return []

    def kill(self) -> None:
        """SIGKILL, and wait for its end. Its own children are its own affair."""
        self.expected_dead = True
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> bool:
        """SIGTERM, then SIGKILL if that does not do; whether the first was enough."""
        if self._process is None:
            return True
        self._process.terminate()
        try:
            self._process.wait(STOPPED_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return False
        return True


class Daemon(Member):
    """`taskmesh worker`, with its nursery and runners."""

    def __init__(self, name: str, command: Sequence[str], folder: Path) -> None:
        super().__init__(name, command, folder)
        self.nursery_kills: list[float] = []

    def start(self) -> None:
        """Start it (again): a new daemon has a new nursery."""
        self.nursery_kills.clear()
        super().start()

    def nursery(self) -> psutil.Process | None:
        """The nursery, if it is there."""
        with contextlib.suppress(psutil.Error):
            children = psutil.Process(self.pid).children()
            return children[0] if children else None
        return None

    def runners(self) -> list[psutil.Process]:
        """The runners that there are now, oldest first."""
        nursery = self.nursery()
        if nursery is not None:
            with contextlib.suppress(psutil.Error):
                return sorted(nursery.children(), key=lambda process: process.pid)
        return []


class Fleet:
    """A hub and daemons on loopback, or each on a host of its own.

    Parameters
    ----------
    folder
        Where they run and write.
    daemons, runners
        How many daemons, and how many runners each.
    ports
        Free consecutive ports, at least `LANES + 4`.
    store
        Where the hub keeps its work: `DISK` (SQLite in `folder`) or `MEMORY`.
    hosts
        With hosts "hub", "d1", "d2", …: where each process runs.
    """

    def __init__(
        self, folder: Path, daemons: int, runners: int, ports: range, store: str, hosts: "Hosts | None" = None
    ) -> None:
        address = "127.0.0.1" if hosts is None else hosts.address("hub")
        self.address = f"tcp://{address}:{ports[0]}"
        self.hosts = hosts
        lanes = f"{ports[4]}-{ports[-1]}"
        kept = "memory" if store == MEMORY else f"sqlite://{folder}/hub.db"
        hub = ["hub", "--listen", self.address, "--lanes", lanes, "--store", kept]
        self.hub = Member("hub", [*self.on("hub"), *taskmesh(*hub)], folder)
        worker = ["worker", self.address, "-n", str(runners)]
        self.daemons = [
            Daemon(name, [*self.on(name), *taskmesh(*worker, "--name", name)], folder)
            for name in (f"d{number}" for number in range(1, daemons + 1))
        ]
        self.members: list[Member] = [self.hub, *self.daemons]

    def on(self, host: str) -> list[str]:
        """What to put in front of a command for that host."""
        return [] if self.hosts is None else self.hosts.command(host)

    def start(self) -> None:
        """Start all; returns when the daemons have joined."""
        self.hub.start()
        self.hub.wait_for("ready at tcp://")
        for daemon in self.daemons:
            daemon.start()
        for daemon in self.daemons:
            daemon.wait_for("has joined")

    def go_on(self) -> None:
        """SIGCONT to everybody."""
        for member in self.members:
            for process in member.family() if member.running else []:
                with contextlib.suppress(psutil.Error):
                    os.kill(process.pid, signal.SIGCONT)

    def stop(self) -> list[str]:
        """End all in good order: daemons, then the hub. Returns the names of those that had to be killed."""
        self.go_on()
        return [member.name for member in [*self.daemons, self.hub] if not member.stop()]

    def end(self) -> None:
        """End whatever is left, at once."""
        self.go_on()
        for member in self.members:
            family = member.family() if member.running else []
            member.kill()
            for process in family:
                with contextlib.suppress(psutil.Error):
                    process.kill()


def taskmesh(*arguments: str) -> list[str]:
    """The command line of taskmesh."""
    return [sys.executable, "-m", "taskmesh", *arguments]
