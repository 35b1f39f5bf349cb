"""A hub and workers on loopback TCP, each of which may die or stop."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from taskmesh import Mesh, ModuleMissing

from .processes import Fleet, Started, holder, kill, run, until, write_script
from .tasks import double, hold, sleep


def test_two_workers_share_the_work(fleet: Fleet) -> None:
    fleet.worker()
    fleet.worker()
    with Mesh(fleet.address) as mesh:
        assert fleet.address in repr(mesh)
        assert list(mesh.map(double, range(20_000))) == [2 * n for n in range(20_000)]
        assert len(set(mesh.map(_parent_after_a_while, range(40)))) == 2
        futures = [mesh.submit(double, n) for n in range(2000)]
        assert [future.result(20) for future in futures] == [2 * n for n in range(2000)]


def _parent_after_a_while(_: int) -> int:
    sleep(0.01)
    return os.getppid()


def test_work_waits_for_the_first_worker(fleet: Fleet) -> None:
    with Mesh(fleet.address) as mesh:
        futures = [mesh.submit(double, n) for n in range(10)]
        with pytest.raises(TimeoutError):
            futures[0].result(0.3)
        fleet.worker()
        assert [future.result(10) for future in futures] == [2 * n for n in range(10)]


def test_a_killed_runner_on_a_worker(fleet: Fleet, tmp_path: Path) -> None:
    fleet.worker(2)
    with Mesh(fleet.address) as mesh:
        held = mesh.submit(hold, str(tmp_path), "held")
        kill(holder(tmp_path, "held"))
        until(lambda: (tmp_path / "held.started").read_text().count("\n") == 2, "it runs again")
        (tmp_path / "held.go").touch()
        assert held.result(10) == "held"


def test_a_killed_worker_and_another(fleet: Fleet, tmp_path: Path) -> None:
    first = fleet.worker()
    with Mesh(fleet.address) as mesh:
        held = mesh.submit(hold, str(tmp_path), "held")
        waiting = [mesh.submit(double, n) for n in range(200)]
        holder(tmp_path, "held")
        first.signal(signal.SIGKILL)
        fleet.worker()
        until(lambda: (tmp_path / "held.started").read_text().count("\n") == 2, "it runs again", 30)
        (tmp_path / "held.go").touch()
        assert held.result(10) == "held"
        assert [future.result(20) for future in waiting] == [2 * n for n in range(200)]


def test_a_worker_stopped_for_a_while_and_continued(fleet: Fleet) -> None:
    worker = fleet.worker()
    with Mesh(fleet.address) as mesh:
        assert mesh.submit(double, 1).result(10) == 2
        futures = [mesh.submit(sleep, 0.002) for _ in range(500)]
        results = mesh.map(double, range(1000))
        worker.signal(signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            futures[-1].result(1.5)
        worker.signal(signal.SIGCONT)
        assert [future.result(30) for future in futures] == [0.002] * 500
        assert list(results) == [2 * n for n in range(1000)]


def test_a_hub_stopped_for_a_while_and_continued(fleet: Fleet) -> None:
    fleet.worker()
    with Mesh(fleet.address) as mesh:
        futures = [mesh.submit(sleep, 0.001) for _ in range(500)]
        fleet.hub.signal(signal.SIGSTOP)
        more = [mesh.submit(double, n) for n in range(500)]
        with pytest.raises(TimeoutError):
            more[-1].result(1.5)
        fleet.hub.signal(signal.SIGCONT)
        assert [future.result(30) for future in futures] == [0.001] * 500
        assert [future.result(30) for future in more] == [2 * n for n in range(500)]


def test_a_worker_starts_nothing_while_its_hub_is_silent_and_goes_on_after(fleet: Fleet, tmp_path: Path) -> None:
    fleet.worker()
    with Mesh(fleet.address) as mesh:
        held = mesh.submit(hold, str(tmp_path), "held")
        holder(tmp_path, "held")
        next_one = mesh.submit(hold, str(tmp_path), "next")
        fleet.hub.signal(signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            next_one.result(3.0)
        (tmp_path / "held.go").touch()
        (tmp_path / "next.go").touch()
        with pytest.raises(TimeoutError):
            next_one.result(1.0)
        assert not (tmp_path / "next.started").exists()
        fleet.hub.signal(signal.SIGCONT)
        assert (held.result(15), next_one.result(15)) == ("held", "next")
        assert (tmp_path / "held.started").read_text().count("\n") == 1


def test_several_clients_at_once(fleet: Fleet) -> None:
    fleet.worker(2)
    sums: list[int] = []

    def client() -> None:
        with Mesh(fleet.address) as mesh:
            sums.append(sum(future.result(20) for future in [mesh.submit(double, n) for n in range(1000)]))

    threads = [threading.Thread(target=client) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sums == [2 * sum(range(1000))] * 4


def test_a_killed_client_frees_the_workers(fleet: Fleet, tmp_path: Path) -> None:
    fleet.worker()
    source = f"""
        import time
        from taskmesh import Mesh
        mesh = Mesh({fleet.address!r})
        def slow(n):
            open("started", "a").write("x")
            time.sleep(0.2)
        futures = [mesh.submit(slow, n) for n in range(1000)]
        futures[0].result()
        print("ready", flush=True)
        futures[-1].result()
        """
    client = Started([write_script(tmp_path, source)], tmp_path)
    try:
        client.says("ready")
    finally:
        client.end_now()
    with Mesh(fleet.address) as mesh:
        assert mesh.submit(double, 2).result(20) == 4


def test_a_module_that_a_worker_lacks_is_named_with_host_and_remedy(fleet: Fleet, tmp_path: Path) -> None:
    worker_side = fleet.worker()
    assert worker_side.process.poll() is None
    script_directory = tmp_path / "mine"
    script_directory.mkdir()
    (script_directory / "only_here.py").write_text("def f(x):\n    return x\nclass Thing:\n    pass\n")
    failing = f"""
        import os
        import only_here
        from taskmesh import Mesh, ModuleMissing
        with Mesh({fleet.address!r}) as mesh:
            for attempt in (lambda: mesh.submit(only_here.f, 1), lambda: mesh.submit(repr, only_here.Thing())):
                try:
                    attempt().result(10)
                except ModuleNotFoundError as error:
                    assert isinstance(error, ModuleMissing)
                    assert "'only_here'" in str(error), error
                    assert os.uname().nodename in str(error), error
                    assert "PYTHONPATH" in str(error), error
                    assert "cloudpickle.register_pickle_by_value(only_here)" in str(error), error
                else:
                    raise AssertionError
        print("named")
        """
    remedied = f"""
        import cloudpickle
        import only_here
        cloudpickle.register_pickle_by_value(only_here)
        from taskmesh import Mesh
        with Mesh({fleet.address!r}) as mesh:
            thing = mesh.submit(only_here.f, only_here.Thing()).result(10)
            print(type(thing) is only_here.Thing, list(mesh.map(only_here.f, [1, 2])))
        """
    assert run(failing, script_directory) == "named\n"
    assert run(remedied, script_directory) == "True [1, 2]\n"


def test_the_error_can_be_caught_by_its_own_name() -> None:
    assert issubclass(ModuleMissing, ModuleNotFoundError)
