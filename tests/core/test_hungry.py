"""Who may have room: the least loaded first, void entries swept out, silent daemons set aside."""

from __future__ import annotations

import pytest

from taskmesh.core import actions as a
from taskmesh.core import events as e
from taskmesh.core import messages as m
from taskmesh.core.hungry import SPARE, Hungry
from taskmesh.core.leases import DaemonState
from taskmesh.core.recall import RECALL_AFTER_S
from taskmesh.core.roster import SUSPECT_AFTER_S, Peer, Roster

from .world import CLIENT, DIGEST, World, calls, register

NOW = 100.0


class Fleet:
    """Daemons of two slots that have just been welcomed and heard."""

    def __init__(self, count: int) -> None:
        self.roster = Roster()
        self.daemons = {n: DaemonState(n, 2) for n in range(count)}
        self.hungry = Hungry(self.daemons, self.roster)
        for n in self.daemons:
            welcomed = self.roster.register(register("daemon", n), NOW)
            assert welcomed is not None
            self.roster.heard(n, welcomed[0].epoch, NOW)
            self.hungry.add(n)

    def holds(self, instance: int, tasks: int) -> None:
        """A daemon holds so many tasks now, and has said something."""
        self.daemons[instance].tasks_out = tasks
        self.hungry.add(instance)
        self.hungry.sort()
        self.hungry.check()

    def order(self, now: float = NOW) -> list[int]:
        """Those with room, from the least loaded on, found full one after the other."""
        found = []
        self.hungry.sort()
        while (daemon := self.hungry.least(now)) is not None:
            found.append(daemon.instance)
            self.hungry.full(daemon)
            self.hungry.check()
        return found


@pytest.fixture
def three() -> Fleet:
    return Fleet(3)


def test_the_least_loaded_comes_first_whatever_it_held_before(three: Fleet) -> None:
    for instance, tasks in ((0, 3), (1, 2), (2, 1), (0, 0), (1, 4)):
        three.holds(instance, tasks)
    assert three.order() == [0, 2, 1]


def test_who_is_full_is_not_looked_at_before_it_has_said_something(three: Fleet) -> None:
    three.order()
    assert not three.hungry
    three.hungry.add(1)
    assert three.hungry
    assert three.order() == [1]


def test_a_lease_moves_a_daemon_back(three: Fleet) -> None:
    three.hungry.sort()
    first = three.hungry.least(NOW)
    assert first is not None
    first.tasks_out = 1
    three.hungry.leased(first)
    assert three.order()[-1] == first.instance


def test_a_silent_daemon_is_set_aside_until_it_is_heard(three: Fleet) -> None:
    later = NOW + SUSPECT_AFTER_S
    three.roster.heard(2, 3, later)
    assert three.order(later) == [2]
    three.hungry.heard(2)
    assert not three.hungry, "it was not set aside"
    three.roster.heard(0, 1, later)
    three.hungry.heard(0)
    assert three.order(later) == [0]


def test_a_daemon_without_slots_and_one_that_is_gone_are_not_there(three: Fleet) -> None:
    three.daemons[0].resize(0)
    three.hungry.sort()
    three.hungry.discard(1)
    del three.daemons[1]
    assert three.order() == [2]


def test_void_entries_do_not_gather(three: Fleet) -> None:
    for n in range(10 * SPARE):
        three.holds(n % 3, n % 7)
    assert len(three.hungry._heap) <= 2 * 3 + SPARE + 1
    assert len(three.order()) == 3


def test_a_task_costs_no_look_at_every_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    takes_work, suspected = Peer.takes_work, Peer.suspected

    def looked(peer: Peer, now: float) -> bool:
        nonlocal looks
        looks += 1
        return takes_work(peer, now)

    def looked_at(peer: Peer, now: float) -> bool:
        nonlocal looks
        looks += 1
        return suspected(peer, now)

    world = World()
    world.joins("client", CLIENT)
    for n in range(200):
        world.joins("daemon", 1000 + n, slots=4)
    monkeypatch.setattr(Peer, "takes_work", looked)
    monkeypatch.setattr(Peer, "suspected", looked_at)
    for n in range(20):
        world.scheduler.handle(e.Received(CLIENT, m.Spec(1, "f", DIGEST, b"", 0)), world.now)
        world.scheduler.handle(e.Received(CLIENT, m.Body(DIGEST, b"body")), world.now)
        world.actions += world.scheduler.handle(e.Received(CLIENT, m.Submit(1, calls(1, n), [])), world.now)
        world.actions += world.scheduler.handle(e.Tick(), world.now)
        (sent,) = [x for x in world.actions if isinstance(x, a.Send) and isinstance(x.message, m.Dispatch)]
        world.actions.clear()
        dispatch = sent.message
        assert isinstance(dispatch, m.Dispatch)
        world.now += RECALL_AFTER_S + 0.001
        outcome = m.Outcome(1, n, 0, 1, m.Form.LIST, b"r")
        done = m.Done([m.Finished(dispatch.fence, dispatch.session, 0.01, outcome)])
        world.scheduler.handle(e.Received(sent.instance, done), world.now)
        world.scheduler.handle(e.Tick(), world.now)
    assert looks <= 20 * 8
