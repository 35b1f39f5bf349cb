"""Two hundred daemons at one hub, some of which die, leave and join at any moment; and a hub that runs out of files."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskmesh import Mesh

from .fakes import Crowd
from .processes import Fleet, Started, until
from .tasks import double, sleep

pytestmark = pytest.mark.alone  # a hub that answers late takes those who wait for strangers

MANY = 200
FILES = 400


def nothing() -> None:
    """What fake daemons answer."""


def test_two_hundred_daemons_work_while_some_die_leave_and_join(fleet: Fleet) -> None:
    with Crowd(fleet.address, seed=3) as crowd, Mesh(fleet.address) as mesh:
        crowd.join(MANY)
        until(lambda: crowd.joined == MANY, "all have joined", 30)
        futures = [mesh.submit(nothing) for _ in range(5000)]
        results = mesh.map(lambda _: None, range(20_000))
        for share in range(1, 6):
            futures[share * 800].result(30)
            crowd.die(10)
            crowd.leave(6)
            crowd.join(16)
        fleet.worker(2)
        futures += [mesh.submit(nothing) for _ in range(5000)]
        assert [future.result(60) for future in futures] == [None] * 10_000
        assert list(results) == [None] * 20_000
        until(lambda: crowd.joined == MANY, "the new ones have joined", 30)
        until(lambda: crowd.gone, "all that left were let go", 30)
        crowd.die(MANY)
        assert mesh.submit(double, 4).result(30) == 8


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
from taskmesh.cli.main import main
sys.argv = ["taskmesh", "hub", "--listen", "tcp://127.0.0.1:0", "--store", "memory"]
main()
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Started]:
    """A hub that may open few files, and at first even fewer."""
    started = Started(["-c", LIMITED.format(soft=FILES // 2, hard=FILES)], tmp_path)
    try:
        started.says("ready at tcp://")
        yield started
    finally:
        started.end_now()


def test_a_hub_that_runs_out_of_files_says_so_and_serves_the_others(hub: Started, tmp_path: Path) -> None:
    address = hub.output.split("ready at ")[1].split()[0]
    assert resource.prlimit(hub.process.pid, resource.RLIMIT_NOFILE) == (FILES, FILES)
    worker = Started(["-m", "taskmesh", "worker", address, "-n", "1"], tmp_path)
    try:
        worker.says("has joined")
        with Mesh(address) as mesh, Crowd(address) as crowd:
            futures = [mesh.submit(sleep, 0.001) for _ in range(1000)]
            crowd.join(FILES)
            until(lambda: crowd.joined + len(crowd.refused) == FILES, f"all were answered\n{hub.output}", 30)
            assert all("ulimit -n" in why and str(FILES) in why for why in crowd.refused)
            assert 0 < len(crowd.refused) < FILES
            results = [future.result(30) for future in futures]
            assert all(result in (0.001, None) for result in results)
        said = [line for line in hub.output.splitlines() if "ulimit -n" in line]
        assert 1 <= len(said) < 20, hub.output
        assert "Traceback" not in hub.output
        with Mesh(address) as mesh:
            assert mesh.submit(double, 4).result(30) == 8
    finally:
        worker.end_now()
