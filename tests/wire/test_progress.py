"""A connection that is half open is noticed by comparing counts, and a working one is left alone."""

from __future__ import annotations

from taskmesh.core.link import Link
from taskmesh.core.messages import HeartbeatReply
from taskmesh.transport.progress import STUCK_AFTER_S, Progress


def reply(last: int = 0, received: int = 0) -> HeartbeatReply:
    return HeartbeatReply(True, received, last, received)


def test_an_idle_link_is_never_stuck() -> None:
    progress, link = Progress(), Link()
    assert not any(progress.stuck(link, reply(), float(now)) for now in range(100))


def test_a_lane_that_brings_nothing_is_stuck() -> None:
    progress, link = Progress(), Link()
    words = [progress.stuck(link, reply(last=3), float(now)) for now in range(30)]
    assert words.index(True) == 1 + STUCK_AFTER_S, "counted from the reply after the one that named more"


def test_an_inbox_that_swallows_everything_is_stuck() -> None:
    progress, link = Progress(), Link()
    link.record((0, b"x"))
    words = [progress.stuck(link, reply(), float(now)) for now in range(30)]
    assert words.index(True) == STUCK_AFTER_S


def test_a_slow_link_is_not_stuck_while_anything_moves() -> None:
    progress, link = Progress(), Link()
    for now in range(90):
        if now % 8 == 0:
            link.accept(link.seen + 1, float(now))
        assert not progress.stuck(link, reply(last=1000), float(now))


def test_what_is_received_and_not_stored_yet_is_progress_enough() -> None:
    progress, link = Progress(), Link()
    link.record((0, b"x"))
    assert not any(progress.stuck(link, HeartbeatReply(True, 0, 0, 1), float(now)) for now in range(100))
