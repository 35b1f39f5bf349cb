"""When a daemon holds because its hub is silent, and when it goes on: the rules alone, then on real sockets."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import zmq

from taskmesh.core import messages as m
from taskmesh.transport.loop import Loop
from taskmesh.transport.membership import KEEPER_HEARTBEAT_S, Membership
from taskmesh.transport.silence import HOLD_AFTER_S, Silence
from taskmesh.transport.sockets import Context, bind, close, make, new_context, put
from taskmesh.wire.stream import Stream, open_envelope, pack_control, unpack_control

HELD = [(5, 0, 3)]


class Recorder:
    """A daemon, as far as its membership goes; `log` has what it was told."""

    def __init__(self) -> None:
        self.log: list[object] = []
        self.send: Callable[[m.LinkMessage], None] | None = None

    def on_silence(self) -> None:
        self.log.append("silence")

    def on_heard(self) -> None:
        self.log.append("heard")

    def held(self) -> list[tuple[int, int, int]]:
        return HELD

    def on_welcome(self, welcome: m.Registered) -> None:
        self.log.append("resumed" if welcome.resume else "new")
        if not welcome.resume and self.send is not None:
            self.send(m.Inventory([]))

    def on_message(self, message: m.LinkMessage) -> None:
        self.log.append(message)

    def on_refused(self, why: str) -> None:
        self.log.append(why)

    def on_lost(self) -> None:
        self.log.append("lost")


class SilenceWorld:
    """Silence with a clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 50.0
        self.daemon = Recorder()
        self.silence = Silence(self.daemon, lambda: self.now)
        self.silence.asked()
        self.silence.registered(again=False, resumed=False, last=0)

    def beat(self, took_s: float = 0.0, seen: int = 0, last: int = 0) -> None:
        """A heartbeat, and its answer."""
        self.silence.asked()
        self.now += took_s
        self.silence.answered(m.HeartbeatReply(True, seen, last, seen))

    def check(self, seen: int = 0) -> list[object]:
        """What the daemon is told now."""
        self.silence.check(seen)
        told, self.daemon.log = self.daemon.log, []
        return told


@pytest.fixture
def world() -> SilenceWorld:
    return SilenceWorld()


def test_a_daemon_holds_once_when_nothing_was_answered_for_too_long(world: SilenceWorld) -> None:
    world.now += HOLD_AFTER_S
    assert world.check() == []
    assert 0 < world.silence.left_s() < 0.01
    world.now += 0.01
    assert world.check() == ["silence"]
    world.now += 10
    assert world.check() == []


def test_silence_counts_from_the_sending_of_what_was_answered(world: SilenceWorld) -> None:
    world.beat(took_s=HOLD_AFTER_S + 0.1)
    assert world.check() == ["silence"]


def test_a_daemon_goes_on_when_it_has_read_what_the_hub_had_sent(world: SilenceWorld) -> None:
    world.now += 3
    assert world.check() == ["silence"]
    world.beat(last=7)
    assert world.check(seen=6) == []
    world.beat(last=9)
    assert world.check(seen=7) == ["heard"], "what is sent later is no matter"


def test_a_word_from_before_another_silence_does_not_count(world: SilenceWorld) -> None:
    world.now += 3
    assert world.check() == ["silence"]
    world.beat(last=7)
    world.now += 3
    world.beat(last=20)
    assert world.check(seen=7) == []
    assert world.check(seen=20) == ["heard"]


def test_a_reply_that_waited_while_the_process_was_stopped_confirms_nothing(world: SilenceWorld) -> None:
    world.silence.asked()
    world.now += 5  # stopped; the reply has been there all the time
    world.silence.answered(m.HeartbeatReply(True, 0, 0, 0))
    assert world.check() == ["silence"]


def test_a_link_that_goes_on_ends_silence_with_the_first_heartbeat(world: SilenceWorld) -> None:
    world.now += 3
    assert world.check() == ["silence"]
    world.silence.asked()
    world.silence.registered(again=True, resumed=True, last=4)
    assert world.check() == []
    assert world.silence.waits_for_word
    world.beat()
    assert world.check() == ["heard"]


def test_a_new_link_is_held_until_the_hub_has_read_the_inventory(world: SilenceWorld) -> None:
    world.silence.asked()
    world.silence.registered(again=True, resumed=False, last=3)
    world.beat(seen=2, last=0)
    assert world.check() == ["silence"]
    assert world.silence.waits_for_word
    world.beat(seen=3, last=1)
    assert world.check(seen=0) == []
    assert world.check(seen=1) == ["heard"]


# ---- on sockets -----------------------------------------------------------------------------------------------------


class HubStub:
    """A hub that answers as it is told: `mute` loses every request, `lose` that many."""

    def __init__(self, context: Context, loop: Loop) -> None:
        self._loop = loop
        self._control = make(context, zmq.ROUTER)
        self._inbox = make(context, zmq.PULL)
        self._lane = make(context, zmq.PUSH)
        self.endpoint = bind(self._control, "tcp://127.0.0.1:0")
        self._inbox_endpoint = bind(self._inbox, "tcp://127.0.0.1:0")
        self._lane_endpoint = bind(self._lane, "tcp://127.0.0.1:0")
        self.mute = False
        self.lose = 0
        self.last = 0  # what it says that it has sent
        self.reads = True
        self.beats: list[m.Heartbeat] = []
        self.registrations = 0
        self.stream = Stream(77, 0)
        loop.watch(self._control, self._read_control)
        loop.watch(self._inbox, self._read_inbox)

    def _read_control(self) -> None:
        while int(self._control.get(zmq.EVENTS)) & zmq.POLLIN:
            *head, frame = self._control.recv_multipart()
            reply = self._answer(unpack_control(frame))
            if self.mute or self.lose:
                self.lose -= not self.mute
                continue
            self._control.send_multipart([*head, pack_control(reply)])
            self._loop.again(self._control)

    def _answer(self, request: m.ControlMessage) -> m.ControlMessage:
        if isinstance(request, m.Register):
            self.registrations += 1
            self.stream = Stream(77, self.registrations)
            return m.Registered(
                77, self.registrations, False, 0, self._lane_endpoint, self._inbox_endpoint, request.version, 1 << 30
            )
        assert isinstance(request, m.Heartbeat)
        self.beats.append(request)
        known = request.epoch == self.stream.epoch
        return m.HeartbeatReply(known, self.stream.link.seen, self.last, self.stream.link.seen)

    def _read_inbox(self) -> None:
        while self.reads and int(self._inbox.get(zmq.EVENTS)) & zmq.POLLIN:
            envelope = open_envelope(self._inbox.recv())
            if envelope.epoch == self.stream.epoch:
                self.stream.receive(envelope, self._loop.now())

    def read_on(self) -> None:
        """Read what has come meanwhile."""
        self.reads = True
        self._loop.again(self._inbox)

    def send(self, message: m.LinkMessage) -> None:
        """Put a message on the lane."""
        self.stream.send(message)
        self.stream.pump(lambda frame: put(self._lane, frame), self._loop.now())

    def close(self) -> None:
        for sock in (self._control, self._inbox, self._lane):
            self._loop.forget(sock)
            close(sock)


class Peer:
    """A daemon's membership at a stub of a hub, on one loop."""

    def __init__(self) -> None:
        self.context, self.loop = new_context(), Loop()
        self.hub = HubStub(self.context, self.loop)
        self.daemon = Recorder()
        request = m.Register("daemon", 1, 0, 0, 0, 0, "name", "host", 1, 2, "1.0", "3.11")
        self.member = Membership(self.context, self.loop, self.hub.endpoint, request, self.daemon, keeper=self.daemon)
        self.loop.add_part(self)
        self.until(lambda: self.member.registered, "it has joined")

    def on_time(self, now: float) -> None:
        self.member.read()
        self.member.on_time(now)
        self.member.pump(now)

    def next_deadline(self) -> float:
        return min(self.member.next_deadline(), self.loop.now() + 0.05)

    def until(self, condition: Callable[[], object], what: str, seconds: float = 15.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"not within {seconds:g} s: {what}; {self.daemon.log}"
            self.loop.step()

    def close(self) -> None:
        self.member.close(0)
        self.hub.close()
        self.loop.close()
        self.context.destroy(0)


@pytest.fixture
def peer() -> Iterator[Peer]:
    started = Peer()
    try:
        yield started
    finally:
        started.close()


def test_heartbeats_of_a_daemon_say_what_its_runners_hold(peer: Peer) -> None:
    peer.until(lambda: len(peer.hub.beats) >= 2, "heartbeats come")
    assert all(beat.held == HELD for beat in peer.hub.beats)
    assert peer.daemon.log == ["new"], "a first registration does not hold"


def test_two_lost_replies_hold_nobody(peer: Peer) -> None:
    peer.until(lambda: peer.hub.beats, "a heartbeat")
    before = len(peer.hub.beats)
    peer.hub.lose = 2
    peer.until(lambda: len(peer.hub.beats) >= before + 5, "heartbeats go on")
    assert "silence" not in peer.daemon.log


def test_a_silent_hub_holds_a_daemon_until_its_lane_has_been_read(peer: Peer) -> None:
    began = time.monotonic()
    peer.hub.mute = True
    peer.until(lambda: "silence" in peer.daemon.log, "it holds")
    assert time.monotonic() - began > HOLD_AFTER_S - KEEPER_HEARTBEAT_S
    peer.hub.mute, peer.hub.last = False, 1
    before = len(peer.hub.beats)
    peer.until(lambda: len(peer.hub.beats) > before + 1, "heartbeats are answered again")
    assert "heard" not in peer.daemon.log
    peer.hub.send(m.Revoke(9, 0, 1))
    peer.until(lambda: "heard" in peer.daemon.log, "it goes on")
    assert peer.daemon.log[-2:] == [m.Revoke(9, 0, 1), "heard"]


def test_a_daemon_that_a_new_hub_welcomes_waits_until_its_inventory_was_read(peer: Peer) -> None:
    peer.daemon.send = peer.member.send
    peer.hub.reads = False
    peer.member.join_again()
    peer.until(lambda: peer.daemon.log == ["new", "new", "silence"], "it holds")
    before = len(peer.hub.beats)
    peer.until(lambda: len(peer.hub.beats) > before + 3, "heartbeats are answered", KEEPER_HEARTBEAT_S * 3)
    assert peer.daemon.log[-1] == "silence"
    peer.hub.read_on()
    peer.until(lambda: peer.daemon.log[-1] == "heard", "it goes on")


def test_time_in_which_the_process_was_stopped_counts_as_silence(peer: Peer) -> None:
    peer.until(lambda: peer.hub.beats, "a heartbeat")
    silence = peer.member._silence
    assert silence is not None
    clock = silence._clock
    silence._clock = lambda: clock() + 5.0
    peer.member.read()
    assert peer.daemon.log == ["new", "silence"]
    peer.until(lambda: "heard" in peer.daemon.log, "the next heartbeat is answered")
