"""Processes of these tests: scripts to run, hubs and workers to start, and what must not be left of them."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psutil

MARK = "TASKMESH_TEST_SESSION"


def until(condition: Callable[[], object], what: str, seconds: float = 15.0) -> None:
    """Return as soon as `condition()` is true; fail, saying `what` was waited for, after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.01)


def until_it_raises(values: Iterator[Any], into: list[Any]) -> None:
    """Append values until there are no more, or an exception comes out."""
    for value in values:
        into.append(value)


# ---- what is left ---------------------------------------------------------------------------------------------------


def ours() -> set[psutil.Process]:
    """Every process of this test session but the one that runs it: its children, and whatever has its mark."""
    mark = os.environ.get(MARK)
    found = set(psutil.Process().children(recursive=True))
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if mark is not None and process.environ().get(MARK) == mark:
                found.add(process)
    found.discard(psutil.Process())
    return found


def below(roots: set[psutil.Process]) -> set[psutil.Process]:
    """`roots` and their descendants."""
    found = set(roots)
    for root in roots:
        with contextlib.suppress(psutil.Error):
            found.update(root.children(recursive=True))
    return found


def described(processes: set[psutil.Process]) -> str:
    """For people."""
    lines = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            lines.append(f"{process.pid} ({process.status()}): {' '.join(process.cmdline())[:150]}")
    return "\n".join(lines)


def mesh_directories() -> set[str]:
    """Directories of private meshes in this session's temporary directory."""
    return {path.name for path in Path(os.environ["TMPDIR"]).glob("taskmesh-*")}


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def holder(directory: Path, name: str) -> int:
    """Process id of the runner that started `tasks.hold(directory, name)` last, when there is one."""
    path = directory / f"{name}.started"
    until(lambda: path.exists() and path.read_text().endswith("\n"), f"{name} has started")
    return int(path.read_text().split()[-1])


def tallied(path: Path) -> Counter[int]:
    """How often each number was appended to a file by `tasks.tally`."""
    return Counter(int(line.split()[0]) for line in path.read_text().splitlines()) if path.exists() else Counter()


# ---- scripts --------------------------------------------------------------------------------------------------------


class Started:
    """A Python process with its output in a file, so that nobody has to read along.

    Parameters
    ----------
    arguments
        Of the interpreter.
    directory
        Where it runs, and where its output goes.
    stdin
        What it can read.
    before
        A command that starts it, see `namespaces.Hosts.command`.
    environment
        Variables that it has besides ours.
    """

    _count = 0

    def __init__(
        self,
        arguments: list[str],
        directory: Path,
        stdin: int = subprocess.DEVNULL,
        before: Sequence[str] = (),
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        Started._count += 1
        self.output_path = directory / f"output-{Started._count}"
        inherited = {k: v for k, v in os.environ.items() if k != "TASKMESH_HUB"}
        with open(self.output_path, "wb") as output:
            self.process = subprocess.Popen(
                [*before, sys.executable, *arguments],
                cwd=directory,
                stdin=stdin,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={
                    **inherited,
                    "PYTHONUNBUFFERED": "1",
                    "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
                    **environment,
                },
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        """What it has printed so far, errors included."""
        return self.output_path.read_text(errors="backslashreplace")

    def says(self, text: str, seconds: float = 20.0) -> None:
        """Wait until it has printed `text`."""
        until(lambda: text in self.output or self.process.poll() is not None, f"{text!r} in:\n{self.output}", seconds)
        assert text in self.output, f"it ended with {self.process.returncode}:\n{self.output}"

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def ends(self, seconds: float = 30.0) -> int:
        """Wait for its end; returns its exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end within {seconds:g} s:\n{self.output}") from None

    def end_now(self) -> None:
        """Kill it if it is still there."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def write_script(directory: Path, source: str, name: str = "script.py") -> str:
    """Write dedented `source` to a file of `directory`; returns its path."""
    path = directory / name
    path.write_text(textwrap.dedent(source))
    return str(path)


@contextlib.contextmanager
def running(source: str, directory: Path) -> Iterator[Started]:
    """A script that runs while the block does."""
    started = Started([write_script(directory, source)], directory)
    try:
        yield started
    finally:
        started.end_now()


def run(source: str, directory: Path, seconds: float = 30.0) -> str:
    """Run a script that has to succeed; returns what it printed."""
    with running(source, directory) as script:
        code = script.ends(seconds)
        assert code == 0, f"exit code {code}:\n{script.output}"
        return script.output


def kill(pid: int) -> None:
    """SIGKILL."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def free_ports(count: int) -> int:
    """The first of so many consecutive ports of loopback that are free, below the range that the system hands out."""
    for first in random.SystemRandom().sample(range(20_000, 32_000, count), 50):
        with contextlib.ExitStack() as held:
            try:
                for port in range(first, first + count):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
        return first
    raise AssertionError("no free ports")


# ---- fleets ---------------------------------------------------------------------------------------------------------


class Fleet:
    """A hub on loopback TCP and its workers; ends with the block.

    Parameters
    ----------
    directory
        Where they run.
    listen
        Where the hub listens.
    options
        More options of `taskmesh hub`.
    by
        The address that workers and clients use, if it is not the hub's own.
    """

    def __init__(
        self, directory: Path, listen: str = "tcp://127.0.0.1:0", options: Sequence[str] = (), by: str | None = None
    ) -> None:
        self._directory = directory
        self._started: list[Started] = []
        self._hub_arguments = ("hub", "--listen", listen, *options)
        self._joining = [option for option in options if option == "--insecure"]
        self.start_hub()
        self.address = by or self.hub.output.split("ready at ")[1].split()[0].rstrip(".,;")

    def start_hub(self) -> None:
        """Start a hub, as the first one was started."""
        self.hub = self._start(*self._hub_arguments)
        self.hub.says("ready at tcp://")

    def kill_hub(self, number: int = signal.SIGKILL) -> None:
        """End the hub by a signal, and start it again."""
        self.hub.signal(number)
        self.hub.ends()
        self.start_hub()

    def _start(self, *arguments: str) -> Started:
        started = Started(["-m", "taskmesh", *arguments], self._directory)
        self._started.append(started)
        return started

    def worker(self, runners: int = 1) -> Started:
        """A worker that has joined."""
        worker = self._start("worker", self.address, "-n", str(runners), *self._joining)
        worker.says("has joined")
        return worker

    def worker_with(self, ticket: Path, *options: str) -> Started:
        """A worker that has joined with a ticket, which names the hub."""
        worker = self._start("worker", "--ticket", str(ticket), "-n", "1", *options)
        worker.says("has joined")
        return worker

    def worker_by_environment(self) -> Started:
        """A worker that has joined with the ticket that the environment names."""
        worker = self._start("worker", "-n", "1")
        worker.says("has joined")
        return worker

    def output(self) -> str:
        """What all of them have printed, for a test that failed."""
        return "\n".join(f"--- {started.output_path.name}:\n{started.output}" for started in self._started)

    def end(self) -> None:
        """Stopped ones go on first, so that they can end."""
        for started in reversed(self._started):
            if started.process.poll() is None:
                started.signal(signal.SIGCONT)
            started.end_now()
