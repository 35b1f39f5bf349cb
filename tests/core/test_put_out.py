"""What becomes of those whose ticket ends, and of the tickets themselves when a clock is wrong."""

from __future__ import annotations

from taskmesh.core import actions as a
from taskmesh.core import events as e
from taskmesh.core import messages as m
from taskmesh.core.access import Access, Grant, Role

from .world import CLIENT, DAEMON, World, register

FARM = Grant("farm", Role.WORKER, b"k" * 32, 0.0)
LAPTOP = Grant("laptop", Role.CLIENT, b"l" * 32, 0.0, expires_at=100.0)


def test_who_is_put_out_is_told_why_on_its_lane_and_can_be_sure_that_it_is_for_good() -> None:
    world = World()
    for role, instance, grant in (("client", CLIENT, LAPTOP), ("daemon", DAEMON, FARM)):
        world.happens(e.Joined(register(role, instance), False, grant))
    world.actions.clear()
    world.happens(e.Revoked("farm", "the ticket 'farm' was revoked"))
    world.expect_send(DAEMON, m.Goodbye("the ticket 'farm' was revoked", back=False))
    world.expect(a.Dismiss(DAEMON, dead=False, put_out=True))
    world.happens(e.Revoked("laptop", "the ticket 'laptop' has expired"))
    world.expect_send(CLIENT, m.Goodbye("the ticket 'laptop' has expired", back=False))
    world.expect(a.Dismiss(CLIENT, dead=False, put_out=True))
    world.nothing_else()


def test_a_ticket_that_a_wrong_clock_ended_ends_again_when_its_time_has_come() -> None:
    access = Access([LAPTOP])
    assert access.ended(50.0) == []
    assert access.ended(5000.0) == [LAPTOP]
    assert access.ended(5001.0) == []
    assert access.ended(60.0) == []  # the clock was set back: it is good, and its holder may come in
    assert access.next_expiry() == 100.0
    assert access.ended(100.0) == [LAPTOP]
