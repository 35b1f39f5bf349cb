"""What the system says of memory: how much a runner has, and whether the kernel has killed for want of it."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import msgpack
import psutil
import pytest

from taskmesh_worker import cells
from taskmesh_worker.deaths import Deaths
from taskmesh_worker.forking import RunnerPipe
from taskmesh_worker.memory import OutOfMemory, resident

MIB = 2**20
KILLED, EXITED = -9, 3


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A machine with plenty of memory, until a test says otherwise."""
    state = SimpleNamespace(total=1000 * MIB, available=500 * MIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: state)
    return state


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


# ---- how much a process has -----------------------------------------------------------------------------------------


def test_the_memory_of_a_process_is_read_and_that_of_none_is_0() -> None:
    assert resident(os.getpid()) > MIB
    assert resident(None) == 0
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert resident(ended.pid) == 0


# ---- whether there was too little -----------------------------------------------------------------------------------


def test_a_kill_that_the_kernel_has_counted_is_probably_that_one_and_counts_once(tmp_path: Path) -> None:
    write(tmp_path / "proc/vmstat", "nr_free_pages 12\noom_kill 3\n")
    kernel = OutOfMemory(tmp_path)
    assert not kernel.probable(0, 0)
    write(tmp_path / "proc/vmstat", "nr_free_pages 12\noom_kill 4\n")
    assert kernel.probable(0, 0)
    assert not kernel.probable(0, 0), "that was another one"


@pytest.mark.parametrize(
    ("membership", "counter"),
    [
        ("0::/jobs/one\n", "sys/fs/cgroup/jobs/one/memory.events"),
        ("0::/\n", "sys/fs/cgroup/memory.events"),
        ("4:cpu,memory:/jobs/one\n", "sys/fs/cgroup/memory/jobs/one/memory.oom_control"),
    ],
    ids=["version 2", "version 2, in a container", "version 1"],
)
def test_a_control_group_counts_its_own_kills(tmp_path: Path, membership: str, counter: str) -> None:
    write(tmp_path / "proc/self/cgroup", membership)
    write(tmp_path / counter, "oom 0\noom_kill 0\n")
    kernel = OutOfMemory(tmp_path)
    assert not kernel.probable(0, 0)
    write(tmp_path / counter, "oom 1\noom_kill 1\n")
    assert kernel.probable(0, 0)


def test_a_system_that_counts_nothing_says_nothing(tmp_path: Path) -> None:
    assert not OutOfMemory(tmp_path).probable(0, 0)


def test_a_runner_that_was_close_to_its_limit_probably_crossed_it(tmp_path: Path) -> None:
    kernel = OutOfMemory(tmp_path)
    assert kernel.probable(95 * MIB, 100 * MIB)
    assert not kernel.probable(50 * MIB, 100 * MIB)
    assert not kernel.probable(95 * MIB, 0), "it has none"


def test_a_machine_with_nearly_nothing_left_has_probably_killed(tmp_path: Path, machine: SimpleNamespace) -> None:
    kernel = OutOfMemory(tmp_path)
    machine.available = 10 * MIB
    assert kernel.probable(0, 0)


# ---- what the daemon says -------------------------------------------------------------------------------------------


@pytest.fixture
def runner() -> Iterator[RunnerPipe]:
    """One whose memory was measured."""
    ours, theirs = socket.socketpair()
    made = RunnerPipe(1, ours, cells.Cells(cells.create()))
    made.bytes = MIB
    yield made
    made.close()
    theirs.close()


@pytest.fixture
def deaths(tmp_path: Path, machine: SimpleNamespace) -> Deaths:
    """What is said on a machine that has just run out of memory."""
    machine.available = 0
    return Deaths("host", "name", 0, OutOfMemory(tmp_path))


def told(report: bytes) -> dict[str, object]:
    """What a report says."""
    said: dict[str, object] = msgpack.unpackb(report)
    return said


def test_a_runner_that_was_killed_while_memory_was_short_is_reported_as_out_of_memory(
    deaths: Deaths, runner: RunnerPipe, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert told(deaths.report(runner, KILLED, True))["oom"] is True
    assert "was killed by SIGKILL, probably out of memory" in caplog.text


def test_a_runner_that_exited_or_that_we_have_ended_is_not(deaths: Deaths, runner: RunnerPipe) -> None:
    assert told(deaths.report(runner, EXITED, True))["oom"] is False
    assert told(deaths.report(runner, KILLED, False))["oom"] is False, "its nursery died"
    runner.killed = True
    assert told(deaths.report(runner, KILLED, True))["oom"] is False
