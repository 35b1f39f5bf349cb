"""When what a session gathers goes out: the rule, one sentence each."""

from __future__ import annotations

import pytest

from taskmesh.core.gathering import LINGER_S, NEVER, Gathering

NOW = 50.0


@pytest.fixture
def gathering() -> Gathering:
    made = Gathering()
    made.sent_at = NOW
    return made


def test_a_lone_call_goes_at_once(gathering: Gathering) -> None:
    assert gathering.goes_at_once(NOW, unsettled=False)
    assert not gathering.goes_at_once(NOW, unsettled=True)
    assert gathering.goes_at_once(NOW + 2 * LINGER_S, unsettled=True)
    assert Gathering().goes_at_once(0.0, unsettled=True)


def test_what_is_gathered_goes_after_a_millisecond_and_who_sends_it_is_told_once(gathering: Gathering) -> None:
    assert gathering.begin(NOW, in_callback=False)
    assert not gathering.begin(NOW + LINGER_S / 2, in_callback=False)
    assert not gathering.ready(NOW + LINGER_S * 0.9, filling=True)
    assert gathering.due == NOW + LINGER_S
    assert gathering.ready(NOW + LINGER_S, filling=True)
    gathering.end()
    assert gathering.due == NEVER
    assert gathering.begin(NOW + LINGER_S, in_callback=False)


def test_what_a_callback_submits_goes_at_once(gathering: Gathering) -> None:
    assert gathering.begin(NOW, in_callback=True)
    assert gathering.ready(NOW, filling=True)


def test_what_a_callback_submits_takes_along_what_is_being_gathered(gathering: Gathering) -> None:
    assert gathering.begin(NOW, in_callback=False)
    assert not gathering.begin(NOW + LINGER_S / 10, in_callback=True)
    assert gathering.ready(NOW + LINGER_S / 10, filling=True)


def test_what_nobody_has_told_of_goes_at_once(gathering: Gathering) -> None:
    assert gathering.ready(NOW, filling=True)
    assert not gathering.ready(NOW, filling=False)
