"""The hub's shell alone, on virtual sockets."""

from __future__ import annotations

import pytest

from taskmesh.core.access import LOCAL
from taskmesh.reception import STATUS_S

from .hub import SimulatedHub
from .network import Network
from .world import World


def test_a_status_that_is_asked_for_all_the_time_is_made_ten_times_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    simulated = SimulatedHub(Network(World(1), 1e-3, 0.0), None, 2.0, 1.0)
    reception = simulated.hub._reception
    made: list[float] = []

    def document(now: float, holder: object) -> dict[str, object]:
        made.append(now)
        return {"made": now}

    monkeypatch.setattr(reception, "document", document)
    assert [reception.status(5.0, LOCAL) for _ in range(100)] == [b'{"made": 5.0}'] * 100
    assert reception.status(5.0 + 2 * STATUS_S, LOCAL) != b'{"made": 5.0}'
    assert len(made) == 2
    simulated.kill()
