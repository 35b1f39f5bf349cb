"""When a client sends the calls that it gathers: at once where nobody waits for company, else after a millisecond."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from taskmesh import WindowFull
from taskmesh import submitting as shell
from taskmesh.client import Client
from taskmesh.core import messages as m
from taskmesh.core.access import NEVER
from taskmesh.core.chunking import Chunking
from taskmesh.core.gathering import LINGER_S
from taskmesh.core.ranges import Ranges
from taskmesh.core.session import CHUNK_BYTES, CHUNK_TASKS, WEIGHT
from taskmesh.errors import MeshClosed
from taskmesh.mapping import MapRun
from taskmesh.places import Place
from taskmesh.source import Columns, Source
from taskmesh.submitting import FILLING
from taskmesh.window import Window
from taskmesh.wire.payload import dump_call
from taskmesh.wire.stream import Stream

CALL = dump_call((1,), {}, "f")
DEADLINE_S = 20.0


class Gatherer:
    """A session with a link, no sockets behind it, and a clock that is set by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(shell, "monotonic", lambda: self.now)
        self.client = Client("ipc:///nowhere", "gatherer", lost_after=NEVER)
        self.client.membership.stream = Stream(7, 1)
        self.place: Place = self.client.define("f", b"a function", b"d" * 16, None, 0)
        self.client._due = NEVER

    def submit(self, calls: int = 1) -> None:
        for _ in range(calls):
            self.client.submitter.submit(self.place, CALL)

    def round(self) -> None:
        """The receive thread has read something."""
        self.client.membership.touched = True
        self.client.on_time(self.client._loop.now())
        self.client._due = NEVER

    @property
    def sent(self) -> list[int]:
        """How many tasks each chunk that was sent has."""
        return [sent.chunk.count for sent in self.place.spec.sent.values()]

    def end(self, first: int, tasks: int) -> None:
        """So many tasks end."""
        outcome = m.Outcome(1, first, 0, tasks, m.Form.LIST, pickle.dumps([None] * tasks))
        self.client.on_message(m.Results([outcome]))


@pytest.fixture
def gatherer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gatherer]:
    gatherer = Gatherer(monkeypatch)
    yield gatherer
    client = gatherer.client
    client.membership.close(0)
    client._context.destroy(linger=0)
    client._loop.close()
    client._waker.close()


def test_a_call_after_a_pause_goes_at_once(gatherer: Gatherer) -> None:
    gatherer.now += 2 * LINGER_S
    gatherer.submit()
    assert gatherer.sent == [1]
    gatherer.now += 2 * LINGER_S
    gatherer.submit()
    assert gatherer.sent == [1, 1]


def test_one_call_after_the_other_goes_at_once_each(gatherer: Gatherer) -> None:
    for n in range(3):
        gatherer.submit()
        assert gatherer.sent == [1]
        assert gatherer.client.submitter._gathering.due == NEVER  # nobody is woken for it
        gatherer.end(n, 1)


def test_calls_are_gathered_for_a_millisecond_though_results_arrive_meanwhile(gatherer: Gatherer) -> None:
    gatherer.submit(3)
    gatherer.submit(100)
    for _ in range(5):
        gatherer.now += LINGER_S / 10
        gatherer.submit(10)
        gatherer.round()
    assert gatherer.sent == [1]
    gatherer.now += LINGER_S / 2
    gatherer.round()
    assert gatherer.sent == [1, 152]


def test_a_full_chunk_goes_at_once(gatherer: Gatherer) -> None:
    gatherer.submit(1 + CHUNK_TASKS + 5)
    assert gatherer.sent == [1, CHUNK_TASKS]


def test_what_a_callback_submits_goes_at_the_end_of_the_round(
    gatherer: Gatherer, monkeypatch: pytest.MonkeyPatch
) -> None:
    gatherer.submit(2)
    gatherer.now += LINGER_S
    gatherer.round()
    assert gatherer.sent == [1, 1]
    monkeypatch.setattr(gatherer.client, "in_receive_thread", lambda: True)
    gatherer.submit(4)
    assert gatherer.sent == [1, 1]
    gatherer.round()
    assert gatherer.sent == [1, 1, 4]


def test_after_a_call_that_was_interrupted_the_next_one_sees_to_it_that_both_go(
    gatherer: Gatherer, monkeypatch: pytest.MonkeyPatch
) -> None:
    gatherer.submit()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as stopped:
        stopped.setattr(gatherer.client.submitter, "_gather", interrupt)
        with pytest.raises(KeyboardInterrupt):
            gatherer.submit()
    gatherer.submit()
    assert gatherer.client.submitter._gathering.due < NEVER
    gatherer.now += 2 * LINGER_S
    gatherer.round()
    assert gatherer.sent == [1, 2]


def test_calls_of_many_functions_are_not_gathered_without_end(gatherer: Gatherer) -> None:
    gatherer.submit()
    for n in range(50):
        place = gatherer.client.define(f"f{n}", b"a function", b"d" * 16, None, 0)
        gatherer.client.submitter.submit(place, CALL)
        assert len(gatherer.client.session.filling) <= FILLING


def test_a_chunk_takes_no_more_calls_than_there_is_room_for(gatherer: Gatherer) -> None:
    client = gatherer.client
    client.submitter.window = Window(5 * WEIGHT, 0.0, lambda: client.session.weight, lambda: False)
    with pytest.raises(WindowFull):
        gatherer.submit(100)
    assert client.session.weight <= 5 * WEIGHT + sum(gatherer.sent) * len(CALL)


def test_a_signal_handler_does_not_submit_in_the_middle_of_another_submit(gatherer: Gatherer) -> None:
    with gatherer.client.lock:
        with pytest.raises(RuntimeError, match="signal handler"):
            gatherer.submit()
        with pytest.raises(RuntimeError, match="signal handler"):
            gatherer.client.before_waiting(gatherer.place.spec)
    gatherer.submit()


class Nobody:
    """Whoever mapped does not look."""

    def deliver(self, outcome: m.Outcome, fresh: Ranges) -> None: ...

    def refuse(self, first: int, left: Ranges, error: BaseException) -> None: ...

    def fail(self, error: BaseException) -> None: ...


def test_a_map_that_is_interrupted_while_it_sends_wants_nothing(
    gatherer: Gatherer, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = gatherer.client
    run = MapRun(client, gatherer.place, Source(Columns(([1, 2],)), Chunking(), "f"), None, None)
    sends = client.submitter.send_unsent

    def interrupted() -> None:
        sends()
        raise KeyboardInterrupt

    monkeypatch.setattr(client.submitter, "send_unsent", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.feed()
    run.drop()
    assert list(client.submitter.dropped) == [run]
    client._fail(MeshClosed("over"))
    assert not client.submitter.dropped, "or the session would be kept for as long as it is"
    run._dropped = False
    run.drop()
    assert not client.submitter.dropped


class SendsFirst:
    """The session's lock, with another thread that sends the open chunk just before the caller has it."""

    def __init__(self, gatherer: Gatherer) -> None:
        self._gatherer = gatherer
        self._lock = gatherer.client.lock
        self.times = 1

    def __enter__(self) -> None:
        self._lock.acquire()
        if self.times:
            self.times -= 1
            self._gatherer.client.submitter.seal(self._gatherer.place.spec)

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def _is_owned(self) -> bool:
        return False


def test_each_chunk_has_room_also_if_the_one_before_it_was_sent_meanwhile(
    gatherer: Gatherer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def has_room(size: int) -> bool:
        asked.append(len(gatherer.sent))
        return True

    monkeypatch.setattr(gatherer.client.submitter, "_has_room", has_room)
    gatherer.submit(2)
    assert (gatherer.sent, asked) == ([1], [0, 1])
    monkeypatch.setattr(gatherer.client, "lock", SendsFirst(gatherer))
    gatherer.submit()
    assert (gatherer.sent, asked) == ([1, 1], [0, 1, 2])


class Meeting:
    """The session's lock; whoever takes it for the first time waits for the others that are about to."""

    def __init__(self, gatherer: Gatherer, threads: int) -> None:
        self._lock = gatherer.client.lock
        self._others = threading.Barrier(threads)
        self._own = threading.local()

    def __enter__(self) -> None:
        if not hasattr(self._own, "met"):
            self._own.met = self._others.wait(DEADLINE_S)
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def _is_owned(self) -> bool:
        return False


@pytest.mark.parametrize("how", ["calls", "items"])
def test_what_threads_submit_at_once_does_not_exceed_the_window(
    gatherer: Gatherer, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    threads, large, client = 4, b"x" * CHUNK_BYTES, gatherer.client
    client.submitter.window = Window(2 * (len(large) + WEIGHT), 0.05, lambda: client.session.weight, lambda: False)
    monkeypatch.setattr(client, "lock", Meeting(gatherer, threads))

    def submit() -> str:
        try:
            if how == "calls":
                client.submitter.submit(gatherer.place, large)
            else:
                client.submitter.submit_items(gatherer.place, [large], [3], 1, Nobody())
        except WindowFull:
            return "waits"
        return "goes"

    with ThreadPoolExecutor(threads) as pool:
        told = [future.result(DEADLINE_S) for future in [pool.submit(submit) for _ in range(threads)]]
    assert client.session.weight <= client.submitter.window.size
    assert sorted(told) == ["goes", "goes", "waits", "waits"]
