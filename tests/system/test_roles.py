"""What the holder of a ticket may not do, tried with its real keys on raw sockets, one test for each act.

Beside each an innocent client and an innocent worker are at work, and notice nothing.
"""

from __future__ import annotations

import pickle

import pytest
import zmq

from taskmesh.core import messages as m
from taskmesh.wire.payload import dump_body

from .guarded import Guarded
from .processes import until
from .raw import call, keys_of, new_keys
from .tasks import note

OUTCOME = m.Outcome(1, 0, 0, 1, m.Form.LIST, pickle.dumps(["false"], 5))


def code(guarded: Guarded, name: str = "intruder") -> list[m.LinkMessage]:
    """The messages that have a task leave a file; see `ran`."""
    return call(dump_body(note, "note"), pickle.dumps(((str(guarded.directory), name), {}), 5))


def ran(guarded: Guarded, name: str = "intruder") -> bool:
    """Whether that task ever ran."""
    return (guarded.directory / f"{name}.started").exists()


# ---- a worker's ticket ------------------------------------------------------------------------------------------


def test_a_worker_ticket_does_not_register_a_client(guarded: Guarded) -> None:
    with guarded.innocent(), guarded.counts("refused_peers"):
        request = guarded.raw.request("client", 77, new_keys(guarded.worker.hub_key).raw, b"s" * 16)
        assert "its ticket is for a worker" in guarded.refused(request, keys_of(guarded.worker))
    assert guarded.audit("registration refused")[-1]["ticket"] == "worker"


def test_a_registration_as_something_else_is_refused(guarded: Guarded) -> None:
    with guarded.innocent(), guarded.counts("refused_peers", 3):
        for ticket in (guarded.worker, guarded.client, guarded.admin):
            request = guarded.raw.request("hub", 77, new_keys(ticket.hub_key).raw, b"s" * 16)
            assert "unknown role 'hub'" in guarded.refused(request, keys_of(ticket))


def test_a_worker_does_not_submit_on_the_sink(guarded: Guarded) -> None:
    with guarded.innocent() as innocent:
        peer = guarded.joins("worker")
        before = guarded.document()["submitted"]
        with guarded.counts("dropped_frames", 3):
            peer.send(*code(guarded))
        assert innocent.mesh.submit(len, "abc").done() is False
        assert guarded.document()["submitted"] == before + 1  # that one
    assert not ran(guarded)


@pytest.mark.parametrize("whose", ["its ticket's", "its registration's"])
def test_a_worker_does_not_connect_to_submit(guarded: Guarded, whose: str) -> None:
    with guarded.innocent():
        peer = guarded.joins("worker")
        keys = peer.keys if whose == "its registration's" else keys_of(guarded.worker)
        submit = guarded.submit
        with guarded.counts("refused_connections", 2):
            assert not guarded.raw.let_in(zmq.PUSH, submit, keys)
            sock = guarded.raw.connect(zmq.PUSH, submit, keys)
            for seq, message in enumerate(code(guarded), 1):
                sock.send(peer.frame(message, seq))
        assert guarded.audit("connection refused")[-1]["channel"] == "submit"
    assert not ran(guarded)


def test_a_worker_is_shown_no_sessions(guarded: Guarded) -> None:
    with guarded.innocent():
        peer = guarded.joins("worker")
        assert [s["ticket"] for s in guarded.document()["sessions"]] == ["client"]
        assert guarded.document(guarded.worker)["sessions"] == []
        reply = guarded.raw.ask(m.StatusRequest(), peer.keys)
        assert isinstance(reply, m.StatusReply)
        assert b'"sessions": []' in reply.document


def test_a_worker_cancels_no_task_of_a_session_whose_number_it_knows(guarded: Guarded) -> None:
    with guarded.innocent() as innocent:
        peer = guarded.joins("worker")
        with guarded.counts("dropped_frames", 3 * len(innocent.specs)):
            for spec in innocent.specs:
                peer.send(m.Cancel(spec, 0, 0, 500, True), m.Retire(spec), m.Close())


def test_a_worker_does_not_register_with_the_number_of_a_session(guarded: Guarded) -> None:
    with guarded.innocent() as innocent, guarded.counts("refused_peers"):
        request = guarded.raw.request("daemon", innocent.session, new_keys(guarded.worker.hub_key).raw, b"s" * 16)
        assert "a client already has this instance id" in guarded.refused(request, keys_of(guarded.worker))


# ---- a client's ticket ------------------------------------------------------------------------------------------


def test_a_client_ticket_does_not_register_a_worker(guarded: Guarded) -> None:
    with guarded.innocent(), guarded.counts("refused_peers", 2):
        for ticket in (guarded.client, guarded.admin):
            request = guarded.raw.request("daemon", 77, new_keys(ticket.hub_key).raw, b"s" * 16, slots=8)
            assert f"its ticket is for a {ticket.role}" in guarded.refused(request, keys_of(ticket))


@pytest.mark.parametrize("whose", ["its ticket's", "its registration's"])
def test_a_client_does_not_connect_to_the_sink(guarded: Guarded, whose: str) -> None:
    with guarded.innocent():
        peer = guarded.joins("client")
        keys = peer.keys if whose == "its registration's" else keys_of(guarded.client)
        sink = guarded.sink
        with guarded.counts("refused_connections"):
            assert not guarded.raw.let_in(zmq.PUSH, sink, keys)
        assert guarded.audit("connection refused")[-1]["channel"] == "sink"


@pytest.mark.parametrize("whose", ["its own", "another's"])
def test_a_client_posts_no_results(guarded: Guarded, whose: str) -> None:
    with guarded.innocent() as innocent:
        peer = guarded.joins("client")
        peer.send(*code(guarded, "mine"))  # waits: the only runner is taken
        until(lambda: guarded.session(peer)["waiting"] == 1, "it waits")
        session, specs = (peer.instance, [1]) if whose == "its own" else (innocent.session, innocent.specs)
        for spec in specs:
            outcome = OUTCOME._replace(spec=spec)
            with guarded.counts("dropped_frames", 5):
                peer.send(
                    m.Done([m.Finished(1, session, 0.1, outcome)]),
                    m.Inventory([m.Holding(1, session, spec, 0, 1, False, [(0, 1)])]),
                    m.GiveBack(1, [(0, 1)], []),
                    m.Strike(1, 0, 1, b"\x80"),
                    m.Leaving(),
                )
        assert not ran(guarded, "mine")


def test_a_client_is_given_no_work(guarded: Guarded) -> None:
    with guarded.innocent():
        peer = guarded.joins("client")
        assert peer.beat().known
        with guarded.counts("dropped_frames", 2):
            peer.send(m.Slots(64), m.NeedBody(b"0123456789abcdef"))
        assert not [message for message in peer.hears(1.0) if isinstance(message, m.Dispatch | m.Body)]
        assert [daemon["slots"] for daemon in guarded.document()["daemons"]] == [1]


# ---- tickets ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["client", "worker"])
def test_only_an_admin_makes_lists_and_revokes_tickets(guarded: Guarded, role: str) -> None:
    key = new_keys(guarded.admin.hub_key).raw
    with guarded.innocent():
        peer = guarded.joins(role)
        requests = (m.CreateTicket("mine", "admin", key, 0), m.ListTickets(), m.RevokeTicket("worker"))
        with guarded.counts("refused_requests", 6):
            for request in requests:
                for keys in (keys_of(peer.ticket), peer.keys):
                    assert "that takes an admin ticket" in guarded.refused(request, keys)
    assert guarded.audit("ticket created") == guarded.audit("ticket revoked") == []
    assert guarded.audit("command refused")[0]["ticket"] == role
    listed = guarded.raw.ask(m.ListTickets(), keys_of(guarded.admin))
    assert isinstance(listed, m.Tickets)
    assert b"mine" not in listed.document
    guarded.create("theirs", "client")
    guarded.revoke("theirs")
    assert [e["name"] for e in (*guarded.audit("ticket created"), *guarded.audit("ticket revoked"))] == ["theirs"] * 2


# ---- sessions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ticket", ["the same", "another", "an admin's"])
def test_a_session_cancels_nothing_of_another(guarded: Guarded, ticket: str) -> None:
    with guarded.innocent() as innocent:
        tickets = {"the same": guarded.client, "an admin's": guarded.admin}
        peer = guarded.joins("client", tickets.get(ticket) or guarded.create("other", "client"))
        for spec in innocent.specs:
            peer.send(m.Cancel(spec, 0, 0, 500, True))
            told = peer.hears_a(m.Cancelled)
            assert (told.spec, told.kept) == (spec, [(0, 500)])
            peer.send(m.Retire(spec))
        peer.send(m.Close())
        assert peer.hears_a(m.Goodbye).why == "session closed"


def test_a_client_sees_only_the_sessions_of_its_ticket(guarded: Guarded) -> None:
    other = guarded.create("other", "client")
    with guarded.innocent():
        assert guarded.document(other)["sessions"] == []
        peer = guarded.joins("client", other)
        assert [s["ticket"] for s in guarded.document(other)["sessions"]] == ["other"]
        assert [s["ticket"] for s in guarded.document(guarded.client)["sessions"]] == ["client"]
        assert sorted(s["ticket"] for s in guarded.document()["sessions"]) == ["client", "other"]
        reply = guarded.raw.ask(m.StatusRequest(), peer.keys)
        assert isinstance(reply, m.StatusReply)
        assert b'"ticket": "client"' not in reply.document.partition(b'"sessions"')[2]
