"""Links: over wires that lose, double and reorder, everything arrives once and in order (design, section 7.2)."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from taskmesh.core.link import ACK_DELAY_S, ACK_EVERY, NAK_INTERVAL_S, RESEND_AFTER_S, WINDOW, Link
from taskmesh.errors import LocalProtocolError, PeerProtocolError

Frame = tuple[str, int, int, bytes]  # kind, sequence number, acknowledgement, body


class End:
    """A link with the least that a shell does around it."""

    def __init__(self) -> None:
        self.link = Link()
        self.wire: list[Frame] = []  # what it has sent and nobody has read
        self.heard: list[bytes] = []

    def pump(self, now: float, most: int = 10**6) -> None:
        self.link.on_time(now)
        while most and (item := self.link.take(now)) is not None:
            most -= 1
            self.wire.append(("message", item[0], self.link.acknowledged(), item[1][1]))
            self.link.sent(item[0])
        if self.link.wants_nak(now):
            self.wire.append(("nak", 0, self.link.acknowledged(), b""))
        elif self.link.wants_ack(now):
            self.wire.append(("ack", 0, self.link.acknowledged(), b""))

    def receive(self, frame: Frame, now: float) -> None:
        kind, seq, ack, body = frame
        if kind == "nak":
            self.link.on_nak(ack, now)
            return
        self.link.on_ack(ack, now)
        if kind == "message" and self.link.accept(seq, now):
            self.heard.append(body)


class LossyLink(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.ends = [End(), End()]
        self.said: list[list[bytes]] = [[], []]
        self.now = 50.0

    which = st.integers(0, 1)

    @rule(end=which, count=st.sampled_from([1, 1, 3, 100, 700]))
    def speaks(self, end: int, count: int) -> None:
        for _ in range(count):
            body = b"%d" % len(self.said[end])
            self.said[end].append(body)
            self.ends[end].link.record((0, body))

    @rule(end=which, most=st.sampled_from([1, 5, 10**6]))
    def pumps(self, end: int, most: int) -> None:
        self.ends[end].pump(self.now, most)

    @rule(end=which, count=st.sampled_from([1, 5, 10**6]))
    def reads(self, end: int, count: int) -> None:
        wire = self.ends[1 - end].wire
        for frame in wire[:count]:
            self.ends[end].receive(frame, self.now)
        del wire[:count]

    @precondition(lambda self: any(end.wire for end in self.ends))
    @rule(end=which, data=st.data(), how=st.sampled_from(["lose", "lose all", "double", "turn", "late"]))
    def the_wire_misbehaves(self, end: int, data: st.DataObject, how: str) -> None:
        wire = self.ends[end].wire
        if not wire:
            return
        at = data.draw(st.integers(0, len(wire) - 1))
        match how:
            case "lose":
                del wire[at]
            case "lose all":
                wire.clear()
            case "double":
                wire.insert(at, wire[at])
            case "turn":
                wire.reverse()
            case "late":
                wire.append(wire.pop(0))

    @rule(seconds=st.sampled_from([0.001, ACK_DELAY_S, NAK_INTERVAL_S, RESEND_AFTER_S]))
    def waits(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def they_meet_again(self) -> None:
        """A new registration of both, with cursors; what was on the way is lost."""
        first, second = self.ends
        first.wire.clear()
        second.wire.clear()
        first.link.resume(second.link.seen, self.now)
        second.link.resume(first.link.seen, self.now)

    @invariant()
    def what_arrived_is_a_beginning_of_what_was_said(self) -> None:
        for end in (0, 1):
            heard = self.ends[1 - end].heard
            assert heard == self.said[end][: len(heard)]
            self.ends[end].link.check()

    @invariant()
    def no_more_than_a_window_is_on_the_way(self) -> None:
        for end in self.ends:
            assert end.link._cursor - end.link._acked - 1 <= WINDOW

    def teardown(self) -> None:
        for _ in range(100):
            for end in (0, 1):
                self.ends[end].pump(self.now)
                self.reads(1 - end, 10**6)
            self.now += ACK_DELAY_S if self.now % 1 < 0.9 else RESEND_AFTER_S
        for end in (0, 1):
            assert self.ends[1 - end].heard == self.said[end]
            assert self.ends[end].link.unacked == 0
            assert self.ends[end].link.next_deadline() == float("inf")


TestLossyLink = LossyLink.TestCase
TestLossyLink.settings = settings(max_examples=100, stateful_step_count=60)


# ---- one sentence each ----------------------------------------------------------------------------------------------


def sent(link: Link, count: int, now: float = 0.0) -> None:
    """`count` messages are recorded and on the wire."""
    for n in range(count):
        link.record((0, b"%d" % n))
    while (item := link.take(now)) is not None:
        link.sent(item[0])


def test_a_gap_is_answered_with_one_nak_in_a_tenth_of_a_second() -> None:
    link = Link()
    assert not link.accept(2, 0.0)
    assert not link.accept(3, 0.0)
    assert link.wants_nak(0.0)
    assert not link.accept(4, 0.01)
    assert not link.wants_nak(0.01)
    assert link.wants_nak(NAK_INTERVAL_S)


def test_a_nak_sends_the_sender_back_to_what_is_missing() -> None:
    link = Link()
    sent(link, 5)
    link.on_nak(2, 0.1)
    assert link.take(0.1) == (3, (0, b"2"))
    assert link.unacked == 3


def test_nothing_is_sent_again_before_a_second_without_progress() -> None:
    link = Link()
    sent(link, 3, now=10.0)
    link.on_time(10.0 + RESEND_AFTER_S / 2)
    assert link.take(10.0) is None
    link.on_time(10.0 + RESEND_AFTER_S)
    assert link.take(11.0) == (1, (0, b"0"))


def test_progress_puts_the_resend_off() -> None:
    link = Link()
    sent(link, 3, now=10.0)
    link.on_ack(1, 10.9)
    link.on_time(11.5)
    assert link.take(11.5) is None


def test_what_was_not_taken_by_the_socket_is_offered_again() -> None:
    link = Link()
    link.record((0, b"x"))
    assert link.take(0.0) == (1, (0, b"x"))
    assert link.take(0.0) == (1, (0, b"x"))
    link.sent(1)
    assert link.take(0.0) is None


def test_an_acknowledgement_goes_alone_after_a_while() -> None:
    link = Link()
    assert link.accept(1, 5.0)
    assert not link.wants_ack(5.0)
    assert link.wants_ack(5.01 + ACK_DELAY_S)
    assert link.acknowledged() == 1
    assert not link.wants_ack(9.0)


def test_an_acknowledgement_goes_alone_after_many_messages() -> None:
    link = Link()
    for seq in range(1, ACK_EVERY + 1):
        assert link.accept(seq, 5.0)
    assert link.wants_ack(5.0)


def test_a_double_is_acknowledged_again() -> None:
    """The first acknowledgement may be what was lost."""
    link = Link()
    link.accept(1, 0.0)
    link.acknowledged()
    assert not link.accept(1, 1.0)
    assert link.wants_ack(1.0 + ACK_DELAY_S)


def test_acknowledging_what_was_never_recorded_is_the_peers_fault() -> None:
    link = Link()
    sent(link, 2)
    with pytest.raises(PeerProtocolError):
        link.on_ack(3, 0.0)
    with pytest.raises(PeerProtocolError):
        link.on_nak(3, 0.0)
    assert link.unacked == 2


@pytest.mark.parametrize("seen", [0, 4])
def test_a_link_does_not_resume_outside_of_what_it_holds(seen: int) -> None:
    link = Link()
    sent(link, 3)
    link.on_ack(1, 0.0)
    with pytest.raises(PeerProtocolError):
        link.resume(seen, 0.0)


def test_cursors_that_contradict_each_other_are_our_fault() -> None:
    link = Link()
    link._cursor = 5
    with pytest.raises(LocalProtocolError):
        link.check()


def test_what_the_peer_has_and_may_not_acknowledge_yet_is_not_sent_again() -> None:
    """Its store is slow, or full."""
    link = Link()
    for body in (b"a", b"b"):
        link.record((0, body))
    for seq in (1, 2):
        assert link.take(0.0) is not None
        link.sent(seq)
    link.on_received(2)
    link.on_time(100.0)
    assert link.take(100.0) is None
    assert link.next_deadline() == float("inf")
    link.on_nak(1, 100.0)
    assert link.take(100.0) == (2, (0, b"b"))
    link.check()
