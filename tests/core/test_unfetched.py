"""Results that a client does not fetch: so many are kept for it, nothing more of it is started, and others go on."""

from __future__ import annotations

import pytest

from taskmesh.core import actions as a
from taskmesh.core import events as e
from taskmesh.core import messages as m
from taskmesh.core import records as r
from taskmesh.core.leases import SPEC_BYTES
from taskmesh.core.outbox import ON_WAY_BYTES, RESULTS_BYTES, WEIGHT, Ended, Outbox
from taskmesh.core.quota import Quotas
from taskmesh.core.ready import ReadyQueue

from .world import CLIENT, DAEMON, DIGEST, World, calls, register

ROOM = 10_000
OTHER = 12


@pytest.fixture
def world() -> World:
    made = World(quotas=Quotas(queued_bytes=ROOM))
    made.joins("daemon", DAEMON, slots=1)
    made.joins("client", CLIENT)
    return made


def finish(world: World, dispatch: m.Dispatch, size: int) -> None:
    """Everything in a lease ends, with results of so many bytes."""
    outcome = m.Outcome(dispatch.spec, dispatch.chunk.first, dispatch.lo, dispatch.hi, m.Form.LIST, b"x" * size)
    world.hears(DAEMON, m.Done([m.Finished(dispatch.fence, dispatch.session, 0.2, outcome)]))


def fill(world: World) -> None:
    """The client has more unfetched than it may, and nothing of it runs."""
    world.submits(1)
    world.submits(1, first=1)
    world.tick()
    first, second = world.expect_dispatches()
    finish(world, first, ROOM)
    finish(world, second, 10)
    world.tick()
    world.actions.clear()


def held(world: World) -> list[bool]:
    return [session.held for session in world.scheduler.statistics(world.now).sessions]


def test_nothing_of_a_session_is_started_while_it_has_too_much_that_it_does_not_fetch(world: World) -> None:
    world.submits(3)
    world.submits(3, first=3)
    world.tick()
    dispatches = world.expect_dispatches()
    for dispatch in dispatches:
        finish(world, dispatch, ROOM)
    world.tick()
    assert world.expect_dispatches() == [], "more waits, and the daemon is free"
    assert held(world) == [True]
    world.happens(e.Delivered(CLIENT, len(dispatches)))
    world.tick()
    assert len(world.expect_dispatches()) > 0
    assert held(world) == [False]


def test_others_are_served_while_a_session_is_held(world: World) -> None:
    world.submits(100)
    world.tick()
    (dispatch, *_) = world.expect_dispatches()
    finish(world, dispatch, 2 * ROOM)
    world.joins("client", OTHER)
    world.submits(3, client=OTHER, priority=-5)
    world.tick()
    assert {d.session for d in world.expect_dispatches()} == {OTHER}


def test_what_is_put_back_while_a_session_is_held_waits_in_its_place(world: World) -> None:
    world.hears(CLIENT, m.Spec(2, "g", DIGEST, b"", 0, m.NO_LIMITS))
    fill(world)
    world.happens(e.Received(CLIENT, m.Submit(2, calls(1), [(0, 1)])))  # offered again: twice the room
    world.tick()
    world.tick()
    assert world.expect_dispatches() == []
    world.happens(e.Delivered(CLIENT, 2))
    world.tick()
    (dispatch,) = world.expect_dispatches()
    assert dispatch.spec == 2


def test_a_new_chunk_is_refused_while_the_results_of_others_are_not_fetched(world: World) -> None:
    fill(world)
    world.submits(1, first=2)
    (action,) = world.actions
    assert isinstance(action, a.Send)
    assert isinstance(action.message, m.Rejected)
    assert "bytes of calls and outcomes" in action.message.why


def test_a_session_that_ends_while_it_is_held_leaves_nothing(world: World) -> None:
    fill(world)
    world.hears(CLIENT, m.Close())
    world.actions.clear()
    assert not world.scheduler.ready.held
    world.joins("client", CLIENT)
    world.submits(1)
    world.tick()
    assert len(world.expect_dispatches()) == 1


def test_a_client_that_comes_back_is_sent_all_of_it_and_is_still_held(world: World) -> None:
    fill(world)
    world.happens(e.Joined(register("client", CLIENT, attempt=2)))
    world.tick()
    sent = [action.message for action in world.actions if isinstance(action, a.Send)]
    assert sum(len(message.outcomes) for message in sent if isinstance(message, m.Results)) == 2
    assert held(world) == [True]


def test_a_hub_that_starts_again_holds_those_that_had_too_much() -> None:
    world = World(quotas=Quotas(queued_bytes=ROOM), durable=True)
    spec = m.Spec(1, "f", DIGEST, b"", 0, m.NO_LIMITS)
    outcome = m.Outcome(1, 0, 0, 1, m.Form.LIST, b"x" * ROOM)
    stored = r.SessionSnapshot(CLIENT, "c", "h", [r.SpecSnapshot(spec, 2, [(calls(2), [(1, 2)])])], [outcome])
    world.scheduler.restore(r.Snapshot([stored], {DIGEST: b"body"}), world.now)
    world.joins("daemon", DAEMON)
    world.tick(5.0)
    assert world.expect_dispatches() == []
    assert held(world) == [True]


# ---- the outbox -----------------------------------------------------------------------------------------------------


def ended(n: int, size: int) -> Ended:
    return Ended(m.Outcome(1, 0, n, n + 1, m.Form.LIST, b"x" * size), DAEMON, 1, n, n + 1)


def test_only_so_much_is_on_its_way_at_a_time_and_all_of_it_arrives_in_order() -> None:
    outbox, size, count = Outbox(), RESULTS_BYTES, 1000
    for n in range(count):
        outbox.add(ended(n, size))
    arrived: list[int] = []
    while len(outbox):
        messages, _ = outbox.send()
        assert sum(len(o.blob) for outcomes in messages for o in outcomes) <= ON_WAY_BYTES + size
        arrived += [o.lo for outcomes in messages for o in outcomes]
        assert not outbox.can_send
        outbox.acknowledged(len(messages) // 2 or 1)
        assert outbox.bytes == outbox.weigh()
    assert arrived == list(range(count))
    assert outbox.bytes == 0


def test_many_small_outcomes_count_for_more_than_their_bytes() -> None:
    outbox = Outbox()
    for n in range(100):
        outbox.add(ended(n, 0))
    assert outbox.bytes == 100 * WEIGHT


def test_after_a_new_link_everything_is_sent_again_in_order() -> None:
    outbox = Outbox()
    for n in range(600):
        outbox.add(ended(n, RESULTS_BYTES))
    outbox.send()
    outbox.again()
    messages, _ = outbox.send()
    assert [o.lo for outcomes in messages for o in outcomes][:3] == [0, 1, 2]


# ---- the queue ------------------------------------------------------------------------------------------------------


def test_a_session_that_is_released_is_served_as_one_that_was_idle() -> None:
    queue: ReadyQueue[str] = ReadyQueue()
    queue.push(0, 1, "a")
    queue.hold(1)
    assert not queue
    assert queue.peek() is None
    queue.push(0, 1, "b")
    queue.push(0, 1, "before", front=True)
    queue.push(0, 2, "other")
    queue.push(0, 2, "other 2")
    assert queue.peek() == (0, 2, "other")
    queue.pop(0, 2, 5.0)
    queue.release(1)
    assert queue.pieces() == [(0, 2, "other 2"), (0, 1, "before"), (0, 1, "a"), (0, 1, "b")]
    queue.charge(0, 1, 0.1)
    assert queue.peek() == (0, 2, "other 2"), "its clock was set to that of the others"


# ---- functions ------------------------------------------------------------------------------------------------------


def test_functions_count_for_their_books_until_they_are_retired(world: World) -> None:
    name = "n" * 500
    for number in range(1, 20):
        world.hears(CLIENT, m.Spec(number, name, DIGEST, b"", 0, m.NO_LIMITS))
    (session,) = world.scheduler.sessions.values()
    assert len(session.specs) == ROOM // (SPEC_BYTES + 4 * len(name))
    world.actions.clear()
    world.hears(CLIENT, m.Submit(19, calls(1)))
    dropped, action = world.actions
    assert isinstance(dropped, a.Dropped)
    assert isinstance(action, a.Send)
    assert isinstance(action.message, m.Rejected)
    assert "no function 19" in action.message.why
    for number in list(session.specs):
        world.hears(CLIENT, m.Retire(number))
    assert session.queued == 0
