"""Results that are larger than the hub takes in a message: cut by the runner, and at the worst lost by the plan."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from taskmesh.core import messages as m
from taskmesh.errors import PayloadError
from taskmesh.outcomes import open_failure
from taskmesh.wire import pipe
from taskmesh.wire.payload import load_each, load_error, loads
from taskmesh_worker import plan_events as p
from taskmesh_worker.results import Results

from .world import PlanWorld, calls


def reported(values: list[Any], largest: int, *, together: bool = False) -> list[pipe.PipeOutcome]:
    """What a runner says of these results: of calls, or of items of a map, which are pickled `together`."""
    written = b""

    def send(buffers: list[bytes | memoryview]) -> None:
        nonlocal written
        written += b"".join(buffers)

    results = Results(send)
    results.begin(0, "f", largest=largest)
    if together:
        run = results.run_of("f")
        run.extend(values)
        results.added(run, 0)
    for value in [] if together else values:
        results.value(value, "f")
    results.flush()
    outcomes = [pipe.unpack_outcome(body) for _, body in pipe.Frames().feed(written)]
    assert [o.at for o in outcomes] == [sum(o.tasks for o in outcomes[:n]) for n in range(len(outcomes))]
    assert all(len(o.blob) <= largest for o in outcomes if o.form != m.Form.ERROR)
    return outcomes


def values_of(outcomes: list[pipe.PipeOutcome]) -> list[Any]:
    values: list[Any] = []
    for outcome in outcomes:
        match outcome.form:
            case m.Form.LIST:
                values += loads(outcome.blob)
            case m.Form.EACH:
                values += [loads(pickled) for pickled in load_each(outcome.blob)]
            case _:
                values.append(load_error(outcome.blob))
    return values


@pytest.mark.parametrize("together", [False, True], ids=["calls", "items"])
@pytest.mark.parametrize("nested", [False, True], ids=["atoms", "objects"])
def test_results_that_are_too_large_together_are_reported_in_parts(nested: bool, together: bool) -> None:
    values = [[text] if nested else text for text in (f"{n:0400}" for n in range(10))]
    outcomes = reported(values, 1000, together=together)
    assert values_of(outcomes) == values
    assert len(outcomes) >= 5


@pytest.mark.parametrize("together", [False, True], ids=["calls", "items"])
def test_a_result_that_is_too_large_alone_is_the_error_of_its_task_and_of_no_other(together: bool) -> None:
    first, large, last = values_of(reported([b"a", b"x" * 2000, b"b"], 1000, together=together))
    assert (first, last) == (b"a", b"b")
    assert isinstance(large, PayloadError)
    assert "the result of f takes 2,0" in str(large)
    assert "takes up to 1,000 (taskmesh hub --max-message)" in str(large)


def test_an_exception_that_is_too_large_is_replaced() -> None:
    sent: list[bytes | memoryview] = []
    results = Results(sent.extend)
    results.begin(0, "f", largest=1000)
    results.value(1, "f")
    results.error(b"x" * 5000)
    results.flush()
    outcomes = [pipe.unpack_outcome(body) for _, body in pipe.Frames().feed(b"".join(sent))]
    assert "the exception of f takes 5,000 bytes" in str(values_of(outcomes)[1])


def test_a_runner_is_told_what_the_hub_takes() -> None:
    world = PlanWorld(1)
    world.start_runners()
    world.happens(p.Reset(again=False, largest=12_345))
    world.dispatch(calls(1))
    world.tick()
    hand = world.hand(1, 0, 1)
    assert hand.dose.largest == 12_345
    (buffers,) = pipe.Frames().feed(b"".join(pipe.pack_dose(hand.dose)))
    assert pipe.unpack_dose(buffers[1]).largest == 12_345


def too_large(bytes_: int, tasks: int, limit: int) -> bytes:
    report: bytes = msgpack.packb({"kind": "too large", "bytes": bytes_, "tasks": tasks, "limit_bytes": limit})
    return report


def test_what_a_runner_did_not_cut_is_lost_task_by_task_and_kept_until_it_is_settled() -> None:
    world = PlanWorld(1)
    world.start_runners()
    world.happens(p.Reset(again=False, largest=10))
    at = world.warm_up()
    world.dispatch(calls(2), fence=5)
    world.tick()
    world.hand(1, 0, 2)
    world.happens(p.RunnerSaid(1, pipe.PipeOutcome(at, 2, m.Form.LIST, 1.0, b"x" * 11)))
    for offset in (0, 1):
        lost = m.Outcome(1, 0, offset, offset + 1, m.Form.LOST, too_large(11, 2, 10))
        world.expect_report(m.Finished(5, 7, 0.5, lost))
    assert world.plan.ledger.outcomes == 2
    world.happens(p.FromHub(m.Settled([(5, 0, 1), (5, 1, 2)])))
    assert world.plan.ledger.outcomes == 0
    assert world.plan.idle


def test_a_hub_that_comes_back_and_takes_less_is_told_that_they_are_lost() -> None:
    world = PlanWorld(1)
    world.start_runners()
    world.dispatch(calls(1), fence=5)
    world.tick()
    world.hand(1, 0, 1)
    world.happens(p.RunnerSaid(1, pipe.PipeOutcome(0, 1, m.Form.LIST, 1.0, b"x" * 11)))
    assert world.take(p.Report)
    world.happens(p.Reset(again=True, largest=10))
    world.expect_report(m.Finished(5, 7, 1.0, m.Outcome(1, 0, 0, 1, m.Form.LOST, too_large(11, 1, 10))))
    world.expect_report(m.Inventory([]))
    world.happens(p.Reset(again=True, largest=11))
    assert world.take(p.Report).message.outcome.blob == b"x" * 11  # type: ignore[union-attr]


def test_a_client_is_told_size_limit_and_option() -> None:
    outcome = m.Outcome(1, 0, 0, 1, m.Form.LOST, too_large(3 << 20, 1, 1 << 20))
    error = open_failure(outcome, "f", "a-1-0")
    assert isinstance(error, PayloadError)
    assert "task a-1-0 of f has ended, but its result takes 3 MiB pickled, and the hub takes up to 1 MiB" in str(error)
    assert "--max-message" in str(error)
    several = m.Outcome(1, 0, 0, 1, m.Form.LOST, too_large(3 << 20, 3, 1 << 20))
    assert "its result and those of 2 other tasks" in str(open_failure(several, "f", "a-1-0"))
