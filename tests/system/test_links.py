"""Bad networks: what travels between peers and a hub is neither lost nor doubled when connections are cut or stall."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

import pytest

from taskmesh import Mesh

from .ports import NEAR, free_ports
from .processes import Fleet, tallied, until
from .proxy import NEVER, Keep, Proxy, Way
from .tasks import double, tally

pytestmark = pytest.mark.alone  # a lane that is lost for half a second is a dead peer's

LANES = 90
TASKS = 3000
PEERS = 3  # a client and two daemons, each with a connection for control, one out and one in
TASK_S = 0.001
MOST_DEAD = 3  # of dozens of lanes that are lost
HELD = 100  # tasks of that length that a daemon of two runners may hold
WAIT_S = 60.0
long = pytest.mark.skipif(not os.environ.get("TASKMESH_LONG_TESTS"), reason="long: set TASKMESH_LONG_TESTS=1")


class Wire(NamedTuple):
    """A hub with two workers behind a proxy."""

    fleet: Fleet
    proxy: Proxy


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    """Peers reach the hub on another address than its own, where the proxy is.

    Nothing is encrypted: the proxy puts its own address in place of the hub's where the hub names its lanes. Else only
    control would pass it.
    """
    ports = free_ports(4 + LANES)
    with Proxy(ports) as proxy:
        options = ("--insecure", "--lanes", f"{ports[4]}-{ports[-1]}")
        fleet = Fleet(tmp_path, f"tcp://127.0.0.1:{ports[0]}", options, by=f"tcp://{NEAR}:{ports[0]}")
        try:
            fleet.worker()
            fleet.worker()
            yield Wire(fleet, proxy)
        finally:
            fleet.end()


def all_right(wire: Wire, tmp_path: Path, disturb: Callable[[Sequence[Future[int]]], object]) -> int:
    """Run many tasks while `disturb` acts; every result has to be right.

    Returns the executions beyond one per task. On a machine so busy that a lane is not there again within half a second
    its daemon is taken for dead; then those of what it held do not count.
    """
    path = tmp_path / "tally"
    called: list[object] = []
    with Mesh(wire.fleet.address, insecure=True) as mesh:
        futures = [mesh.submit(tally, str(path), n, TASK_S) for n in range(TASKS)]
        for future in futures:
            future.add_done_callback(called.append)
        mapped = mesh.map(double, range(20_000))
        disturb(futures)
        try:
            assert [future.result(WAIT_S) for future in futures] == list(range(TASKS))
            assert list(mapped) == [2 * n for n in range(20_000)]
        except BaseException:
            print(wire.fleet.output())
            raise
        wire.proxy.reset_every(NEVER)
        until(lambda: len(called) == TASKS, "every callback has run")
    assert wire.proxy.accepted >= PEERS * 3, "lanes, submit and sink go past the proxy"
    executions = tallied(path)
    assert set(executions) == set(range(TASKS))
    dead = len(re.findall(r"daemon \S+ on \S+ is gone", wire.fleet.output()))
    assert dead <= MOST_DEAD, wire.fleet.output()
    return max(0, executions.total() - TASKS - dead * HELD)


def some_done(futures: Sequence[Future[int]], share: float) -> None:
    """Wait until this share of the tasks has ended."""
    futures[round(share * len(futures))].result(WAIT_S)


def test_resets_neither_lose_nor_repeat(wire: Wire, tmp_path: Path) -> None:
    def disturb(futures: Sequence[Future[int]]) -> None:
        wire.proxy.reset_every(0.3)

    assert all_right(wire, tmp_path, disturb) == 0
    assert wire.proxy.cut >= 10


def test_resets_of_some_connections_neither_lose_nor_repeat(wire: Wire, tmp_path: Path) -> None:
    def disturb(futures: Sequence[Future[int]]) -> None:
        wire.proxy.reset_every(0.1, share=0.3)

    assert all_right(wire, tmp_path, disturb) == 0
    assert wire.proxy.cut >= 10


@pytest.mark.parametrize(
    "ways",
    [
        pytest.param((Way.UP,), id="up", marks=long),
        pytest.param((Way.DOWN,), id="down", marks=long),
        pytest.param((), id="both"),
    ],
)
def test_a_stall_only_delays(wire: Wire, tmp_path: Path, ways: tuple[Way, ...]) -> None:
    def disturb(futures: Sequence[Future[int]]) -> None:
        some_done(futures, 0.1)
        wire.proxy.stall(1.0, *ways)
        some_done(futures, 0.5)
        wire.proxy.stall(2.5, *ways)

    assert all_right(wire, tmp_path, disturb) == 0


def test_a_stall_that_ends_in_a_reset_neither_loses_nor_repeats(wire: Wire, tmp_path: Path) -> None:
    def disturb(futures: Sequence[Future[int]]) -> None:
        for share in (0.1, 0.3, 0.6):
            some_done(futures, share)
            wire.proxy.stall(0.4)
            wire.proxy.reset()

    assert all_right(wire, tmp_path, disturb) == 0


def test_what_arrives_after_newer_messages_changes_nothing(wire: Wire, tmp_path: Path) -> None:
    def disturb(futures: Sequence[Future[int]]) -> None:
        for share in (0.1, 0.4, 0.7):
            some_done(futures, share)
            wire.proxy.overtake(0.05, 0.4)

    assert all_right(wire, tmp_path, disturb) == 0
    assert wire.proxy.overtaken > 0


def test_a_slow_line_only_delays(wire: Wire, tmp_path: Path) -> None:
    assert all_right(wire, tmp_path, lambda futures: wire.proxy.limit(1_000_000)) == 0


@pytest.mark.parametrize(
    "keep", [pytest.param(keep, id=keep.name, marks=long if keep is Keep.PEER else ()) for keep in Keep]
)
def test_half_open_connections_lose_nothing(wire: Wire, tmp_path: Path, keep: Keep) -> None:
    def disturb(futures: Sequence[Future[int]]) -> None:
        some_done(futures, 0.2)
        wire.proxy.half_open(keep)

    all_right(wire, tmp_path, disturb)
