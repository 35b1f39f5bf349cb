"""Hostile input at a live mesh, scaled down; the long run is `python -m tests.hostile`, or `TASKMESH_LONG_TESTS=1`."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from taskmesh import Mesh
from taskmesh.security.ticket import read_ticket
from taskmesh.transport.sockets import new_context
from tests.hostile.campaign import KINDS, Campaign, groups, table
from tests.hostile.impostor import ACTS, perform
from tests.hostile.liar import lie
from tests.hostile.live import Live
from tests.hostile.target import Target

from .processes import Fleet, Started, until
from .tasks import double

LONG = pytest.mark.skipif(not os.environ.get("TASKMESH_LONG_TESTS"), reason="TASKMESH_LONG_TESTS is not set")
FILES = 100  # so few that a crowd is not shut out: what is left is less than `crowds.LEAST_ROOM`
MORE_FILES = 1000
SHUT_OUT = "letting nobody connect until most of them have gone"


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    """A mesh with honest work to do."""
    started = Live(tmp_path, tasks=3000)
    try:
        yield started
    finally:
        started.end()


@pytest.mark.alone
def test_every_kind_of_hostile_input_at_a_live_mesh_that_goes_on_and_loses_nothing(live: Live) -> None:
    campaign = Campaign(live, seed=1, seconds=0.5, scale=0.02)
    rows = campaign.run(KINDS, groups(KINDS, 1, count=1))
    assert not any(row.wrong for row in rows), f"{table(campaign)}\n{live.logs()}"
    assert all(row.thrown for row in rows), table(campaign)
    live.finish(120.0)


@LONG
@pytest.mark.timeout(1800)
def test_every_kind_of_hostile_input_while_a_hundred_thousand_tasks_complete(tmp_path: Path) -> None:
    live = Live(tmp_path, tasks=100_000)
    try:
        campaign = Campaign(live, seed=2)
        rows = campaign.run(KINDS, groups(KINDS, 2))
        assert not any(row.wrong for row in rows), f"{table(campaign)}\n{live.logs()}"
        live.finish(600.0)
    finally:
        live.end()


def test_a_hostile_hub_neither_ends_nor_bloats_its_peers(tmp_path: Path) -> None:
    def at_once(act: str) -> list[str]:
        directory = tmp_path / act.replace(" ", "-")
        directory.mkdir()
        return perform(act, directory, seconds=2.0)

    with ThreadPoolExecutor(4) as threads:
        acts = ["forgets at once", "malformed frames", "an endless message", "false results"]
        assert [wrong for found in threads.map(at_once, acts) for wrong in found] == []


@LONG
@pytest.mark.parametrize("act", ACTS)
def test_whatever_a_hostile_hub_does_its_peers_survive(act: str, tmp_path: Path) -> None:
    assert perform(act, tmp_path, seconds=5.0) == []


def test_a_client_survives_a_worker_that_answers_with_what_is_no_result(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    fleet = Fleet(tmp_path, options=["--keys", str(keys)])
    context = new_context()
    try:
        tickets = {role: read_ticket(keys / f"{role}.ticket") for role in ("client", "worker")}
        hub = psutil.Process(fleet.hub.process.pid)
        target = Target(hub, fleet.address, tickets, context, random.Random(0), 60.0, 1.0, 1 << 30)
        assert lie(target, keys / "client.ticket") == []
    finally:
        context.destroy(linger=0)
        fleet.end()


FEW_FILES = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({0}, {0}))
from taskmesh.cli.main import main
sys.argv = ["taskmesh", "hub", "--listen", "tcp://127.0.0.1:0", "--store", "memory"]
main()
"""


def test_a_hub_whose_files_are_used_up_by_strangers_keeps_its_peers(tmp_path: Path) -> None:
    hub = Started(["-c", FEW_FILES.format(FILES)], tmp_path)
    strangers: list[socket.socket] = []
    worker = None
    try:
        hub.says("ready at tcp://")
        address = hub.output.split("ready at ")[1].split()[0]
        worker = Started(["-m", "taskmesh", "worker", address, "-n", "1"], tmp_path)
        worker.says("has joined")
        process = psutil.Process(hub.process.pid)
        with Mesh(address) as mesh:
            assert mesh.submit(double, 1).result(30) == 2
            port = int(address.rpartition(":")[2])
            strangers += [socket.create_connection(("127.0.0.1", port), 10.0) for _ in range(FILES)]
            until(lambda: process.num_fds() >= FILES, "no file is left")
            assert [mesh.submit(double, n).result(30) for n in range(50)] == [2 * n for n in range(50)]
            until(lambda: process.num_fds() < FILES // 2, "those who said nothing were cut off", 60)
            assert mesh.submit(double, 3).result(30) == 6
        with Mesh(address) as mesh:
            assert mesh.submit(double, 4).result(30) == 8
        assert "is gone" not in hub.output, hub.output
        assert "Traceback" not in hub.output, hub.output
    finally:
        for stranger in strangers:
            stranger.close()
        for started in (worker, hub):
            if started is not None:
                started.end_now()


def test_a_crowd_of_strangers_is_shut_out_before_the_files_of_a_hub_are_used_up(tmp_path: Path) -> None:
    hub = Started(["-c", FEW_FILES.format(MORE_FILES)], tmp_path)
    strangers: list[socket.socket] = []
    try:
        hub.says("ready at tcp://")
        address = hub.output.split("ready at ")[1].split()[0]
        process = psutil.Process(hub.process.pid)
        with Mesh(address):
            port = int(address.rpartition(":")[2])
            end = time.monotonic() + 30.0
            while SHUT_OUT not in hub.output and time.monotonic() < end:
                with contextlib.suppress(TimeoutError):  # its queue is full for a moment, or it has shut the door
                    strangers.append(socket.create_connection(("127.0.0.1", port), 0.2))
                assert process.num_fds() < MORE_FILES
            hub.says(SHUT_OUT)
        for stranger in strangers:
            stranger.close()
        with Mesh(address, connect_timeout=30.0):
            pass  # whoever comes is let in again
    finally:
        for stranger in strangers:
            stranger.close()
        hub.end_now()
