"""What a daemon keeps for its hub, says after a reset, does in silence, and starts at most once."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmesh.core import messages as m
from taskmesh.wire.pipe import PipeOutcome
from taskmesh_worker import plan_events as p
from taskmesh_worker import plan_holdings
from taskmesh_worker.plan_ledger import Ledger
from taskmesh_worker.plan_state import CLAIM_SETTLE_S

from .world import DIGEST, SESSION, PlanWorld, calls, items

ONCE = m.Limits(at_most_once=True)


@pytest.fixture
def one() -> PlanWorld:
    """A daemon with one runner, which is up."""
    world = PlanWorld(1)
    world.start_runners()
    return world


@pytest.fixture
def two() -> PlanWorld:
    """A daemon with two runners, which are up."""
    world = PlanWorld(2)
    world.start_runners()
    return world


def holding(fence: int, *ranges: tuple[int, int], attempt: int = 1, solo: bool = False) -> m.Holding:
    """An entry of an inventory."""
    return m.Holding(fence, SESSION, 1, 0, attempt, solo, list(ranges))


# ---- unsettled outcomes ---------------------------------------------------------------------------------------------


def finish(world: PlanWorld, fence: int, tasks: int = 1) -> m.Finished:
    """A lease arrives, is run, and its outcome is reported."""
    world.dispatch(calls(tasks), fence)
    world.tick()
    at = world.plan.runners[1].next_at - tasks
    world.hand(1, 0, tasks)
    return world.outcome(1, at, tasks)


def test_an_outcome_is_offered_again_after_a_reset_until_it_is_settled(one: PlanWorld) -> None:
    first, second = finish(one, 1), finish(one, 2)
    assert (one.plan.ledger.outcomes, one.plan.ledger.bytes) == (2, 2)
    one.happens(p.Reset())
    one.expect_report(first)
    one.expect_report(second)
    one.expect_report(m.Inventory([]))
    one.happens(p.FromHub(m.Settled([(1, 0, 1)])))
    one.happens(p.Reset())
    one.expect_report(second)
    one.expect_report(m.Inventory([]))
    one.happens(p.FromHub(m.Settled([(2, 0, 1)])))
    one.happens(p.Reset())
    one.expect_report(m.Inventory([]))
    assert (one.plan.ledger.outcomes, one.plan.ledger.bytes) == (0, 0)


def test_an_outcome_is_kept_until_all_of_it_is_settled(one: PlanWorld) -> None:
    one.warm_up()
    finish(one, 1, tasks=6)
    one.happens(p.FromHub(m.Settled([(1, 0, 2), (1, 4, 6)])))
    assert one.plan.ledger.outcomes == 1
    one.happens(p.FromHub(m.Settled([(1, 2, 4)])))
    assert one.plan.ledger.outcomes == 0


def test_what_is_settled_twice_or_was_never_reported_changes_nothing(one: PlanWorld) -> None:
    finish(one, 1)
    one.happens(p.FromHub(m.Settled([(1, 5, 9), (77, 0, 1)])))
    assert one.plan.ledger.outcomes == 1
    one.happens(p.FromHub(m.Settled([(1, 0, 1), (1, 0, 1)])))
    assert one.plan.ledger.outcomes == 0


def test_a_session_that_is_over_takes_its_outcomes_along(one: PlanWorld) -> None:
    finish(one, 1)
    one.happens(p.FromHub(m.Forget(SESSION + 1)))
    assert one.plan.ledger.outcomes == 1
    one.happens(p.FromHub(m.Forget(SESSION)))
    assert (one.plan.ledger.outcomes, one.plan.ledger.bytes) == (0, 0)


def test_a_daemon_in_its_hubs_process_keeps_no_outcomes() -> None:
    world = PlanWorld(1, keep_outcomes=False)
    world.start_runners()
    finish(world, 1)
    assert world.plan.ledger.outcomes == 0


PARTS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 11), st.integers(1, 5)).map(lambda t: (t[0], t[1], t[1] + t[2]))
)


@given(PARTS, PARTS)
def test_the_ledger_holds_exactly_the_outcomes_that_are_not_settled(
    reported: list[tuple[int, int, int]], settled: list[tuple[int, int, int]]
) -> None:
    ledger = Ledger()
    left: dict[tuple[int, int], set[int]] = {}
    for fence, lo, hi in reported:
        if any(f == fence and offsets & set(range(lo, hi)) for (f, _), offsets in left.items()):
            continue  # an offset of a lease has one outcome
        ledger.keep(m.Finished(fence, SESSION, 0.0, m.Outcome(1, 0, lo, hi, m.Form.LIST, b"x" * (hi - lo))))
        left[fence, lo] = set(range(lo, hi))
    sizes = {key: len(offsets) for key, offsets in left.items()}
    for fence, lo, hi in settled:
        ledger.settle([(fence, lo, hi)])
        ledger.check()
        for (f, _), offsets in left.items():
            if f == fence:
                offsets -= set(range(lo, hi))
    kept = {key for key, offsets in left.items() if offsets}
    assert {(e.fence, e.outcome.lo) for e in ledger.entries()} == kept
    assert (ledger.outcomes, ledger.bytes) == (len(kept), sum(sizes[key] for key in kept))


# ---- inventories ----------------------------------------------------------------------------------------------------


def test_a_reset_keeps_what_waits_and_runs_and_names_it(one: PlanWorld) -> None:
    one.dispatch(calls(3))
    one.tick()
    one.hand(1, 0, 1)
    one.happens(p.Reset())
    one.expect_report(m.Inventory([holding(1, (0, 3))]))
    finished = one.outcome(1, 0, busy_s=1.0)
    assert (finished.fence, finished.outcome.lo, finished.outcome.hi) == (1, 0, 1)
    one.tick()
    one.hand(1, 1, 2)
    one.hand(1, 2, 3)
    one.happens(p.Reset())
    one.expect_report(finished)
    one.expect_report(m.Inventory([holding(1, (1, 3))]))


def test_an_inventory_names_neither_what_was_given_back_nor_what_is_not_wanted(one: PlanWorld) -> None:
    one.dispatch(calls(5))
    one.dispatch(calls(2), fence=2, session=SESSION + 1)
    one.tick()
    one.hand(1, 0, 1)
    one.happens(p.FromHub(m.Revoke(1, 2, 4)))
    one.expect_report(m.GiveBack(1, [(2, 4)], []))
    one.happens(p.FromHub(m.Forget(SESSION + 1)))
    one.expect_report(m.GiveBack(2, [(0, 2)], []))
    one.happens(p.Reset())
    one.expect_report(m.Inventory([holding(1, (0, 2), (4, 5))]))


def test_what_ran_when_a_runner_died_is_named_with_its_next_attempt(one: PlanWorld) -> None:
    start = one.warm_up(task_s=1e-6)
    one.dispatch(items(64))
    one.tick()
    one.hand(1, 0, 64)
    one.happens(p.RunnerGone(1, (start, start + 64), b""))
    one.happens(p.Reset())
    one.expect_report(m.Inventory([holding(1, (0, 64), attempt=2, solo=True)]))


def test_what_a_hub_does_not_adopt_is_given_back_when_it_is_revoked(one: PlanWorld) -> None:
    one.dispatch(calls(3))
    one.tick()
    one.hand(1, 0, 1)
    one.happens(p.Reset())
    one.take(p.Report)
    one.happens(p.FromHub(m.Revoke(1, 0, 3)))
    one.expect(p.Lower(1, 0))
    one.tick(CLAIM_SETTLE_S)
    one.take(p.Report)  # what waited is given back at once
    one.expect(p.Peek(1))
    one.happens(p.Claimed(1, 1))
    one.expect_report(m.GiveBack(1, [], [(0, 1)]))


def test_a_first_registration_has_nothing_to_say(one: PlanWorld) -> None:
    one.happens(p.Reset(again=False))
    one.nothing_else()


def test_a_function_that_was_asked_for_is_asked_for_again_after_a_reset(one: PlanWorld) -> None:
    one.happens(p.FromHub(m.Dispatch(1, SESSION, 1, "f", DIGEST, b"", 1, False, 0, 2, m.NO_LIMITS, calls(2))))
    one.tick()
    one.expect_report(m.NeedBody(DIGEST))
    one.happens(p.Reset())
    one.take(p.Report)
    one.tick()
    one.expect_report(m.NeedBody(DIGEST))


def test_a_draining_daemon_says_again_that_it_takes_nothing_and_that_it_leaves(one: PlanWorld) -> None:
    one.happens(p.Drain())
    one.expect_report(m.Slots(0))
    one.tick()
    one.expect_report(m.Leaving())
    assert one.plan.leaving
    one.happens(p.Reset())
    one.expect_report(m.Inventory([]))
    one.expect_report(m.Slots(0))
    assert not one.plan.leaving
    one.tick()
    one.expect_report(m.Leaving())


# ---- silence --------------------------------------------------------------------------------------------------------


def test_a_daemon_that_holds_starts_nothing_and_takes_back_what_has_not_started(one: PlanWorld) -> None:
    start = one.warm_up()
    one.dispatch(calls(5))
    one.tick()
    one.hand(1, 0, 5)
    one.happens(p.Hold(True))
    one.expect(p.Lower(1, start))
    one.tick(CLAIM_SETTLE_S)
    one.expect(p.Peek(1))
    one.happens(p.Claimed(1, start + 1))
    one.outcome(1, start)
    one.stopped(1, start + 1, start + 5)
    one.dispatch(calls(2), fence=2)
    one.tick(10.0)
    one.nothing_else()
    assert one.plan.next_deadline() > one.now, "a loop would spin"
    one.happens(p.Hold(False))
    one.tick()
    one.hand(1, 1, 5)


def test_what_is_revoked_in_silence_is_not_started_when_the_hub_is_heard(one: PlanWorld) -> None:
    one.dispatch(calls(3))
    one.happens(p.Hold(True))
    one.happens(p.FromHub(m.Revoke(1, 0, 2)))
    one.expect_report(m.GiveBack(1, [(0, 2)], []))
    one.happens(p.Hold(False))
    one.tick()
    one.hand(1, 2, 3)


def test_heartbeats_name_what_runners_hold_and_nothing_that_waits(two: PlanWorld) -> None:
    start = two.warm_up()
    assert two.plan.held() == []
    two.dispatch(calls(6000), fence=1)
    two.tick()
    handed = [action.dose for action in two.actions if isinstance(action, p.Hand)]
    most = max(dose.hi for dose in handed)
    assert most < 6000
    assert two.plan.held() == [(1, 0, most)]
    assert start >= 0


def test_a_heartbeat_has_a_bound_and_names_rather_too_much(monkeypatch: pytest.MonkeyPatch, one: PlanWorld) -> None:
    one.warm_up()
    for fence in (1, 2, 3):
        one.dispatch(calls(2), fence)
    one.tick()
    runner = one.plan.runners[1]
    del runner.handed[1]  # a hole, so that a lease has more than one part
    runner.handed.append(runner.handed[0])
    monkeypatch.setattr(plan_holdings, "HELD", 1)
    assert one.plan.held() == [(1, 0, 2)], "the first one runs"


# ---- at most once ---------------------------------------------------------------------------------------------------


def test_a_task_that_may_start_once_is_handed_out_alone_however_short_it_is(one: PlanWorld) -> None:
    one.warm_up()
    one.dispatch(items(64, grain=4), limits=ONCE)
    one.tick()
    doses = [action.dose for action in one.actions if isinstance(action, p.Hand)]
    assert doses
    assert {dose.hi - dose.lo for dose in doses} == {1}
    assert {dose.block for dose in doses} == {1}


def test_nothing_is_handed_ahead_of_a_long_task_that_may_start_once(one: PlanWorld) -> None:
    one.warm_up(task_s=0.1, tasks=4)
    one.dispatch(calls(3), limits=ONCE)
    one.tick()
    one.hand(1, 0, 1)
    one.nothing_else()


def once_handed_three(world: PlanWorld) -> int:
    """Runner 1 holds three tasks that may start once, in doses of one; returns the position of the first."""
    start = world.warm_up()
    world.dispatch(calls(3), limits=ONCE)
    world.tick()
    for n in range(3):
        world.hand(1, n, n + 1)
    return start


def test_what_a_dead_runner_may_have_started_is_never_run_again(one: PlanWorld) -> None:
    start = once_handed_three(one)
    one.happens(p.RunnerGone(1, (start + 1, start + 2), b"killed"))
    one.expect_report(m.Strike(1, 0, 1, b"killed"))  # ran, and was not reported
    one.expect_report(m.Strike(1, 1, 2, b"killed"))
    one.tick()
    one.expect(p.Start(2))
    one.happens(p.RunnerReady(2))
    one.tick()
    assert one.hand(2, 2, 3).dose.attempt == 1
    one.nothing_else()


def test_what_runners_may_have_started_when_their_nursery_died_is_never_run_again(one: PlanWorld) -> None:
    start = once_handed_three(one)
    one.happens(p.RunnerGone(1, (start + 2, start + 2), b"nursery"))  # an empty claim blames nobody
    one.expect_report(m.Strike(1, 0, 1, b"nursery"))
    one.expect_report(m.Strike(1, 1, 2, b"nursery"))
    one.nothing_else()


def test_a_tail_that_may_start_once_comes_back_by_the_runners_word_only(one: PlanWorld) -> None:
    start = once_handed_three(one)
    one.happens(p.FromHub(m.Revoke(1, 0, 3)))
    one.expect(p.Lower(1, start))
    one.tick(CLAIM_SETTLE_S)
    one.expect(p.Peek(1))
    one.happens(p.Claimed(1, start + 1))
    one.tick(1.0)
    one.nothing_else()
    assert one.plan.held() == [(1, 0, 3)]
    one.outcome(1, start)
    one.stopped(1, start + 1, start + 2)
    one.expect_report(m.GiveBack(1, [(1, 2)], []))
    one.stopped(1, start + 2, start + 3)
    one.expect_report(m.GiveBack(1, [(2, 3)], []))
    one.tick()
    one.nothing_else()
    assert one.plan.idle


def test_a_revoked_task_that_waits_is_not_started_while_a_runners_word_is_awaited(two: PlanWorld) -> None:
    two.dispatch(calls(5), limits=ONCE)
    two.tick()
    two.hand(1, 0, 1)
    two.hand(2, 1, 2)
    two.happens(p.FromHub(m.Revoke(1, 0, 5)))
    two.expect(p.Lower(1, 0), p.Lower(2, 0))
    two.expect_report(m.GiveBack(1, [(2, 5)], []))
    two.happens(p.RunnerSaid(1, PipeOutcome(0, 1, m.Form.LIST, 1.0, b"")))
    two.take(p.Report)
    two.tick()
    assert not [action for action in two.actions if isinstance(action, p.Hand)]


def test_parts_that_cut_through_many_outcomes_are_settled_in_one_go() -> None:
    ledger, lease = Ledger(), range(0, 20_000, 2)
    for lo in lease:
        ledger.keep(m.Finished(1, 7, 0.1, m.Outcome(1, 0, lo, lo + 2, m.Form.LIST, b"r")))
    began = time.thread_time()
    ledger.settle([(1, lo + 1, lo + 3) for lo in lease] * 3)
    assert time.thread_time() - began < 5.0
    ledger.check()
    assert ledger.outcomes == 1
    ledger.settle([(1, 0, 1)])
    assert ledger.outcomes == 0
