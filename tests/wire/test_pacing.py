"""How soon a peer asks for a registration again."""

from __future__ import annotations

from taskmesh.core.roster import LANE_GRACE_S
from taskmesh.transport.pacing import (
    HASTY,
    LONGEST_PAUSE_S,
    PAUSE_S,
    REGISTER_AGAIN_S,
    REPLY_TIMEOUT_S,
    STEADY_S,
    Pacing,
)


def ended_hastily(pacing: Pacing, times: int) -> list[float]:
    """Registrations that end at once, one after the other. Returns the pause after each, in seconds."""
    pauses = []
    for n in range(times):
        now = 100.0 + n
        pacing.on_welcome(now)
        pacing.on_ended(now + 0.5)
        pauses.append(round(pacing.register_at - (now + 0.5), 6))
    return pauses


def test_the_first_registration_is_asked_for_at_once() -> None:
    assert Pacing().register_at < 0.0


def test_a_few_registrations_that_end_at_once_are_followed_at_once() -> None:
    assert ended_hastily(Pacing(), HASTY) == [0.0] * HASTY


def test_more_of_them_are_followed_by_pauses_that_grow_to_a_limit() -> None:
    pauses = ended_hastily(Pacing(), HASTY + 10)[HASTY:]
    assert pauses[:3] == [PAUSE_S, 2 * PAUSE_S, round(3 * PAUSE_S, 6)]
    assert set(pauses[3:]) == {LONGEST_PAUSE_S}


def test_the_longest_pause_is_shorter_than_a_hub_waits_for_a_peer_without_its_lane() -> None:
    assert LONGEST_PAUSE_S < LANE_GRACE_S


def test_a_registration_that_lasts_ends_the_pauses() -> None:
    pacing = Pacing()
    ended_hastily(pacing, HASTY + 2)
    pacing.on_welcome(200.0)
    pacing.on_ended(200.0 + STEADY_S)
    assert pacing.register_at == 200.0 + STEADY_S
    assert ended_hastily(pacing, HASTY) == [0.0] * HASTY


def test_an_unanswered_request_is_repeated_after_twice_as_long_each_time_up_to_a_limit() -> None:
    pacing = Pacing()
    waits = []
    for _ in range(6):
        waits.append(pacing.patience_s)
        pacing.on_no_answer()
    assert waits == [REGISTER_AGAIN_S * f for f in (1, 2, 4, 8)] + [REPLY_TIMEOUT_S] * 2


def test_another_registration_is_asked_for_with_fresh_patience() -> None:
    pacing = Pacing()
    pacing.on_no_answer()
    pacing.on_new_attempt()
    assert pacing.patience_s == REGISTER_AGAIN_S
