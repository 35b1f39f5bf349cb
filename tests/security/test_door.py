"""The door of a hub writes down who comes in."""

from __future__ import annotations

from typing import Any, cast

import pytest

from taskmesh.complaints import Complaints
from taskmesh.core import messages as m
from taskmesh.core.access import Grant, Role
from taskmesh.door import Door
from taskmesh.transport.loop import Loop

REQUEST = m.Register("client", 7, 1, 0, 0, 0, "n", "h", 1, 0, "1.0", "3.11", b"", b"")


class Paper:
    """An audit log in memory."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def write(self, event: str, **fields: object) -> None:
        self.lines.append({"event": event, **fields})


def test_who_reads_events_again_and_again_does_not_fill_it_either(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, paper, now = Loop(), Paper(), [1000.0]
    monkeypatch.setattr(loop, "now", lambda: now[0])
    door = Door(None, Complaints(), cast("Any", None), loop)
    door._audit = cast("Any", paper)
    door.access.put(Grant("ops", Role.ADMIN, b"k" * 32, 0.0))
    for _ in range(10_000):
        assert door._admit("events", b"k" * 32, "1.2.3.4")
    assert len(paper.lines) == 2000
    door.note_registration(REQUEST, 1, "ops", "1.2.3.4")
    assert paper.lines[-1]["event"] == "registered", "that is counted by itself"
    now[0] += 1.0
    assert door._admit("events", b"k" * 32, "1.2.3.4")
    assert paper.lines[-1] == {"event": "events read", "ticket": "ops", "address": "1.2.3.4", "unnoted": 8000}
    loop.close()


def test_who_joins_again_and_again_does_not_fill_the_audit_log(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, paper, now = Loop(), Paper(), [1000.0]
    monkeypatch.setattr(loop, "now", lambda: now[0])
    door = Door(None, Complaints(), cast("Any", None), loop)
    door._audit = cast("Any", paper)
    for number in range(10_000):
        door.note_registration(REQUEST, number, "farm", "1.2.3.4")
    assert len(paper.lines) == 2000, "a fleet that starts is written down"
    door.note_registration(REQUEST, 1, "laptop", "1.2.3.4")
    assert paper.lines[-1]["ticket"] == "laptop", "and so is everybody else"
    now[0] += 1.0
    door.note_registration(REQUEST, 2, "farm", "1.2.3.4")
    assert paper.lines[-1]["unnoted"] == 8000
    loop.close()
