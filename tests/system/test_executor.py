"""`Mesh` as an Executor, and which mesh is meant."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from taskmesh import AddressError, HubUnreachable, Mesh, MeshClosed, NestedMeshError, NoTicket, current_mesh, task

from .processes import Fleet, alive, mesh_directories, until
from .tasks import double, hold, note, sleep


def test_it_is_an_executor() -> None:
    with Mesh(workers=1) as mesh:
        assert isinstance(mesh, concurrent.futures.Executor)
        future = mesh.submit(sleep, 0.05)
        assert "private" in repr(mesh)
    assert future.done(), "leaving the block waits"
    assert "closed" in repr(mesh)
    with pytest.raises(RuntimeError, match="shut down"):
        mesh.submit(double, 1)
    with pytest.raises(MeshClosed):
        mesh.map(double, [1])
    mesh.shutdown()
    assert future.result() == 0.05


def test_shutdown_without_waiting(tmp_path: Path) -> None:
    mesh = Mesh(workers=1)
    futures = [mesh.submit(hold, str(tmp_path), "held") for _ in range(20)]
    mesh.shutdown(wait=False)
    assert not any(future.done() for future in futures)
    with pytest.raises(RuntimeError):
        mesh.submit(double, 1)
    (tmp_path / "held.go").touch()
    assert [future.result(10) for future in futures] == ["held"] * 20
    until(lambda: "closed" in repr(mesh), "it has closed")


def test_shutdown_that_cancels(tmp_path: Path) -> None:
    mesh = Mesh(workers=1)
    running = mesh.submit(hold, str(tmp_path), "running")
    until((tmp_path / "running.started").exists, "it runs")
    waiting = [mesh.submit(note, str(tmp_path), "waiting") for _ in range(2000)]
    (tmp_path / "running.go").touch()
    mesh.shutdown(cancel_futures=True)
    assert running.result() == "running"
    assert sum(future.cancelled() for future in waiting) > 500  # some ran before the word arrived
    assert all(future.done() for future in waiting)


def test_whoever_does_not_wait_for_the_end_is_not_held_up_by_those_who_do(tmp_path: Path) -> None:
    mesh = Mesh(workers=1)
    held = mesh.submit(hold, str(tmp_path), "held")
    until((tmp_path / "held.started").exists, "it runs")
    waiting = [mesh.submit(note, str(tmp_path), "waiting") for _ in range(100)]
    held.add_done_callback(lambda _: mesh.shutdown(wait=False))
    ends = threading.Thread(target=mesh.shutdown)
    ends.start()
    until(lambda: not mesh._client.submitter.open, "it waits")
    mesh.shutdown(wait=False, cancel_futures=True)
    until(lambda: all(future.cancelled() for future in waiting), "what has not started is cancelled")
    assert ends.is_alive()
    (tmp_path / "held.go").touch()
    ends.join(20)
    assert not ends.is_alive()
    assert held.result() == "held"


def test_a_signal_handler_may_shut_down_what_its_thread_is_shutting_down(tmp_path: Path) -> None:
    mesh = Mesh(workers=1)
    held = mesh.submit(hold, str(tmp_path), "held")
    until((tmp_path / "held.started").exists, "it runs")
    waiting = mesh.submit(note, str(tmp_path), "waiting")

    def handler(*_: object) -> None:
        (tmp_path / "held.go").touch()
        mesh.shutdown(cancel_futures=True)

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        mesh.shutdown()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert held.result() == "held"
    assert waiting.done()
    assert "closed" in repr(mesh)


def test_whoever_waits_for_the_end_waits_also_if_another_thread_ends_the_mesh() -> None:
    mesh = Mesh(workers=1)
    assert mesh._private is not None
    hub, directory = mesh._private.pid, Path(mesh._private.directory)
    other = threading.Thread(target=mesh.shutdown)
    other.start()
    until(lambda: mesh._closed, "the other one is at it")
    mesh.shutdown()
    assert not alive(hub)
    assert not directory.exists()
    other.join(20)


def test_an_exception_in_the_block_still_ends_the_mesh() -> None:
    futures = []

    def script() -> None:
        with Mesh(workers=1) as mesh:
            futures.append(mesh.submit(sleep, 0.05))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        script()
    assert futures[0].done()


def test_a_private_mesh_leaves_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    before = mesh_directories()
    with Mesh(workers=1) as mesh:
        (name,) = mesh_directories() - before
        path = Path(tempfile.gettempdir()) / name
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert mesh.submit(double, 1).result(10) == 2
    assert not path.exists()
    assert capfd.readouterr() == ("", "")


def test_meshes_in_a_row_leak_no_descriptors_and_no_threads() -> None:
    process = psutil.Process()

    def once() -> tuple[int, int]:
        with Mesh(workers=1) as mesh:
            mesh.submit(double, 1).result(10)
        gc.collect()
        return process.num_fds(), threading.active_count()

    first = once()
    assert [once() for _ in range(3)][-1] <= first


def test_a_mesh_that_nobody_refers_to_finishes_and_goes() -> None:
    mesh = Mesh(workers=1)
    slow, quick = mesh.submit(sleep, 0.05), mesh.submit(double, 4)
    assert mesh._private is not None
    hub = psutil.Process(mesh._private.pid)
    del mesh
    gc.collect()
    assert slow.result(10) == 0.05
    assert quick.result(10) == 8
    until(lambda: not alive(hub.pid), "its hub has ended")


def test_meshes_whose_callbacks_submit_to_each_other_do_not_wait_for_each_other() -> None:
    with Mesh(workers=1, window=3000) as one, Mesh(workers=1, window=3000) as other:

        def fill(mine: Mesh, theirs: Mesh) -> None:
            for _ in range(300):
                mine.submit(abs, -1).add_done_callback(lambda _: theirs.submit(abs, -1))

        threads = [threading.Thread(target=fill, args=pair) for pair in ((one, other), (other, one))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)


def test_a_signal_handler_that_submits_loses_nothing(mesh: Mesh) -> None:
    futures: list[Any] = []
    refused: list[RuntimeError] = []

    def handler(*_: object) -> None:
        try:
            futures.append(mesh.submit(abs, -5))
        except RuntimeError as error:
            refused.append(error)
        signal.setitimer(signal.ITIMER_REAL, 0.0005)

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0005)
        while len(refused) < 3 and len(futures) < 1_000_000:  # until it has come amiss
            futures.append(mesh.submit(abs, -5))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
    assert {future.result(30) for future in futures} == {5}
    assert refused


def test_wrong_arguments_are_refused() -> None:
    wrong: Any = 5
    with pytest.raises(TypeError, match="address"):
        Mesh(wrong)
    with pytest.raises(ValueError, match="connect_timeout"):
        Mesh(connect_timeout=float("nan"))
    for workers in (0, -1, 1.5, True, "2"):
        with pytest.raises(ValueError, match="workers"):
            Mesh(workers=workers)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="private"):
        Mesh("tcp://127.0.0.1:5555", workers=2)
    for address in ("", "http://x:1", "tcp://x:99999", "tcp://x:port"):
        with pytest.raises(AddressError):
            Mesh(address)


def test_in_an_event_loop(mesh: Mesh) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(mesh, double, 4) == 8
        values = await asyncio.gather(*(loop.run_in_executor(mesh, double, n) for n in range(50)))
        assert values == [2 * n for n in range(50)]

    asyncio.run(main())


@pytest.mark.filterwarnings("ignore")
def test_dask_computes_on_a_mesh(mesh: Mesh) -> None:
    dask = pytest.importorskip("dask")
    numbers = [dask.delayed(double)(n) for n in range(20)]
    total = dask.delayed(sum)(numbers)
    with dask.config.set(scheduler=mesh):
        assert total.compute() == 2 * sum(range(20))


# ---- which mesh -----------------------------------------------------------------------------------------------------


@task
def where() -> int:
    """The process that the runner belongs to."""
    return os.getsid(os.getppid())


def test_the_innermost_block_names_the_mesh() -> None:
    with Mesh(workers=1) as outer:
        assert current_mesh() is outer
        with Mesh(workers=1) as inner:
            assert current_mesh() is inner
            first = where.submit().result(10)
        assert current_mesh() is outer
        assert where.submit().result(10) != first
        assert list(where.options(name="x").map([])) == []


def test_threads_use_the_mesh_whose_block_they_are_started_in(mesh: Mesh) -> None:
    with Mesh(workers=1) as outer, concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert pool.submit(current_mesh).result() is outer
        assert current_mesh() is outer


def test_blocks_in_coroutines_do_not_mix() -> None:
    async def one(mesh: Mesh) -> None:
        with mesh:
            for _ in range(5):
                assert current_mesh() is mesh
                await asyncio.sleep(0.001)

    async def main() -> None:
        await asyncio.gather(*(one(Mesh(workers=1)) for _ in range(2)))

    asyncio.run(main())


def test_tasks_cannot_open_meshes_yet(mesh: Mesh) -> None:
    @task
    def nested() -> Any:
        return where.submit().result()

    def opens() -> Any:
        return Mesh()

    for function in (nested, opens):
        with pytest.raises(NestedMeshError):
            mesh.submit(function).result(10)


def test_the_hub_in_the_environment(fleet: Fleet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fleet.worker()
    code = "import taskmesh; print(taskmesh.current_mesh().submit(pow, 2, 5).result(), taskmesh.current_mesh())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TASKMESH_HUB": fleet.address},
        capture_output=True, text=True, timeout=30, check=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout.startswith("32 ")
    assert fleet.address in done.stdout


# ---- hubs that are not there ----------------------------------------------------------------------------------------


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """A port at which something listens that is no hub."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_an_unreachable_hub_is_named(deaf_port: int) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        refused = f"tcp://127.0.0.1:{unused.getsockname()[1]}"
        cases = {
            refused: "nothing listens",
            f"tcp://127.0.0.1:{deaf_port}": "does not answer",
            "tcp://no-such-host.invalid:5555": "no-such-host.invalid",
        }
        for address, said in cases.items():
            began = time.monotonic()
            with pytest.raises(HubUnreachable, match=said) as caught:
                Mesh(address, insecure=True, connect_timeout=0.3)
            assert time.monotonic() - began < 5
            assert address in str(caught.value)
            assert isinstance(caught.value, ConnectionError)


def test_a_hub_that_there_is_no_ticket_for_is_an_error_at_once() -> None:
    with pytest.raises(NoTicket, match="taskmesh ticket create --role client"):
        Mesh("tcp://no-such-host.invalid:5555")


def test_a_hub_of_this_machine_that_is_not_there_is_unreachable_and_not_in_want_of_a_ticket() -> None:
    with pytest.raises(HubUnreachable, match="nothing listens"):
        Mesh("tcp://127.0.0.1:1", connect_timeout=0.3)
