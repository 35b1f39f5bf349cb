"""Nothing is left of a mesh whose processes were killed: no process, no socket file, no directory, no shared memory."""

from __future__ import annotations

import os
import random
from pathlib import Path

import psutil
import pytest

from taskmesh import Mesh

from .processes import Fleet, Started, alive, below, described, kill, ours, until, write_script

ROUNDS = 20 if os.environ.get("TASKMESH_LONG_TESTS") else 3
GONE_WITHIN_S = 5.0  # the guarantee says two; other tests run beside these
PRIVATE = """
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
    from taskmesh import Mesh
    from tests.system.tasks import sleep
    with Mesh({address!r}) as mesh:
        futures = [mesh.submit(sleep, 0.002) for _ in range(100_000)]
        futures[10].result()
        print("busy", flush=True)
        futures[-1].result()
    """


def shared() -> set[str]:
    """Names of ours in shared memory."""
    return {path.name for path in Path("/dev/shm").glob("*taskmesh*")}


def files() -> set[str]:
    """Everything in this session's temporary directory that taskmesh has made."""
    return {str(path) for path in Path(os.environ["TMPDIR"]).glob("*taskmesh*")}


class Before:
    """What there is before a test, to be compared with what is left after it."""

    def __init__(self) -> None:
        self._processes, self._shared, self._files = ours(), shared(), files()

    def files(self) -> set[str]:
        """Files and directories that are new."""
        return files() - self._files

    def left(self) -> str:
        """Everything that is new, for people."""
        processes = described(ours() - below(self._processes))
        return "\n".join(filter(None, [processes, *sorted(shared() - self._shared), *sorted(self.files())]))

    def nothing_is_left(self) -> None:
        """Soon everything is gone."""
        try:
            until(lambda: not self.left(), "nothing is left", GONE_WITHIN_S)
        except AssertionError as error:
            raise AssertionError(f"{error}:\n{self.left()}") from None

    def the_next_start_sweeps(self) -> None:
        """When hub and client are both killed, nobody is left to remove their directory: the next start does."""
        for directory in self.files():
            os.utime(directory, (0, 0))  # it leaves alone what is younger than a minute
        Mesh(workers=1).shutdown()


def descendants(pid: int) -> list[psutil.Process]:
    """Processes below a process, those that were started first in front."""
    found = psutil.Process(pid).children(recursive=True)
    return sorted(found, key=lambda process: (process.create_time(), process.pid))


def everybody_goes(family: list[psutil.Process]) -> None:
    """Soon every one of them has ended (when it is reaped is up to this machine's first process)."""
    left = set(family)

    def all_have_ended() -> bool:
        left.intersection_update(process for process in family if alive(process.pid))
        return not left

    try:
        until(all_have_ended, "they end", GONE_WITHIN_S)
    except AssertionError as error:
        raise AssertionError(f"{error}:\n{described(left)}") from None


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_a_private_mesh_whose_script_is_killed_leaves_nothing(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    before = Before()
    script = Started([write_script(tmp_path, PRIVATE)], tmp_path)
    try:
        script.says("busy")
        hub, nursery, *runners = descendants(script.process.pid)
        also = chance.choice([None, hub, nursery, *runners])
        if also is not None:
            kill(also.pid)
            if chance.random() < 0.5:
                until(lambda: not alive(also.pid), "it has ended")
    finally:
        script.end_now()
    if also is hub:
        until(lambda: not before.left() or before.left() in before.files(), before.left(), GONE_WITHIN_S)
        before.the_next_start_sweeps()
    before.nothing_is_left()


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_a_fleet_of_which_anything_was_killed_leaves_nothing(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    before = Before()
    fleet = Fleet(tmp_path)
    started: list[Started] = [fleet.hub]
    try:
        started += [fleet.worker(2), fleet.worker(2)]
        started.append(Started([write_script(tmp_path, CLIENT.format(address=fleet.address))], tmp_path))
        started[-1].says("busy")
        victims = [process.process.pid for process in started] + [descendants(started[1].process.pid)[0].pid]
        for pid in chance.sample(victims, 3):
            kill(pid)
    finally:
        chance.shuffle(started)
        for process in started:
            process.end_now()
    before.nothing_is_left()


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
        everybody_goes(family)
        assert fleet.hub.process.poll() is None
    finally:
        client.end_now()
