"""Timeouts, cancellation, memory and replacement, as the plan decides them."""

from __future__ import annotations

import msgpack
import pytest

from taskmesh.core import messages as m
from taskmesh.sizes import parse_size, show_size
from taskmesh.wire.pipe import Reason
from taskmesh_worker import plan_events as p
from taskmesh_worker.plan_limits import RunnerLimits

from .world import SESSION, PlanWorld, calls

REPORT: bytes = msgpack.packb({"kind": "lost", "pid": 7})


def running(limits: m.Limits, count: int = 1, slots: int = 1, own: RunnerLimits | None = None) -> PlanWorld:
    """A world whose first runner was handed the first task."""
    world = PlanWorld(slots, own)
    world.start_runners()
    world.dispatch(calls(count), limits=limits)
    world.tick()
    world.hand(1, 0, 1)
    return world


def seen(world: PlanWorld, ran_s: float, lo: int = 0) -> None:
    world.happens(p.Seen(1, lo, lo + 1, ran_s))


def outcome_of(world: PlanWorld) -> m.Outcome:
    finished = world.take(p.Report).message
    assert isinstance(finished, m.Finished)
    return finished.outcome


def test_a_task_is_looked_at_when_its_time_may_be_over_and_not_before() -> None:
    world = running(m.Limits(1.0))
    world.tick(0.99)
    assert world.looks == []
    world.tick(0.01)
    assert world.looks == [1]
    seen(world, 0.7)  # it was claimed later than it was handed out
    world.nothing_else()
    assert world.plan.next_deadline() == pytest.approx(world.now + 0.3)


def test_a_task_out_of_time_is_interrupted_and_then_its_runner_is_killed() -> None:
    world = running(m.Limits(1.0))
    world.tick(1.0)
    seen(world, 1.0)
    world.expect(p.Interrupt(1, 0, Reason.TIMEOUT), p.Lower(1, 0))
    world.tick(0.25)
    assert [type(a) for a in world.actions] == [p.Peek, p.Interrupt], "the first signal may have come too early"
    world.actions.clear()
    world.tick(0.75)
    world.expect(p.Kill(1))
    world.actions.clear()
    world.happens(p.RunnerGone(1, (0, 1), REPORT))
    outcome = outcome_of(world)
    assert outcome.form == m.Form.LOST
    assert msgpack.unpackb(outcome.blob) == {"kind": "timeout", "pid": 7, "seconds": 2.0, "limit_s": 1.0}
    world.nothing_else()
    assert world.plan.idle


def test_a_task_that_ends_in_its_grace_period_keeps_its_result_and_its_runner() -> None:
    world = running(m.Limits(1.0))
    world.tick(1.0)
    seen(world, 1.0)
    world.actions.clear()
    assert world.outcome(1, 0).outcome.form == m.Form.LIST
    world.tick(5.0)
    world.nothing_else()
    world.dispatch(calls(1), fence=2)
    world.tick()
    world.hand(1, 0, 1)


def test_a_cancelled_task_that_runs_is_interrupted_and_ends_as_cancelled() -> None:
    world = running(m.NO_LIMITS)
    world.happens(p.FromHub(m.Revoke(1, 0, 1, True)))
    world.expect(p.Lower(1, 0))
    world.tick(0.001)
    world.expect(p.Peek(1))
    world.happens(p.Claimed(1, 1))
    world.tick()
    assert world.looks == [1]
    seen(world, 0.0)
    kept = [a for a in world.actions if isinstance(a, p.Report)]
    assert kept == [p.Report(m.GiveBack(1, [], [(0, 1)]))]
    assert p.Interrupt(1, 0, Reason.CANCELLED) in world.actions
    world.tick(2.0)
    assert isinstance(world.actions[-1], p.Kill)
    world.actions.clear()
    world.happens(p.RunnerGone(1, (0, 1), REPORT))
    assert world.take(p.Report).message == m.Finished(1, SESSION, 0.0, m.Outcome(1, 0, 0, 1, m.Form.CANCELLED, b""))


def test_the_next_task_of_a_runner_that_is_killed_too_late_is_not_blamed() -> None:
    world = running(m.Limits(1.0), count=2)
    world.tick(1.0)
    seen(world, 1.0)
    world.tick(1.0)
    world.actions.clear()
    world.happens(p.RunnerGone(1, (1, 2), REPORT))
    assert not [a for a in world.actions if isinstance(a, p.Report)]


def test_too_much_memory_ends_the_task_at_once() -> None:
    world = running(m.Limits(0.0, 1000), own=RunnerLimits(500))
    world.tick(0.2)
    world.expect(p.Sample(1))
    world.happens(p.Sampled(1, 499, 0, 1))
    world.tick(0.2)
    world.expect(p.Sample(1))
    world.happens(p.Sampled(1, 501, 0, 1))
    world.expect(p.Kill(1))
    world.happens(p.RunnerGone(1, (0, 1), REPORT))
    blob = msgpack.unpackb(outcome_of(world).blob)
    assert (blob["kind"], blob["bytes"], blob["limit_bytes"]) == ("memory", 501, 500)


def test_a_runner_that_has_grown_is_replaced_after_its_task_which_counts() -> None:
    world = running(m.NO_LIMITS, own=RunnerLimits(recycle_above=500))
    world.tick(0.2)
    world.expect(p.Sample(1))
    world.happens(p.Sampled(1, 500, 0, 1))
    world.tick(0.2)
    world.expect(p.Sample(1))
    world.happens(p.Sampled(1, 501, 0, 1))
    assert not [action for action in world.actions if isinstance(action, p.Kill | p.End)], "its task runs"
    world.actions.clear()
    world.outcome(1, 0)
    world.tick()
    world.expect(p.End(1))
    world.happens(p.RunnerGone(1, (0, 1), REPORT))
    world.tick()
    world.expect(p.Start(2))


def test_a_runner_that_is_found_to_have_grown_while_it_idles_is_replaced() -> None:
    world = running(m.NO_LIMITS, own=RunnerLimits(recycle_above=500))
    world.outcome(1, 0)
    world.actions.clear()
    world.tick(0.2)
    world.expect(p.Sample(1))
    world.happens(p.Sampled(1, 501, 0, 1))
    world.tick()
    world.expect(p.End(1))


def test_a_runner_is_replaced_after_so_many_tasks_and_its_slot_is_free_when_it_is_gone() -> None:
    world = running(m.NO_LIMITS, count=2, own=RunnerLimits(max_tasks=1))
    world.outcome(1, 0)
    world.tick()
    world.expect(p.End(1))
    world.tick(0.1)
    world.nothing_else()
    world.happens(p.RunnerGone(1, (0, 1), REPORT))
    world.tick()
    world.expect(p.Start(2))
    world.happens(p.RunnerReady(2))
    world.tick()
    world.hand(2, 1, 2)


def test_a_drain_gives_back_what_still_runs_when_its_time_is_over() -> None:
    world = running(m.NO_LIMITS)
    world.happens(p.Drain(3.0))
    world.tick(2.9)
    assert not any(isinstance(action, p.Kill) for action in world.actions)
    world.tick(0.1)
    assert isinstance(world.actions[-1], p.Kill)
    world.actions.clear()
    world.happens(p.RunnerGone(1, (0, 1), REPORT))
    world.expect_report(m.GiveBack(1, [(0, 1)], []))
    world.tick()
    world.expect_report(m.Leaving())


@pytest.mark.parametrize(
    ("text", "size"), [("2GiB", 2 << 30), ("500MB", 500_000_000), ("1.5 kib", 1536), (4096, 4096), ("77", 77)]
)
def test_sizes_are_read(text: int | str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "-1", "0", 0, True, "2 Gib/s", "1e9"])
def test_what_is_no_size_is_refused(text: int | str) -> None:
    with pytest.raises(ValueError, match="is not a size in memory"):
        parse_size(text)


def test_sizes_are_shown() -> None:
    assert [show_size(n) for n in (10, 1536, 100 << 20, 3 << 30)] == ["10 B", "1.5 KiB", "100 MiB", "3 GiB"]
