"""How tasks end: results, exceptions, what cannot travel, and what futures say of it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import os
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import taskmesh
from taskmesh import Future, Mesh, PayloadError, RemoteError, TaskInfo, current_task

from .processes import until
from .tasks import (
    BreaksWhenLoaded,
    BreaksWhenPickled,
    HoldsUnpicklable,
    TwoArguments,
    add,
    double,
    fail,
    hold,
    information,
    note,
    sleep,
)

# ---- futures --------------------------------------------------------------------------------------------------------


def test_the_functions_of_concurrent_futures_take_our_futures(mesh: Mesh) -> None:
    futures = [mesh.submit(double, n) for n in range(50)]
    done, pending = concurrent.futures.wait(futures, 10)
    assert done == set(futures)
    assert not pending
    assert sorted(f.result() for f in concurrent.futures.as_completed(futures, 10)) == [2 * n for n in range(50)]
    slow = mesh.submit(sleep, 0.3)
    quick = mesh.submit(double, 1)
    both: list[Future[Any]] = [slow, quick]
    assert quick in concurrent.futures.wait(both, 10, concurrent.futures.FIRST_COMPLETED).done
    assert slow.result(10) == 0.3


def test_our_own_functions_take_any_future(mesh: Mesh) -> None:
    futures = [mesh.submit(double, n) for n in range(10)]
    assert taskmesh.gather(futures) == taskmesh.gather(*futures) == [2 * n for n in range(10)]
    assert taskmesh.gather([futures[0], [futures[1], (futures[2],)], []]) == [0, [2, [4]], []]
    assert taskmesh.gather([]) == []
    done, pending = taskmesh.wait(iter(futures), 10)
    assert (len(done), len(pending)) == (10, 0)
    assert {f.result() for f in taskmesh.as_completed(futures, 10)} == {2 * n for n in range(10)}
    with pytest.raises(TypeError):
        taskmesh.gather(futures[0], 3)
    other: concurrent.futures.Future[int] = concurrent.futures.Future()
    other.set_result(5)
    assert taskmesh.gather(other, futures[1]) == [5, 2]


def test_timeouts_name_the_task_and_leave_it_alone(mesh: Mesh) -> None:
    slow = mesh.submit(sleep, 0.4)
    with pytest.raises(TimeoutError):
        slow.result(0.01)
    with pytest.raises(TimeoutError):
        slow.exception(timeout=0.01)
    with pytest.raises(TimeoutError):
        taskmesh.gather(slow, timeout=0.01)
    with pytest.raises(TimeoutError):
        list(taskmesh.as_completed([slow], timeout=0.01))
    assert taskmesh.wait([slow], 0.01).not_done == {slow}
    assert slow.result() == 0.4
    assert slow.exception() is None


def test_repr_says_id_function_and_state(mesh: Mesh) -> None:
    future = mesh.submit(double, 1)
    future.result()
    assert future.id in repr(future)
    assert "double" in repr(future)
    assert "finished" in repr(future)
    failed = mesh.submit(fail, ValueError("x"))
    failed.exception()
    assert "ValueError" in repr(failed)


def test_callbacks_run_once_and_may_submit_again(mesh: Mesh) -> None:
    finished = threading.Event()
    seen: list[int] = []

    def again(future: concurrent.futures.Future[int]) -> None:
        seen.append(future.result())
        if len(seen) < 200:
            mesh.submit(double, len(seen)).add_done_callback(again)
        else:
            finished.set()

    mesh.submit(double, 0).add_done_callback(again)
    assert finished.wait(15)
    assert seen == [2 * n for n in range(200)]


def test_a_callback_that_raises_or_exits_harms_nobody(mesh: Mesh, caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: object) -> None:
        raise ValueError("in a callback")

    def leaving(_: object) -> None:
        sys.exit(3)

    called = threading.Event()
    future = mesh.submit(sleep, 0.02)
    future.add_done_callback(broken)
    future.add_done_callback(leaving)
    future.add_done_callback(lambda _: called.set())
    assert called.wait(10)
    assert "in a callback" in caplog.text
    assert mesh.submit(double, 2).result(10) == 4


def test_waiting_in_a_callback_is_an_error_and_not_a_hang() -> None:
    errors: list[BaseException] = []

    def callback(_: object) -> None:
        waits: list[Callable[[], object]] = [
            lambda: mesh.submit(sleep, 0.1).result(),
            lambda: taskmesh.wait([mesh.submit(sleep, 0.1)]),
            lambda: taskmesh.wait([mesh.submit(sleep, 0.1)], return_when=concurrent.futures.FIRST_COMPLETED),
            lambda: taskmesh.wait([mesh.submit(sleep, 0.1)], return_when=concurrent.futures.FIRST_EXCEPTION),
            lambda: list(mesh.map(double, [1])),
            mesh.shutdown,
        ]
        for wait in waits:
            try:
                wait()
            except RuntimeError as error:
                errors.append(error)
        called.set()

    called = threading.Event()
    with Mesh(workers=1) as mesh:
        mesh.submit(sleep, 0.02).add_done_callback(callback)
        assert called.wait(10)
        assert [("callback" in str(error)) for error in errors] == [True] * 6
        assert mesh.submit(double, 1).result(10) == 2


def test_the_current_mesh_of_a_callback_is_the_mesh_that_calls_it(mesh: Mesh) -> None:
    found: list[Mesh] = []
    called = threading.Event()

    def callback(_: object) -> None:
        found.append(taskmesh.current_mesh())
        called.set()

    mesh.submit(sleep, 0.02).add_done_callback(callback)
    assert called.wait(10)
    assert found == [mesh]


def test_await_and_wrap_future(mesh: Mesh) -> None:
    async def main() -> None:
        assert await mesh.submit(double, 4) == 8
        assert await asyncio.wrap_future(mesh.submit(double, 5)) == 10
        assert await asyncio.gather(*(mesh.submit(double, n) for n in range(100))) == [2 * n for n in range(100)]
        with pytest.raises(ValueError, match="far away"):
            await mesh.submit(fail, ValueError("far away"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.wrap_future(mesh.submit(sleep, 0.2)), 0.02)

    asyncio.run(main())


def test_cancel_works_until_a_task_has_started(tmp_path: Path) -> None:
    with Mesh(workers=1) as mesh:
        running = mesh.submit(hold, str(tmp_path), "running")
        until((tmp_path / "running.started").exists, "it runs")
        waiting = [mesh.submit(note, str(tmp_path), f"n{n}") for n in range(20)]
        assert not running.cancel()
        assert all(future.cancel() for future in waiting)
        assert all(future.cancelled() and future.done() and future.cancel() for future in waiting)
        with pytest.raises(concurrent.futures.CancelledError):
            waiting[0].result()
        assert "cancelled" in repr(waiting[0])
        (tmp_path / "running.go").touch()
        assert running.result(10) == "running"
        assert not running.cancel()
        assert mesh.submit(double, 1).result(10) == 2
    assert not list(tmp_path.glob("n*.started"))


# ---- current_task ---------------------------------------------------------------------------------------------------


def test_current_task_names_the_task_that_runs(mesh: Mesh) -> None:
    assert current_task() is None
    futures = [mesh.submit(information) for _ in range(20)]
    for future in futures:
        told = future.result()
        assert told == TaskInfo(future.id, 1, "information", os.uname().nodename)
    assert current_task() is None


def test_current_task_is_right_for_every_item_of_a_map(mesh: Mesh) -> None:
    def tell(item: int, other: int) -> tuple[int, str]:
        told = current_task()
        assert told is not None
        return item + other, told.id

    ids = []
    for n, (item, told) in enumerate(mesh.map(tell, range(3000), itertools.repeat(1))):
        assert item == n + 1
        ids.append(told)
    numbers = [int(told.rpartition("-")[2]) for told in ids]
    assert numbers == list(range(3000))
    assert len({told.rpartition("-")[0] for told in ids}) == 1


# ---- exceptions -----------------------------------------------------------------------------------------------------


class Special(Exception):
    """An exception of this module."""


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a", 1),
        KeyError("k"),
        FileNotFoundError(2, "No such file", "x"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        Special("special"),
        ExceptionGroup("group", [ValueError(1), Special("two")]),
        StopIteration("stop"),
        GeneratorExit(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_same_exception_arrives_with_the_remote_traceback(mesh: Mesh, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        mesh.submit(fail, error).result(10)
    assert str(caught.value) == str(error)
    printed = "".join(traceback.format_exception(caught.value))
    assert "in fail" in printed
    assert "raise error" in printed
    assert "runner.py" not in printed


def test_notes_and_causes_are_shown() -> None:
    def chained() -> None:
        try:
            raise KeyError("inner")
        except KeyError as inner:
            outer = ValueError("outer")
            outer.add_note("a note")
            raise outer from inner

    with Mesh(workers=1) as mesh:
        with pytest.raises(ValueError, match="outer") as caught:
            mesh.submit(chained).result(10)
        assert caught.value.__notes__ == ["a note"]
        printed = "".join(traceback.format_exception(caught.value))
        assert "KeyError: 'inner'" in printed
        assert "direct cause" in printed


@pytest.mark.parametrize("make", [lambda: TwoArguments(1, 2), lambda: HoldsUnpicklable("text")])
def test_an_exception_that_cannot_travel_arrives_as_remote_error(mesh: Mesh, make: Any) -> None:
    def raises() -> None:
        raise make()

    with pytest.raises(RemoteError) as caught:
        mesh.submit(raises).result(10)
    assert caught.value.type_name.endswith(type(make()).__name__)
    assert caught.value.message == str(make())
    assert "in raises" in caught.value.remote_traceback


def test_an_exception_that_misbehaves_when_printed_or_loaded(mesh: Mesh) -> None:
    class NoText(Exception):
        def __str__(self) -> str:
            raise SystemExit(4)

    class Exits(Exception):
        def __reduce__(self) -> Any:
            return sys.exit, (5,)

    def raises(cls: type[Exception]) -> None:
        raise cls("x")

    assert type(mesh.submit(raises, NoText).exception(10)).__name__ == "NoText"
    assert isinstance(mesh.submit(raises, Exits).exception(10), RemoteError)
    assert mesh.submit(double, 2).result(10) == 4


# ---- what cannot travel ---------------------------------------------------------------------------------------------


def test_an_unpicklable_result_fails_that_task_alone(mesh: Mesh) -> None:
    def some(n: int) -> Any:
        return BreaksWhenPickled() if n == 5 else threading.Lock() if n == 7 else n

    futures = [mesh.submit(some, n) for n in range(10)]
    for n, future in enumerate(futures):
        if n in (5, 7):
            assert isinstance(future.exception(10), PayloadError)
            assert "some" in str(future.exception())
        else:
            assert future.result(10) == n


def test_an_argument_that_cannot_be_unpickled_fails_that_task_alone(mesh: Mesh) -> None:
    arguments = [BreaksWhenLoaded() if n == 5 else n for n in range(10)]
    futures = [mesh.submit(repr, argument) for argument in arguments]
    for n, future in enumerate(futures):
        if n == 5:
            with pytest.raises(PayloadError, match="broken when loaded"):
                future.result(10)
        else:
            assert future.result(10) == str(n)


def test_a_result_that_cannot_be_unpickled_fails_that_task_alone(mesh: Mesh) -> None:
    def some(n: int) -> Any:
        return BreaksWhenLoaded() if n == 5 else [n]

    futures = [mesh.submit(some, n) for n in range(10)]
    for n, future in enumerate(futures):
        if n == 5:
            with pytest.raises(PayloadError, match="broken when loaded"):
                future.result(10)
        else:
            assert future.result(10) == [n]


def test_lambdas_and_objects_of_local_classes_come_back(mesh: Mesh) -> None:
    def function() -> Any:
        return lambda x: x + 1

    def instance() -> Any:
        class Local:
            def value(self) -> int:
                return 3

        return Local()

    assert mesh.submit(function).result(10)(4) == 5
    assert mesh.submit(instance).result(10).value() == 3


def test_results_of_every_size_and_kind(mesh: Mesh) -> None:
    values: list[Any] = [None, True, 1.5, "é", b"\x00", (1, [2, {3}]), float("inf"), 10**100, "x" * 300_000, {}]
    for value in values:
        assert mesh.submit(_same, value).result(10) == value
    nested: list[Any] = []
    nested.append(nested)
    again = mesh.submit(_same, nested).result(10)
    assert again[0] is again


def _same(value: Any) -> Any:
    return value


def test_what_tasks_print_reaches_the_script(mesh: Mesh, capfd: pytest.CaptureFixture[str]) -> None:
    """The shared mesh was started under another capture; so this one is started under this test's."""
    with Mesh(workers=1) as own:
        own.submit(print, "printed by a task").result(10)
        own.submit(print, "and an error", file=None).result(10)
    out = capfd.readouterr().out
    assert "printed by a task\n" in out
    assert "and an error\n" in out
    assert mesh.submit(add, 1, 2).result(10) == 3


def test_future_is_generic_and_public() -> None:
    assert issubclass(Future, concurrent.futures.Future)
    assert set(taskmesh.__all__) <= set(dir(taskmesh))
    assert all(hasattr(taskmesh, name) for name in taskmesh.__all__)
