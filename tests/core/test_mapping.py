"""How a map feeds its items: the first ones have the processors to themselves for a moment."""

from __future__ import annotations

import threading
from typing import Any, cast

import pytest

from taskmesh import mapping
from taskmesh.core import messages as m
from taskmesh.mapping import BEGIN_ITEMS, BEGIN_S, MEASURED_CHUNKS, MapRun, Source

MANY = 200_000


class Hub:
    """Takes chunks in place of a client; `answers`: whether their items end at once."""

    def __init__(self, answers: bool = False, calls_back: bool = False) -> None:
        self.answers = answers
        self.calls_back = calls_back
        self.sent: list[int] = []
        self.run: MapRun

    def in_receive_thread(self) -> bool:
        return self.calls_back

    def submit_items(
        self, place: Any, leaves: list[bytes], items: list[int], grain: int, run: MapRun
    ) -> tuple[int, int]:
        first, count = sum(self.sent), sum(items)
        self.sent.append(count)
        if self.answers:
            run.deliver(m.Outcome(1, first, 0, count, m.Form.LIST, b""), [(0, count)])
        return first, count


class Clock(threading.Condition):
    """A condition on which nobody waits: time goes on instead, and what happens meanwhile is said by `meanwhile`."""

    def __init__(self, hub: Hub) -> None:
        super().__init__()
        self.now = 100.0
        self.waits: list[tuple[int, float]] = []
        self.meanwhile: list[tuple[float, int]] = []
        self._hub = hub

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.waits.append((len(self._hub.sent), timeout))
        passed, ended = self.meanwhile.pop(0) if self.meanwhile else (timeout, 0)
        self.now += passed
        if ended:
            self._hub.run.deliver(m.Outcome(1, 0, 0, ended, m.Form.LIST, b""), [(0, ended)])
        return True


def fed(monkeypatch: pytest.MonkeyPatch, hub: Hub, items: int, *meanwhile: tuple[float, int]) -> list[Any]:
    """Feed a map of so many items; returns after how many chunks it waited, and how long at most."""
    run = MapRun(cast(Any, hub), cast(Any, None), Source((range(items),), 2048, False, "f"), 1, None, None)
    hub.run, clock = run, Clock(hub)
    clock.meanwhile += meanwhile
    run._changed = clock
    monkeypatch.setattr(mapping, "monotonic", lambda: clock.now)
    run.feed()
    assert sum(hub.sent) == items
    return clock.waits


def test_a_long_map_waits_once_and_not_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fed(monkeypatch, Hub(), MANY) == [(MEASURED_CHUNKS, pytest.approx(BEGIN_S))]


def test_it_goes_on_when_enough_items_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = fed(monkeypatch, Hub(), MANY, (BEGIN_S / 4, BEGIN_ITEMS - 1), (BEGIN_S / 4, 1), (9.0, 0))
    assert waits == [(MEASURED_CHUNKS, pytest.approx(BEGIN_S)), (MEASURED_CHUNKS, pytest.approx(BEGIN_S * 3 / 4))]


def test_it_does_not_wait_for_what_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fed(monkeypatch, Hub(answers=True), MANY) == []


def test_it_does_not_wait_for_its_own_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fed(monkeypatch, Hub(calls_back=True), MANY) == []


def test_a_short_map_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fed(monkeypatch, Hub(), 1000) == []


def test_it_does_not_wait_when_the_mesh_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ending(Hub):
        def submit_items(self, *arguments: Any) -> tuple[int, int]:
            self.run.fail(RuntimeError("closed"))
            return super().submit_items(*arguments)

    assert fed(monkeypatch, Ending(), MANY) == []
