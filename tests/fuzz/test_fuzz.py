"""A short run of every target, the same each time; `python -m tests.fuzz` does more."""

from __future__ import annotations

import logging
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskmesh.complaints import Complaint, Complaints
from taskmesh.wire.messages import KINDS

from . import client_side, decoders, hub_side, oracle, worker_side
from .engines import Progress, Reporter, blind
from .grammar import Known, packed
from .source import Bytes, Drawn, Source
from .targets import TARGETS

SLOW = {"scheduler": 40, "plan": 60, "runner": 60, "mesh": 15, "store": 60}
INPUTS = 300


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Whatever is dropped is logged, and everything is."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("target", TARGETS)
def test_a_few_inputs_find_nothing(target: str, tmp_path: Path) -> None:
    progress = Progress(target, "blind")
    blind(target, 60.0, 0, Reporter(progress, tmp_path / "progress.json"), SLOW.get(target, INPUTS))
    assert not progress.findings, next(iter(progress.findings.values()))[0]
    assert progress.inputs > 5


@pytest.mark.parametrize(
    "run", [hub_side.scheduler, worker_side.plan, worker_side.runner, client_side.client, client_side.link]
)
def test_hypothesis_finds_nothing_either(run: typing.Callable[[Source], None]) -> None:
    @settings(max_examples=8, derandomize=True, suppress_health_check=list(HealthCheck), deadline=None)
    @given(st.data())
    def play(data: st.DataObject) -> None:
        run(Drawn(data))

    play()


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.__name__)
def test_the_grammar_makes_every_kind(kind: type) -> None:
    """Also those that are new: it knows the types of their fields, and now and then one of them is right."""
    assert packed(Bytes(b""), Known(), (kind,))
    assert decoders._first(next(number for number, cls in KINDS.items() if cls is kind))


def test_what_hangs_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oracle, "HANG_S", 0.2)

    def hangs(source: Source) -> None:
        while True:
            try:
                sum(range(1000))
            except Exception:
                continue

    finding = oracle.judge("message", hangs, b"")
    assert finding is not None
    assert finding.where.startswith("Hang in")


def test_what_takes_much_memory_is_a_finding() -> None:
    def bloats(source: Source) -> None:
        bytearray(b"x" * (oracle.JUMP_BYTES * 3))

    finding = oracle.judge("message", bloats, b"")
    assert finding is not None
    assert finding.where == "memory"
    with pytest.raises(oracle.Broken):
        oracle.measured(lambda: bloats(Bytes(b"")), 100)


def test_a_stranger_is_heard_by_the_hub() -> None:
    """The noise gets as far as the hub's sockets, and is counted there, by kind."""
    kinds: set[Complaint] = set()
    original = Complaints.add

    def counting(complaints: Complaints, kind: Complaint, what: str, now: float) -> bool:
        kinds.add(kind)
        return original(complaints, kind, what, now)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Complaints, "add", counting)
        for seed in range(6):
            TARGETS["mesh"](Bytes(bytes((37 * seed + 11 * n * n) % 256 for n in range(900))))
    assert {Complaint.FRAME, Complaint.REQUEST} <= kinds
