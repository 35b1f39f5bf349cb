"""What every system test gets: a temporary directory for the session, a check for leftovers, and meshes to share."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskmesh import Mesh

from .guarded import Guarded
from .processes import MARK, Fleet, below, described, free_ports, mesh_directories, ours, until
from .raw import Raw

OURS = ("TASKMESH_HUB", "TASKMESH_TICKET", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "PYTHONDONTWRITEBYTECODE")


@pytest.fixture(scope="session", autouse=True)
def _session_of_its_own() -> Iterator[None]:
    """A short TMPDIR and a mark in the environment, so that other users of this machine do not disturb."""
    # A job in the background ignores the one, and below nohup the other; so would everything that is started here. What
    # is handled here is not handled there, and a hang-up goes on leaving this process alone.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda number, frame: None)
    before = {name: os.environ.get(name) for name in ("TMPDIR", MARK, *OURS)}
    directory = tempfile.mkdtemp(prefix="tm-")
    os.environ["TMPDIR"] = directory
    os.environ["XDG_STATE_HOME"] = directory  # where hubs keep their work
    os.environ["XDG_CONFIG_HOME"] = f"{directory}/config"  # where their keys and tickets are
    os.environ[MARK] = uuid.uuid4().hex
    # Hundreds of processes are started here: with the last one, each would compile everything that it imports.
    for name in ("TASKMESH_HUB", "TASKMESH_TICKET", "PYTHONDONTWRITEBYTECODE"):
        os.environ.pop(name, None)
    tempfile.tempdir = None
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        tempfile.tempdir = None
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(autouse=True)
def _nothing_left(_session_of_its_own: None) -> Iterator[None]:
    """After each test: no process and no directory that was not there before, but below what was."""
    processes, directories = ours(), mesh_directories()
    yield

    def clean() -> bool:
        return not (ours() - below(processes)) and not (mesh_directories() - directories)

    try:
        until(clean, "nothing is left")
    except AssertionError:
        left = ours() - below(processes)
        message = f"left over:\n{described(left)}\n{mesh_directories() - directories}"
        for process in left:
            process.kill()
        pytest.fail(message)


@pytest.fixture(scope="session")
def mesh(_session_of_its_own: None) -> Iterator[Mesh]:
    """A private mesh of two runners that many tests share; tests that kill or count use their own."""
    shared = Mesh(workers=2)
    yield shared
    shared.shutdown(cancel_futures=True)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """A hub of one test, without workers yet."""
    started = Fleet(tmp_path)
    try:
        yield started
    finally:
        started.end()


@pytest.fixture
def guarded(fleet: Fleet, tmp_path: Path) -> Iterator[Guarded]:
    """A hub with keys, its tickets, and raw sockets."""
    with Raw(fleet.address) as raw:
        yield Guarded(fleet, raw, tmp_path)


@pytest.fixture
def lasting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Guarded]:
    """A hub that can be started again, with its keys and its work, at the same address."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    fleet = Fleet(tmp_path, f"tcp://127.0.0.1:{free_ports(4)}")
    try:
        with Raw(fleet.address) as raw:
            yield Guarded(fleet, raw, tmp_path)
    finally:
        fleet.end()
