"""Connections that a hub does not let in: by unknown keys, by those of other hubs and peers, and by none at all.

Beside each an innocent client and an innocent worker are at work, and notice nothing.
"""

from __future__ import annotations

import signal
import socket
import time
from pathlib import Path

import psutil
import pytest
import zmq

from taskmesh import Mesh
from taskmesh.core import messages as m
from taskmesh.core.roster import LANE_GRACE_S
from taskmesh.security.keyring import Keyring
from taskmesh.security.ticket import read_ticket
from taskmesh.transport.endpoints import parse_address

from .guarded import Guarded
from .processes import Fleet, until
from .raw import Keys, Raw, keys_of, new_keys
from .tasks import double

KINDS = {"control": zmq.REQ, "submit": zmq.PUSH, "sink": zmq.PUSH, "lane": zmq.PULL}
STRANGERS = ("an unknown key", "the key of another hub", "no key")


def channel(guarded: Guarded, name: str) -> str:
    """Where a channel can be reached; a lane is that of a raw client."""
    endpoints = {"control": lambda: guarded.raw.address.control, "submit": lambda: guarded.submit,
                 "sink": lambda: guarded.sink, "lane": lambda: guarded.joins("client").welcome.lane}  # fmt: skip
    return endpoints[name]()


def stranger(guarded: Guarded, who: str, directory: Path) -> Keys | None:
    """What somebody connects with who has nothing to do with this hub."""
    if who == "no key":
        return None
    if who == "an unknown key":
        return new_keys(guarded.admin.hub_key)
    other = Keyring.open(directory / "other")
    other.first_tickets(guarded.fleet.address)
    other.close()
    return keys_of(read_ticket(directory / "other" / "admin.ticket"))._replace(hub=guarded.admin.hub_key)


@pytest.mark.parametrize("who", STRANGERS)
@pytest.mark.parametrize("name", KINDS)
def test_strangers_are_let_in_nowhere(guarded: Guarded, tmp_path: Path, name: str, who: str) -> None:
    keys, endpoint = stranger(guarded, who, tmp_path), channel(guarded, name)
    with guarded.innocent(), guarded.counts("refused_connections", more=keys is None):
        guarded.raw.turned_away(KINDS[name], endpoint, keys)
    entry = guarded.audit("connection refused")[-1]
    assert entry["channel"].startswith(name)
    unknown = "a key of no ticket" if name == "control" else "a key that is no live registration's"
    assert entry["why"].startswith(unknown if keys else "it has no keys, and this hub has")


@pytest.mark.parametrize("name", KINDS)
def test_who_takes_this_for_another_hub_is_not_let_in(guarded: Guarded, name: str) -> None:
    endpoint = channel(guarded, name)
    keys = keys_of(guarded.admin)._replace(hub=new_keys("").public)
    with guarded.innocent(), guarded.counts("refused_connections", more=True):  # it tries again
        assert not guarded.raw.let_in(KINDS[name], endpoint, keys)
    assert guarded.audit("connection refused")[-1]["why"] == "it was meant for a hub that has another key"


def test_who_brings_keys_to_a_hub_without_any_is_told_from_who_brings_none(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, "tcp://127.0.0.1:0", ["--insecure"])
    try:
        with Raw(fleet.address) as raw:
            assert not raw.let_in(zmq.REQ, raw.address.control, new_keys(new_keys("").public))
        fleet.hub.says("somebody on control: it has keys, and this hub has none (--insecure)")
    finally:
        fleet.end()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_peers_of_a_hub_that_was_started_again_are_no_strangers(lasting: Guarded, number: int) -> None:
    worker = lasting.fleet.worker()
    with Mesh(lasting.fleet.address) as mesh:
        assert mesh.submit(double, 1).result(20) == 2
        lasting.fleet.kill_hub(number)
        assert mesh.submit(double, 2).result(20) == 4, worker.output
        document = lasting.document()
    assert document["refused_connections"] == 0, lasting.fleet.hub.output
    assert "refused" not in lasting.fleet.hub.output


# ---- lanes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whose", ["another's registration", "its ticket", "a stranger", "nobody"])
def test_a_lane_is_for_its_peer_alone(guarded: Guarded, whose: str) -> None:
    with guarded.innocent():
        rightful, other = guarded.joins("client"), guarded.joins("client")
        keys = {"another's registration": other.keys, "its ticket": keys_of(guarded.client),
                "a stranger": new_keys(guarded.client.hub_key), "nobody": None}[whose]  # fmt: skip
        with guarded.counts("refused_connections", 1 if keys is None else 2, more=keys is None):
            guarded.raw.turned_away(zmq.PULL, rightful.welcome.lane, keys)
            thief = guarded.raw.connect(zmq.PULL, rightful.welcome.lane, keys)
        for spec in range(100):
            rightful.send(m.Cancel(spec, 0, 0, 1))
            assert rightful.hears_a(m.Cancelled).spec == spec
        assert not thief.poll(200)
        assert rightful.beat().known


def test_a_lane_outlives_whoever_connects_to_it_and_hangs_up(guarded: Guarded) -> None:
    with guarded.innocent():
        rightful = guarded.joins("client")
        hub = psutil.Process(guarded.fleet.hub.process.pid)
        ports = {c.laddr.port for c in hub.net_connections() if c.status == psutil.CONN_LISTEN}
        assert {parse_address(rightful.welcome.lane).port, guarded.raw.address.port} < ports
        for _ in range(20):
            for port in ports:
                socket.create_connection(("127.0.0.1", port)).close()
        later = time.monotonic() + 2 * LANE_GRACE_S
        until(lambda: not rightful.beat().known or time.monotonic() > later, "its peer would be dead by now")
        assert rightful.beat().known
