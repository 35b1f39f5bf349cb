"""Much at once: many tasks, large ones, many threads."""

from __future__ import annotations

import random
import threading

from taskmesh import Mesh

from .tasks import double

LARGE = 50_000_000


def test_a_hundred_thousand_submits(mesh: Mesh) -> None:
    futures = [mesh.submit(double, n) for n in range(100_000)]
    assert sum(future.result(60) for future in futures) == 2 * sum(range(100_000))


def test_small_tasks_go_on_beside_large_arguments(mesh: Mesh) -> None:
    data = random.Random(1).randbytes(1000) * (LARGE // 1000)
    large = [mesh.submit(len, data) for _ in range(2)]
    for n in range(50):
        assert mesh.submit(double, n).result(20) == 2 * n
    assert [future.result(30) for future in large] == [LARGE] * 2


def test_large_results_arrive_beside_small_ones(mesh: Mesh) -> None:
    large = [mesh.submit(bytes, LARGE) for _ in range(2)]
    small = [mesh.submit(double, n) for n in range(200)]
    assert [future.result(20) for future in small] == [2 * n for n in range(200)]
    assert [len(future.result(30)) for future in large] == [LARGE] * 2
    assert [len(value) for value in mesh.map(bytes, [LARGE // 10] * 4)] == [LARGE // 10] * 4


def test_many_threads_submit_at_once(mesh: Mesh) -> None:
    right: list[bool] = []

    def submitter(base: int) -> None:
        futures = [mesh.submit(double, base + n) for n in range(1000)]
        right.append([future.result(30) for future in futures] == [2 * (base + n) for n in range(1000)])

    threads = [threading.Thread(target=submitter, args=(base,)) for base in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
    assert right == [True] * 16


def test_many_different_functions(mesh: Mesh) -> None:
    def adder(k: int) -> int:
        return mesh.submit(lambda x: x + k, 1).result(10)

    assert [adder(k) for k in range(300)] == [1 + k for k in range(300)]
    futures = [mesh.submit(eval(f"lambda: {k}")) for k in range(500)]
    assert [future.result(10) for future in futures] == list(range(500))
