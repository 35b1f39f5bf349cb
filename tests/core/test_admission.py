"""Who may register, and what becomes of those whose ticket ends."""

from __future__ import annotations

import logging

import pytest

from taskmesh.core import actions as a
from taskmesh.core import events as e
from taskmesh.core import messages as m
from taskmesh.core import records as r
from taskmesh.core.access import LOCAL, Grant, Role
from taskmesh.core.roster import DEAD_AFTER_S
from taskmesh.core.sessions import SESSION_GRACE_S

from .world import CLIENT, DAEMON, World, register

ADMIN, LAPTOP, FARM = (Grant(role.value, role, bytes(32), 0.0) for role in (Role.ADMIN, Role.CLIENT, Role.WORKER))
SECRET = b"0123456789abcdef"
HOLDERS = {"client": LAPTOP, "daemon": FARM}


def joins(
    world: World, role: str, instance: int, holder: Grant | None = None, secret: bytes = SECRET, attempt: int = 1
) -> a.Admit | a.Refuse | a.Again:
    """A registration with a ticket, and what the scheduler wants done about it."""
    request = register(role, instance, attempt)._replace(secret=secret)
    world.happens(e.Joined(request, False, holder or HOLDERS[role]))
    answer = world.actions.pop()
    assert isinstance(answer, a.Admit | a.Refuse | a.Again)
    world.actions.clear()
    if isinstance(answer, a.Admit):
        world.heard(instance)
    return answer


def why(answer: a.Admit | a.Refuse | a.Again) -> str:
    """The reason of a refusal that is final."""
    assert isinstance(answer, a.Refuse)
    assert not answer.again
    return answer.why


@pytest.fixture
def at_work() -> World:
    """A client with five tasks, of which a daemon has one."""
    world = World()
    joins(world, "daemon", DAEMON)
    joins(world, "client", CLIENT)
    world.submits(5)
    world.tick()
    return world


# ---- roles ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("holder", "role"), [(LAPTOP, "daemon"), (ADMIN, "daemon"), (FARM, "client")])
def test_a_ticket_is_for_one_role(holder: Grant, role: str) -> None:
    world = World()
    assert why(joins(world, role, 1, holder)) == f"its ticket is for a {holder.role}: a {role} needs another one"
    assert not world.scheduler.roster.peers


@pytest.mark.parametrize(
    ("holder", "role"), [(LAPTOP, "client"), (ADMIN, "client"), (FARM, "daemon"), (LOCAL, "client"), (LOCAL, "daemon")]
)
def test_a_ticket_does_for_its_role_and_without_keys_anybody_may_be_anything(holder: Grant, role: str) -> None:
    world = World()
    assert isinstance(joins(world, role, 1, holder), a.Admit)
    assert world.scheduler.roster.peers[1].ticket == holder.name


# ---- who it is --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", [b"", b"another secret!!"])
@pytest.mark.parametrize("role", ["client", "daemon"])
@pytest.mark.parametrize("attempt", [0, 1, 9])
def test_an_instance_is_taken_over_only_with_its_secret(role: str, secret: bytes, attempt: int) -> None:
    world = World()
    joins(world, role, 1)
    epoch = world.scheduler.roster.peers[1].epoch
    refused = joins(world, role, 1, secret=secret, attempt=attempt)
    assert why(refused) == "this instance id belongs to somebody who has another secret"
    assert world.scheduler.roster.peers[1].epoch == epoch
    assert isinstance(joins(world, role, 1, attempt=9), a.Admit)


def test_a_session_whose_client_is_away_keeps_its_secret(at_work: World) -> None:
    world = at_work
    world.tick(DEAD_AFTER_S + 1)
    assert CLIENT not in world.scheduler.roster.peers
    assert isinstance(joins(world, "client", CLIENT, secret=b"another secret!!", attempt=2), a.Refuse)
    assert isinstance(joins(world, "client", CLIENT, secret=b"", attempt=2), a.Refuse)
    assert isinstance(joins(world, "client", CLIENT, attempt=2), a.Admit)
    assert world.scheduler.sessions[CLIENT].specs


def test_no_secret_is_kept(at_work: World) -> None:
    world = at_work
    for known in (world.scheduler.roster.peers[CLIENT].proof, world.scheduler.sessions[CLIENT].proof):
        assert known
        assert SECRET not in known


@pytest.mark.parametrize(("role", "instance"), [("daemon", CLIENT), ("client", DAEMON)])
def test_a_number_that_a_peer_of_the_other_role_has_is_taken(at_work: World, role: str, instance: int) -> None:
    assert why(joins(at_work, role, instance)).endswith("already has this instance id")


# ---- tickets that end -------------------------------------------------------------------------------------------


def ends(world: World, ticket: str) -> list[a.Action]:
    """A ticket is revoked; returns what is to be done."""
    world.actions.clear()
    world.happens(e.Revoked(ticket, f"the ticket {ticket!r} was revoked"))
    actions, world.actions = world.actions, []
    return actions


def test_a_client_whose_ticket_ends_is_dismissed_and_its_tasks_are_cancelled(at_work: World) -> None:
    world = at_work
    actions = ends(world, "client")
    assert [x for x in actions if isinstance(x, a.Dismiss)] == [a.Dismiss(CLIENT, False, put_out=True)]
    sent = [x.message for x in actions if isinstance(x, a.Send) and x.instance == DAEMON]
    assert [(type(x), x.interrupt) for x in sent if isinstance(x, m.Revoke)] == [(m.Revoke, True)] * (len(sent) - 1)
    assert sent[-1] == m.Forget(CLIENT)
    assert (world.scheduler.sessions, world.scheduler.totals.cancelled) == ({}, 5)
    world.tick()
    assert not world.expect_dispatches()


def test_a_daemon_whose_ticket_ends_is_dismissed_and_its_work_moves(at_work: World) -> None:
    world = at_work
    given = world.expect_dispatches()
    assert given
    assert [x for x in ends(world, "worker") if isinstance(x, a.Dismiss)] == [a.Dismiss(DAEMON, False, put_out=True)]
    assert world.scheduler.daemons == {}
    world.happens(e.Received(DAEMON, m.Done([])))
    [dropped] = world.actions
    assert isinstance(dropped, a.Dropped)
    world.actions.clear()
    joins(world, "daemon", 22, FARM._replace(name="farm-2"))
    world.tick()
    again = world.expect_dispatches()
    assert (again[0].lo, again[0].attempt) == (given[0].lo, 2)


def test_a_session_that_is_away_goes_with_its_ticket(at_work: World) -> None:
    world = at_work
    world.tick(DEAD_AFTER_S + 1)
    assert CLIENT in world.scheduler.sessions
    ends(world, "client")
    assert not world.scheduler.sessions
    assert not world.scheduler.gone
    world.tick(SESSION_GRACE_S)


def test_who_came_with_another_ticket_stays(at_work: World) -> None:
    world = at_work
    assert ends(world, "somebody else's") == []
    joins(world, "client", 12, ADMIN)
    assert len(ends(world, "client")) >= 1
    assert list(world.scheduler.sessions) == [12]
    assert list(world.scheduler.daemons) == [DAEMON]


def test_a_session_belongs_to_the_ticket_that_its_client_came_with_last(at_work: World) -> None:
    world = at_work
    joins(world, "client", CLIENT, ADMIN, attempt=2)
    assert ends(world, "client") == []
    assert world.scheduler.sessions[CLIENT].ticket == "admin"
    assert a.Dismiss(CLIENT, False, put_out=True) in ends(world, "admin")
    assert world.scheduler.sessions == {}


# ---- without a lane ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["client", "daemon"])
def test_nothing_is_kept_of_a_new_peer_that_gets_no_lane(role: str) -> None:
    world = World(durable=True)
    admit = joins(world, role, CLIENT)
    assert isinstance(admit, a.Admit)
    world.happens(e.NoLane(CLIENT, admit.known))
    scheduler = world.scheduler
    assert not (scheduler.sessions or scheduler.daemons or scheduler.roster.peers or scheduler.gone)
    dropped = a.Persist(r.DropSession(CLIENT)) in world.actions
    assert dropped == (role == "client"), "the store forgets a session, too"


def test_a_client_that_was_here_keeps_its_session_when_it_gets_no_lane(at_work: World) -> None:
    world = at_work
    for away in (False, True):
        if away:
            assert CLIENT not in world.scheduler.roster.peers
        admit = joins(world, "client", CLIENT, attempt=2)
        assert isinstance(admit, a.Admit)
        world.happens(e.NoLane(CLIENT, admit.known))
        assert CLIENT in world.scheduler.sessions
        assert CLIENT in world.scheduler.gone


def test_that_a_peer_has_joined_is_said_after_it_was_let_in() -> None:
    scheduler = World().scheduler
    *_, admit, note = scheduler.handle(e.Joined(register("daemon", DAEMON), False, FARM), 100.0)
    assert isinstance(admit, a.Admit)
    assert note == a.Note(logging.INFO, "daemon daemon21 on host joined with 1 slot")
