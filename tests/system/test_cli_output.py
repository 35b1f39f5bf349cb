"""The command line, and where its output goes: nowhere, to who has had enough, to a terminal that can little."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .processes import Fleet, Started, free_ports, until

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "taskmesh"]
PATHS = {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), str(ROOT / "workers"), os.environ.get("PYTHONPATH")]))}


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line in a shell; `taskmesh` in it is ours."""
    line = line.replace("taskmesh ", f"{shlex.join(COMMAND)} ")
    env = {**os.environ, **PATHS, "COLUMNS": "100", **environment}
    return subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=30, env=env)


def unread(*arguments: str) -> tuple[int, str]:
    """The exit code of a command whose output nobody reads any more, and its errors."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        finished = subprocess.run(
            [*COMMAND, *arguments], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=30,
            env={**os.environ, **PATHS},
        )  # fmt: skip
    finally:
        os.close(writer)
    return finished.returncode, finished.stderr


class Terminal:
    """A command on a terminal of so many columns, and what it has shown."""

    def __init__(self, command: list[str], columns: int = 80, **environment: str) -> None:
        self._end, other = pty.openpty()
        env = {**os.environ, **PATHS, "COLUMNS": str(columns), "TERM": "xterm", **environment}
        env.pop("NO_COLOR", None)
        self.process = subprocess.Popen(command, stdin=other, stdout=other, stderr=other, env=env)
        os.close(other)
        os.set_blocking(self._end, False)
        self._shown = b""

    def shown(self) -> str:
        """Everything so far."""
        with contextlib.suppress(BlockingIOError, OSError):  # OSError: the other end is closed
            while part := os.read(self._end, 65536):
                self._shown += part
        return self._shown.decode()

    def text(self) -> str:
        """The same without colours."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.shown()).replace("\r", "")

    def close(self) -> None:
        """End it."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._end)


@contextlib.contextmanager
def terminal(command: list[str], columns: int = 80, **environment: str) -> Iterator[Terminal]:
    """A terminal that is closed at the end."""
    opened = Terminal(command, columns, **environment)
    try:
        yield opened
    finally:
        opened.close()


# ---- closed, full, gone ---------------------------------------------------------------------------------------------


def test_a_closed_standard_output_is_none_and_no_error() -> None:
    for line in ("taskmesh --version >&-", "taskmesh --version 2>&- >&-"):
        finished = shell(line)
        assert (finished.returncode, finished.stderr) == (0, "")
    finished = shell("taskmesh status tcp://127.0.0.1:1 --timeout 0.3 >&-")
    assert finished.returncode == 3
    assert finished.stderr.startswith("taskmesh: no hub answered")


def test_a_hub_with_a_closed_standard_output_ends_with_its_own_code(tmp_path: Path) -> None:
    address = f"tcp://127.0.0.1:{free_ports(4)}"
    code = f"import os; os.close(1); os.execv({sys.executable!r}, {[*COMMAND, 'hub', '--listen', address]!r})"
    hub = Started(["-c", code], tmp_path)
    try:
        until(lambda: shell(f"taskmesh status {address}").returncode == 0, "it answers")
        hub.signal(signal.SIGTERM)
        assert hub.ends() == 0, hub.output
        assert "Traceback" not in hub.output
    finally:
        hub.end_now()


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["hub", "--help"], []])
def test_whoever_has_closed_the_output_is_told_by_the_exit_code(arguments: list[str]) -> None:
    assert unread(*arguments) == (141, "")


def test_tables_that_nobody_reads_end_with_141(fleet: Fleet) -> None:
    at, hub = fleet.address, ["--hub", fleet.address]
    for arguments in (
        ["status", at], ["status", at, "--json"], ["status", at, "--watch", "0.01"], ["ticket", "list", *hub],
        ["ticket", "list", *hub, "--json"],
    ):  # fmt: skip
        code, errors = unread(*arguments)
        assert code == 141, (arguments, errors)
        assert "Traceback" not in errors


def test_a_watched_status_ends_when_its_reader_does(fleet: Fleet) -> None:
    finished = shell("{ taskmesh status " + fleet.address + " --watch 0.05; echo ended with $? >&2; } | head -1")
    assert finished.stderr == "ended with 141\n"
    assert finished.stdout.startswith("hub ")


def test_a_full_disk_is_named() -> None:
    for command in ("taskmesh --version", "taskmesh --help"):
        finished = shell(f"{command} > /dev/full")
        assert (finished.returncode, finished.stderr) == (
            1,
            "taskmesh: standard output cannot be written: No space left on device\n",
        )


def test_a_working_directory_that_is_gone_is_named(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    run = shlex.quote("from taskmesh.cli.entry import main; main()")
    line = f"cd {tmp_path}/gone && rmdir ../gone && exec {sys.executable} -c {run} worker tcp://127.0.0.1:1"
    finished = shell(line)
    assert finished.returncode == 1
    assert finished.stderr == "taskmesh: the working directory is gone: cd to another one, and start again\n"


def test_ctrl_c_while_it_is_being_imported_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nsignal.pause()\n")
    paths = os.pathsep.join([str(tmp_path), PATHS["PYTHONPATH"]])
    finished = shell("taskmesh --version", PYTHONPATH=paths)
    assert (finished.returncode, finished.stdout, finished.stderr) == (130, "", "")


@pytest.mark.parametrize("script", ["stdlib_census/census", "monte_carlo/monte_carlo", "asyncio_client/client"])
def test_an_example_complains_on_standard_error(script: str) -> None:
    finished = shell(f"{sys.executable} {ROOT}/examples/{script}.py --hub tcp://")
    assert finished.returncode == 1
    assert finished.stderr.startswith("AddressError: ")
    assert "AddressError" not in finished.stdout


# ---- terminals ------------------------------------------------------------------------------------------------------


def test_a_dumb_terminal_is_shown_the_status_again_and_again(fleet: Fleet) -> None:
    with terminal([*COMMAND, "status", fleet.address, "--watch", "0.05"], TERM="dumb") as shows:
        until(lambda: shows.shown().count("No workers") >= 2 or shows.process.poll() is not None, "it shows")
        assert shows.process.poll() is None, shows.shown()


def test_status_on_a_terminal_of_eighty_columns_has_a_line_for_each(fleet: Fleet) -> None:
    worker = fleet.worker()
    with terminal([*COMMAND, "status", fleet.address], 80) as shows:
        until(lambda: shows.process.poll() is not None, "it ends")
        [line] = [line for line in shows.text().splitlines() if f" {worker.process.pid} " in line]
    assert line.split()[-1] == "ok"


def test_what_is_logged_is_not_coloured_by_guesses() -> None:
    line = "worker 'node-1' has 4 runners at tcp://10.0.0.7:5555"
    code = (
        "import logging; from taskmesh.cli.logs import set_up; from taskmesh.cli.options import LogLevel; "
        f"set_up(LogLevel.INFO); logging.warning({line!r})"
    )
    with terminal([sys.executable, "-c", code], 120) as shows:
        until(lambda: shows.process.poll() is not None, "it ends")
        assert line in shows.shown()


def test_streams_that_were_closed_are_open_for_the_processes_that_are_started() -> None:
    code = """
import os, subprocess, sys
os.close(1)
sys.stdout = None
from taskmesh.cli.main import _open_standard_streams
_open_standard_streams()
subprocess.run([sys.executable, "-c", "import os; os.fstat(1)"], check=True)
print("written to nowhere", flush=True)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
