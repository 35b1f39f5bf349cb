"""Speaking for somebody else: what a peer says under the number, epoch, key or secret that is another's has no effect.

Whoever tries it has a ticket, and even the same one. Beside each an innocent client and an innocent worker are at work.
"""

from __future__ import annotations

import pickle
import secrets
from typing import NamedTuple

import pytest

from taskmesh.core import messages as m
from taskmesh.wire.payload import dump_body

from .guarded import Guarded, Innocent
from .processes import until
from .raw import RawPeer, call, keys_of, new_keys
from .tasks import double

ROLES = ("client", "worker")


class Victim(NamedTuple):
    """A registration of somebody innocent, as the audit log has it."""

    instance: int
    epoch: int


def victim(guarded: Guarded, innocent: Innocent, role: str) -> Victim:
    """The innocent client's registration, or the worker's."""
    pid = innocent.pids[ROLES.index(role)]
    [entry] = [e for e in guarded.audit("registered") if e["pid"] == pid]
    return Victim(int(entry["instance"], 16), entry["epoch"])


def misdeeds(role: str) -> list[m.LinkMessage]:
    """What would be noticed if it counted as said by a peer of that role."""
    if role == "client":
        return [m.Cancel(1, 0, 0, 1, True), m.Cancel(2, 0, 0, 500, True), m.Retire(1), m.Close()]
    return [m.Inventory([]), m.Slots(0), m.Leaving()]


# ---- another's registration -------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_a_frame_counts_only_by_the_key_of_its_registration(guarded: Guarded, role: str) -> None:
    with guarded.innocent() as innocent:
        peer, of = guarded.joins(role), victim(guarded, innocent, role)
        with guarded.counts("dropped_frames", 20 * len(misdeeds(role))):
            for message in misdeeds(role):
                for seq in range(1, 21):  # one of them would be the next
                    peer.says(peer.frame(message, seq, epoch=of.epoch))
        assert "it came by a key that is not that of peer" in guarded.fleet.hub.output
        assert peer.beat().known, "its own registration holds"


@pytest.mark.parametrize("role", ROLES)
def test_a_heartbeat_counts_only_by_the_key_of_its_registration(guarded: Guarded, role: str) -> None:
    with guarded.innocent() as innocent:
        peer, of = guarded.joins(role), victim(guarded, innocent, role)
        beat = m.Heartbeat(of.instance, peer.welcome.incarnation, of.epoch, 0, [])
        with guarded.counts("refused_requests", 2):
            for keys in (peer.keys, keys_of(peer.ticket)):
                assert guarded.raw.ask(beat, keys) == m.HeartbeatReply(False, 0, 0, 0)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("secret", [b"", b"wrong" + bytes(11)], ids=["no secret", "a wrong secret"])
def test_nobody_registers_again_for_another(guarded: Guarded, role: str, secret: bytes) -> None:
    with guarded.innocent() as innocent:
        peer, of = guarded.joins(role), victim(guarded, innocent, role)
        as_what = "daemon" if role == "worker" else "client"
        for attempt in (0, 1, 1_000_000):
            request = guarded.raw.request(
                as_what, of.instance, new_keys(peer.keys.hub).raw, secret, attempt=attempt,
                incarnation=peer.welcome.incarnation, epoch=of.epoch,
            )  # fmt: skip
            with guarded.counts("refused_peers"):
                why = guarded.refused(request, keys_of(peer.ticket))
            assert why == (
                "this instance id belongs to somebody who has another secret" if secret else
                "a registration needs a secret"
            )  # fmt: skip


def test_a_registration_begins_with_a_ticket_and_not_with_the_key_of_another(guarded: Guarded) -> None:
    with guarded.innocent():
        peer = guarded.joins("client")
        for role in ("client", "daemon"):
            request = guarded.raw.request(role, 77, new_keys(peer.keys.hub).raw, bytes(16))
            with guarded.counts("refused_peers"):
                assert guarded.refused(request, peer.keys) == "a key of no ticket"


@pytest.mark.parametrize(
    "whose", ["another registration's", "its own ticket's", "another ticket's", "the hub's", "no key"]
)
def test_a_registration_has_a_key_that_nobody_else_has(guarded: Guarded, whose: str) -> None:
    with guarded.innocent():
        other = guarded.joins("client")
        key = {
            "another registration's": other.keys.raw,
            "its own ticket's": keys_of(guarded.client).raw,
            "another ticket's": keys_of(guarded.admin).raw,
            "the hub's": keys_of(guarded.client)._replace(public=guarded.client.hub_key).raw,
            "no key": b"",
        }[whose]
        request = guarded.raw.request("client", 77, key, bytes(16))
        with guarded.counts("refused_peers"):
            assert guarded.refused(request, keys_of(guarded.client)) == "a registration needs a fresh key of its own"
        assert other.beat().known


# ---- a session --------------------------------------------------------------------------------------------------


def resume(peer: RawPeer, secret: bytes, attempt: int = 2) -> m.ControlMessage:
    """The reply to somebody who would go on with a session under another key."""
    keys = new_keys(peer.keys.hub)
    request = peer.raw.request(
        "client", peer.instance, keys.raw, secret, attempt=attempt,
        incarnation=peer.welcome.incarnation, epoch=peer.welcome.epoch,
    )  # fmt: skip
    return peer.raw.ask(request, keys_of(peer.ticket))


def test_a_session_whose_client_is_away_is_taken_up_only_by_who_knows_its_secret(guarded: Guarded) -> None:
    with guarded.innocent():
        peer = guarded.joins("client")
        peer.send(*call(dump_body(double, "double"), pickle.dumps(((21,), {}), 5)))
        until(lambda: guarded.session(peer)["waiting"] == 1, "it waits")
        peer.vanish()
        until(lambda: not guarded.session(peer)["connected"], "it is missed", 20)
        with guarded.counts("refused_peers", 2):
            assert isinstance(resume(peer, secrets.token_bytes(16)), m.Refused)
            assert isinstance(resume(peer, b""), m.Refused)
        assert not guarded.session(peer)["connected"]
        assert guarded.session(peer)["waiting"] == 1
        assert isinstance(resume(peer, peer.secret), m.Registered)
        assert guarded.session(peer)["connected"]


def test_what_was_a_registration_is_none_any_more_when_its_peer_has_registered_again(guarded: Guarded) -> None:
    with guarded.innocent():
        peer = guarded.joins("client")
        assert isinstance(resume(peer, peer.secret), m.Registered)
        with guarded.counts("dropped_frames"):
            peer.send(m.Close())
        assert guarded.session(peer)["connected"]
        with guarded.counts("refused_connections"):
            assert not guarded.raw.let_in(3, guarded.raw.address.control, peer.keys)


# ---- tasks of others --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", list(m.Form))
def test_a_worker_answers_no_task_that_it_was_not_given(guarded: Guarded, form: m.Form) -> None:
    blob = pickle.dumps(["false"], 5) if form is m.Form.LIST else b"\x80"
    with guarded.innocent() as innocent:
        peer = guarded.joins("worker")
        guesses = [(peer.welcome.incarnation & 0x7FFF_FFFF_0000_0000) + n for n in range(1, 11)]
        with guarded.counts("dropped_frames", len(guesses) * len(innocent.chunks)):
            for fence in guesses:
                for spec, first in innocent.chunks:
                    outcome = m.Outcome(spec, first, 0, 1, form, blob)
                    peer.send(m.Done([m.Finished(fence, innocent.session, 0.001, outcome)]))


def test_a_worker_claims_no_task_that_it_was_not_given(guarded: Guarded) -> None:
    with guarded.innocent() as innocent:
        peer = guarded.joins("worker")
        fences = [(peer.welcome.incarnation & 0x7FFF_FFFF_0000_0000) + n for n in range(1, 11)]
        with guarded.counts("dropped_frames", len(fences) * len(innocent.chunks)):
            for fence in fences:
                for spec, first in innocent.chunks:
                    peer.send(m.Inventory([m.Holding(fence, innocent.session, spec, first, 1, False, [(0, 1)])]))
                peer.send(m.Strike(fence, 0, 1, b"\x80"), m.GiveBack(fence, [(0, 1)], [(0, 1)]))
        assert not [message for message in peer.hears(0.5) if isinstance(message, m.Dispatch)]
