"""Calls and results that are larger than a hub takes: an error of that task, by submit and by map, and of no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from taskmesh import Mesh, PayloadError

from .processes import Fleet, Started

LIMIT = 1 << 20


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Fleet]:
    """A hub that takes messages of up to 1 MiB, and a worker."""
    fleet = Fleet(tmp_path, options=["--max-message", "1MiB"])
    try:
        fleet.worker(1)
        yield fleet
    finally:
        fleet.end()


def zeros(size: int) -> bytes:
    return bytes(size)


def zero_lists(size: int) -> list[bytes]:
    return [bytes(size)]


def fails_with(size: int) -> None:
    raise ValueError(bytes(size))


def test_a_result_that_is_too_large_fails_its_task_by_submit(small: Fleet) -> None:
    with Mesh(small.address) as mesh:
        futures = [mesh.submit(zeros, size) for size in (10, 3 * LIMIT, 20, LIMIT, LIMIT - 8192)]
        error = futures[1].exception(30)
        assert isinstance(error, PayloadError)
        assert "the result of zeros takes 3,145," in str(error)
        assert "takes up to 1,044,480 (taskmesh hub --max-message)" in str(error)
        assert isinstance(futures[3].exception(30), PayloadError)
        assert [len(futures[n].result(30)) for n in (0, 2, 4)] == [10, 20, LIMIT - 8192]


def test_a_result_that_is_too_large_fails_its_item_by_map(small: Fleet) -> None:
    with Mesh(small.address) as mesh:
        results = mesh.map(zeros, [10, 3 * LIMIT, 20])
        assert next(results) == bytes(10)
        with pytest.raises(PayloadError, match=r"takes up to 1,044,480 \(taskmesh hub --max-message\)"):
            next(results)


def test_results_that_are_too_large_only_together_all_arrive(small: Fleet) -> None:
    with Mesh(small.address) as mesh:
        for function in (zeros, zero_lists):
            size = 300_000
            assert [len(v) for v in mesh.map(function, [size] * 40)] == [len(function(size))] * 40
            futures = [mesh.submit(function, size) for _ in range(40)]
            assert all(future.result(30) == function(size) for future in futures)


def test_an_exception_that_is_too_large_fails_its_task(small: Fleet) -> None:
    with Mesh(small.address) as mesh:
        error = mesh.submit(fails_with, 2 * LIMIT).exception(30)
        assert isinstance(error, PayloadError)
        assert "the exception of fails_with takes" in str(error)


def test_arguments_that_are_too_large_are_refused_where_they_are_given(small: Fleet) -> None:
    with Mesh(small.address) as mesh:
        with pytest.raises(PayloadError, match="--max-message"):
            mesh.submit(len, bytes(2 * LIMIT))
        with pytest.raises(PayloadError, match="--max-message"):
            list(mesh.map(len, [bytes(2 * LIMIT)]))
        assert mesh.submit(len, bytes(LIMIT - 8192)).result(30) == LIMIT - 8192


def test_a_hub_that_would_take_next_to_nothing_does_not_start(tmp_path: Path) -> None:
    hub = Started(["-m", "taskmesh", "hub", "--listen", "tcp://127.0.0.1:0", "--max-message", "64KiB"], tmp_path)
    assert hub.ends() == 2
    assert "64KiB is too little: at least 1 MiB" in hub.output
