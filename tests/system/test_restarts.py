"""Hubs that are killed and started again, clients that vanish, tasks that must not start twice: with real processes."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskmesh import HubUnreachable, Mesh, WorkerLost, task
from taskmesh.client import Client
from taskmesh.errors import HubFull
from taskmesh.joining import choose_hub
from taskmesh.transport.membership import KEEPER_HEARTBEAT_S
from taskmesh.wire.payload import dump_body, dump_call

from .processes import Fleet, Started, alive, free_ports, holder, kill, running, tallied, until
from .tasks import double, hold, sleep, tally

TASKS = 400


@contextlib.contextmanager
def fixed_fleet(directory: Path, store: str, *options: str) -> Iterator[Fleet]:
    """A fleet whose hub can be started again at the same address."""
    port = free_ports(24)
    lanes = f"{port + 4}-{port + 23}"
    listen = f"tcp://127.0.0.1:{port}"
    fleet = Fleet(directory, listen, ["--lanes", lanes, "--store", store, *options])
    try:
        yield fleet
    finally:
        fleet.end()


@pytest.mark.parametrize(
    ("stored", "number"),
    [(True, signal.SIGKILL), (True, signal.SIGTERM), (False, signal.SIGKILL)],
    ids=["sqlite-killed", "sqlite-terminated", "memory-killed"],
)
def test_a_hub_that_is_killed_twice_loses_nothing_and_starts_nothing_twice(
    tmp_path: Path, stored: bool, number: int
) -> None:
    store = f"sqlite://{tmp_path}/hub.db" if stored else "memory"
    with fixed_fleet(tmp_path, store) as fleet:
        fleet.worker(2)
        with Mesh(fleet.address) as mesh:
            futures = [mesh.submit(tally, str(tmp_path / "ran"), n, 0.01) for n in range(TASKS)]
            for done in (20, 60):
                until(lambda done=done: sum(future.done() for future in futures) > done, f"{done} have ended", 30)  # type: ignore[misc]
                fleet.kill_hub(number)
            assert [future.result(60) for future in futures] == list(range(TASKS)), fleet.output()
        ran = tallied(tmp_path / "ran")
        assert set(ran) == set(range(TASKS))
        assert sum(ran.values()) == TASKS, f"{sum(ran.values()) - TASKS} started twice:\n{fleet.output()}"


def test_nothing_is_left_in_the_store_of_a_session_that_has_ended(tmp_path: Path) -> None:
    with fixed_fleet(tmp_path, f"sqlite://{tmp_path}/hub.db") as fleet:
        fleet.worker(2)
        with Mesh(fleet.address) as mesh:
            assert sum(mesh.map(double, range(10_000))) == 99_990_000
            assert [mesh.submit(double, n).result(10) for n in range(50)] == [2 * n for n in range(50)]
        fleet.hub.signal(signal.SIGTERM)
        fleet.hub.ends()
        with contextlib.closing(sqlite3.connect(tmp_path / "hub.db")) as database:
            tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            rows = {name: database.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in tables}
        assert tables
        assert not any(count for name, count in rows.items() if name not in ("meta", "sqlite_sequence")), rows


def test_a_task_that_runs_while_its_hub_is_away_ends_once(tmp_path: Path) -> None:
    with fixed_fleet(tmp_path, f"sqlite://{tmp_path}/hub.db") as fleet:
        fleet.worker()
        with Mesh(fleet.address) as mesh:
            held = mesh.submit(hold, str(tmp_path), "held")
            holder(tmp_path, "held")
            fleet.hub.signal(signal.SIGKILL)
            fleet.hub.ends()
            (tmp_path / "held.go").touch()
            fleet.start_hub()
            assert held.result(30) == "held", fleet.output()
            assert (tmp_path / "held.started").read_text().count("\n") == 1


def test_the_work_of_a_client_that_was_killed_is_cancelled_after_its_grace_period(tmp_path: Path) -> None:
    with fixed_fleet(tmp_path, "memory", "--session-grace", "1") as fleet:
        fleet.worker()
        script = f"""
            from taskmesh import Mesh
            from tests.system.tasks import tally
            mesh = Mesh({fleet.address!r})
            for n in range(10_000):
                mesh.submit(tally, {str(tmp_path / "ran")!r}, n, 0.01)
            print("submitted", flush=True)
            mesh.shutdown()
            """
        with running(script, tmp_path) as client:
            client.says("submitted")
            until(lambda: tallied(tmp_path / "ran"), "some have run")
            kill(client.process.pid)
        fleet.hub.says("did not come back", 20)
        with Mesh(fleet.address) as mesh:
            assert mesh.submit(double, 1).result(10) == 2, "the worker is free again"
        assert len(tallied(tmp_path / "ran")) < 5000


@task(at_most_once=True)
def once(directory: str) -> str:
    return hold(directory, "once")


def test_at_most_once_is_not_started_twice_when_its_runner_or_its_worker_is_killed(tmp_path: Path) -> None:
    with fixed_fleet(tmp_path, "memory") as fleet:
        worker = fleet.worker()
        with Mesh(fleet.address) as mesh:
            first = mesh.submit(once, str(tmp_path))
            kill(holder(tmp_path, "once"))
            with pytest.raises(WorkerLost):
                first.result(10)
            (tmp_path / "once.started").unlink()
            second = mesh.submit(once, str(tmp_path))
            runner = holder(tmp_path, "once")
            worker.signal(signal.SIGKILL)
            fleet.worker()
            with pytest.raises(WorkerLost, match="at_most_once"):
                second.result(30)
            until(lambda: not alive(runner), "its runner has died with it")
            assert (tmp_path / "once.started").read_text().count("\n") == 1


def test_what_waits_behind_a_long_task_moves_to_a_worker_that_joins(tmp_path: Path) -> None:
    with fixed_fleet(tmp_path, "memory") as fleet:
        fleet.worker()
        with Mesh(fleet.address) as mesh:
            held = mesh.submit(hold, str(tmp_path), "held")
            holder(tmp_path, "held")
            waiting = [mesh.submit(sleep, 0.01) for _ in range(5)]
            fleet.worker()
            assert [future.result(10) for future in waiting] == [0.01] * 5
            (tmp_path / "held.go").touch()
            assert held.result(10) == "held"


def test_what_a_frozen_worker_has_queued_moves_to_another(tmp_path: Path) -> None:
    with fixed_fleet(tmp_path, "memory") as fleet:
        frozen = fleet.worker()
        with Mesh(fleet.address) as mesh:
            held = mesh.submit(hold, str(tmp_path), "held")
            holder(tmp_path, "held")
            began = (tmp_path / "held.started").stat().st_mtime
            until(lambda: time.time() > began + 3 * KEEPER_HEARTBEAT_S, "a heartbeat has said what runs")
            waiting = [mesh.submit(tally, str(tmp_path / "ran"), n) for n in range(20)]
            frozen.signal(signal.SIGSTOP)
            fleet.worker()
            until(lambda: sum(future.done() for future in waiting) >= 19, "all but what its runner was handed")
            assert not held.done()
            (tmp_path / "held.go").touch()
            frozen.signal(signal.SIGCONT)
            assert held.result(10) == "held"
            assert (tmp_path / "held.started").read_text().count("\n") == 1, "what runs does not move"
            assert [future.result(10) for future in waiting] == list(range(20))
        assert sum(tallied(tmp_path / "ran").values()) == 20


def test_a_client_that_was_frozen_for_longer_than_the_verdict_finds_its_results(tmp_path: Path) -> None:
    with fixed_fleet(tmp_path, "memory") as fleet:
        fleet.worker()
        script = f"""
            from taskmesh import Mesh
            from tests.system.tasks import tally
            mesh = Mesh({fleet.address!r})
            futures = [mesh.submit(tally, {str(tmp_path / "ran")!r}, n, 0.005) for n in range(200)]
            print("submitted", flush=True)
            print("sum", sum(future.result(60) for future in futures))
            mesh.shutdown()
            """
        with running(script, tmp_path) as client:
            client.says("submitted")
            until(lambda: len(tallied(tmp_path / "ran")) >= 20, "the hub has its calls")
            client.signal(signal.SIGSTOP)
            until(lambda: "is gone" in fleet.hub.output, "the hub gives it up", 25)
            until(lambda: len(tallied(tmp_path / "ran")) == 200, "its work goes on")
            client.signal(signal.SIGCONT)
            client.says("sum 19900", 30)
            assert client.ends() == 0, client.output
        assert sum(tallied(tmp_path / "ran").values()) == 200


def test_a_hub_that_never_comes_back_is_an_error(tmp_path: Path) -> None:
    with fixed_fleet(tmp_path, "memory") as fleet:
        ticket = choose_hub(fleet.address, None, insecure=False).credentials
        client = Client(fleet.address, "impatient", lost_after=1.0, ticket=ticket)
        client.start(10)
        try:
            place = client.define("double", dump_body(double, "double"), b"d" * 16, None, 0)
            future = client.submitter.submit(place, dump_call((1,), {}, "double"))
            fleet.hub.signal(signal.SIGKILL)
            with pytest.raises(HubUnreachable, match="given up"):
                future.result(20)
        finally:
            client.close()


def test_a_full_disk_refuses_new_work_and_loses_none(tmp_path: Path) -> None:
    """The hub may write 2 MB to a file: for it the disk is full after that."""
    port = free_ports(24)
    arguments = ["hub", "--listen", f"tcp://127.0.0.1:{port}", "--lanes", f"{port + 4}-{port + 23}"]
    arguments += ["--store", f"sqlite://{tmp_path}/hub.db"]
    limited = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000)); "
        f"sys.argv = ['taskmesh', *{arguments!r}]; runpy.run_module('taskmesh', run_name='__main__', alter_sys=True)"
    )
    hub = Started(["-c", limited], tmp_path)
    worker: Started | None = None
    try:
        hub.says("ready at")
        with Mesh(f"tcp://127.0.0.1:{port}") as mesh:
            accepted = [mesh.submit(len, bytes(100_000)) for _ in range(100)]
            hub.says("taking no more tasks")
            refused = mesh.submit(len, bytes(100_000))
            with pytest.raises(HubFull, match=r"full|large|room|space"):
                refused.result(10)
            worker = Started(["-m", "taskmesh", "worker", f"tcp://127.0.0.1:{port}", "-n", "1"], tmp_path)
            outcomes = [future.exception(30) for future in accepted]
            assert all(outcome is None or isinstance(outcome, HubFull) for outcome in outcomes), outcomes
            assert sum(outcome is None for outcome in outcomes) > 10
    finally:
        for started in (worker, hub):
            if started is not None:
                started.end_now()
