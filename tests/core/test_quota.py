"""How much a hub takes in: what is over it is refused in words, now or for good, and nothing accepted is lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmesh.core import actions as a
from taskmesh.core import events as e
from taskmesh.core import messages as m
from taskmesh.core.access import Grant, Role
from taskmesh.core.quota import BURST_S, NEVER, UNLIMITED, Bucket, Quotas

from .world import CLIENT, DAEMON, World, register

LAPTOP, OTHER = (Grant(name, Role.CLIENT, bytes(32), 0.0) for name in ("laptop", "other"))


def joins(world: World, instance: int, holder: Grant = LAPTOP, attempt: int = 1) -> a.Action:
    """A client registers; what the scheduler wants done about it."""
    world.happens(e.Joined(register("client", instance, attempt), False, holder))
    answer = world.actions[-1]
    world.actions.clear()
    return answer


def test_one_peer_too_many_is_told_to_come_again() -> None:
    world = World(quotas=UNLIMITED._replace(peers=2))
    assert [type(joins(world, n)) for n in (1, 2)] == [a.Admit, a.Admit]
    assert joins(world, 3) == a.Refuse("the hub has 2 peers, and takes no more (--max-peers)", again=True)
    assert isinstance(joins(world, 2, attempt=2), a.Admit), "who is there may register again"
    world.hears(1, m.Close())
    world.actions.clear()
    assert isinstance(joins(world, 3), a.Admit)


def test_too_many_registrations_with_one_ticket_are_told_to_come_again() -> None:
    world = World(quotas=UNLIMITED._replace(registrations_per_s=10.0))
    burst = int(10 * BURST_S)
    assert all(isinstance(joins(world, n), a.Admit) for n in range(1, burst + 1))
    refused = joins(world, 1000)
    assert isinstance(refused, a.Refuse)
    assert refused.again
    assert "the hub takes 10 a second with one ticket (--max-registrations)" in refused.why
    assert isinstance(joins(world, 1001, OTHER), a.Admit), "others are not held up"
    world.tick(0.15)
    assert isinstance(joins(world, 1000), a.Admit)
    assert isinstance(joins(world, 1002), a.Refuse)


def test_refusals_do_not_count_as_registrations() -> None:
    world = World(quotas=UNLIMITED._replace(registrations_per_s=1.0))
    for n in range(100):
        world.happens(e.Joined(register("daemon", n + 1), False, LAPTOP))
    world.actions.clear()
    assert isinstance(joins(world, 1), a.Admit)


@pytest.mark.parametrize("room", [0, 100])
def test_what_is_more_than_a_session_may_have_is_rejected_and_the_rest_runs(room: int) -> None:
    world = World(quotas=UNLIMITED._replace(queued_bytes=10_000))
    world.joins("client", CLIENT)
    world.joins("client", 12)
    world.submits(10)
    session = world.scheduler.sessions[CLIENT]
    taken = session.queued + world.scheduler.bodies.bytes[CLIENT]
    world.scheduler.quotas = world.scheduler.quotas._replace(queued_bytes=taken + room)
    world.actions.clear()
    world.submits(1000, first=10)
    [rejected] = [x.message for x in world.actions if isinstance(x, a.Send) and isinstance(x.message, m.Rejected)]
    assert (rejected.spec, rejected.first) == (1, 10)
    assert "bytes of calls and outcomes at the hub" in rejected.why
    world.actions.clear()
    world.submits(10, client=12)
    assert not [x for x in world.actions if isinstance(x, a.Send)], "another session has its own room"
    world.joins("daemon", DAEMON, slots=64)
    world.tick()
    assert {(d.session, d.spec, d.chunk.first) for d in world.expect_dispatches()} == {(CLIENT, 1, 0), (12, 1, 0)}


def test_without_limits_everything_is_taken() -> None:
    bucket = Bucket(UNLIMITED.registrations_per_s, 0.0)
    assert all(bucket.take(0.0) for _ in range(100_000))
    assert Quotas().peers < UNLIMITED.peers == NEVER


@given(st.floats(0.1, 1000.0), st.lists(st.floats(0.0, 3.0), max_size=200))
def test_a_bucket_gives_no_more_than_its_rate_and_one_burst(per_s: float, waits: list[float]) -> None:
    bucket, now, taken = Bucket(per_s, 0.0), 0.0, 0
    for wait in waits:
        now += wait
        taken += bucket.take(now)
        assert taken <= per_s * now + max(1.0, per_s * BURST_S) + 1e-6


@given(st.floats(0.5, 1000.0), st.integers(1, 100))
def test_who_comes_no_more_often_than_the_rate_is_always_taken(per_s: float, times: int) -> None:
    bucket = Bucket(per_s, 0.0)
    assert all(bucket.take(n * 1.000001 / per_s) for n in range(times))
