"""Nothing is left of a mesh whose processes were killed: no process, no socket file, no directory, no shared memory."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from .processes import Fleet, Started, below, described, kill, ours, until, write_script

ROUNDS = 20 if os.environ.get("TASKMESH_LONG_TESTS") else 5
GONE_WITHIN_S = 2.0
PRIVATE = """
    import sys
    from taskmesh import Mesh
    from tests.system.tasks import sleep
    if __name__ == "__main__":
        with Mesh(workers=2) as mesh:
            futures = [mesh.submit(sleep, 0.002) for _ in range(100_000)]
            futures[10].result()
            print("busy", flush=True)
            futures[-1].result()
    """
CLIENT = """
    import sys
    from taskmesh import Mesh
    from tests.system.tasks import sleep
    with Mesh({address!r}) as mesh:
        futures = [mesh.submit(sleep, 0.002) for _ in range(100_000)]
        futures[10].result()
        print("busy", flush=True)
        futures[-1].result()
    """


def shared() -> set[str]:
    """Names in shared memory."""
    return set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()


def files() -> set[str]:
    """Everything in this session's temporary directory that taskmesh may have made."""
    base = Path(os.environ["TMPDIR"])
    return {str(path) for path in base.glob("taskmesh-*")} | {str(path) for path in Path("/tmp").glob("taskmesh-*")}


@contextmanager
def leaves_nothing() -> Iterator[None]:
    """Within two seconds after the block everything is gone that was not there before."""
    before, memory, directories = ours(), shared(), files()
    yield

    def left() -> str:
        processes = described(ours() - below(before))
        return "\n".join(filter(None, [processes, *sorted(shared() - memory), *sorted(files() - directories)]))

    try:
        until(lambda: not left(), "nothing is left", GONE_WITHIN_S)
    except AssertionError as error:
        raise AssertionError(f"{error}:\n{left()}") from None


def descendants(pid: int) -> list[psutil.Process]:
    """Processes below a process, those that were started first in front."""
    return sorted(psutil.Process(pid).children(recursive=True), key=lambda process: (process.create_time(), process.pid))


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_a_private_mesh_whose_script_is_killed_leaves_nothing(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    with leaves_nothing():
        script = Started([write_script(tmp_path, PRIVATE)], tmp_path)
        try:
            script.says("busy")
            hub, nursery, *runners = descendants(script.process.pid)
            also = chance.choice([None, hub, nursery, *runners])
            if also is not None:
                kill(also.pid)
            if chance.random() < 0.5 and also is not None:
                until(lambda: not also.is_running() or also.status() == psutil.STATUS_ZOMBIE, "it has ended")
        finally:
            script.end_now()


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_a_fleet_of_which_anything_was_killed_leaves_nothing(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    with leaves_nothing():
        fleet = Fleet(tmp_path)
        client: Started | None = None
        try:
            workers = [fleet.worker(2), fleet.worker(2)]
            client = Started([write_script(tmp_path, CLIENT.format(address=fleet.address))], tmp_path)
            client.says("busy")
            nursery = descendants(workers[0].process.pid)[0]
            victims = [fleet.hub.process.pid, *(worker.process.pid for worker in workers), client.process.pid]
            for pid in chance.sample([*victims, nursery.pid], 3):
                kill(pid)
            for worker in workers:
                for process in [worker, client, fleet.hub]:
                    process.end_now()
        finally:
            if client is not None:
                client.end_now()
            fleet.end()


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_a_killed_daemon_leaves_no_runner_while_its_hub_goes_on(fleet: Fleet, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    worker = fleet.worker(3)
    client = Started([write_script(tmp_path, CLIENT.format(address=fleet.address))], tmp_path)
    try:
        client.says("busy")
        family = descendants(worker.process.pid)
        kill(chance.choice([worker.process.pid, worker.process.pid, family[0].pid]))
        if worker.process.poll() is None:
            worker.end_now()
        until(lambda: not any(process.is_running() for process in family), described(set(family)), GONE_WITHIN_S)
        assert fleet.hub.process.poll() is None
    finally:
        client.end_now()
