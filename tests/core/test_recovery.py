"""What survives: sessions without a client, daemons that come back, hubs that start again. Rules of decision 0005."""

from __future__ import annotations

import msgpack
import pytest

from taskmesh.core import actions as a
from taskmesh.core import events as e
from taskmesh.core import messages as m
from taskmesh.core import records as r
from taskmesh.core.recall import RECALL_AFTER_S
from taskmesh.core.roster import DEAD_AFTER_S, SUSPECT_AFTER_S
from taskmesh.core.sessions import SESSION_GRACE_S

from .world import CLIENT, DAEMON, DIGEST, World, calls, register

OTHER = 22
ONCE = m.Limits(at_most_once=True)


@pytest.fixture
def world() -> World:
    world = World()
    world.joins("client", CLIENT)
    world.joins("daemon", DAEMON)
    return world


def leased(world: World, count: int, limits: m.Limits = m.NO_LIMITS) -> m.Dispatch:
    """Tasks that the daemon has, and the lease of the first of them."""
    world.submits(count, limits=limits)
    world.tick()
    dispatch = world.expect_dispatch(0, 1)
    while world.actions:
        world.actions.pop(0)
    return dispatch


def holding(dispatch: m.Dispatch, *ranges: tuple[int, int], fence: int = 0) -> m.Holding:
    return m.Holding(
        fence or dispatch.fence, dispatch.session, dispatch.spec, dispatch.chunk.first, 1, False, list(ranges)
    )  # fmt: skip


def lost(world: World) -> list[m.Outcome]:
    """Outcomes of form LOST in the messages to the client."""
    sent = [action.message for action in world.actions if isinstance(action, a.Send) and action.instance == CLIENT]
    return [o for message in sent if isinstance(message, m.Results) for o in message.outcomes if o.form == m.Form.LOST]


def client_dies(world: World) -> None:
    world.happens(e.LaneDown(CLIENT, 1))
    world.scheduler.heard(DAEMON, 2, world.now + 0.6)
    world.tick(0.6)
    world.expect(a.Dismiss(CLIENT, dead=True))


# ---- sessions -------------------------------------------------------------------------------------------------------


def test_a_client_that_returns_within_the_grace_period_finds_its_results(world: World) -> None:
    dispatch = leased(world, 1)
    client_dies(world)
    outcome = world.outcome(dispatch, 0, 1)
    world.tick()
    world.nothing_else()
    world.happens(e.Joined(register("client", CLIENT, attempt=2)))
    world.expect(a.Admit(CLIENT, 3, "client", resume=False, known=True))
    world.submits(1, left=[(0, 1)])
    world.tick()
    world.expect_send(CLIENT, m.Results([outcome]))
    world.nothing_else()


def test_outcomes_that_were_not_acknowledged_are_sent_again_on_a_new_link(world: World) -> None:
    outcome = world.outcome(leased(world, 1), 0, 1)
    world.tick()
    world.expect_send(CLIENT, m.Results([outcome]))
    world.happens(e.Joined(register("client", CLIENT, attempt=2)))
    world.expect(a.Admit(CLIENT, 3, "client", resume=False, known=True))
    world.tick()
    world.expect_send(CLIENT, m.Results([outcome]))
    world.happens(e.Delivered(CLIENT, 1))
    world.happens(e.Joined(register("client", CLIENT, attempt=3)))
    world.expect(a.Admit(CLIENT, 4, "client", resume=False, known=True))
    world.tick()
    world.expect_send(DAEMON, m.Settled([(1, 0, 1)]))
    world.nothing_else()


def test_functions_that_a_client_does_not_name_on_its_new_link_were_retired() -> None:
    world = durable()
    for spec in (1, 2, 3, 4):
        world.submits(1, spec=spec, first=0)
        world.tick()
        (dispatch,) = world.expect_dispatches()
        world.outcome(dispatch, 0, 1)
    world.tick()
    world.actions.clear()
    world.happens(e.Joined(register("client", CLIENT, attempt=2)))
    world.hears(CLIENT, m.Spec(2, "f", DIGEST, b"", 0))
    assert sorted(world.scheduler.sessions[CLIENT].specs) == [2, 3, 4], "it may name the others yet"
    world.hears(CLIENT, m.Retire(4))
    assert sorted(world.scheduler.sessions[CLIENT].specs) == [2]
    assert [record for record in persisted(world) if isinstance(record, r.DropSpec)] == [
        r.DropSpec(CLIENT, 1), r.DropSpec(CLIENT, 3), r.DropSpec(CLIENT, 4)
    ]  # fmt: skip


def test_a_function_that_a_client_has_retired_is_forgotten_when_its_last_task_has_ended() -> None:
    world = durable()
    world.submits(1)
    world.tick()
    (dispatch,) = world.expect_dispatches()
    world.happens(e.Joined(register("client", CLIENT, attempt=2)))
    world.hears(CLIENT, m.Retire(1))
    assert sorted(world.scheduler.sessions[CLIENT].specs) == [1]
    world.outcome(dispatch, 0, 1)
    assert not world.scheduler.sessions[CLIENT].specs


def test_a_client_that_does_not_return_is_forgotten_after_the_grace_period(world: World) -> None:
    leased(world, 5)
    client_dies(world)
    assert not world.scheduler.idle
    assert world.scheduler.next_deadline() <= world.now + SESSION_GRACE_S
    world.scheduler.heard(DAEMON, 2, world.now + SESSION_GRACE_S)
    world.tick(SESSION_GRACE_S)
    world.expect_send(DAEMON, m.Forget(CLIENT))
    assert world.scheduler.idle


# ---- daemons that come back -----------------------------------------------------------------------------------------


def test_what_a_dead_daemon_still_holds_when_it_returns_is_its_own_again(world: World) -> None:
    dispatch = leased(world, 1)
    world.scheduler.heard(CLIENT, 1, world.now + DEAD_AFTER_S)
    world.tick(DEAD_AFTER_S)
    world.actions.clear()
    world.happens(e.Joined(register("daemon", DAEMON, attempt=2)))
    world.actions.clear()
    world.hears(DAEMON, m.Inventory([holding(dispatch, (0, 1))]))
    world.tick()
    world.nothing_else()
    outcome = world.outcome(dispatch, 0, 1, m.Form.ERROR)
    world.tick()
    world.expect_send(CLIENT, m.Results([outcome]))


def test_what_runs_elsewhere_meanwhile_is_revoked(world: World) -> None:
    dispatch = leased(world, 1)
    world.joins("daemon", OTHER)
    world.scheduler.heard(CLIENT, 1, world.now + DEAD_AFTER_S)
    world.scheduler.heard(OTHER, 3, world.now + DEAD_AFTER_S)
    world.tick(DEAD_AFTER_S)
    world.actions.pop(0)
    world.expect_dispatch(0, 1, OTHER)
    world.happens(e.Joined(register("daemon", DAEMON, attempt=2)))
    world.actions.clear()
    world.hears(DAEMON, m.Inventory([holding(dispatch, (0, 1))]))
    world.expect_send(DAEMON, m.Revoke(dispatch.fence, 0, 1))


def test_a_lease_that_the_inventory_does_not_name_was_lost_on_the_way(world: World) -> None:
    leased(world, 1)
    world.happens(e.Joined(register("daemon", DAEMON, attempt=2)))
    world.expect(a.Admit(DAEMON, 3, "daemon", resume=False, known=True))
    world.tick()
    world.nothing_else()
    world.hears(DAEMON, m.Inventory([]))
    world.tick()
    assert world.expect_dispatch(0, 1).attempt == 2


def test_a_lease_given_since_the_daemon_returned_is_not_in_its_inventory_and_stays(world: World) -> None:
    world.happens(e.Joined(register("daemon", DAEMON, attempt=2)))
    world.expect(a.Admit(DAEMON, 3, "daemon", resume=False, known=True))
    world.heard(DAEMON)
    leased(world, 1)
    world.hears(DAEMON, m.Inventory([]))
    world.tick()
    world.nothing_else()


def test_an_inventory_of_a_session_that_is_over_is_answered_with_forget(world: World) -> None:
    dispatch = leased(world, 1)
    world.hears(CLIENT, m.Close())
    world.actions.clear()
    world.hears(DAEMON, m.Inventory([holding(dispatch, (0, 1))]))
    world.expect_send(DAEMON, m.Forget(CLIENT))


# ---- a hub that has just started ------------------------------------------------------------------------------------


def restarted(recovery_s: float = 2.0) -> World:
    world = World(recovery_s)
    world.joins("client", CLIENT)
    world.joins("daemon", DAEMON)
    return world


def test_what_was_offered_before_waits_for_the_daemons_and_what_is_new_does_not() -> None:
    world = restarted()
    world.submits(1, left=[(0, 1)])
    world.submits(1, first=7)
    world.tick()
    assert world.expect_dispatch(0, 1).chunk.first == 7
    world.nothing_else()
    assert world.scheduler.next_deadline() <= world.now + 2.0
    world.tick(2.0)
    assert world.expect_dispatch(0, 1).chunk.first == 0


@pytest.mark.parametrize("client_first", [True, False])
def test_what_a_daemon_holds_is_not_dispatched_again(client_first: bool) -> None:
    world = restarted()
    inventory = m.Inventory([m.Holding(5, CLIENT, 1, 0, 2, False, [(0, 2)])])
    if client_first:
        world.submits(3, left=[(0, 3)])
        world.hears(DAEMON, inventory)
    else:
        world.scheduler.sessions.pop(CLIENT)
        world.scheduler.roster.remove(CLIENT)
        world.hears(DAEMON, inventory)
        world.happens(e.Joined(register("client", CLIENT, attempt=2)))
        world.actions.clear()
        world.submits(3, left=[(0, 3)])
    assert world.scheduler.daemons[DAEMON].tasks_out == 2
    world.hears(DAEMON, m.Slots(8))
    world.tick(2.0)
    world.expect_dispatch(2, 3)
    world.nothing_else()


def test_what_a_daemon_holds_and_gives_back_before_the_wait_is_over_is_queued_once() -> None:
    world = restarted()
    world.submits(3, left=[(0, 3)])
    world.hears(DAEMON, m.Inventory([m.Holding(5, CLIENT, 1, 0, 2, False, [(0, 2)])]))
    world.hears(DAEMON, m.GiveBack(5, [(0, 2)], []))  # the cross-check finds it if it is in two places
    assert world.scheduler.daemons[DAEMON].tasks_out == 0
    assert sum(piece.hi - piece.lo for _, _, piece in world.scheduler.ready.pieces()) == 2


@pytest.mark.parametrize("client_first", [True, False])
def test_an_outcome_that_comes_before_its_chunk_counts(client_first: bool) -> None:
    world = restarted()
    if not client_first:
        world.scheduler.sessions.pop(CLIENT)
        world.scheduler.roster.remove(CLIENT)
    outcome = m.Outcome(1, 0, 0, 1, m.Form.LIST, b"r")
    world.hears(DAEMON, m.Done([m.Finished(5, CLIENT, 0.1, outcome)]))
    if not client_first:
        world.happens(e.Joined(register("client", CLIENT, attempt=2)))
        world.actions.clear()
    world.submits(1, left=[(0, 1)])
    world.tick()
    world.expect_send(CLIENT, m.Results([outcome]))


def test_an_outcome_whose_session_never_comes_is_settled_when_the_wait_is_over() -> None:
    world = restarted()
    world.hears(DAEMON, m.Done([m.Finished(5, 99, 0.1, m.Outcome(1, 0, 0, 1, m.Form.LIST, b"r"))]))
    world.hears(DAEMON, m.Inventory([m.Holding(6, 99, 1, 3, 1, False, [(0, 1)])]))
    world.tick()
    world.nothing_else()
    world.tick(2.0)
    world.expect_send(DAEMON, m.Forget(99))
    world.expect_send(DAEMON, m.Settled([(5, 0, 1)]))


def test_what_a_daemon_holds_of_a_chunk_that_never_comes_is_revoked_and_nothing_else_of_its_session() -> None:
    world = restarted()
    world.hears(DAEMON, m.Inventory([m.Holding(6, CLIENT, 1, 3, 1, False, [(0, 1), (4, 6)])]))
    world.tick()
    world.nothing_else()
    world.tick(2.0)
    world.expect_send(DAEMON, m.Revoke(6, 0, 1))
    world.expect_send(DAEMON, m.Revoke(6, 4, 6))
    world.nothing_else()


# ---- at_most_once ---------------------------------------------------------------------------------------------------


def test_at_most_once_is_lost_with_its_machine(world: World) -> None:
    leased(world, 1, ONCE)
    world.scheduler.heard(CLIENT, 1, world.now + DEAD_AFTER_S)
    world.tick(DEAD_AFTER_S)
    (outcome,) = lost(world)
    assert "at_most_once" in msgpack.unpackb(outcome.blob)["why"]
    assert world.scheduler.idle


def test_at_most_once_is_lost_with_its_runner(world: World) -> None:
    dispatch = leased(world, 1, ONCE)
    world.hears(DAEMON, m.Strike(dispatch.fence, 0, 1, b"report"))
    world.tick()
    world.expect_send(CLIENT, m.Results([m.Outcome(1, 0, 0, 1, m.Form.LOST, b"report")]))


def test_at_most_once_that_was_on_its_way_to_a_daemon_that_left_runs_elsewhere(world: World) -> None:
    leased(world, 1, ONCE)
    world.joins("daemon", OTHER)
    world.hears(DAEMON, m.Slots(0))
    world.hears(DAEMON, m.Leaving())
    world.actions.clear()
    world.tick()
    assert world.expect_dispatch(0, 1, daemon=OTHER).attempt == 1
    assert not lost(world)


def test_at_most_once_that_did_not_start_runs_elsewhere(world: World) -> None:
    dispatch = leased(world, 1, ONCE)
    world.hears(DAEMON, m.GiveBack(dispatch.fence, [(0, 1)], []))
    world.tick()
    world.expect_dispatch(0, 1)


def test_at_most_once_is_not_started_again_by_a_hub_that_started_again() -> None:
    world = restarted()
    world.submits(3, limits=ONCE, left=[(0, 3)])
    world.hears(DAEMON, m.Inventory([m.Holding(5, CLIENT, 1, 0, 1, False, [(1, 2)])]))
    world.tick(2.0)
    assert [(o.lo, o.hi) for o in lost(world)] == [(0, 1), (2, 3)]


# ---- silence --------------------------------------------------------------------------------------------------------


def falls_silent(world: World) -> None:
    world.scheduler.heard(CLIENT, 1, world.now + SUSPECT_AFTER_S)
    world.scheduler.heard(OTHER, 3, world.now + SUSPECT_AFTER_S)
    world.tick(SUSPECT_AFTER_S)


def test_what_a_silent_daemon_has_queued_moves_and_what_runs_stays(world: World) -> None:
    dispatch = leased(world, 2)
    (second,) = (fence for fence in world.scheduler.daemons[DAEMON].leases if fence != dispatch.fence)
    world.scheduler.heard(DAEMON, 2, world.now, [(dispatch.fence, 0, 1)])
    world.joins("daemon", OTHER)
    falls_silent(world)
    world.expect_send(DAEMON, m.Revoke(second, 1, 2))
    world.expect_dispatch(1, 2, OTHER)
    world.nothing_else()
    assert world.scheduler.daemons[DAEMON].tasks_out == 1


def test_at_most_once_does_not_move_by_suspicion(world: World) -> None:
    leased(world, 2, ONCE)
    world.scheduler.heard(DAEMON, 2, world.now, [])
    world.joins("daemon", OTHER)
    falls_silent(world)
    world.nothing_else()


def test_a_daemon_that_was_heard_again_can_fall_silent_again(world: World) -> None:
    leased(world, 1)
    world.joins("daemon", OTHER)
    falls_silent(world)
    world.nothing_else()  # nothing is known of what its runners hold
    world.now += 0.1
    world.scheduler.heard(DAEMON, 2, world.now, [])
    falls_silent(world)
    world.actions.pop(0)
    world.expect_dispatch(0, 1, OTHER)


# ---- recall ---------------------------------------------------------------------------------------------------------


def test_a_daemon_that_idles_gets_what_waits_behind_a_long_task(world: World) -> None:
    dispatch = leased(world, 2)
    (second,) = (fence for fence in world.scheduler.daemons[DAEMON].leases if fence != dispatch.fence)
    world.joins("daemon", OTHER)
    world.tick()
    world.nothing_else()
    world.tick(1.1 * RECALL_AFTER_S)
    world.expect_send(DAEMON, m.Revoke(second, 1, 2))
    world.tick(1.1 * RECALL_AFTER_S)
    world.nothing_else()
    world.hears(DAEMON, m.GiveBack(second, [(1, 2)], []))
    world.tick()
    world.expect_dispatch(1, 2, OTHER)


def test_a_lease_that_gave_back_what_it_was_asked_for_is_asked_again(world: World) -> None:
    world.submits(7)
    world.scheduler.sessions[CLIENT].specs[1].pace.observe(1000, 1000 * 2**-8)
    world.tick()
    dispatch = world.expect_dispatch(0, 7)
    world.joins("daemon", OTHER, slots=2)
    world.tick(1.1 * RECALL_AFTER_S)
    world.expect_send(DAEMON, m.Revoke(dispatch.fence, 5, 7))
    world.hears(DAEMON, m.GiveBack(dispatch.fence, [(5, 7)], []))
    world.tick()
    world.outcome(world.expect_dispatch(5, 7, OTHER), 5, 7, daemon=OTHER)
    world.tick(1.1 * RECALL_AFTER_S)
    assert a.Send(DAEMON, m.Revoke(dispatch.fence, 3, 5)) in world.actions


def test_nothing_is_recalled_for_a_daemon_that_has_left_and_the_hub_waits(world: World) -> None:
    leased(world, 3)
    world.joins("daemon", OTHER)
    world.tick()
    world.outcome(world.expect_dispatch(2, 3, OTHER), 2, 3, daemon=OTHER)
    world.tick()
    assert world.scheduler.next_deadline() <= world.now + RECALL_AFTER_S, "it would take something back for the other"
    world.hears(OTHER, m.Leaving())
    world.tick(2 * RECALL_AFTER_S)
    assert world.scheduler.next_deadline() > world.now, "the hub's loop would spin"


def test_nothing_is_recalled_for_a_daemon_that_is_busy_too(world: World) -> None:
    leased(world, 2)
    world.joins("daemon", OTHER)
    world.submits(1, first=50)
    world.tick()
    world.actions.clear()
    world.tick(1.1 * RECALL_AFTER_S)
    world.tick(1.1 * RECALL_AFTER_S)
    world.nothing_else()


# ---- the store ------------------------------------------------------------------------------------------------------


def durable() -> World:
    world = World(durable=True)
    world.happens(e.Joined(register("client", CLIENT)))
    world.happens(e.Joined(register("daemon", DAEMON)))
    world.heard(DAEMON)
    return world


def persisted(world: World) -> list[r.Record]:
    """The records so far, taken out of the actions."""
    records = [action.record for action in world.actions if isinstance(action, a.Persist)]
    world.actions = [action for action in world.actions if not isinstance(action, a.Persist)]
    return records


def test_everything_that_a_restart_needs_is_stored_and_unstored() -> None:
    world = durable()
    assert persisted(world) == [r.PutSession(CLIENT, "client11", "host")]
    world.actions.clear()
    world.submits(1)
    spec, body, chunk = persisted(world)
    assert (spec, body) == (r.PutSpec(CLIENT, m.Spec(1, "f", DIGEST, b"", 0)), r.PutBody(DIGEST, b"body"))
    assert isinstance(chunk, r.PutChunk)
    assert (chunk.spec, chunk.chunk.first, chunk.left) == (1, 0, [(0, 1)])
    world.tick()
    outcome = world.outcome(world.expect_dispatch(0, 1), 0, 1)
    world.tick()
    assert persisted(world) == [r.PutOutcome(CLIENT, outcome), r.PutLeft(CLIENT, 1, 0, [])]
    world.expect_send(CLIENT, m.Results([outcome]))
    world.happens(e.Delivered(CLIENT, 1))
    assert persisted(world) == [r.DropOutcome(CLIENT, 1, 0, 0, 1)]
    world.hears(CLIENT, m.Retire(1))
    assert persisted(world) == [r.DropBody(DIGEST), r.DropSpec(CLIENT, 1)]
    world.hears(CLIENT, m.Close())
    assert persisted(world) == [r.DropSession(CLIENT)]


def test_a_daemon_may_forget_an_outcome_when_it_is_committed() -> None:
    world = durable()
    world.submits(1)
    world.tick()
    world.actions = [x for x in world.actions if isinstance(x, a.Send) and isinstance(x.message, m.Dispatch)]
    dispatch = world.expect_dispatch(0, 1)
    world.outcome(dispatch, 0, 1)
    world.tick()
    world.happens(e.Committed(4))
    world.tick()
    world.actions.clear()
    world.happens(e.Committed(6))
    world.tick()
    world.expect_send(DAEMON, m.Settled([(dispatch.fence, 0, 1)]))


def test_what_is_left_of_a_chunk_is_stored_once_for_all_that_ends_in_a_round() -> None:
    world = durable()
    world.submits(2)
    world.tick()
    first, second = world.expect_dispatches()
    world.actions.clear()
    for dispatch in (first, second):
        world.outcome(dispatch, dispatch.lo, dispatch.hi)
    assert [type(record) for record in persisted(world)] == [r.PutOutcome, r.PutOutcome]
    world.tick()
    assert persisted(world) == [r.PutLeft(CLIENT, 1, 0, [])]


def test_what_is_left_of_a_session_that_is_over_is_not_stored_over_that_of_its_successor() -> None:
    world = durable()
    world.submits(2)
    world.tick()
    first, _ = world.expect_dispatches()
    world.outcome(first, 0, 1)
    world.hears(CLIENT, m.Close())
    world.happens(e.Joined(register("client", CLIENT, attempt=2)))
    world.submits(2)
    world.actions.clear()
    world.tick()
    assert not [record for record in persisted(world) if isinstance(record, r.PutLeft)]


def test_a_daemon_may_forget_at_once_what_comes_again_after_it_was_committed() -> None:
    world = durable()
    world.submits(1)
    world.tick()
    world.actions = [x for x in world.actions if isinstance(x, a.Send) and isinstance(x.message, m.Dispatch)]
    dispatch = world.expect_dispatch(0, 1)
    world.outcome(dispatch, 0, 1)
    world.tick()
    world.happens(e.Committed(6))
    world.tick()
    world.actions.clear()
    world.outcome(dispatch, 0, 1)
    world.tick()
    world.expect_send(DAEMON, m.Settled([(dispatch.fence, 0, 1)]))


def test_a_full_store_takes_no_new_chunk_and_loses_none() -> None:
    world = durable()
    world.submits(1)
    world.happens(e.StoreFails("the disk is full"))
    world.actions.clear()
    world.hears(CLIENT, m.Submit(1, calls(2, 1)))
    world.expect_send(CLIENT, m.Rejected(1, 1, "the disk is full"))
    world.tick()
    world.expect_dispatch(0, 1)
    world.happens(e.StoreFails(None))
    world.hears(CLIENT, m.Submit(1, calls(1, 3)))
    assert [type(record) for record in persisted(world)] == [r.PutChunk]


def test_a_hub_goes_on_where_the_one_before_it_was_killed() -> None:
    world = World(2.0, durable=True)
    done = m.Outcome(1, 0, 0, 1, m.Form.LIST, b"r")
    spec = m.Spec(1, "f", DIGEST, b"", 0)
    session = r.SessionSnapshot(
        CLIENT, "c", "h", [r.SpecSnapshot(spec, 4, [(calls(3, 0), [(1, 3)]), (calls(1, 3), [(0, 1)])])], [done]
    )
    world.scheduler.restore(r.Snapshot([session], {DIGEST: b"body"}), world.now)
    world.scheduler.check()
    world.happens(e.Joined(register("daemon", DAEMON, slots=9)))
    world.hears(DAEMON, m.Inventory([m.Holding(5, CLIENT, 1, 0, 1, False, [(1, 2)])]))
    world.happens(e.Joined(register("client", CLIENT)))
    world.actions.clear()
    world.hears(CLIENT, m.Submit(1, calls(3, 0), [(0, 3)]))
    world.tick()
    world.expect_send(CLIENT, m.Results([done]))
    world.nothing_else()
    world.tick(2.0)
    world.expect_dispatch(2, 3)
    assert world.expect_dispatch(0, 1).chunk.first == 3
    world.nothing_else()


def test_a_rejection_that_was_lost_with_its_link_is_made_up_for() -> None:
    world = durable()
    world.submits(1)
    world.happens(e.StoreFails("the disk is full"))
    world.hears(CLIENT, m.Submit(1, calls(2, 1)))
    world.happens(e.StoreFails(None))
    world.hears(CLIENT, m.Submit(1, calls(1, 3)))
    world.happens(e.Joined(register("client", CLIENT, attempt=2)))
    world.actions.clear()
    world.submits(2, first=1, left=[(0, 2)])
    assert [record.left for record in persisted(world) if isinstance(record, r.PutChunk)] == [[(0, 2)]]
    world.submits(2, first=1, left=[(0, 2)])
    assert not persisted(world), "it is here now"


def test_what_is_on_its_way_to_the_client_is_not_run_again_when_it_is_offered_again(world: World) -> None:
    dispatch = leased(world, 1)
    outcome = world.outcome(dispatch, 0, 1)
    world.tick()
    world.happens(e.Joined(register("client", CLIENT, attempt=2)))
    world.submits(1, left=[(0, 1)])
    world.actions.clear()
    world.tick()
    world.expect_send(CLIENT, m.Results([outcome]))
    world.nothing_else()
    assert world.scheduler.idle


def without_client() -> World:
    """A hub that has just started, whose client has not come back yet."""
    world = restarted()
    world.scheduler.sessions.pop(CLIENT)
    world.scheduler.roster.remove(CLIENT)
    world.hears(DAEMON, m.Inventory([m.Holding(5, CLIENT, 1, 0, 1, False, [(0, 2)])]))
    return world


def returns(world: World) -> None:
    world.happens(e.Joined(register("client", CLIENT, attempt=2)))
    world.submits(2, left=[(0, 2)])
    world.actions.clear()


def test_a_failure_of_what_a_daemon_had_said_it_holds_counts_although_its_chunk_comes_later() -> None:
    world = without_client()
    failure = m.Outcome(1, 0, 0, 1, m.Form.ERROR, b"r")
    world.hears(DAEMON, m.Done([m.Finished(5, CLIENT, 0.1, failure)]))
    returns(world)
    assert world.scheduler.daemons[DAEMON].tasks_out == 1
    world.tick()
    world.expect_send(CLIENT, m.Results([failure]))


def test_what_was_given_back_before_its_chunk_came_is_not_with_that_daemon() -> None:
    world = without_client()
    world.hears(DAEMON, m.GiveBack(5, [(0, 1)], []))
    world.hears(DAEMON, m.Strike(5, 1, 2, b"report"))
    returns(world)
    assert world.scheduler.daemons[DAEMON].tasks_out == 0
    world.hears(DAEMON, m.Slots(8))
    world.tick(2.0)
    world.expect_dispatch(0, 2)


def test_what_a_daemon_held_that_died_before_its_chunk_came_runs_again() -> None:
    world = without_client()
    world.happens(e.Joined(register("daemon", DAEMON, attempt=2)))
    world.hears(DAEMON, m.Inventory([]))
    returns(world)
    assert world.scheduler.daemons[DAEMON].tasks_out == 0


def test_a_failure_from_before_the_restart_counts_when_nobody_has_the_task() -> None:
    world = restarted()
    world.submits(2, left=[(0, 2)])
    failure = m.Outcome(1, 0, 0, 1, m.Form.ERROR, b"r")
    world.hears(DAEMON, m.Done([m.Finished(5, CLIENT, 0.1, failure)]))
    world.tick()
    world.expect_send(CLIENT, m.Results([failure]))
    world.hears(DAEMON, m.Slots(8))
    world.tick(2.0)
    world.expect_dispatch(1, 2)
    world.nothing_else()
