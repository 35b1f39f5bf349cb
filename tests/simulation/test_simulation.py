"""Seeds of the simulator: the same few always, those that once failed, and new ones each time."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from time import monotonic

import pytest

from .script import Item, Script, script
from .shrink import shrink
from .simulator import simulate

FIXED = range(300)
FRESH_S = float(os.environ.get("TASKMESH_SIMULATION_SECONDS", "20"))
REGRESSIONS = {
    340: "a daemon that left before the hub's welcome came was waited for, as if it had died",
    661: "tasks cancelled together were taken off the disk once each",
    1900: "an outcome that came again after the last commit was never settled",
    2305: "the same, after a half-open link",
}


def assert_clean(seed: int) -> None:
    error = simulate(script(seed)).error
    assert error is None, f"{error}\nrepeat it with: python -m tests.simulation --seed {seed} --short --trace"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("batch", range(4))
def test_whatever_fails_everything_comes_out_even(batch: int) -> None:
    for seed in FIXED[batch::4]:
        assert_clean(seed)


@pytest.mark.timeout(300)
def test_so_it_does_with_seeds_that_nobody_has_tried() -> None:
    until = monotonic() + FRESH_S
    seed = random.SystemRandom().randrange(1 << 40)
    while monotonic() < until:
        assert_clean(seed)
        seed += 1


@pytest.mark.parametrize("seed", REGRESSIONS)
def test_seeds_that_once_failed_do_not_fail_again(seed: int) -> None:
    assert_clean(seed)


def test_a_seed_is_the_same_schedule_in_every_process() -> None:
    here = [simulate(script(seed)).digest for seed in range(8)]
    code = (
        "from tests.simulation.script import script; from tests.simulation.simulator import simulate; "
        "print([simulate(script(seed)).digest for seed in range(8)])"
    )
    for hashes in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hashes, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        there = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        assert there.stdout.strip() == str(here)


def test_a_trace_does_not_change_what_happens() -> None:
    assert [simulate(script(n)).digest for n in range(5)] == [simulate(script(n), traced=True).digest for n in range(5)]


def test_a_failing_schedule_is_made_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug is put in: a daemon that is killed is not noticed to have failed anything."""
    numbers = (1, 2, 3, 4)
    items = [Item(0.1, "call", numbers), Item(0.2, "map", numbers), Item(0.3, "stall", numbers)]
    schedule = Script(7, script(7).settings, items)
    monkeypatch.setattr("tests.simulation.checks._fits", lambda ticket, word, simulation: False)
    short = shrink(schedule)
    assert [item.kind for item in short.items] in (["call"], ["map"])
    assert simulate(short).error is not None
