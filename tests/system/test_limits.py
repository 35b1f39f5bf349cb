"""Tasks that take too long or too much, and what is said of them: seen by their users."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from taskmesh import MemoryLimitExceeded, Mesh, TaskTimeout, WorkerLost, task

from .processes import Fleet, alive, until
from .tasks import double, hold, pid, sleep


def sleeps() -> None:
    time.sleep(100)


def spins() -> NoReturn:
    while True:
        pass


def refuses() -> NoReturn:
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(100)


def never_returns() -> None:
    libc = ctypes.CDLL(None)
    while True:
        libc.sleep(100)


def counts_in_c() -> int:
    return sum(range(10**12))


@pytest.mark.parametrize("body", [sleeps, spins, refuses, never_returns, counts_in_c], ids=lambda f: f.__name__)
def test_a_timeout_ends_whatever_runs(body: Callable[[], object]) -> None:
    with Mesh(workers=2) as mesh:
        limited = task(timeout=0.3)(body)
        began = time.monotonic()
        future = mesh.submit(limited)
        others = [mesh.submit(double, n) for n in range(50)]
        with pytest.raises(TaskTimeout, match=r"timeout of 0\.3 s") as caught:
            future.result(15)
        assert 0.3 <= time.monotonic() - began < 5
        assert future.id in str(caught.value)
        assert [other.result(10) for other in others] == [2 * n for n in range(50)]
        assert list(mesh.map(double, range(100))) == [2 * n for n in range(100)]


def test_a_timeout_counts_running_and_not_waiting() -> None:
    with Mesh(workers=1) as mesh:
        short = task(timeout=1.0)(sleep)
        assert [future.result(10) for future in [mesh.submit(short, 0.3) for _ in range(5)]] == [0.3] * 5


def test_tasks_that_end_at_their_timeout_end_once(tmp_path: Path) -> None:
    with Mesh(workers=2) as mesh:
        tight = task(timeout=0.02)(sleep)
        futures = [mesh.submit(tight, 0.0195 + n % 10 / 10_000) for n in range(100)]
        for future in futures:
            assert future.exception(15) is None or isinstance(future.exception(), TaskTimeout)
        assert list(mesh.map(double, range(100))) == [2 * n for n in range(100)]


def test_an_interrupted_task_can_clean_up_and_its_runner_lives(tmp_path: Path) -> None:
    def careful() -> None:
        try:
            time.sleep(100)
        finally:
            (tmp_path / "cleaned").touch()

    with Mesh(workers=1) as mesh:
        before = mesh.submit(pid).result(10)
        with pytest.raises(TaskTimeout):
            mesh.submit(task(timeout=0.2)(careful)).result(10)
        assert (tmp_path / "cleaned").exists()
        assert mesh.submit(pid).result(10) == before


def test_what_has_ended_does_not_wait_for_a_long_task(tmp_path: Path) -> None:
    def step(n: int) -> int:
        if n == 400:
            hold(str(tmp_path), "long")
        return n

    with Mesh(workers=1) as mesh:
        list(mesh.map(double, range(1000)))
        futures = [mesh.submit(step, n) for n in range(401)]
        until((tmp_path / "long.started").exists, "the long one runs")
        assert [future.result(5) for future in futures[:400]] == list(range(400))
        (tmp_path / "long.go").touch()
        assert futures[400].result(10) == 400


def test_a_lost_task_says_what_it_had_printed_and_nothing_of_others() -> None:
    def talks() -> NoReturn:
        print("reading the plans")
        print("no such plan", file=sys.stderr)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    with Mesh(workers=1) as mesh:
        mesh.submit(print, "somebody else").result(10)
        with pytest.raises(WorkerLost) as caught:
            mesh.submit(talks).result(15)
    text = str(caught.value)
    assert "SIGKILL" in text
    assert "reading the plans\n  no such plan" in text
    assert "somebody else" not in text


def grow(megabytes: int) -> int:
    data = bytearray(megabytes << 20)
    for n in range(0, len(data), 4096):
        data[n] = 1
    time.sleep(1.0)
    return megabytes


def test_a_task_above_its_memory_fails_alone() -> None:
    with Mesh(workers=2) as mesh:
        others = [mesh.submit(sleep, 0.01) for _ in range(30)]
        with pytest.raises(MemoryLimitExceeded, match="100 MiB"):
            mesh.submit(task(memory="100MiB")(grow), 200).result(15)
        assert mesh.submit(grow, 150).result(15) == 150
        assert [other.result(10) for other in others] == [0.01] * 30


def test_a_workers_limits_hold_for_every_task(fleet: Fleet) -> None:
    fleet._start("worker", fleet.address, "-n", "1", "--memory-limit", "120MiB", "--max-tasks-per-runner", "5").says(
        "has joined"
    )
    with Mesh(fleet.address) as mesh:
        with pytest.raises(MemoryLimitExceeded, match="120 MiB"):
            mesh.submit(grow, 200).result(20)
        pids = [mesh.submit(pid).result(10) for _ in range(20)]
        assert 4 <= len(set(pids)) <= 5
        assert len(pids) == 20


kept: list[bytes] = []


def leaks(megabytes: int) -> int:
    kept.append(b"x" * (megabytes << 20))
    time.sleep(0.4)  # its memory is looked at meanwhile
    return os.getpid()


def test_a_runner_that_has_grown_is_replaced_after_its_task(fleet: Fleet) -> None:
    fleet._start("worker", fleet.address, "-n", "1", "--recycle-above", "100MiB").says("has joined")
    with Mesh(fleet.address) as mesh:
        pids = [mesh.submit(leaks, megabytes).result(20) for megabytes in (1, 1, 150, 1)]
        assert pids[0] == pids[1] == pids[2] != pids[3]
        until(lambda: not alive(pids[0]), "it has ended")


def dies_with(megabytes: int) -> NoReturn:
    with open("/proc/self/statm") as file:
        has = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    kept.append(b"x" * ((megabytes << 20) - has))
    time.sleep(1.5)  # ten looks at its memory: one is enough, on a machine that has other work as well
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def test_a_task_that_is_killed_with_much_memory_says_so(fleet: Fleet) -> None:
    fleet._start("worker", fleet.address, "-n", "1", "--memory-limit", "200MiB").says("has joined")
    with Mesh(fleet.address) as mesh:
        with pytest.raises(WorkerLost, match="killed by SIGKILL, probably out of memory"):
            mesh.submit(dies_with, 190).result(20)
        with pytest.raises(WorkerLost) as caught:
            mesh.submit(dies_with, 100).result(20)
        assert "out of memory" not in str(caught.value)


def test_a_drain_ends_what_runs_when_its_time_is_over(fleet: Fleet, tmp_path: Path) -> None:
    first = fleet._start("worker", fleet.address, "-n", "1", "--drain-timeout", "0.5")
    first.says("has joined")
    with Mesh(fleet.address) as mesh:
        future = mesh.submit(hold, str(tmp_path), "held")
        until((tmp_path / "held.started").exists, "it runs")
        runner = int((tmp_path / "held.started").read_text().split()[0])
        first.signal(signal.SIGTERM)
        assert first.ends(10) == 0
        assert not alive(runner)
        fleet.worker()
        until(lambda: (tmp_path / "held.started").read_text().count("\n") == 2, "it runs elsewhere")
        (tmp_path / "held.go").touch()
        assert future.result(10) == "held"
