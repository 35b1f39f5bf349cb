"""Peers that lie: what a daemon or a client can say, and what it must not do to the tasks of others."""

from __future__ import annotations

import time

import pytest

from taskmesh.cancelling import Questions
from taskmesh.core import actions as a
from taskmesh.core import events as e
from taskmesh.core import messages as m
from taskmesh.core.chunk import Chunk, pack_sizes
from taskmesh.core.identity import digest_of
from taskmesh.core.limits import ATTEMPTS, SPECS, TASKS, printable
from taskmesh.core.link import BACK_INTERVAL_S, Link
from taskmesh.core.outbox import Ended, Outbox
from taskmesh.core.repairs import REPAIR_S
from taskmesh.errors import PayloadError
from taskmesh.outcomes import contents
from taskmesh.wire.payload import dump, dump_each

from .world import CLIENT, DAEMON, DIGEST, World, calls, register

LIAR = 22


@pytest.fixture
def world() -> World:
    made = World()
    made.joins("daemon", DAEMON, slots=2)
    made.joins("client", CLIENT)
    return made


def leased(world: World, tasks: int, first: int = 0) -> m.Dispatch:
    world.submits(tasks, first=first)
    world.tick()
    return world.expect_dispatch(0, tasks)


def done(dispatch: m.Dispatch, outcome: m.Outcome, session: int = CLIENT) -> m.Done:
    return m.Done([m.Finished(dispatch.fence, session, 0.1, outcome)])


def dropped(world: World) -> list[str]:
    """What was dropped, and nothing else was asked for."""
    texts = [action.text for action in world.actions if isinstance(action, a.Dropped)]
    world.actions = [action for action in world.actions if not isinstance(action, a.Dropped)]
    return texts


def dies(world: World, daemon: int = DAEMON) -> None:
    world.happens(e.LaneDown(daemon, world.scheduler.roster.peers[daemon].epoch))
    world.tick(1.0)
    world.actions.clear()


@pytest.mark.parametrize(
    "outcome",
    [
        m.Outcome(1, 5, 0, 2, m.Form.LIST, b"r"),  # of another chunk
        m.Outcome(2, 0, 0, 2, m.Form.LIST, b"r"),  # of another function
        m.Outcome(1, 0, 0, 3, m.Form.LIST, b"r"),  # of more tasks than there are
    ],
)
def test_an_outcome_of_what_the_lease_is_not_of_leaves_the_lease_as_it_is(world: World, outcome: m.Outcome) -> None:
    dispatch = leased(world, 2)
    world.hears(DAEMON, done(dispatch, outcome))
    assert dropped(world) == [f"an outcome of no part of its lease, from daemon {DAEMON:x}"]
    world.nothing_else()
    dies(world)
    world.joins("daemon", DAEMON, slots=2)
    world.tick()
    world.expect_dispatch(0, 2)


def test_an_outcome_of_another_session_does_not_touch_the_lease(world: World) -> None:
    dispatch = leased(world, 2)
    world.hears(DAEMON, done(dispatch, m.Outcome(1, 0, 0, 2, m.Form.LIST, b"r"), session=99))
    assert len(dropped(world)) == 1
    world.outcome(dispatch, 0, 2)


def test_a_daemon_cancels_only_what_it_holds(world: World) -> None:
    first = leased(world, 2)
    world.submits(2, first=2)
    assert world.scheduler.statistics(world.now).waiting == 2
    world.hears(DAEMON, m.GiveBack(first.fence, [(1, 2)], []))
    world.hears(DAEMON, done(first, m.Outcome(1, 0, 0, 2, m.Form.CANCELLED, b"")))
    assert world.scheduler.totals.cancelled == 1
    assert world.scheduler.statistics(world.now).waiting == 3


def test_an_inventory_cannot_take_the_fence_of_another_daemon(world: World) -> None:
    dispatch = leased(world, 2)
    world.submits(1, first=2)
    world.joins("daemon", LIAR)
    world.hears(DAEMON, m.GiveBack(dispatch.fence, [(1, 2)], []))
    world.actions.clear()
    world.hears(LIAR, m.Inventory([m.Holding(dispatch.fence, CLIENT, 1, 0, 1, False, [(0, 2)])]))
    world.expect(a.Dropped(f"an inventory of daemon {LIAR:x} with tasks that it was never given"))
    world.expect_send(LIAR, m.Revoke(dispatch.fence, 0, 2))
    world.outcome(dispatch, 0, 1)


def test_an_outcome_of_tasks_that_a_daemon_was_never_given_does_not_count(world: World) -> None:
    dispatch = leased(world, 2)
    world.joins("daemon", LIAR)
    world.actions.clear()
    lie = m.Outcome(1, 0, 0, 2, m.Form.LIST, b"lie")
    world.hears(LIAR, m.Done([m.Finished(dispatch.fence, CLIENT, 0.1, lie)]))
    world.expect(a.Dropped(f"an outcome from daemon {LIAR:x} of tasks that it was never given"))
    world.outcome(dispatch, 0, 2)
    world.tick()
    sent = [action.message for action in world.actions if isinstance(action, a.Send) and action.instance == CLIENT]
    assert [outcome.blob for message in sent if isinstance(message, m.Results) for outcome in message.outcomes] != [
        b"lie"
    ]
    assert len(sent) == 1


def test_an_inventory_cannot_take_the_fence_of_a_lease_to_come(world: World) -> None:
    """It would become part of the next lease, and its tasks would be nobody's."""
    dispatch = leased(world, 2)
    world.hears(DAEMON, m.GiveBack(dispatch.fence, [(0, 2)], []))
    world.hears(DAEMON, m.Inventory([m.Holding(dispatch.fence + 1, CLIENT, 1, 0, 1, False, [(0, 1)])]))
    world.tick()
    again = world.expect_dispatch(1, 2)
    assert again.fence == dispatch.fence + 2


def test_an_attempt_that_no_dose_can_carry_is_not_sent_on(world: World) -> None:
    dispatch = leased(world, 2)
    world.hears(DAEMON, m.GiveBack(dispatch.fence, [(0, 2)], []))
    world.hears(DAEMON, m.Inventory([m.Holding(7777, CLIENT, 1, 0, ATTEMPTS, False, [(0, 2)])]))
    dies(world)
    world.joins("daemon", DAEMON, slots=2)
    world.tick()
    assert world.expect_dispatch(0, 2).attempt == ATTEMPTS


def test_a_function_that_is_asked_for_a_thousand_times_is_sent_once_a_second(world: World) -> None:
    leased(world, 1)
    for _ in range(1000):
        world.hears(DAEMON, m.NeedBody(DIGEST))
    world.tick()
    world.expect_send(DAEMON, m.Body(DIGEST, b"body"))
    world.hears(DAEMON, m.NeedBody(DIGEST))
    world.tick()
    world.nothing_else()
    assert world.scheduler.next_deadline() <= world.now + REPAIR_S
    world.tick(REPAIR_S)
    world.expect_send(DAEMON, m.Body(DIGEST, b"body"))
    world.nothing_else()


def test_a_function_that_is_gone_when_it_could_be_sent_again_is_forgotten(world: World) -> None:
    dispatch = leased(world, 1)
    for _ in range(2):
        world.hears(DAEMON, m.NeedBody(DIGEST))
        world.tick()
    world.outcome(dispatch, 0, 1)
    world.hears(CLIENT, m.Retire(1))
    world.tick(REPAIR_S)
    world.actions.clear()
    world.tick(REPAIR_S)
    world.nothing_else()
    assert world.scheduler.repairs.due == float("inf")


def test_a_session_has_a_limit_of_functions_and_hears_when_it_is_reached(world: World) -> None:
    for number in range(SPECS + 1):
        world.scheduler.handle(e.Received(CLIENT, m.Spec(number, "f", DIGEST, b"", 0)), world.now)
    assert len(world.scheduler.sessions[CLIENT].specs) == SPECS
    world.hears(CLIENT, m.Submit(SPECS, calls(1)))
    assert len(dropped(world)) == 1
    world.expect_send(CLIENT, m.Rejected(SPECS, 0, f"the hub has no function {SPECS}: a session may have {SPECS}"))
    world.hears(CLIENT, m.Retire(0))
    world.hears(CLIENT, m.Spec(SPECS, "f", DIGEST, b"", 0))
    world.nothing_else()


def test_functions_that_are_never_called_take_no_more_room_than_calls_may(world: World) -> None:
    world.scheduler.quotas = world.scheduler.quotas._replace(queued_bytes=10_000)
    for number in range(3):
        digest = digest_of(bytes([number]) * 4000)
        world.hears(CLIENT, m.Spec(number, "f", digest, b"", 0))
        world.hears(CLIENT, m.Body(digest, bytes([number]) * 4000))
    assert len(dropped(world)) == 1
    assert world.scheduler.bodies.bytes[CLIENT] == 8000
    world.hears(CLIENT, m.Submit(2, calls(1)))
    world.expect_send(CLIENT, m.Rejected(2, 0, "the hub was never sent the function f"))
    world.hears(CLIENT, m.Retire(0))
    world.hears(CLIENT, m.Body(digest_of(b"\2" * 4000), b"\2" * 4000))
    assert not dropped(world)
    world.hears(CLIENT, m.Close())
    assert not world.scheduler.bodies.bytes


def test_names_of_peers_cannot_move_a_cursor(world: World) -> None:
    request = register("client", 31)._replace(name="\x1b[2Jeve\n10:00 all is well", host="h\r")
    world.happens(e.Joined(request))
    session = world.scheduler.sessions[31]
    assert session.name == r"\x1b[2Jeve\n10:00 all is well"
    assert session.host == r"h\r"
    assert printable("größe") == "größe"
    assert len(printable("\n" * 5000)) <= 1000


def in_pieces(world: World) -> tuple[Chunk, list[tuple[int, int]]]:
    """A chunk of as many tasks as one may have, every second of which is with a daemon."""
    tasks = TASKS
    leaf = 1 << 16
    chunk = Chunk(0, 0, tasks, pack_sizes([1, 1]), pack_sizes([leaf, leaf]), 1, b"ll")
    world.hears(CLIENT, m.Spec(1, "f", DIGEST, b"", 0))
    world.hears(CLIENT, m.Body(DIGEST, b"body"))
    world.scheduler.handle(e.Received(CLIENT, m.Submit(1, chunk)), world.now)
    odd = [(lo, lo + 1) for lo in range(1, tasks, 2)]
    world.scheduler.handle(e.Received(DAEMON, m.Inventory([m.Holding(7777, CLIENT, 1, 0, 1, False, odd)])), world.now)
    return chunk, odd


@pytest.mark.parametrize("what", ["give back", "cancel", "die", "lose", "inventory"])
def test_a_chunk_in_as_many_pieces_as_it_can_have_takes_no_minute(world: World, what: str) -> None:
    """The square of their number would be four thousand million steps."""
    chunk, odd = in_pieces(world)
    scheduler, began = world.scheduler, time.thread_time()
    if what == "give back":
        scheduler.handle(e.Received(DAEMON, m.GiveBack(7777, odd[::-1], [])), world.now)
    elif what == "cancel":
        scheduler.handle(e.Received(CLIENT, m.Cancel(1, 0, 0, chunk.count)), world.now)
    elif what == "die":
        scheduler.handle(e.LaneDown(DAEMON, scheduler.roster.peers[DAEMON].epoch), world.now)
        scheduler.handle(e.Tick(), world.now + 1.0)
    elif what == "lose":
        scheduler.heard(DAEMON, scheduler.roster.peers[DAEMON].epoch, world.now, [(7777, lo, hi) for lo, hi in odd])
    else:
        scheduler.handle(
            e.Received(DAEMON, m.Inventory([m.Holding(7777, CLIENT, 1, 0, 1, False, odd[::-1])])), world.now
        )
    assert time.thread_time() - began < 10.0


def test_a_flood_of_naks_moves_the_cursor_twenty_times_a_second() -> None:
    link = Link()
    for _ in range(100):
        link.record((0, b"frame"))
    sent = 0
    for _ in range(1000):
        while (item := link.take(1.0)) is not None:
            link.sent(item[0])
            sent += 1
        link.on_nak(0, 1.0)
        link.check()
    assert sent == 200
    link.on_nak(0, 1.0 + BACK_INTERVAL_S)
    assert link.take(1.0 + BACK_INTERVAL_S) == (1, (0, b"frame"))


@pytest.mark.parametrize("blob", [[1], [1, 2, 3], {"a": 1, "b": 2}, (1, 2)])
def test_results_that_are_not_as_many_as_their_tasks_are_an_error(blob: object) -> None:
    """Given out one after the other they would be results of other tasks."""
    for form, data in ((m.Form.LIST, dump(blob)), (m.Form.EACH, dump_each([dump(part) for part in [1, 2, 3]]))):
        with pytest.raises(PayloadError, match="not that many"):
            contents(m.Outcome(1, 0, 5, 7, form, data))
    assert contents(m.Outcome(1, 0, 5, 7, m.Form.LIST, dump([1, 2]))) == [1, 2]


def test_an_outbox_that_was_asked_what_is_pending_is_not_searched_again() -> None:
    """A client with many outcomes that offers chunks again, one after the other, would have all of them looked at."""
    outbox = Outbox()
    ended = [Ended(m.Outcome(1, 10 * n, 0, 5, m.Form.LIST, b"r"), 0, 0, 0, 5) for n in range(100)]
    for one in ended[:50]:
        outbox.add(one)
    assert outbox.pending(1, 0) == [(0, 5)]
    for one in ended[50:]:
        outbox.add(one)
    assert outbox.pending(1, 990) == [(0, 5)]
    messages, _ = outbox.send()
    outbox.acknowledged(len(messages))
    assert outbox.pending(1, 990) == []
    assert outbox._index == {}


def test_many_ranges_that_overlap_are_one_answer() -> None:
    questions = Questions()
    question = questions.ask([(1, 5), (1, TASKS + 1)])
    began = time.thread_time()
    questions.answered(1, 0, [(0, TASKS)] * 60_000)
    assert time.thread_time() - began < 5.0
    assert question.left == {(1, TASKS + 1)}
