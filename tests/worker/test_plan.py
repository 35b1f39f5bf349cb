"""What the daemon decides, one sentence each."""

from __future__ import annotations

import itertools

import pytest

from taskmesh.core import messages as m
from taskmesh.core.credit import TINY_GROWTH
from taskmesh.errors import PeerProtocolError
from taskmesh.wire.pipe import CLAIM_MOST, PipeOutcome, Reason
from taskmesh_worker import plan_events as p
from taskmesh_worker.plan import RECALL_AFTER_S, RESTART_BACKOFF_S
from taskmesh_worker.plan_state import CLAIM_SETTLE_S

from .world import DIGEST, SESSION, PlanWorld, calls, items


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


# ---- handing out --------------------------------------------------------------------------------------------------


def test_a_daemon_starts_a_runner_for_each_slot() -> None:
    world = PlanWorld(3)
    world.tick()
    world.expect(p.Start(1), p.Start(2), p.Start(3))
    world.tick(1.0)
    world.nothing_else()


def test_the_first_dose_of_an_unknown_function_is_one_task(one: PlanWorld) -> None:
    one.dispatch(calls(100))
    one.tick()
    one.expect(p.GiveBody(1, DIGEST, b"body", None))
    one.hand(1, 0, 1)
    one.nothing_else()


def doses_of(one: PlanWorld, task_s: float) -> list[int]:
    """The sizes of the doses in which 512 tasks of an unknown function are handed out."""
    one.dispatch(calls(512))
    one.tick()
    sizes = []
    while one.actions:
        hand = one.actions.pop(0)
        if isinstance(hand, p.Hand):
            count = hand.dose.hi - hand.dose.lo
            sizes.append(count)
            one.happens(p.RunnerSaid(1, PipeOutcome(hand.dose.at, count, m.Form.LIST, task_s * count, b"")))
            one.tick()
    assert sum(sizes) == 512
    return sizes


def test_doses_of_a_short_function_grow_by_doubling(one: PlanWorld) -> None:
    sizes = doses_of(one, 5e-4)
    assert sizes[0] == 1
    assert max(sizes) == 10  # five milliseconds
    assert all(size <= max(1, sum(sizes[:n])) for n, size in enumerate(sizes))


def test_doses_of_a_tiny_function_grow_faster(one: PlanWorld) -> None:
    sizes = doses_of(one, 1e-6)
    assert sizes[0] == 1
    assert len(sizes) < 8
    assert all(size <= max(1, TINY_GROWTH * sum(sizes[:n])) for n, size in enumerate(sizes))


def test_the_first_task_may_have_taken_longer_than_the_others(one: PlanWorld) -> None:
    one.dispatch(calls(20_000))
    one.tick()
    sizes, task_s = [], 6e-5
    while one.actions:
        hand = one.actions.pop(0)
        if isinstance(hand, p.Hand):
            count = hand.dose.hi - hand.dose.lo
            sizes.append(count)
            one.happens(p.RunnerSaid(1, PipeOutcome(hand.dose.at, count, m.Form.LIST, task_s * count, b"")))
            one.tick()
            task_s = 1e-7
    assert sizes[0] == 1
    assert max(sizes[:6]) > 4096


def test_a_function_travels_once_to_each_runner(two: PlanWorld) -> None:
    two.dispatch(calls(4))
    two.tick()
    two.expect(p.GiveBody(1, DIGEST, b"body", None))
    two.hand(1, 0, 1)
    two.expect(p.GiveBody(2, DIGEST, b"body", None))
    two.hand(2, 1, 2)
    two.outcome(1, 0, busy_s=1.0)
    two.tick()
    assert not [a for a in two.actions if isinstance(a, p.GiveBody)]
    two.hand(1, 2, 3)


def test_work_whose_function_is_missing_waits_for_it_and_it_is_asked_for_once(one: PlanWorld) -> None:
    chunk = calls(2)
    one.happens(p.FromHub(m.Dispatch(1, SESSION, 1, "f", DIGEST, b"", 1, False, 0, 2, m.NO_LIMITS, chunk)))
    one.tick()
    one.expect_report(m.NeedBody(DIGEST))
    one.tick(1.0)
    one.nothing_else()
    one.happens(p.FromHub(m.Body(DIGEST, b"late")))
    one.tick()
    one.expect(p.GiveBody(1, DIGEST, b"late", None))
    one.hand(1, 0, 1)


def test_other_work_goes_on_while_a_function_is_missing(one: PlanWorld) -> None:
    missing = b"?" * 16
    one.happens(p.FromHub(m.Dispatch(1, SESSION, 9, "g", missing, b"", 1, False, 0, 1, m.NO_LIMITS, calls(1))))
    one.dispatch(calls(1), fence=2)
    one.tick()
    one.expect_report(m.NeedBody(missing))
    one.hand(1, 0, 1)


def test_a_chunksize_is_kept_when_doses_are_cut(one: PlanWorld) -> None:
    one.dispatch(items(12, grain=4))
    one.tick()
    one.hand(1, 0, 4)


def test_the_same_lease_twice_is_taken_once(one: PlanWorld) -> None:
    dispatch = one.dispatch(calls(1))
    one.happens(p.FromHub(dispatch))
    one.tick()
    one.hand(1, 0, 1)
    one.outcome(1, 0)
    one.tick()
    one.nothing_else()
    assert one.plan.idle


def test_an_outcome_names_the_tasks_by_their_offsets_and_the_lease_by_its_fence(one: PlanWorld) -> None:
    chunk = calls(8, first=40)
    one.dispatch(chunk.cut(3, 5), fence=12, lo=3, hi=5)
    one.tick()
    one.hand(1, 3, 4)
    finished = one.outcome(1, 0, busy_s=0.5)
    assert finished == m.Finished(12, SESSION, 0.5, m.Outcome(1, 40, 3, 4, m.Form.LIST, b"r"))


# ---- death ----------------------------------------------------------------------------------------------------------


def test_a_killed_runner_returns_its_unfinished_tasks(one: PlanWorld) -> None:
    start = one.warm_up()
    one.dispatch(calls(6))
    one.tick()
    one.hand(1, 0, 6)
    one.outcome(1, start, 2)
    # It dies over its fourth task, and had not yet told of its third.
    one.happens(p.RunnerGone(1, (start + 3, start + 4), b"killed"))
    one.expect_report(m.Strike(1, 3, 4, b"killed"))
    one.tick()
    one.expect(p.Start(2))
    one.happens(p.RunnerReady(2))
    one.tick()
    again = one.hand(2, 2, 3)
    assert again.dose.attempt == 2, "it may have run"
    rest = one.hand(2, 4, 6)
    assert rest.dose.attempt == 1, "these never started"


def test_only_the_task_that_was_running_is_suspected(one: PlanWorld) -> None:
    start = one.warm_up()
    one.dispatch(calls(10))
    one.tick()
    one.hand(1, 0, 10)
    one.happens(p.RunnerGone(1, (start, start + 1), b""))
    one.expect_report(m.Strike(1, 0, 1, b""))
    one.nothing_else()


def test_a_runner_that_dies_idle_blames_nobody(one: PlanWorld) -> None:
    start = one.warm_up()
    one.dispatch(calls(1))
    one.tick()
    one.hand(1, 0, 1)
    one.outcome(1, start)
    one.happens(p.RunnerGone(1, (start, start + 1), b""))
    one.nothing_else()
    assert one.plan.idle


def test_a_death_before_the_first_claim_blames_nobody(one: PlanWorld) -> None:
    start = one.warm_up()
    one.dispatch(calls(3))
    one.tick()
    one.hand(1, 0, 3)
    one.happens(p.RunnerGone(1, (start - 1, start), b""))
    one.nothing_else()
    one.tick()
    one.expect(p.Start(2))


def test_a_block_that_killed_its_runner_runs_again_one_task_at_a_time(one: PlanWorld) -> None:
    start = one.warm_up(task_s=1e-6)
    one.dispatch(items(64))
    one.tick()
    hand = one.hand(1, 0, 64)
    assert hand.dose.block == CLAIM_MOST
    one.happens(p.RunnerGone(1, (start, start + 64), b""))
    one.tick()
    one.expect(p.Start(2))
    one.happens(p.RunnerReady(2))
    one.tick()
    hand = one.hand(2, 0, 1)
    assert (hand.dose.block, hand.dose.attempt) == (1, 2)


@pytest.mark.parametrize(("task_s", "block"), [(1e-6, CLAIM_MOST), (2.9e-4, CLAIM_MOST), (3.1e-4, 1)])
def test_a_runner_may_claim_several_items_at_once_if_they_seem_to_be_tiny(
    one: PlanWorld, task_s: float, block: int
) -> None:
    one.warm_up(task_s=task_s)
    one.dispatch(items(64))
    one.tick()
    assert one.take(p.Hand).dose.block == block


def test_runners_that_die_before_they_are_up_are_started_less_and_less_often() -> None:
    world = PlanWorld(1)
    starts = []
    for _ in range(8):
        world.tick(max(0.0, world.plan.next_deadline() - world.now))
        starts.append(world.now)
        world.happens(p.RunnerGone(world.take(p.Start).runner, (0, 0), b""))
    pauses = [b - a for a, b in itertools.pairwise(starts)]
    assert pauses[-1] == pytest.approx(RESTART_BACKOFF_S[-1])
    assert pauses == sorted(pauses)


# ---- taking back ----------------------------------------------------------------------------------------------------


def handed_five(world: PlanWorld) -> int:
    """Runner 1 holds five tasks, and nobody else anything; returns the position of the first."""
    start = world.warm_up()
    world.dispatch(calls(5))
    world.tick()
    world.hand(1, 0, 5)
    world.nothing_else()
    return start


def test_a_revoked_tail_comes_back_when_the_claim_has_been_read(one: PlanWorld) -> None:
    start = handed_five(one)
    one.happens(p.FromHub(m.Revoke(1, 0, 5)))
    one.expect(p.Lower(1, start))
    one.nothing_else()
    one.tick(CLAIM_SETTLE_S)
    one.expect(p.Peek(1))
    one.nothing_else()
    one.happens(p.Claimed(1, start + 2))
    one.expect_report(m.GiveBack(1, [(2, 5)], [(0, 2)]))
    one.nothing_else()


def test_the_claim_is_not_read_before_the_limit_has_settled(one: PlanWorld) -> None:
    start = handed_five(one)
    one.happens(p.FromHub(m.Revoke(1, 0, 5)))
    one.expect(p.Lower(1, start))
    one.tick(CLAIM_SETTLE_S / 2)
    one.nothing_else()
    assert one.plan.next_deadline() == pytest.approx(one.now + CLAIM_SETTLE_S / 2)


def test_a_recalled_runner_gets_nothing_before_it_said_that_it_skipped_its_tail(one: PlanWorld) -> None:
    start = handed_five(one)
    one.happens(p.FromHub(m.Revoke(1, 0, 5)))
    one.expect(p.Lower(1, start))
    one.tick(CLAIM_SETTLE_S)
    one.expect(p.Peek(1))
    one.happens(p.Claimed(1, start + 1))
    one.expect_report(m.GiveBack(1, [(1, 5)], [(0, 1)]))
    one.outcome(1, start)
    one.dispatch(calls(2, first=50), fence=2)
    one.tick()
    one.nothing_else()
    one.stopped(1, start + 1, start + 5)
    one.tick()
    hand = one.hand(1, 0, 2)
    assert hand.dose.at == start + 5


def test_what_waits_is_revoked_without_asking_a_runner(one: PlanWorld) -> None:
    one.dispatch(calls(5))
    one.tick()
    one.hand(1, 0, 1)
    one.happens(p.FromHub(m.Revoke(1, 2, 4)))
    one.expect_report(m.GiveBack(1, [(2, 4)], []))
    one.nothing_else()


def test_revokes_that_overlap_return_each_task_once(one: PlanWorld) -> None:
    start = handed_five(one)
    one.happens(p.FromHub(m.Revoke(1, 0, 4)))
    one.expect(p.Lower(1, start))
    one.happens(p.FromHub(m.Revoke(1, 2, 5)))
    one.tick(CLAIM_SETTLE_S)
    one.expect(p.Peek(1))
    one.happens(p.Claimed(1, start + 1))
    one.expect_report(m.GiveBack(1, [(1, 5)], [(0, 1)]))
    assert one.plan.runners[1].tasks() == 1


def test_a_revoke_of_a_finished_lease_keeps_everything(one: PlanWorld) -> None:
    one.happens(p.FromHub(m.Revoke(5, 2, 4)))
    one.expect_report(m.GiveBack(5, [], [(2, 4)]))


def test_a_tail_behind_a_long_task_goes_to_a_runner_that_idles() -> None:
    world = PlanWorld(2)
    world.tick()
    world.expect(p.Start(1), p.Start(2))
    world.happens(p.RunnerReady(1))
    start = world.warm_up(runner=1, task_s=1e-3)
    world.dispatch(calls(4))
    world.tick()
    world.hand(1, 0, 2)
    world.hand(1, 2, 3)
    world.hand(1, 3, 4)
    world.happens(p.RunnerReady(2))
    world.tick(RECALL_AFTER_S / 2)
    world.nothing_else()
    world.tick(RECALL_AFTER_S)
    world.expect(p.Lower(1, start))
    world.tick(CLAIM_SETTLE_S)
    world.expect(p.Peek(1))
    world.happens(p.Claimed(1, start + 1))  # perhaps the last event for long
    world.hand(2, 1, 2)
    assert world.plan.runners[1].tasks() == 1, "the first keeps what it has claimed"


def a_block_behind_a_long_item() -> tuple[PlanWorld, int]:
    """A runner has claimed 64 items at once; another one idles, so it is asked for what it has not begun."""
    world = PlanWorld(2)
    world.tick()
    world.expect(p.Start(1), p.Start(2))
    world.happens(p.RunnerReady(1))
    start = world.warm_up(task_s=1e-6)
    world.dispatch(items(80))
    world.tick()
    world.hand(1, 0, 80)
    world.happens(p.RunnerReady(2))
    world.tick(RECALL_AFTER_S)
    world.expect(p.Lower(1, start))
    world.tick(CLAIM_SETTLE_S)
    world.expect(p.Peek(1))
    world.happens(p.Claimed(1, start + 64))
    world.hand(2, 64, 80)
    world.looks.clear()
    return world, start


def test_a_block_behind_a_long_item_is_cut_and_goes_to_a_runner_that_idles() -> None:
    world, start = a_block_behind_a_long_item()
    world.outcome(2, 0, 16)
    world.tick()
    assert world.looks == [1]
    world.happens(p.Seen(1, start, start + 64, 0.0))
    world.expect(p.Flush(1))
    world.outcome(1, start, 3)
    world.tick(CLAIM_SETTLE_S)
    assert world.looks == [1, 1]
    world.happens(p.Seen(1, start + 3, start + 4, 0.0))
    world.hand(2, 4, 64)
    assert world.plan.runners[1].tasks() == 1, "the first keeps what it runs"
    world.nothing_else()
    world.outcome(1, start + 3)
    world.stopped(1, start + 4, start + 80)
    world.outcome(2, 16, 60)
    assert world.plan.idle


def test_a_block_that_a_runner_does_not_cut_is_looked_at_less_and_less_often() -> None:
    world, start = a_block_behind_a_long_item()
    times = []
    for _ in range(400):
        world.tick(CLAIM_SETTLE_S)
        if world.looks:
            times.append(world.now)
            world.looks.clear()
            world.happens(p.Seen(1, start, start + 64, 0.0))
            world.expect(p.Flush(1))
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert len(times) < 15
    assert gaps[-1] > 20 * gaps[0]


def a_block_that_is_revoked(one: PlanWorld, lo: int, hi: int, *, interrupt: bool) -> int:
    """The hub wants some of 64 items back when they are claimed already."""
    start = one.warm_up(task_s=1e-6)
    one.dispatch(items(64))
    one.tick()
    one.hand(1, 0, 64)
    one.happens(p.FromHub(m.Revoke(1, lo, hi, interrupt)))
    one.expect(p.Lower(1, start))
    one.tick(CLAIM_SETTLE_S)
    one.expect(p.Peek(1))
    one.happens(p.Claimed(1, start + 64))
    one.expect_report(m.GiveBack(1, [], [(lo, hi)]))
    one.tick()
    return start


@pytest.mark.parametrize("interrupt", [False, True])
def test_revoked_items_of_a_block_that_was_cut_go_back_to_the_hub(one: PlanWorld, interrupt: bool) -> None:
    start = a_block_that_is_revoked(one, 8, 12, interrupt=interrupt)
    one.happens(p.Seen(1, start, start + 64, 0.0))
    one.expect(p.Flush(1))
    one.outcome(1, start, 2)
    one.happens(p.Seen(1, start + 2, start + 3, 0.0))
    one.expect_report(m.GiveBack(1, [(8, 12)], []))
    one.outcome(1, start + 2)
    one.stopped(1, start + 3, start + 64)
    one.tick()
    one.hand(1, 3, 8)
    one.hand(1, 12, 64)


def test_revoked_items_go_back_to_the_hub_when_their_runner_dies_before_it_came_to_them(one: PlanWorld) -> None:
    start = a_block_that_is_revoked(one, 0, 64, interrupt=False)
    one.happens(p.RunnerGone(1, (start, start + 1), b""))
    one.expect_report(m.Strike(1, 0, 1, b""))
    one.expect_report(m.GiveBack(1, [(1, 64)], []))
    assert one.plan.idle


def test_a_block_is_taken_back_while_the_interrupted_item_of_it_does_not_end(one: PlanWorld) -> None:
    start = a_block_that_is_revoked(one, 0, 1, interrupt=True)
    one.happens(p.Seen(1, start, start + 64, 0.0))
    one.expect(p.Interrupt(1, start, Reason.CANCELLED))
    one.looks.clear()
    one.tick(CLAIM_SETTLE_S)
    assert one.looks == [1]
    one.happens(p.Seen(1, start, start + 64, 0.0))  # it has not come to that yet
    one.tick(2 * CLAIM_SETTLE_S)
    assert one.looks == [1, 1]
    one.happens(p.Seen(1, start, start + 1, 0.0))
    assert one.plan.runners[1].tasks() == 1
    one.tick(0.1)
    assert one.looks == [1, 1], "there is nothing more to see"


def test_what_is_not_worth_a_dose_of_its_own_is_not_split() -> None:
    world = PlanWorld(2)
    world.tick()
    world.expect(p.Start(1), p.Start(2))
    world.happens(p.RunnerReady(1))
    world.warm_up(task_s=1e-5)
    world.happens(p.RunnerReady(2))
    world.dispatch(calls(20))  # 0.2 ms of work
    world.tick()
    world.hand(1, 0, 20)
    world.nothing_else()


def test_a_runner_that_dies_while_it_is_recalled_leaves_nothing_behind(one: PlanWorld) -> None:
    start = handed_five(one)
    one.happens(p.FromHub(m.Revoke(1, 0, 5)))
    one.expect(p.Lower(1, start))
    one.happens(p.RunnerGone(1, (start, start + 1), b"r"))
    one.expect_report(m.Strike(1, 0, 1, b"r"))
    one.tick()
    one.expect(p.Start(2))
    one.expect_report(m.GiveBack(1, [(1, 5)], []))
    assert one.plan.idle


# ---- the end of sessions, registrations and daemons ---------------------------------------------------------------


def test_a_forgotten_session_gives_back_what_waits_and_takes_back_what_is_handed_out(one: PlanWorld) -> None:
    start = handed_five(one)
    one.dispatch(calls(3, first=20), fence=2)
    one.happens(p.FromHub(m.Forget(SESSION)))
    one.expect_report(m.GiveBack(2, [(0, 3)], []))
    one.expect(p.Lower(1, start))
    one.tick(CLAIM_SETTLE_S)
    one.expect(p.Peek(1))
    one.happens(p.Claimed(1, start + 1))
    one.expect_report(m.GiveBack(1, [(1, 5)], []))
    one.happens(p.RunnerSaid(1, PipeOutcome(start, 1, m.Form.LIST, 1.0, b"")))
    one.expect_report(m.GiveBack(1, [(0, 1)], []))
    assert one.plan.idle


def test_a_draining_daemon_gives_back_finishes_and_leaves_once(one: PlanWorld) -> None:
    one.dispatch(calls(3))
    one.tick()
    one.hand(1, 0, 1)
    one.happens(p.Drain())
    one.expect_report(m.Slots(0))
    one.expect_report(m.GiveBack(1, [(1, 3)], []))
    one.expect(p.Lower(1, 0))
    one.tick(CLAIM_SETTLE_S)
    one.expect(p.Peek(1))
    one.happens(p.Claimed(1, 1))
    one.tick()
    one.nothing_else()
    one.outcome(1, 0)
    one.tick()
    one.expect_report(m.Leaving())
    one.tick()
    one.nothing_else()


def test_a_draining_daemon_sends_new_leases_back_and_starts_no_runners(one: PlanWorld) -> None:
    one.happens(p.Drain())
    one.expect_report(m.Slots(0))
    one.dispatch(calls(3), fence=4)
    one.expect_report(m.GiveBack(4, [(0, 3)], []))
    one.happens(p.RunnerGone(1, (0, 0), b""))
    one.tick(10.0)
    one.expect_report(m.Leaving())
    one.nothing_else()


# ---- nonsense -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("at", "count"), [(0, 0), (1, 1), (0, 2), (7, 1)])
def test_a_runner_that_reports_what_it_was_not_handed_is_refused(one: PlanWorld, at: int, count: int) -> None:
    one.dispatch(calls(1))
    one.tick()
    one.hand(1, 0, 1)
    with pytest.raises(PeerProtocolError):
        one.happens(p.RunnerSaid(1, PipeOutcome(at, count, m.Form.LIST, 0.0, b"")))


def test_a_runner_that_is_up_twice_is_refused(one: PlanWorld) -> None:
    with pytest.raises(PeerProtocolError):
        one.happens(p.RunnerReady(1))


def test_words_of_a_runner_that_is_gone_are_ignored(one: PlanWorld) -> None:
    one.happens(p.RunnerGone(1, (0, 0), b""))
    one.happens(p.RunnerReady(1))
    one.happens(p.Claimed(1, 5))
    one.stopped(1, 0, 5)
    one.happens(p.RunnerGone(1, (0, 0), b""))
    one.nothing_else()


# ---- time -----------------------------------------------------------------------------------------------------------


def test_a_tick_at_its_deadline_leaves_none_that_is_due(two: PlanWorld) -> None:
    """Else the daemon's loop would spin."""
    two.warm_up(tasks=512)
    two.dispatch(calls(4))
    two.tick()
    two.happens(p.RunnerGone(2, (0, 0), b""))
    for _ in range(5):
        two.tick()
        assert two.plan.next_deadline() > two.now
        two.now = min(two.plan.next_deadline(), two.now + 1.0) + 1e-6
