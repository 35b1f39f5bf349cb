"""`map`: in order, lazily, and what goes wrong in its place."""

from __future__ import annotations

import functools
import gc
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from taskmesh import Mesh, PayloadError

from .processes import until, until_it_raises
from .tasks import BreaksWhenLoaded, BreaksWhenPickled, add, double, hold, note, sleep

Items = Callable[[int], Iterable[int]]


class ExitsWhenLoaded:
    """Ends whoever unpickles it."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return sys.exit, (3,)


kinds = pytest.mark.parametrize("items", [range, lambda n: list(range(n))], ids=["range", "list"])


@kinds
def test_results_come_in_order(mesh: Mesh, items: Items) -> None:
    assert list(mesh.map(double, items(50_000))) == [2 * n for n in range(50_000)]


@kinds
@pytest.mark.parametrize("size", [1, 2, 7, 256, 1000])
def test_chunksize_changes_nothing_in_the_results(mesh: Mesh, items: Items, size: int) -> None:
    assert list(mesh.map(double, items(1001), chunksize=size)) == [2 * n for n in range(1001)]
    assert list(mesh.map(double, items(101), chunksize=size, buffersize=size)) == [2 * n for n in range(101)]


def test_each_runner_has_a_share_of_chunksize_at_the_same_time(tmp_path: Path) -> None:
    def meet(n: int) -> int:
        """The first of each share waits for the other's."""
        (tmp_path / f"{n // 10}").touch()
        deadline = time.monotonic() + 30.0
        while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        return len(list(tmp_path.iterdir()))

    with Mesh(workers=2) as mesh:
        assert list(mesh.map(meet, range(20), chunksize=10)) == [2] * 20


def test_several_iterables_end_with_the_shortest(mesh: Mesh) -> None:
    assert list(mesh.map(add, [1, 2, 3], (10, 20), itertools.count())) == [11, 23]
    assert list(mesh.map(add, range(10**30, 10**31), [1, 2, 3])) == [10**30 + 1, 10**30 + 3, 10**30 + 5]
    assert list(mesh.map(add, iter([5, 6]), range(0, 9, 3))) == [5, 9]
    assert list(mesh.map(double, [])) == []
    assert list(mesh.map(add, [1], [])) == []


def test_wrong_arguments_are_refused(mesh: Mesh) -> None:
    with pytest.raises(TypeError, match="iterable"):
        mesh.map(double)
    with pytest.raises(TypeError):
        mesh.map(double, 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="chunksize"):
        mesh.map(double, [1], chunksize=0)
    with pytest.raises(ValueError, match="buffersize"):
        mesh.map(double, [1], buffersize=-1)


def test_an_infinite_iterable_with_a_buffer(mesh: Mesh) -> None:
    taken: list[int] = []

    def source() -> Iterator[int]:
        for n in itertools.count():
            taken.append(n)
            yield n

    results = mesh.map(double, source(), buffersize=100)
    assert len(taken) <= 100
    assert list(itertools.islice(results, 1000)) == [2 * n for n in range(1000)]
    assert len(taken) <= 1100
    del results


def test_a_function_is_known_as_long_as_a_map_of_it_may_send_more(mesh: Mesh) -> None:
    known = mesh._client.session.specs
    before = len(known)
    results = mesh.map(functools.partial(add, 1), range(6), buffersize=1, timeout=20)
    for n, result in enumerate(results):
        assert result == n + 1
        assert mesh.submit(double, n).result(20) == 2 * n, "all that was out has ended, and was seen to"
    del results
    until(lambda: len(known) <= before + 1, "its place is gone, and that of double is left")


def test_a_map_that_was_read_to_its_end_cancels_nothing(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    dropped: list[object] = []
    monkeypatch.setattr(mesh._client, "drop", dropped.append)
    assert list(mesh.map(double, [1, 2, 3])) == [2, 4, 6]
    gc.collect()
    assert not dropped
    results = mesh.map(double, [1, 2, 3])
    next(results)
    del results
    gc.collect()
    assert len(dropped) == 1


def test_results_are_given_out_while_later_ones_run(mesh: Mesh, tmp_path: Path) -> None:
    results = mesh.map(note_or_hold, [str(tmp_path)] * 3, ["first", "second", "held"])
    assert next(results) == "first"
    assert next(results) == "second"
    (tmp_path / "held.go").touch()
    assert next(results) == "held"


def note_or_hold(directory: str, name: str) -> str:
    return (hold if name == "held" else note)(directory, name)


def test_the_timeout_counts_from_the_call(mesh: Mesh) -> None:
    results = mesh.map(sleep, [0.0, 2.0], timeout=1.0)
    assert next(results) == 0.0
    with pytest.raises(TimeoutError):
        next(results)


@kinds
def test_an_exception_comes_in_its_place(mesh: Mesh, items: Items) -> None:
    def some(n: int) -> int:
        if n == 300:
            raise KeyError(n)
        return n

    got: list[Any] = []
    results = mesh.map(some, items(1000))
    with pytest.raises(KeyError, match="300"):
        until_it_raises(results, got)
    assert got == list(range(300))
    assert list(results) == []


def test_a_result_that_cannot_be_pickled_comes_in_its_place(mesh: Mesh) -> None:
    got: list[Any] = []
    with pytest.raises(PayloadError):
        until_it_raises(mesh.map(lambda n: BreaksWhenPickled() if n == 30 else n, range(100)), got)
    assert got == list(range(30))


def test_stop_iteration_in_a_task_does_not_end_the_map_silently(mesh: Mesh) -> None:
    def some(n: int) -> int:
        if n == 5:
            raise StopIteration
        return n

    got: list[Any] = []
    with pytest.raises(RuntimeError, match="StopIteration"):
        until_it_raises(mesh.map(some, range(10)), got)
    assert got == list(range(5))


def test_an_iterable_that_fails_fails_the_call(mesh: Mesh) -> None:
    def source() -> Iterator[int]:
        yield 1
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        mesh.map(double, source())
    with pytest.raises(PayloadError, match="broken when pickled"):
        mesh.map(repr, [1, BreaksWhenPickled()])
    assert list(mesh.map(double, [4])) == [8]


def test_an_item_that_cannot_be_unpickled_fails_its_place(mesh: Mesh) -> None:
    with pytest.raises(PayloadError, match="broken when loaded"):
        list(mesh.map(repr, [1, 2, BreaksWhenLoaded()]))
    assert list(mesh.map(double, [4])) == [8]


def test_a_map_outlives_the_name_of_its_mesh() -> None:
    assert list(Mesh(workers=1).map(double, range(5), buffersize=1)) == [0, 2, 4, 6, 8]


def test_a_result_that_ends_the_program_when_it_is_unpickled_is_an_error(mesh: Mesh) -> None:
    with pytest.raises(PayloadError, match="SystemExit"):
        list(mesh.map(lambda _: ExitsWhenLoaded(), [1]))


@pytest.mark.parametrize("how", ["deleted", "collected", "failed", "never asked"])
def test_an_abandoned_map_cancels_what_has_not_started(tmp_path: Path, how: str) -> None:
    def slow(n: int) -> str:
        time.sleep(0.01)
        if how == "failed" and n == 3:
            raise ValueError("third")
        return note(str(tmp_path), "x")

    with Mesh(workers=1) as mesh:
        results = mesh.map(slow, range(2000))
        if how != "never asked":
            next(results)
        if how == "collected":
            cycle: list[Any] = [results]
            cycle.append(cycle)
            del cycle
        if how == "failed":
            with pytest.raises(ValueError, match="third"):
                list(results)
        del results
        gc.collect()
        assert mesh.submit(double, 1).result(10) == 2
    started = tmp_path / "x.started"
    assert not started.exists() or started.read_text().count("\n") < 200


def test_generators_and_locks_of_the_caller_are_not_held_while_waiting(mesh: Mesh) -> None:
    """Two threads consume two maps at once, and a third submits."""
    sums: list[int] = []

    def consume() -> None:
        sums.append(sum(mesh.map(double, range(2000), buffersize=50)))

    threads = [threading.Thread(target=consume) for _ in range(2)]
    for thread in threads:
        thread.start()
    futures = [mesh.submit(double, n) for n in range(200)]
    assert sum(future.result(20) for future in futures) == 2 * sum(range(200))
    until(lambda: not any(thread.is_alive() for thread in threads), "both have consumed")
    assert sums == [2 * sum(range(2000))] * 2


@kinds
def test_long_items_among_very_short_ones_are_shared_out(mesh: Mesh, items: Items) -> None:
    first_long = 3000

    def run(x: int) -> int:
        if x < first_long:
            return 0
        sleep(0.02)
        return os.getpid()

    pids = list(mesh.map(run, items(first_long + 80)))[first_long:]
    shares = [pids.count(pid) for pid in set(pids)]
    assert len(shares) == 2, "one runner had claimed them all"
    assert min(shares) >= 20
