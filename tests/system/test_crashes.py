"""Tasks that end their process, and processes that are ended: what is lost is nothing."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from taskmesh import InitializerFailed, MemoryLimitExceeded, Mesh, WorkerLost, task

from .processes import holder, kill, until, until_it_raises
from .tasks import double, hold, note, pid, sleep


@pytest.fixture(scope="module")
def own() -> Iterator[Mesh]:
    """A mesh whose runners die in these tests."""
    with Mesh(workers=2) as mesh:
        yield mesh


def exit_hard() -> NoReturn:
    os._exit(3)


def crash() -> None:
    ctypes.string_at(0)


def kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("death", "said"), [(exit_hard, "code 3"), (crash, "SIGSEGV"), (kill_itself, "SIGKILL")], ids=lambda v: str(v)[:12]
)
def test_a_task_that_kills_its_runner_fails_after_three_deaths(
    own: Mesh, death: Callable[[], object], said: str
) -> None:
    innocent = [own.submit(sleep, 0.001) for _ in range(50)]
    guilty = own.submit(death)
    innocent += [own.submit(sleep, 0.001) for _ in range(50)]
    with pytest.raises(WorkerLost, match=said) as caught:
        guilty.result(15)
    assert guilty.id in str(caught.value)
    assert death.__name__ in str(caught.value)
    assert [future.result(15) for future in innocent] == [0.001] * 100


class KillsWhenLoaded:
    """Ends whoever unpickles it."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return os._exit, (9,)


@pytest.mark.parametrize("what", ["initializer", "function", "first item", "item", "argument"])
def test_whatever_kills_a_runner_while_it_loads_is_blamed(what: str) -> None:
    """Or its runners would be started again and again, and nobody ever told."""
    loaded: Any = KillsWhenLoaded()
    prepared: Any = {"initializer": os._exit, "initargs": (9,)} if what == "initializer" else {}
    calls: dict[str, Callable[[Mesh], object]] = {
        "initializer": lambda mesh: mesh.submit(double, 1).result(20),
        "function": lambda mesh: mesh.submit(lambda x: (loaded, x), 1).result(20),
        "first item": lambda mesh: list(mesh.map(double, [loaded, 1], timeout=20)),
        "item": lambda mesh: list(mesh.map(double, [1, 2, loaded], timeout=20)),
        "argument": lambda mesh: mesh.submit(double, loaded).result(20),
    }
    with Mesh(workers=1, **prepared) as mesh:
        with pytest.raises(WorkerLost, match="code 9"):
            calls[what](mesh)
        if what != "initializer":
            assert mesh.submit(double, 1).result(20) == 2


def fills_memory() -> None:
    taken = b"x" * 400_000_000
    time.sleep(20)
    del taken


def test_too_much_memory_while_a_task_is_prepared_fails_that_task() -> None:
    """Or its runner would be replaced by the next one that takes as much."""
    with Mesh(workers=1, initializer=fills_memory) as mesh, pytest.raises(MemoryLimitExceeded):
        mesh.submit(task(memory="200MB")(double), 1).result(15)


@pytest.mark.parametrize("items", [range(100), list(range(100))], ids=["range", "list"])
def test_only_the_item_that_kills_is_blamed_in_a_map(own: Mesh, items: Iterable[int]) -> None:
    def some(n: int) -> int:
        if n == 50:
            os._exit(9)
        return n

    got: list[Any] = []
    with pytest.raises(WorkerLost, match="code 9"):
        until_it_raises(own.map(some, items), got)
    assert got == list(range(50))
    assert list(own.map(double, range(100))) == [2 * n for n in range(100)]


@pytest.mark.parametrize("error", [SystemExit(4), KeyboardInterrupt("stop")], ids=lambda error: type(error).__name__)
def test_leaving_exceptions_fail_the_task_and_not_the_runner(own: Mesh, error: BaseException) -> None:
    def leave() -> None:
        raise error

    before = {own.submit(pid).result(10) for _ in range(20)}
    assert type(own.submit(leave).exception(10)) is type(error)
    assert {own.submit(pid).result(10) for _ in range(20)} <= before | {own.submit(pid).result(10)}


def test_a_killed_runner_runs_its_task_again(tmp_path: Path) -> None:
    with Mesh(workers=1) as mesh:
        called: list[object] = []
        future = mesh.submit(hold, str(tmp_path), "held")
        future.add_done_callback(called.append)
        others = [mesh.submit(double, n) for n in range(20)]
        kill(holder(tmp_path, "held"))
        until(lambda: (tmp_path / "held.started").read_text().count("\n") == 2, "it runs again")
        (tmp_path / "held.go").touch()
        assert future.result(10) == "held"
        assert [other.result(10) for other in others] == [2 * n for n in range(20)]
        assert called == [future]
    assert (tmp_path / "held.started").read_text().count("\n") == 2


def test_a_task_that_forks_ends_once(own: Mesh, tmp_path: Path) -> None:
    def forks(name: str) -> int:
        if os.fork() == 0:
            sys.exit(0)
        return os.getpid()

    def returns_twice(name: str) -> str:
        child = os.fork()
        if child:
            os.waitpid(child, 0)
        return note(str(tmp_path), name)

    assert all(isinstance(own.submit(forks, "x").result(10), int) for _ in range(3))
    futures = [own.submit(returns_twice, f"n{n}") for n in range(5)]
    assert [future.result(10) for future in futures] == [f"n{n}" for n in range(5)]
    assert all((tmp_path / f"n{n}.started").read_text().count("\n") == 2 for n in range(5))


def test_tasks_may_use_processes_of_their_own(own: Mesh) -> None:
    def pool(n: int) -> list[int]:
        import multiprocessing

        with multiprocessing.get_context("fork").Pool(2) as workers:
            return workers.map(abs, range(-n, 0))

    def command() -> bytes:
        import subprocess

        return subprocess.run(["echo", "hi"], capture_output=True, check=True).stdout

    assert own.submit(pool, 3).result(15) == [3, 2, 1]
    assert own.submit(command).result(15) == b"hi\n"


def test_a_task_that_kills_the_parent_of_all_runners(own: Mesh, tmp_path: Path) -> None:
    flag = tmp_path / "flag"

    def patricide() -> str:
        if flag.exists():
            return "survived"
        flag.touch()
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(10)
        raise AssertionError

    future = own.submit(patricide)
    others = [own.submit(double, n) for n in range(50)]
    assert future.result(15) == "survived"
    assert [other.result(15) for other in others] == [2 * n for n in range(50)]


def test_a_stopped_runner_holds_up_nothing_but_its_task(tmp_path: Path) -> None:
    with Mesh(workers=2) as mesh:
        held = mesh.submit(hold, str(tmp_path), "held")
        runner = holder(tmp_path, "held")
        os.kill(runner, signal.SIGSTOP)
        try:
            assert list(mesh.map(double, range(2000))) == [2 * n for n in range(2000)]
            assert not held.done()
        finally:
            (tmp_path / "held.go").touch()
            os.kill(runner, signal.SIGCONT)
        assert held.result(10) == "held"


def test_the_hub_killed_under_load_is_started_again(tmp_path: Path) -> None:
    with Mesh(workers=2) as mesh:
        assert mesh.submit(double, 1).result(10) == 2
        assert mesh._private is not None
        first = mesh._private.pid
        futures = [mesh.submit(sleep, 0.001) for _ in range(1000)]
        results = mesh.map(double, range(5000))
        mapped = [next(results)]
        kill(first)
        more = [mesh.submit(double, n) for n in range(500)]
        mapped += results
        assert mapped == [2 * n for n in range(5000)]
        assert [future.result(20) for future in futures] == [0.001] * 1000
        assert [future.result(20) for future in more] == [2 * n for n in range(500)]
        assert mesh._private.pid != first


# ---- initializers ---------------------------------------------------------------------------------------------------


def prepare(directory: str, value: int) -> None:
    """Leaves its value in the process."""
    note(directory, f"runner-{os.getpid()}")
    os.environ["PREPARED"] = str(value)


def prepared() -> str | None:
    """What `prepare` left."""
    return os.environ.get("PREPARED")


def test_the_initializer_runs_once_in_each_runner(tmp_path: Path) -> None:
    with Mesh(workers=2, initializer=prepare, initargs=(str(tmp_path), 5)) as mesh:
        assert {mesh.submit(prepared).result(10) for _ in range(20)} == {"5"}
        assert set(mesh.map(lambda _: prepared(), range(1000))) == {"5"}
        kill(mesh.submit(pid).result(10))
        assert {mesh.submit(prepared).result(10) for _ in range(20)} == {"5"}
    started = list(tmp_path.glob("runner-*"))
    assert 1 <= len(started) <= 4
    assert all(path.read_text().count("\n") == 1 for path in started)


def test_a_failing_initializer_fails_the_tasks() -> None:
    def broken() -> NoReturn:
        raise LookupError("no licence")

    def leaves() -> NoReturn:
        sys.exit(1)

    for initializer in (broken, leaves):
        with Mesh(workers=1, initializer=initializer) as mesh:
            with pytest.raises(InitializerFailed, match=r"no licence|SystemExit"):
                mesh.submit(double, 1).result(10)
            with pytest.raises(InitializerFailed):
                list(mesh.map(double, [1]))


def test_a_wrong_initializer_is_refused() -> None:
    wrong: Any = 3
    with pytest.raises(TypeError, match="initializer"):
        Mesh(workers=1, initializer=wrong)
