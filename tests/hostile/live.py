"""The live mesh: a hub with keys on loopback TCP, workers, an honest client; and what is measured of them."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from pathlib import Path

import psutil

from taskmesh.cli.asking import ask
from taskmesh.core import messages as m
from taskmesh.security.ticket import Ticket, read_ticket
from taskmesh.transport.endpoints import parse_address

from ..system.processes import Started, until

LARGEST = 4 << 20
OPTIONS = ("--max-queued", "16MiB", "--max-message", "4MiB", "--max-peers", "300", "--session-grace", "2")
SAMPLE_S = 0.05
READY_S = 60.0
ROLES = ("admin", "client", "worker")
COUNTED = ("dropped_frames", "refused_requests", "refused_connections", "refused_peers")


class Live:
    """It runs until it is ended.

    Parameters
    ----------
    directory
        Where its files are; `$XDG_CONFIG_HOME` and `$XDG_STATE_HOME` should be below it.
    tasks
        How many the honest client has to do at least.
    workers, runners
        How many, and with how many runners each.
    """

    def __init__(self, directory: Path, tasks: int, workers: int = 2, runners: int = 1) -> None:
        self.directory = directory
        self.keys = directory / "keys"
        store = f"sqlite://{directory}/work.sqlite"
        hub = ("hub", "--listen", "tcp://127.0.0.1:0", "--keys", str(self.keys), "--store", store, *OPTIONS)
        self._started: dict[str, Started] = {}
        self._client: subprocess.Popen[bytes] | None = None
        self._peaks: dict[str, int] = {}
        self._stop = threading.Event()
        try:
            self._start("hub", *hub).says("ready at tcp://", READY_S)
            self.address = self._started["hub"].output.split("ready at ")[1].split()[0]
            for n in range(1, workers + 1):
                arguments = ("worker", "--ticket", str(self.keys / "worker.ticket"), "-n", str(runners))
                self._start(f"worker {n}", *arguments).says("has joined", READY_S)
            self._begin(tasks)
        except BaseException:
            self.end()
            raise

    def _start(self, name: str, *arguments: str) -> Started:
        started = self._started[name] = Started(["-m", "taskmesh", *arguments], self.directory)
        return started

    def _begin(self, tasks: int) -> None:
        self._output = self.directory / "honest"
        with self._output.open("wb") as output:
            self._client = subprocess.Popen(
                [sys.executable, "-m", "tests.hostile.honest", str(self.keys / "client.ticket"), str(tasks)],
                cwd=Path(__file__).parents[2], stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        until(lambda: self.done > 0, f"the honest client has begun\n{self.said}", READY_S)
        self.processes = {name: psutil.Process(started.process.pid) for name, started in self._started.items()}
        self.processes["client"] = psutil.Process(self._client.pid)
        self.first_rss = {name: process.memory_info().rss for name, process in self.processes.items()}
        self.peaks()
        self._sampler = threading.Thread(target=self._sample, name="sampler", daemon=True)
        self._sampler.start()

    # ---- what is seen ---------------------------------------------------------------------------------------

    @property
    def hub(self) -> psutil.Process:
        """The hub's process."""
        return self.processes["hub"]

    @property
    def said(self) -> str:
        """What the honest client has printed."""
        return self._output.read_text(errors="replace")

    @property
    def done(self) -> int:
        """How many honest tasks have ended."""
        numbers = [line.split()[0] for line in self.said.splitlines()[-3:] if line[:1].isdigit()]
        return int(numbers[-1]) if numbers else 0

    @property
    def tickets(self) -> dict[str, Ticket]:
        """By role."""
        return {role: read_ticket(self.keys / f"{role}.ticket") for role in ROLES}

    def status(self) -> dict[str, int]:
        """What the hub has counted."""
        reply = ask(parse_address(self.address), self.tickets["admin"], m.StatusRequest(), READY_S)
        assert isinstance(reply, m.StatusReply)
        document = json.loads(reply.document)
        return {key: document[key] for key in COUNTED}

    def log_bytes(self) -> int:
        """How much hub and workers have written to their logs, and the hub to its audit log."""
        audits = sum(path.stat().st_size for path in self.keys.glob("audit.jsonl*"))
        return audits + sum(started.output_path.stat().st_size for started in self._started.values())

    def dead(self) -> list[str]:
        """Whoever has ended and should not have."""
        gone = [name for name, started in self._started.items() if started.process.poll() is not None]
        assert self._client is not None
        code = self._client.poll()
        return gone + ([f"client ({code}): {self.said[-2000:]}"] if code else [])

    def peaks(self) -> dict[str, int]:
        """The most memory, in bytes, that each process had more than at the beginning, since this was asked last."""
        peaks, self._peaks = self._peaks, {}
        return {name: peaks.get(name, 0) for name in self.processes}

    def _sample(self) -> None:
        while not self._stop.wait(SAMPLE_S):
            for name, process in self.processes.items():
                try:
                    more = process.memory_info().rss - self.first_rss[name]
                except psutil.Error:
                    continue
                self._peaks[name] = max(self._peaks.get(name, 0), more)

    # ---- the end --------------------------------------------------------------------------------------------

    def finish(self, seconds: float) -> str:
        """The honest client ends when it has done what it should; returns its last words.

        Raises
        ------
        AssertionError
            Something was not correct, or it took too long.
        """
        client = self._client
        assert client is not None
        assert client.stdin is not None
        client.stdin.close()
        try:
            code = client.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the honest client did not end within {seconds:g} s, at {self.done}") from None
        words = self.said.splitlines()
        assert code == 0, "\n".join(words[-30:])
        assert words[-1].endswith("all correct, each once")
        return words[-1]

    def logs(self) -> str:
        """What all of them have printed last, for a run that failed."""
        return "\n".join(f"--- {name}:\n{started.output[-3000:]}" for name, started in self._started.items())

    def end(self) -> None:
        """Everything that was started ends."""
        self._stop.set()
        if self._client is not None:
            assert self._client.stdin is not None
            self._client.stdin.close()
            self._client.kill()
            self._client.wait()
        for name, started in reversed(self._started.items()):
            if name != "hub" and started.process.poll() is None:
                started.process.terminate()
        for name, started in self._started.items():
            if name != "hub":
                with contextlib.suppress(subprocess.TimeoutExpired):
                    started.process.wait(5.0)
        for started in reversed(self._started.values()):
            started.end_now()
