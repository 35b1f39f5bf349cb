"""A hub that has no room for another peer for now says so, and keeps nothing of who did not get in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from taskmesh import Mesh, RegistrationRefused

from .guarded import Guarded
from .processes import Fleet, Started, free_ports, until
from .raw import Raw

NO_ROOM = {
    "lanes": "no free port for another lane between",
    "peers": "the hub has 1 peer, and takes no more (--max-peers)",
}


class Full(NamedTuple):
    """A hub that has room for one peer, `worker`, which is there. `why`: how it says that it takes no more."""

    hub: Guarded
    worker: Started
    why: str


@pytest.fixture(params=NO_ROOM)
def full(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Full]:
    """See `Full`."""
    port = free_ports(5)
    options = ["--lanes", f"{port + 4}-{port + 4}"] if request.param == "lanes" else ["--max-peers", "1"]
    fleet = Fleet(tmp_path, f"tcp://127.0.0.1:{port}", options)
    try:
        with Raw(fleet.address) as raw:
            yield Full(Guarded(fleet, raw, tmp_path), fleet.worker(), NO_ROOM[request.param])
    finally:
        fleet.end()


def test_a_client_that_finds_no_room_in_time_was_refused_and_is_not_kept(full: Full) -> None:
    guarded, _, why = full
    with pytest.raises(RegistrationRefused) as info:
        Mesh(guarded.fleet.address, connect_timeout=0.8)
    assert f"did not take this client in within 0.8 s: {why}" in str(info.value)
    document = guarded.document()
    assert (document["sessions"], len(document["daemons"])) == ([], 1)
    assert document["refused_peers"] >= 2, "it has asked again"
    assert guarded.fleet.hub.output.count(why) == 1, guarded.fleet.hub.output
    assert guarded.fleet.hub.output.count(" joined") == 1, guarded.fleet.hub.output


def test_a_worker_that_finds_no_room_in_time_was_refused(full: Full, tmp_path: Path) -> None:
    guarded, _, why = full
    with started("worker", guarded.fleet.address, "-n", "1", "--connect-timeout", "2.5", directory=tmp_path) as worker:
        assert worker.ends() == 4
    lines = " ".join(worker.output.split())
    assert f"did not take this worker in within 2.5 s: {why}" in lines
    assert f"takes no worker in now: {why}" in lines
    for wrong in ("no answer", "no hub answered", "no connection", "does not answer"):
        assert wrong not in lines
    assert guarded.fleet.hub.output.count(why) == 1, guarded.fleet.hub.output
    assert guarded.fleet.hub.output.count(" joined") == 1, guarded.fleet.hub.output


def test_a_worker_that_waits_for_room_joins_when_there_is_some(full: Full, tmp_path: Path) -> None:
    guarded, first, why = full
    with started("worker", guarded.fleet.address, "-n", "1", directory=tmp_path) as worker:
        worker.says(why)
        first.end_now()
        worker.says("has joined")
        until(lambda: len(guarded.document()["daemons"]) == 1, "it is there")


@contextlib.contextmanager
def started(*arguments: str, directory: Path) -> Iterator[Started]:
    """A command, which is ended with the block."""
    process = Started(["-m", "taskmesh", *arguments], directory)
    try:
        yield process
    finally:
        process.end_now()
