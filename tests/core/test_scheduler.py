"""What the hub decides, one sentence each."""

from __future__ import annotations

import math

import pytest

from taskmesh.core import actions as a
from taskmesh.core import events as e
from taskmesh.core import messages as m
from taskmesh.core.chunk import Chunk, pack_sizes
from taskmesh.core.credit import AHEAD_S
from taskmesh.core.roster import DEAD_AFTER_S, LANE_GRACE_S, SUSPECT_AFTER_S

from .world import CLIENT, DAEMON, DIGEST, World, calls, register

OTHER = DAEMON + 1


@pytest.fixture
def world() -> World:
    """A hub with one client and one daemon of one slot."""
    world = World()
    world.joins("client", CLIENT)
    world.joins("daemon", DAEMON)
    return world


def leased(world: World, tasks: int) -> m.Dispatch:
    """So many tasks are submitted; the first of them, at most two, are with the daemon."""
    world.submits(tasks)
    world.tick()
    first = world.expect_dispatch(0, 1)
    if tasks > 1:
        world.expect_dispatch(1, 2)
    world.nothing_else()
    return first


# ---- from submit to result ------------------------------------------------------------------------------------------


def test_a_submitted_task_goes_out_with_its_function_and_its_result_comes_back(world: World) -> None:
    world.submits(1)
    world.nothing_else()
    world.tick()
    world.expect_send(DAEMON, m.Body(DIGEST, b"body"))
    dispatch = world.expect_dispatch(0, 1)
    assert (dispatch.session, dispatch.attempt, dispatch.solo) == (CLIENT, 1, False)
    outcome = world.outcome(dispatch, 0, 1)
    world.tick()
    world.expect_send(CLIENT, m.Results([outcome]))
    world.nothing_else()
    assert world.scheduler.idle


def test_of_an_unknown_function_a_daemon_is_handed_twice_its_slots(world: World) -> None:
    leased(world, 10)


def test_a_chunk_that_comes_twice_is_taken_once(world: World) -> None:
    dispatch = leased(world, 1)
    world.hears(CLIENT, m.Submit(1, calls(1)))
    world.outcome(dispatch, 0, 1)
    world.tick()
    assert len(world.actions) == 1


def test_a_chunk_that_comes_again_after_it_has_ended_does_not_run_again(world: World) -> None:
    """A caller that was interrupted just after it had sent a chunk sends it again."""
    dispatch = leased(world, 1)
    world.outcome(dispatch, 0, 1)
    world.tick()
    world.actions.clear()
    world.hears(CLIENT, m.Submit(1, calls(1)))
    world.tick()
    world.nothing_else()
    assert world.scheduler.idle


def test_outcomes_of_one_round_travel_together(world: World) -> None:
    world.submits(2)
    world.tick()
    outcomes = [world.outcome(world.expect_dispatch(n, n + 1), n, n + 1) for n in (0, 1)]
    world.tick()
    world.expect_send(CLIENT, m.Results(outcomes))
    world.nothing_else()


def test_a_higher_priority_goes_first(world: World) -> None:
    world.submits(1, spec=1)
    world.submits(1, spec=2, priority=5)
    world.tick()
    assert world.expect_dispatch(0, 1).spec == 2


def test_two_sessions_take_turns() -> None:
    world = World()
    world.joins("client", CLIENT)
    world.joins("client", CLIENT + 1)
    world.submits(10, client=CLIENT)
    world.submits(10, client=CLIENT + 1)
    world.joins("daemon", DAEMON, slots=3)
    world.tick()
    served = [x.message.session for x in world.actions if isinstance(x, a.Send) and isinstance(x.message, m.Dispatch)]
    assert served.count(CLIENT) == served.count(CLIENT + 1) > 0


def test_work_is_spread_over_daemons(world: World) -> None:
    world.joins("daemon", OTHER)
    world.submits(2)
    world.tick()
    peers = [x.instance for x in world.actions if isinstance(x, a.Send) and isinstance(x.message, m.Dispatch)]
    assert sorted(peers) == [DAEMON, OTHER]


def test_a_chunk_whose_function_never_came_is_rejected(world: World) -> None:
    world.hears(CLIENT, m.Spec(1, "f", DIGEST, b"", 0))
    world.hears(CLIENT, m.Submit(1, calls(1)))
    world.tick()
    world.expect_send(CLIENT, m.Rejected(1, 0, "the hub was never sent the function f"))
    world.nothing_else()
    assert world.scheduler.idle


def test_a_missing_function_is_sent_again(world: World) -> None:
    leased(world, 1)
    world.hears(DAEMON, m.NeedBody(DIGEST))
    world.tick()
    world.expect_send(DAEMON, m.Body(DIGEST, b"body"))


def test_a_function_that_nobody_refers_to_is_forgotten(world: World) -> None:
    world.outcome(leased(world, 1), 0, 1)
    world.hears(CLIENT, m.Retire(1))
    world.tick()
    world.actions.clear()
    world.hears(DAEMON, m.NeedBody(DIGEST))
    world.nothing_else()


def test_a_function_that_was_forgotten_and_comes_back_goes_out_again(world: World) -> None:
    world.outcome(leased(world, 1), 0, 1)
    world.hears(CLIENT, m.Retire(1))
    world.tick()
    world.actions.clear()
    world.submits(1, spec=2)
    world.tick()
    world.expect_send(DAEMON, m.Body(DIGEST, b"body"))
    world.expect_dispatch(0, 1)


# ---- ends once, fences ----------------------------------------------------------------------------------------------


def test_a_second_outcome_is_dropped(world: World) -> None:
    dispatch = leased(world, 1)
    world.outcome(dispatch, 0, 1)
    world.outcome(dispatch, 0, 1)
    world.outcome(dispatch, 0, 1, m.Form.ERROR)
    world.tick()
    assert len(world.actions) == 1


def moved_to_another(world: World) -> tuple[m.Dispatch, m.Dispatch]:
    """A daemon gives its only task back, and another gets it: two leases of one task."""
    first = leased(world, 1)
    world.joins("daemon", OTHER)
    world.hears(DAEMON, m.GiveBack(first.fence, [(0, 1)], []))
    world.hears(DAEMON, m.Slots(0))
    world.tick()
    return first, world.expect_dispatch(0, 1, OTHER)


def test_a_late_success_counts(world: World) -> None:
    first, second = moved_to_another(world)
    outcome = world.outcome(first, 0, 1)
    world.expect_send(OTHER, m.Revoke(second.fence, 0, 1))
    world.outcome(second, 0, 1, m.Form.ERROR, daemon=OTHER)
    world.tick()
    world.expect_send(CLIENT, m.Results([outcome]))
    world.nothing_else()
    world.happens(e.Delivered(CLIENT, 1))
    world.tick()
    world.expect_send(DAEMON, m.Settled([(first.fence, 0, 1)]))
    world.expect_send(OTHER, m.Settled([(second.fence, 0, 1)]))


def test_a_late_failure_does_not_count(world: World) -> None:
    first, second = moved_to_another(world)
    world.outcome(first, 0, 1, m.Form.ERROR)
    world.tick()
    world.expect_send(DAEMON, m.Settled([(first.fence, 0, 1)]))
    world.nothing_else()
    outcome = world.outcome(second, 0, 1, daemon=OTHER)
    world.tick()
    world.expect_send(CLIENT, m.Results([outcome]))


def test_a_success_of_a_task_that_waits_again_ends_it(world: World) -> None:
    dispatch = leased(world, 1)
    world.hears(DAEMON, m.Slots(0))
    world.hears(DAEMON, m.GiveBack(dispatch.fence, [(0, 1)], []))
    outcome = world.outcome(dispatch, 0, 1)
    world.hears(DAEMON, m.Slots(1))
    world.tick()
    world.expect_send(CLIENT, m.Results([outcome]))
    world.nothing_else()


def test_a_lease_stays_on_the_books_until_its_daemon_accounts_for_it(world: World) -> None:
    first, second = moved_to_another(world)
    world.outcome(first, 0, 1)
    assert world.scheduler.daemons[OTHER].tasks_out == 1
    world.outcome(second, 0, 1, daemon=OTHER)
    assert world.scheduler.daemons[OTHER].tasks_out == 0


# ---- death and blame ------------------------------------------------------------------------------------------------


def test_a_dead_daemon_returns_its_work_to_the_front(world: World) -> None:
    world.submits(4)
    world.tick()
    world.actions.clear()
    world.joins("daemon", OTHER)
    world.happens(e.LaneDown(DAEMON, 2))
    world.tick(LANE_GRACE_S)
    world.expect(a.Dismiss(DAEMON, dead=True))
    again = world.expect_dispatch(0, 1, OTHER)
    assert again.attempt == 2
    assert not again.solo, "deaths of machines blame nobody"
    world.expect_dispatch(1, 2, OTHER)


def test_a_daemon_that_registers_again_in_time_keeps_its_work(world: World) -> None:
    dispatch = leased(world, 1)
    world.happens(e.LaneDown(DAEMON, 2))
    world.now += LANE_GRACE_S / 2
    world.happens(e.Joined(register("daemon", DAEMON, attempt=2, epoch=2)))
    world.expect(a.Admit(DAEMON, 3, "daemon", resume=True, known=True))
    world.tick(LANE_GRACE_S)
    world.nothing_else()
    outcome = world.outcome(dispatch, 0, 1)
    world.tick()
    world.expect_send(CLIENT, m.Results([outcome]))


def test_a_daemon_that_comes_back_without_a_memory_starts_anew(world: World) -> None:
    leased(world, 1)
    world.happens(e.Joined(register("daemon", DAEMON, attempt=2)._replace(incarnation=0)))
    world.expect(a.Admit(DAEMON, 3, "daemon", resume=False, known=True))
    world.heard(DAEMON)
    world.tick()
    assert world.expect_dispatch(0, 1).attempt == 2


def test_a_daemon_gets_nothing_before_it_has_said_that_it_was_welcomed(world: World) -> None:
    world.happens(e.Joined(register("daemon", OTHER)))
    world.actions.clear()
    world.submits(3)
    world.tick()
    world.expect_dispatch(0, 1)
    world.expect_dispatch(1, 2)
    world.nothing_else()
    world.heard(OTHER)
    world.tick()
    world.expect_dispatch(2, 3, OTHER)


def test_a_daemon_that_registers_again_gets_nothing_more_before_it_has_said_so(world: World) -> None:
    world.happens(e.Joined(register("daemon", DAEMON, attempt=2, epoch=2)))
    world.actions.clear()
    world.submits(1)
    world.scheduler.heard(DAEMON, 2, world.now)  # sent before it was welcomed again
    world.tick()
    world.nothing_else()
    world.scheduler.heard(DAEMON, 3, world.now)
    world.tick()
    world.expect_dispatch(0, 1)


def test_a_silent_daemon_gets_nothing_new_and_is_dead_in_the_end(world: World) -> None:
    world.tick(SUSPECT_AFTER_S + 0.1)
    world.scheduler.heard(CLIENT, 1, world.now)
    world.submits(1)
    world.tick()
    world.nothing_else()
    world.tick(DEAD_AFTER_S - SUSPECT_AFTER_S)
    world.expect(a.Dismiss(DAEMON, dead=True))
    world.nothing_else()


def test_the_same_registration_gets_the_same_reply(world: World) -> None:
    world.happens(e.Joined(register("daemon", DAEMON)))
    world.expect(a.Again(DAEMON))
    world.happens(e.Joined(register("daemon", DAEMON, attempt=0)))
    world.expect(a.Again(DAEMON))
    world.nothing_else()


def strike(world: World, dispatch: m.Dispatch, lo: int, hi: int) -> None:
    world.hears(DAEMON, m.Strike(dispatch.fence, lo, hi, b"signal 9"))
    world.tick()


def test_the_third_runner_that_dies_over_a_task_is_the_last(world: World) -> None:
    dispatch = leased(world, 1)
    for attempt in (2, 3):
        strike(world, dispatch, 0, 1)
        dispatch = world.expect_dispatch(0, 1)
        assert (dispatch.attempt, dispatch.solo) == (attempt, True)
    strike(world, dispatch, 0, 1)
    world.expect_send(CLIENT, m.Results([m.Outcome(1, 0, 0, 1, m.Form.LOST, b"signal 9")]))
    world.nothing_else()
    assert world.scheduler.idle
    assert world.scheduler.totals.failed == 1


def test_a_death_over_several_tasks_blames_none_and_runs_them_one_by_one(world: World) -> None:
    world.submits(1)
    world.hears(CLIENT, m.Submit(1, Chunk(1, 0, 2, pack_sizes([2]), pack_sizes([2]), 2, b"ii")))
    world.tick()
    world.expect_dispatch(0, 1)
    strike(world, world.expect_dispatch(0, 2), 0, 2)
    assert not world.scheduler.sessions[CLIENT].specs[1].chunks[1].strikes
    again = world.expect_dispatch(0, 2)
    assert (again.solo, again.attempt) == (True, 2)
    world.nothing_else()


# ---- cancelling -----------------------------------------------------------------------------------------------------


def cancelled(lo: int, hi: int) -> m.Outcome:
    return m.Outcome(1, 0, lo, hi, m.Form.CANCELLED, b"")


def test_what_waits_is_cancelled_at_once(world: World) -> None:
    leased(world, 5)
    world.hears(CLIENT, m.Cancel(1, 0, 3, 5))
    world.tick()
    world.expect_send(CLIENT, m.Results([cancelled(3, 5)]))
    world.nothing_else()
    assert world.scheduler.totals.cancelled == 2


def test_what_is_leased_is_revoked_and_cancelled_when_it_comes_back(world: World) -> None:
    dispatch = leased(world, 1)
    world.hears(CLIENT, m.Cancel(1, 0, 0, 1))
    world.expect_send(DAEMON, m.Revoke(dispatch.fence, 0, 1))
    world.nothing_else()
    world.hears(DAEMON, m.GiveBack(dispatch.fence, [(0, 1)], []))
    world.tick()
    world.expect_send(CLIENT, m.Results([cancelled(0, 1)]))
    world.nothing_else()
    assert world.scheduler.idle


def test_what_has_started_is_kept_and_the_client_hears_that(world: World) -> None:
    dispatch = leased(world, 1)
    world.hears(CLIENT, m.Cancel(1, 0, 0, 1))
    world.actions.clear()
    world.hears(DAEMON, m.GiveBack(dispatch.fence, [], [(0, 1)]))
    world.expect_send(CLIENT, m.Cancelled(1, 0, [(0, 1)]))
    outcome = world.outcome(dispatch, 0, 1)
    world.tick()
    world.expect_send(CLIENT, m.Results([outcome]))


def test_a_cancel_of_what_has_ended_is_too_late(world: World) -> None:
    world.outcome(leased(world, 1), 0, 1)
    world.tick()
    world.actions.clear()
    world.hears(CLIENT, m.Cancel(1, 0, 0, 1))
    world.expect_send(CLIENT, m.Cancelled(1, 0, [(0, 1)]))


def test_who_cancels_what_was_just_cancelled_hears_of_that_first(world: World) -> None:
    leased(world, 5)
    world.hears(CLIENT, m.Cancel(1, 0, 1, 5))
    world.actions.clear()
    world.hears(DAEMON, m.GiveBack(world.scheduler.next_fence() - 1, [(0, 1)], []))
    world.submits(2, first=10)
    world.hears(CLIENT, m.Cancel(1, 10, 0, 2))
    world.hears(CLIENT, m.Cancel(1, 10, 0, 2))
    sent = [action.message for action in world.actions if isinstance(action, a.Send) and action.instance == CLIENT]
    assert [type(message) for message in sent] == [m.Results, m.Cancelled]
    assert isinstance(sent[0], m.Results)
    assert m.Outcome(1, 10, 0, 2, m.Form.CANCELLED, b"") in sent[0].outcomes


# ---- the end of sessions and daemons --------------------------------------------------------------------------------


def test_a_session_that_closes_is_forgotten_everywhere(world: World) -> None:
    dispatch = leased(world, 5)
    world.hears(CLIENT, m.Close())
    world.expect_send(CLIENT, m.Goodbye("session closed"))
    world.expect_send(DAEMON, m.Forget(CLIENT))
    world.expect(a.Dismiss(CLIENT, dead=False))
    assert world.scheduler.idle
    world.hears(DAEMON, m.GiveBack(dispatch.fence, [(0, 1)], []))
    world.tick()
    world.nothing_else()


def test_a_draining_daemon_gets_nothing_and_is_told_goodbye(world: World) -> None:
    world.hears(DAEMON, m.Slots(0))
    world.submits(1)
    world.tick()
    world.nothing_else()
    world.hears(DAEMON, m.Leaving())
    world.expect_send(DAEMON, m.Goodbye("you left"))
    world.expect(a.Dismiss(DAEMON, dead=False))


def test_a_draining_hub_takes_nobody_new_but_lets_those_come_back_that_it_knows(world: World) -> None:
    world.happens(e.Drain())
    world.happens(e.Joined(register("client", 99)))
    world.expect(a.Refuse("the hub is shutting down"))
    world.happens(e.Joined(register("client", CLIENT, attempt=2, epoch=1)))
    world.expect(a.Admit(CLIENT, 3, "client", resume=True, known=True))


# ---- strangers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"role": "king"}, "unknown role"),
        ({"version": "0.9"}, "install the same release"),
        ({"python": "3.12"}, "same minor version of Python"),
        ({"slots": -1}, "cannot have -1 slots"),
        ({"instance": CLIENT}, "already has this instance id"),
    ],
)
def test_who_does_not_fit_is_refused_and_told_why(world: World, change: dict[str, object], why: str) -> None:
    request = register("daemon", 5, attempt=9, epoch=1)
    world.happens(e.Joined(m.Register(**(request._asdict() | change))))
    (refuse,) = world.actions
    assert isinstance(refuse, a.Refuse)
    assert why in refuse.why


def test_messages_of_strangers_and_of_the_wrong_role_are_dropped(world: World) -> None:
    world.hears(77, m.Close())
    world.hears(CLIENT, m.Slots(5))
    world.hears(DAEMON, m.Close())
    world.hears(DAEMON, m.Goodbye("why"))
    assert [type(action) for action in world.actions] == [a.Dropped] * 4


@pytest.mark.parametrize("busy_s", [math.nan, math.inf, 1e300, -1.0, 0.0])
def test_a_time_that_is_no_time_does_not_stop_the_hub(world: World, busy_s: float) -> None:
    dispatch = leased(world, 100)
    for n in range(2, 8):
        outcome = m.Outcome(1, 0, n - 2, n - 1, m.Form.LIST, b"")
        world.hears(DAEMON, m.Done([m.Finished(dispatch.fence + n - 2, CLIENT, busy_s, outcome)]))
        world.tick()
    assert world.scheduler.totals.done == 6


def knows(world: World, mean_s: float) -> None:
    """A task of the function has ended that took so long: it has a price, and doses of one at a time."""
    first = leased(world, 1)
    outcome = m.Outcome(first.spec, 0, 0, 1, m.Form.LIST, b"r")
    world.hears(DAEMON, m.Done([m.Finished(first.fence, first.session, mean_s, outcome)]))
    world.tick()
    world.actions.clear()


@pytest.mark.parametrize(("mean_s", "tasks"), [(1e-5, 100), (AHEAD_S / 50, 50)])
def test_what_a_daemon_is_handed_in_one_round_is_one_lease(world: World, mean_s: float, tasks: int) -> None:
    knows(world, mean_s)
    world.hears(CLIENT, m.Submit(1, calls(100, first=1)))
    world.tick()
    dispatch = world.expect_dispatch(0, tasks)
    assert dispatch.chunk.payload == b"c" * tasks
    world.nothing_else()
    world.outcome(dispatch, 0, tasks)
    assert world.scheduler.daemons[DAEMON].tasks_out == 0


def test_what_several_daemons_are_handed_in_turns_is_a_lease_for_each_turn(world: World) -> None:
    knows(world, AHEAD_S / 4)
    world.joins("daemon", OTHER)
    world.hears(CLIENT, m.Submit(1, calls(4, first=1)))
    world.tick()
    assert [(dispatch.lo, dispatch.hi) for dispatch in world.expect_dispatches()] == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert [world.scheduler.daemons[daemon].tasks_out for daemon in (DAEMON, OTHER)] == [2, 2]
