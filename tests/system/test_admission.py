"""What a session takes and what it refuses: the window, chunks that the hub rejects, and cancelling."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest

from taskmesh import Future, HubFull, Mesh, MeshClosed, WindowFull
from taskmesh.core import messages as m

from .processes import until
from .tasks import double, fail, hold, sleep


def length(value: bytes) -> int:
    """Of `value`."""
    return len(value)


# ---- the window -----------------------------------------------------------------------------------------------------


def test_a_submitter_that_is_too_fast_is_slowed_and_loses_nothing() -> None:
    heaviest = 0
    with Mesh(workers=1, window=100_000) as mesh:
        futures = []
        for n in range(2000):
            futures.append(mesh.submit(double, n))
            heaviest = max(heaviest, mesh._client.session.weight)
        assert [future.result() for future in futures] == [2 * n for n in range(2000)]
        items = [b"x" * 5000] * 200
        assert list(mesh.map(length, items, chunksize=1)) == [5000] * 200
        assert mesh._client.session.weight == 0
        mesh._client.session.check()
    assert heaviest < 100_000 + 512 * 600 + 64 * 1024, "the window, and one chunk"


def test_a_full_window_is_an_error_after_its_timeout_and_free_again_later(tmp_path: Path) -> None:
    with Mesh(workers=1, window=2000, window_timeout=0.05) as mesh:
        held = mesh.submit(hold, str(tmp_path), "a")
        waiting = [mesh.submit(double, n) for n in range(1)]
        with pytest.raises(WindowFull, match="unsettled"):
            mesh.submit(length, b"x" * 3000)
        with pytest.raises(WindowFull):
            mesh.map(length, [b"x" * 3000])
        (tmp_path / "a.go").touch()
        assert held.result(20) == "a"
        assert waiting[0].result(20) == 0
        assert mesh.submit(length, b"x" * 3000).result(20) == 3000, "alone, what is larger goes"


def test_an_event_loop_is_told_instead_of_blocked(tmp_path: Path) -> None:
    async def script(mesh: Mesh) -> int:
        held = mesh.submit(hold, str(tmp_path), "a")
        with pytest.raises(WindowFull, match="event loop"):
            mesh.submit(length, b"x" * 3000)
        late = asyncio.create_task(asyncio.to_thread(mesh.submit, length, b"x" * 3000))
        (tmp_path / "a.go").touch()
        assert await held == "a"
        return await (await late)

    with Mesh(workers=1, window=2000) as mesh:
        assert asyncio.run(script(mesh)) == 3000


def test_a_callback_may_submit_into_a_full_window(tmp_path: Path) -> None:
    with Mesh(workers=1, window=1500) as mesh:
        inner: list[Future[int]] = []
        first = mesh.submit(hold, str(tmp_path), "a")
        mesh._client.submitter.window._timeout = None
        first.add_done_callback(lambda _: inner.extend(mesh.submit(length, b"x" * 3000) for _ in range(3)))
        (tmp_path / "a.go").touch()
        until(lambda: len(inner) == 3, "the callback has submitted")
        assert [future.result(20) for future in inner] == [3000] * 3


def test_who_waits_for_room_learns_that_the_mesh_is_shut_down(tmp_path: Path) -> None:
    mesh = Mesh(workers=1, window=1000)
    mesh.submit(hold, str(tmp_path), "a")
    raised: list[BaseException] = []

    def submit() -> None:
        try:
            mesh.submit(length, b"x" * 3000)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=submit)
    thread.start()
    until(lambda: mesh._client.submitter.window.waiting, "it waits")
    mesh.shutdown(wait=False)
    thread.join(20)
    assert isinstance(raised[0], MeshClosed)
    (tmp_path / "a.go").touch()
    until(lambda: "closed" in repr(mesh), "it has closed")


def test_a_window_that_is_none_is_refused() -> None:
    for window in (0, -1, True, 1.5, "1"):
        with pytest.raises(ValueError, match="window must be"):
            Mesh(window=window)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="window_timeout"):
        Mesh(window_timeout=-1)


# ---- what the hub does not take -------------------------------------------------------------------------------------


def test_tasks_that_the_hub_does_not_take_fail_with_its_reason(tmp_path: Path) -> None:
    with Mesh(workers=1) as mesh:
        client = mesh._client
        assert client is not None
        held = mesh.submit(hold, str(tmp_path), "a")
        future = mesh.submit(double, 1)
        results = mesh.map(double, [2, 3])
        client.submitter.flush_all()
        for place in (future._place, results_place(mesh)):
            for first in list(client.session.specs[place.number].sent):
                client.on_message(m.Rejected(place.number, first, "its disk is full"))
        with pytest.raises(HubFull, match="did not take tasks of double: its disk is full"):
            future.result(20)
        with pytest.raises(HubFull):
            next(results)
        client.session.check()
        (tmp_path / "a.go").touch()
        assert held.result(20) == "a"
        assert client.session.weight == 0


def results_place(mesh: Mesh) -> Any:
    """Where the map's tasks of `double` are."""
    return next(place for reference, place in mesh._places.known.values() if reference() is double)


# ---- a hub that forgets while callers submit ------------------------------------------------------------------------


def test_callers_that_submit_while_the_hub_forgets_lose_nothing_and_get_nothing_twice() -> None:
    """Their chunks must not go before those that are offered again; every result is the right one, and each comes."""
    stop = threading.Event()
    results: list[list[tuple[int, Future[int]]]] = [[] for _ in range(3)]
    ended: list[Future[int]] = []

    def caller(mine: list[tuple[int, Future[int]]]) -> None:
        n = 0
        while not stop.is_set():
            for _ in range(50):
                future = mesh.submit(double, n)
                future.add_done_callback(ended.append)
                mine.append((n, future))
                n += 1
            mine[-1][1].result(60)

    with Mesh(workers=1, window=500_000) as mesh:
        assert mesh._private is not None
        threads = [threading.Thread(target=caller, args=(mine,)) for mine in results]
        for thread in threads:
            thread.start()
        for _ in range(3):
            before = len(ended)
            until(lambda before=before: len(ended) > before + 500, "tasks end", 60)  # type: ignore[misc]
            os.kill(mesh._private.pid, signal.SIGKILL)
        stop.set()
        for thread in threads:
            thread.join(90)
            assert not thread.is_alive()
        everything = [pair for mine in results for pair in mine]
        assert all(future.result(60) == 2 * n for n, future in everything)
        until(lambda: len(ended) >= len(everything), "every callback was called")
        assert len(ended) == len(everything) == len(set(ended))
        with mesh._client.lock:
            mesh._client.session.check()
            assert mesh._client.session.weight == 0


# ---- cancelling -----------------------------------------------------------------------------------------------------


def test_what_waits_is_cancelled_together(tmp_path: Path) -> None:
    with Mesh(workers=1) as mesh:
        running = mesh.submit(hold, str(tmp_path), "a")
        until((tmp_path / "a.started").exists, "it runs")
        waiting = [mesh.submit(sleep, n / 1000) for n in range(1500)]
        assert mesh.cancel(waiting) == 1500
        assert mesh.cancel(waiting[0]) == 1, "again"
        assert mesh.cancel([]) == 0
        assert mesh.cancel(running) == 0
        (tmp_path / "a.go").touch()
        assert running.result(20) == "a"


def test_what_runs_is_interrupted_when_asked(tmp_path: Path) -> None:
    with Mesh(workers=1) as mesh:
        running = mesh.submit(hold, str(tmp_path), "a")
        until((tmp_path / "a.started").exists, "it runs")
        mesh.cancel(running, interrupt=True)
        with pytest.raises(CancelledError):
            running.result(20)
        assert mesh.submit(double, 2).result(20) == 4, "the runner, or another, goes on"


def test_threads_that_cancel_one_task_do_not_wait_for_each_other(tmp_path: Path) -> None:
    with Mesh(workers=1) as mesh:
        running = mesh.submit(hold, str(tmp_path), "a")
        until((tmp_path / "a.started").exists, "it runs")
        waiting = mesh.submit(sleep, 0)
        took: list[float] = []
        barrier = threading.Barrier(4)

        def cancel() -> None:
            barrier.wait()
            began = time.monotonic()
            assert waiting.cancel()
            took.append(time.monotonic() - began)

        threads = [threading.Thread(target=cancel) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        (tmp_path / "a.go").touch()
        assert running.result(20) == "a"
    assert len(took) == 4
    assert max(took) < 0.7


def test_cancelling_in_an_event_loop_does_not_wait(tmp_path: Path) -> None:
    async def script(mesh: Mesh) -> None:
        running = mesh.submit(hold, str(tmp_path), "a")
        while not (tmp_path / "a.started").exists():
            await asyncio.sleep(0.01)
        waiting = mesh.submit(sleep, 0)
        question = mesh._client._questions
        waiting.cancel()
        assert not question._asked, "nobody waits"
        with pytest.raises(asyncio.CancelledError):
            await waiting
        (tmp_path / "a.go").touch()
        assert await running == "a"

    with Mesh(workers=1) as mesh:
        asyncio.run(script(mesh))


def test_only_futures_of_this_mesh_can_be_cancelled(mesh: Mesh) -> None:
    with pytest.raises(TypeError, match="not int"):
        mesh.cancel([3])  # type: ignore[list-item]
    with Mesh(workers=1) as other:
        future = other.submit(double, 1)
        with pytest.raises(ValueError, match="another mesh"):
            mesh.cancel(future)


# ---- asyncio --------------------------------------------------------------------------------------------------------


def test_awaiting_a_task_that_raised_stop_iteration_ends(mesh: Mesh) -> None:
    async def script() -> None:
        with pytest.raises(RuntimeError) as info:
            await asyncio.wait_for(_awaited(mesh.submit(fail, StopIteration(3))), 20)
        assert isinstance(info.value.__cause__, StopIteration)
        assert info.value.__cause__.value == 3

    asyncio.run(script())


async def _awaited(future: Future[Any]) -> Any:
    return await future


def test_a_mesh_in_an_async_with_lets_the_loop_run_while_it_ends() -> None:
    async def script() -> tuple[Future[float], int]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.01)

        async with Mesh(workers=1) as mesh:
            future = mesh.submit(sleep, 0.3)
            ticker = asyncio.create_task(tick())
        ticker.cancel()
        return future, ticks

    future, ticks = asyncio.run(script())
    assert future.result() == 0.3
    assert ticks > 3


def test_a_cancelled_async_with_cancels_what_waits(tmp_path: Path) -> None:
    futures: list[Future[Any]] = []

    async def script() -> None:
        async with Mesh(workers=1) as mesh:
            futures.append(mesh.submit(hold, str(tmp_path), "a"))
            while not (tmp_path / "a.started").exists():
                await asyncio.sleep(0.01)
            futures.extend(mesh.submit(sleep, 0.001 * n) for n in range(1000))
            (tmp_path / "a.go").touch()
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(script())
    assert futures[0].result() == "a"
    assert sum(future.cancelled() for future in futures) > 500
    assert all(future.done() for future in futures)
