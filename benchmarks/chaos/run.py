"""One run: start a fleet and a client, let chaos loose, wait for the client, judge. Cleans up on every path."""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.chaos.client import Config
from benchmarks.chaos.faults import CUTS, WEIGHTS, Chaos, Planned, schedule
from benchmarks.chaos.fleet import DISK, LANES, Fleet
from benchmarks.chaos.verdict import Verdict, judge

if TYPE_CHECKING:
    from tests.system.namespaces import Hosts

ROOT = Path(__file__).resolve().parents[2]
SHARE_OF_TIME = 0.6
"""Undisturbed, the tasks take this share of the time for faults."""
STUCK_AFTER_S = 120.0
"""Without a single result: the run has failed."""


class Plan(NamedTuple):
    """What to do."""

    tasks: int
    seconds: float
    """How long faults go on."""
    every_s: float
    """Between two faults."""
    seed: int
    daemons: int = 3
    runners: int = 2
    kinds: tuple[str, ...] = tuple(WEIGHTS)
    store: str = DISK
    """Where the hub keeps its work: "disk" or "memory"."""
    work_s: float | None = None
    """Per task; None: so much that the tasks alone take `SHARE_OF_TIME` of `seconds`."""

    @property
    def task_s(self) -> float:
        """Seconds of work per task."""
        if self.work_s is not None:
            return self.work_s
        return SHARE_OF_TIME * self.seconds * self.daemons * self.runners / self.tasks


class Failed(Exception):
    """The run could not go on; the message says what was last heard."""


def run(
    plan: Plan,
    folder: Path,
    progress: Callable[[int], object],
    netns: bool = False,
    faults: Sequence[Planned] | None = None,
) -> Verdict:
    """Do it.

    Parameters
    ----------
    plan
        What to do. Without kinds of faults it is an undisturbed run.
    folder
        For the record, the store and the logs.
    progress
        Is told now and then how many tasks are done.
    netns
        Every process on a host of its own; cables are cut as well.
    faults
        These, in place of a schedule by the plan's seed.

    Raises
    ------
    Failed
        The client ended without saying what came, or nothing came any more.
    """
    from tests.system.namespaces import Hosts
    from tests.system.ports import free_ports

    if not netns:
        return _run(plan, folder, progress, free_ports(LANES + 4), None, faults)
    names = ["hub", "client", *(f"d{number}" for number in range(1, plan.daemons + 1))]
    with Hosts(names) as hosts:
        kinds = (*plan.kinds, *CUTS) if plan.kinds else ()
        return _run(plan._replace(kinds=kinds), folder, progress, range(5555, 5559 + LANES), hosts, faults)


def _run(
    plan: Plan,
    folder: Path,
    progress: Callable[[int], object],
    ports: range,
    hosts: "Hosts | None",
    faults: Sequence[Planned] | None,
) -> Verdict:
    fleet = Fleet(folder, plan.daemons, plan.runners, ports, plan.store, hosts)
    drawn = schedule(plan.seed, plan.kinds, plan.every_s) if plan.kinds else iter(())
    chaos = Chaos(fleet, drawn if faults is None else iter(faults), plan.seconds)
    record = folder / "record"
    client: subprocess.Popen[bytes] | None = None
    try:
        fleet.start()
        config = Config(fleet.address, plan.tasks, plan.task_s, str(record))
        client = _start_client(config, fleet, folder)
        chaos.start()
        try:
            told = _listen(client, folder, progress)
        finally:
            chaos.stop()
        if chaos.failure is not None:
            raise chaos.failure
        left = fleet.stop()
        return judge(plan.tasks, told, record, chaos.happened, chaos.surprises, left)
    finally:
        if client is not None:
            client.kill()
            client.communicate()
        fleet.end()


def _start_client(config: Config, fleet: Fleet, folder: Path) -> "subprocess.Popen[bytes]":
    search = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with (folder / "client.log").open("ab") as log:
        return subprocess.Popen(
            [*fleet.on("client"), sys.executable, "-m", "benchmarks.chaos.client", json.dumps(config._asdict())],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, cwd=folder,
            env=os.environ | {"PYTHONPATH": search}, start_new_session=True,
        )  # fmt: skip


def _listen(client: "subprocess.Popen[bytes]", folder: Path, progress: Callable[[int], object]) -> dict[str, Any]:
    """Follow the client to its end; returns what it said last."""
    assert client.stdout is not None
    said, done, moved_at = b"", 0, time.monotonic()
    while True:
        if select.select([client.stdout], [], [], 1.0)[0]:
            piece = os.read(client.stdout.fileno(), 65536)
            if not piece:
                break
            said += piece
            *lines, said = said.split(b"\n")
            for line in lines:
                document: dict[str, Any] = json.loads(line)
                if "done" not in document:
                    progress(-1)
                    return document
                if document["done"] != done:
                    done, moved_at = document["done"], time.monotonic()
                progress(done)
        if time.monotonic() - moved_at > STUCK_AFTER_S:
            raise Failed(f"no result came for {STUCK_AFTER_S:g} s; {done} tasks were done")
    log = (folder / "client.log").read_text(errors="replace")
    raise Failed(f"the client ended after {done} results:\n{log[-3000:]}")
