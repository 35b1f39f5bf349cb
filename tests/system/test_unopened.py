"""Hubs and daemons open no pickle: in real processes that would end by it, tasks do all that they can."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest

from taskmesh import Mesh, WorkerLost, task

from .processes import until
from .tasks import double, sleep, tally
from .test_restarts import fixed_fleet

FORBIDDEN = Path(__file__).parent / "forbidden"


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory in which processes say that they are watched, and what they opened: nothing."""
    directory = tmp_path / "opened"
    directory.mkdir()
    path = os.pathsep.join(filter(None, (str(FORBIDDEN), os.environ.get("PYTHONPATH", ""))))
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setenv("TASKMESH_TEST_OPENED", str(directory))
    yield directory
    found = [file.read_text() for file in directory.glob("opened-*")]
    assert not found, "\n".join(found)


def watched(opened: Path, role: str) -> int:
    """How many processes of a kind have said that they are watched."""
    return len(list(opened.glob(f"watched-{role}-*")))


class Odd:
    """A class of this module, so that its pickle names something."""

    def __init__(self, n: int) -> None:
        self.n = n


def odd(value: Odd) -> Odd:
    return Odd(value.n + 1)


def fails(n: int) -> None:
    raise LookupError(n)


def crashes() -> None:
    ctypes.string_at(0)


@task(at_most_once=True)
def once(n: int) -> int:
    return -n


def everything(mesh: Mesh, tmp_path: Path) -> None:
    """Whatever a task can be and come to."""
    lock: Any = threading.Lock()
    assert [mesh.submit(double, n).result(20) for n in range(50)] == [2 * n for n in range(50)]
    assert list(mesh.map(double, range(5000))) == [2 * n for n in range(5000)]
    assert [value.n for value in mesh.map(odd, map(Odd, range(100)))] == list(range(1, 101))
    assert mesh.submit(lambda: os.getpid() > 0).result(20)
    with pytest.raises(LookupError, match="7"):
        mesh.submit(fails, 7).result(20)
    with pytest.raises(WorkerLost, match="SIGSEGV"):
        mesh.submit(crashes).result(30)
    assert [mesh.submit(once, n).result(20) for n in range(20)] == [-n for n in range(20)]
    with pytest.raises(Exception, match="pickle"):
        mesh.submit(double, lock)
    futures = [mesh.submit(sleep, 0.5) for _ in range(8)]
    mesh.cancel(futures[1:], interrupt=True)
    ended = 0
    for future in futures:
        try:
            future.result(20)
        except CancelledError:
            ended += 1
    assert ended


def test_a_private_mesh_opens_nothing(opened: Path, tmp_path: Path) -> None:
    with Mesh(workers=2) as mesh:
        until(lambda: watched(opened, "private"), "its process is watched")
        everything(mesh, tmp_path)


def test_a_hub_and_a_worker_open_nothing_also_when_the_hub_starts_again(opened: Path, tmp_path: Path) -> None:
    with fixed_fleet(tmp_path, f"sqlite://{tmp_path}/hub.db") as fleet:
        fleet.worker(2)
        assert watched(opened, "hub") == watched(opened, "worker") == 1
        with Mesh(fleet.address) as mesh:
            everything(mesh, tmp_path)
            futures = [mesh.submit(tally, str(tmp_path / "ran"), n, 0.005) for n in range(200)]
            until(lambda: sum(future.done() for future in futures) > 20, "some have ended")
            fleet.kill_hub()
            assert [future.result(60) for future in futures] == list(range(200)), fleet.output()
        assert watched(opened, "hub") == 2


@pytest.mark.parametrize(
    "code",
    [
        "import pickle; pickle.loads(b'N.')",
        "from pickle import loads; loads(b'N.')",
        "import io, pickle; pickle.Unpickler(io.BytesIO(b'N.')).load()",
        "import cloudpickle; cloudpickle.loads(b'N.')",
        "import _pickle; _pickle.loads(b'N.')",
        "import marshal; marshal.loads(b'N')",
    ],
)
def test_who_opens_something_is_caught(code: str, tmp_path: Path) -> None:
    """The watch itself: without it, the tests above would say nothing."""
    environment = {**os.environ, "PYTHONPATH": str(FORBIDDEN), "TASKMESH_TEST_OPENED": str(tmp_path)}
    command = [sys.executable, "-c", f"'-m taskmesh hub'; {code}"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 86, ended.stderr
    (found,) = tmp_path.glob("opened-*")
    assert "loads" in found.read_text() or "Unpickler" in found.read_text()
    assert watched(tmp_path, "hub") == 1
