"""When a daemon that drains goes, one sentence each."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from taskmesh.core import messages as m
from taskmesh_worker import farewell as shown
from taskmesh_worker.farewell import GOODBYE_S, LONG_GOODBYE_S, LOST_GRACE_S, NEVER, Farewell, Parting
from taskmesh_worker.plan import Plan
from taskmesh_worker.plan_events import Drain, FromHub, Tick

from .world import calls

OUTCOME = m.Finished(1, 7, 0.1, m.Outcome(1, 0, 0, 1, m.Form.LIST, b"r"))
YOU_LEFT = m.Goodbye("you left")


@pytest.fixture
def plan() -> Plan:
    """A daemon that has nothing to do."""
    return Plan(1)


@pytest.fixture
def drained(plan: Plan) -> Plan:
    """One that drains, has nothing left, and has told its hub so."""
    plan.handle(Drain(), 100.0)
    plan.handle(Tick(), 100.0)
    assert plan.leaving
    return plan


def work(plan: Plan) -> None:
    """A task waits here."""
    limits = m.NO_LIMITS
    plan.handle(FromHub(m.Dispatch(1, 7, 1, "f", b"d" * 16, b"", 1, False, 0, 1, limits, calls(1))), 100.0)


# ---- the hub says goodbye -----------------------------------------------------------------------------------------


def test_a_daemon_leaves_when_its_hub_has_answered_its_leaving(drained: Plan) -> None:
    farewell = Farewell(drained)
    assert not farewell.left
    assert farewell.on_goodbye(YOU_LEFT, unacked=0) is Parting.FOR_GOOD
    assert farewell.left


def test_a_daemon_that_leaves_and_was_not_heard_out_joins_again(drained: Plan) -> None:
    farewell = Farewell(drained)
    assert farewell.on_goodbye(m.Goodbye("shut down", back=False), unacked=1) is Parting.FOR_NOW
    assert not farewell.left


def test_a_hub_that_comes_back_is_waited_for(plan: Plan) -> None:
    farewell = Farewell(plan)
    assert farewell.on_goodbye(m.Goodbye("shut down", back=True), unacked=0) is Parting.FOR_NOW
    plan.handle(Drain(), 100.0)
    assert farewell.on_goodbye(m.Goodbye("shut down", back=True), unacked=0) is Parting.FOR_NOW, "not told yet"
    assert not farewell.left


def test_a_hub_that_wants_this_daemon_no_more_puts_it_out(plan: Plan) -> None:
    farewell = Farewell(plan)
    assert farewell.on_goodbye(m.Goodbye("the ticket was revoked", back=False), unacked=0) is Parting.PUT_OUT
    assert not farewell.left, "it was refused, and says why"


# ---- the hub is silent --------------------------------------------------------------------------------------------


def test_that_the_hub_is_silent_is_news_once_until_it_is_heard(plan: Plan) -> None:
    farewell = Farewell(plan)
    assert farewell.on_lost(100.0)
    assert not farewell.on_lost(101.0)
    farewell.on_heard()
    assert farewell.lost_s(102.0) == 0.0
    assert farewell.on_lost(102.0)
    assert farewell.lost_s(105.0) == 3.0


def test_a_daemon_that_does_not_drain_never_leaves_its_hub(plan: Plan) -> None:
    farewell = Farewell(plan)
    farewell.on_lost(100.0)
    assert not farewell.leave_without_hub(10_000.0)
    assert farewell.on_time(10_000.0) == NEVER
    assert not farewell.left


def test_a_daemon_whose_tasks_have_not_ended_does_not_leave(plan: Plan) -> None:
    work(plan)
    plan.draining = True
    farewell = Farewell(plan)
    farewell.on_lost(100.0)
    assert not farewell.leave_without_hub(10_000.0)
    assert farewell.on_time(10_000.0) == NEVER
    assert not farewell.left


def test_a_daemon_with_nothing_to_hand_over_leaves_a_silent_hub_at_once(drained: Plan) -> None:
    farewell = Farewell(drained)
    farewell.on_lost(100.0)
    assert farewell.leave_without_hub(100.0)
    assert farewell.left


def test_a_daemon_with_outcomes_waits_for_a_silent_hub_that_may_only_be_restarting(drained: Plan) -> None:
    drained.ledger.keep(OUTCOME)
    farewell = Farewell(drained)
    farewell.on_lost(100.0)
    assert not farewell.leave_without_hub(100.0 + LOST_GRACE_S - 0.1)
    farewell.on_lost(100.0 + LOST_GRACE_S)
    assert farewell.leave_without_hub(100.0 + LOST_GRACE_S)
    assert farewell.left


def test_a_hub_that_was_heard_meanwhile_is_waited_for_as_long_again(drained: Plan) -> None:
    drained.ledger.keep(OUTCOME)
    farewell = Farewell(drained)
    farewell.on_lost(100.0)
    farewell.on_heard()
    farewell.on_lost(100.0 + LOST_GRACE_S)
    assert not farewell.leave_without_hub(100.0 + LOST_GRACE_S + 0.1)


# ---- the hub is there, and does not say goodbye -------------------------------------------------------------------


def test_a_daemon_waits_for_the_goodbye_of_its_hub_and_not_for_ever(drained: Plan) -> None:
    farewell = Farewell(drained)
    assert farewell.on_time(100.0) == 100.0 + GOODBYE_S
    assert farewell.on_time(100.0 + GOODBYE_S - 0.1) == 100.0 + GOODBYE_S
    assert not farewell.left
    assert farewell.on_time(100.0 + GOODBYE_S) == NEVER
    assert farewell.left


def test_it_waits_longer_while_outcomes_are_not_settled(drained: Plan) -> None:
    drained.ledger.keep(OUTCOME)
    farewell = Farewell(drained)
    assert farewell.on_time(100.0) == 100.0 + LONG_GOODBYE_S
    assert farewell.on_time(100.0 + LONG_GOODBYE_S - 0.1) == 100.0 + LONG_GOODBYE_S
    drained.ledger.settle([(1, 0, 1)])
    assert farewell.on_time(100.0 + LONG_GOODBYE_S - 0.1) == NEVER
    assert farewell.left, "they are, and it has waited for more than long enough"


def test_the_farewell_reads_no_clock() -> None:
    tree = ast.parse(Path(shown.__file__).read_text())
    imported = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    assert not imported & {"os", "time", "logging", "random", "socket"}
