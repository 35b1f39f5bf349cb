"""Tickets that end: whoever came with one goes at once, whatever it does, and does not come back."""

from __future__ import annotations

import pickle
import signal
from concurrent.futures import Future

import pytest
import zmq

from taskmesh import HubUnreachable, Mesh
from taskmesh.core import messages as m
from taskmesh.wire.payload import dump_body

from .guarded import Guarded
from .processes import until
from .raw import RawPeer, call, keys_of
from .tasks import double, hold, note
from .test_cli import taskmesh


def revoke(guarded: Guarded, name: str) -> None:
    """As people do it. They say at which hub, because others have left their keys on this machine."""
    finished = taskmesh("ticket", "revoke", name, "--hub", guarded.fleet.address)
    assert finished.returncode == 0, finished.stderr


def submits(guarded: Guarded, peer: RawPeer, name: str) -> None:
    """A raw client has a task that leaves a file; see `ran`."""
    peer.send(*call(dump_body(note, "note"), pickle.dumps(((str(guarded.directory), name), {}), 5)))
    until(lambda: guarded.session(peer)["waiting"] == 1, "it waits")


def ran(guarded: Guarded, name: str) -> bool:
    """Whether that task ever ran; what was submitted after it has."""
    with Mesh(guarded.fleet.address) as mesh:
        assert mesh.submit(double, 2).result(30) == 4
    return (guarded.directory / f"{name}.started").exists()


def is_out(guarded: Guarded, peer: RawPeer) -> None:
    """Nobody is let in with the keys of a peer, nor with its ticket's, and what it says counts for nothing."""
    inbox = peer.welcome.inbox
    with guarded.counts("refused_connections", 3):
        for kind, endpoint, keys in (
            (zmq.REQ, guarded.raw.address.control, keys_of(peer.ticket)),
            (zmq.REQ, guarded.raw.address.control, peer.keys),
            (zmq.PUSH, inbox, peer.keys),
        ):
            assert not guarded.raw.let_in(kind, endpoint, keys)
    document = guarded.document()
    assert not [entry for entry in (*document["sessions"], *document["daemons"]) if entry["pid"] == peer.pid]


# ---- clients ----------------------------------------------------------------------------------------------------


def test_a_client_whose_ticket_is_revoked_is_out_and_its_tasks_are_cancelled(guarded: Guarded) -> None:
    laptop = guarded.create("laptop", "client")
    with guarded.innocent():
        peer, session = guarded.joins("client", laptop), Mesh(ticket=guarded.file(laptop))
        submits(guarded, peer, "waiting")
        running: Future[str] = session.submit(hold, str(guarded.directory), "running")
        futures = [session.submit(note, str(guarded.directory), "waiting") for _ in range(1200)]
        until(lambda: len(guarded.document(laptop)["sessions"]) == 2, "both are there")
        assert peer.beat().known
        with guarded.counts("refused_connections", more=True):
            revoke(guarded, "laptop")
            for future in (running, *futures):
                with pytest.raises(HubUnreachable, match="the ticket 'laptop'"):
                    future.result(20)
        session.shutdown(wait=False)
        with guarded.counts("dropped_frames", 3):
            peer.send(*call(dump_body(note, "note"), b""))
        is_out(guarded, peer)
        assert guarded.document()["waiting"] <= 500  # those of the innocent
        assert [entry["name"] for entry in guarded.audit("ticket revoked")] == ["laptop"]
        assert [entry["name"] for entry in guarded.audit("ticket ended")] == ["laptop"]
    assert not ran(guarded, "waiting")


def test_what_a_client_has_running_is_interrupted_when_its_ticket_is_revoked(guarded: Guarded) -> None:
    laptop = guarded.create("laptop", "client")
    guarded.fleet.worker()
    session = Mesh(ticket=guarded.file(laptop))
    session.submit(hold, str(guarded.directory), "running")
    until((guarded.directory / "running.started").exists, "it runs")
    revoke(guarded, "laptop")
    assert not ran(guarded, "waiting")  # it never ends by itself: the only runner is free again
    session.shutdown(wait=False)


def test_a_session_that_is_away_when_its_ticket_is_revoked_is_gone(guarded: Guarded) -> None:
    peer = guarded.joins("client", guarded.create("laptop", "client"))
    submits(guarded, peer, "away")
    peer.vanish()
    until(lambda: not guarded.session(peer)["connected"], "it is missed", 20)
    revoke(guarded, "laptop")
    until(lambda: guarded.document()["sessions"] == [], "it is gone", 20)
    assert guarded.document()["waiting"] == 0
    guarded.fleet.worker()
    assert not ran(guarded, "away")


# ---- workers ----------------------------------------------------------------------------------------------------


def test_a_worker_whose_ticket_is_revoked_is_out_and_its_task_runs_elsewhere(guarded: Guarded) -> None:
    farm = guarded.create("farm", "worker")
    worker = guarded.fleet.worker_with(guarded.file(farm))
    with Mesh(guarded.fleet.address) as mesh:
        held = mesh.submit(hold, str(guarded.directory), "held")
        futures = [mesh.submit(double, n) for n in range(200)]
        until((guarded.directory / "held.started").exists, "it runs")
        peer = guarded.joins("worker", farm)
        assert peer.beat().known
        revoke(guarded, "farm")
        assert worker.ends(30) == 4, worker.output
        assert "the ticket 'farm'" in worker.output
        is_out(guarded, peer)
        guarded.fleet.worker()
        until(lambda: (guarded.directory / "held.started").read_text().count("\n") == 2, "it runs again", 30)
        (guarded.directory / "held.go").touch()
        assert held.result(30) == "held"
        assert [future.result(30) for future in futures] == [2 * n for n in range(200)]


def test_a_worker_whose_ticket_was_revoked_posts_no_result(guarded: Guarded) -> None:
    farm = guarded.create("farm", "worker")
    peer = guarded.joins("worker", farm, slots=1)
    with Mesh(guarded.fleet.address) as mesh:
        future = mesh.submit(double, 21)
        assert peer.beat().known
        dispatch = peer.hears_a(m.Dispatch)
        guarded.revoke("farm")
        until(lambda: guarded.document()["daemons"] == [], "it is out")
        outcome = m.Outcome(dispatch.spec, dispatch.chunk.first, 0, 1, m.Form.LIST, pickle.dumps(["false"], 5))
        with guarded.counts("dropped_frames"):
            peer.send(m.Done([m.Finished(dispatch.fence, dispatch.session, 0.1, outcome)]))
        guarded.fleet.worker()
        assert future.result(30) == 42


# ---- time -------------------------------------------------------------------------------------------------------


def test_a_ticket_that_expires_ends_what_came_with_it(guarded: Guarded) -> None:
    with guarded.innocent():
        laptop, farm = guarded.create("laptop", "client", 3), guarded.create("farm", "worker", 3)
        client, worker = guarded.joins("client", laptop), guarded.joins("worker", farm)
        submits(guarded, client, "late")
        assert worker.beat().known
        until(lambda: len(guarded.audit("ticket ended")) == 2, "both have ended", 20)
        assert {entry["why"] for entry in guarded.audit("ticket ended")} == {
            "the ticket 'laptop' has expired",
            "the ticket 'farm' has expired",
        }
        for peer in (client, worker):
            is_out(guarded, peer)
    assert not ran(guarded, "late")


def test_who_is_at_work_with_a_ticket_that_expires_is_told_which(guarded: Guarded) -> None:
    farm = guarded.file(guarded.create("farm", "worker", 6))
    laptop = guarded.file(guarded.create("laptop", "client", 6))
    worker = guarded.fleet.worker_with(farm)
    session = Mesh(ticket=laptop)
    held = session.submit(hold, str(guarded.directory), "held")
    with pytest.raises(HubUnreachable, match="the ticket 'laptop'"):
        held.result(30)
    assert worker.ends(30) == 4, worker.output
    assert "the ticket 'farm'" in worker.output
    session.shutdown(wait=False)


# ---- another hub with the same keys -----------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_revoked_ticket_stays_revoked_when_the_hub_is_started_again(lasting: Guarded, number: int) -> None:
    laptop = lasting.create("laptop", "client")
    peer = lasting.joins("client", laptop)
    revoke(lasting, "laptop")
    lasting.fleet.kill_hub(number)
    assert not lasting.raw.let_in(zmq.REQ, lasting.raw.address.control, keys_of(laptop))
    assert lasting.document()["sessions"] == []
    assert peer.instance


@pytest.mark.parametrize("where", ["at the hub", "while no hub runs"])
def test_a_session_in_the_store_is_gone_with_its_ticket(lasting: Guarded, where: str) -> None:
    peer = lasting.joins("client", lasting.create("laptop", "client"))
    submits(lasting, peer, "stored")
    if where == "at the hub":
        peer.vanish()
        lasting.fleet.kill_hub()
        assert [s["ticket"] for s in lasting.document()["sessions"]] == ["laptop"]
        revoke(lasting, "laptop")
    else:
        lasting.fleet.hub.signal(signal.SIGTERM)
        lasting.fleet.hub.ends()
        revoke(lasting, "laptop")
        lasting.fleet.start_hub()
    until(lambda: lasting.document()["sessions"] == [], "it is gone", 20)
    lasting.fleet.worker()
    assert not ran(lasting, "stored")
    lasting.fleet.kill_hub()
    assert not [s for s in lasting.document()["sessions"] if s["ticket"] == "laptop"], "nor is it in the store"
    assert not lasting.raw.let_in(zmq.REQ, lasting.raw.address.control, keys_of(peer.ticket))
