"""Seeds of the simulator: the same few always, those that once failed, and new ones each time."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from time import monotonic

import pytest

from .script import Item, Script, Settings, script
from .shrink import shrink
from .simulator import simulate

FIXED = range(300)
FIRST = 33_000_000
FRESH_S = float(os.environ.get("TASKMESH_SIMULATION_SECONDS", "20"))
PLAIN = Settings(
    durable=True, daemons=2, slots=1, clients=1, latency_s=0.001, mess=0.0, task_s=0.01, long_s=1.0, grace_s=5.0,
    commit_s=0.001, drift=0.0, horizon_s=1.0, kinds="o", timeout_s=0.0, memory=False, max_tasks=0, most=40,
)  # fmt: skip
REGRESSIONS = {  # as they were made short: a seed is another schedule when `script` has changed
    "a drain, and tasks on their way to that daemon were taken for lost": Script(
        5179,
        replace(PLAIN, daemons=3, slots=3, clients=2, latency_s=0.01, task_s=1e-6, drift=0.01, horizon_s=20.0),
        [
            Item(7.2523, "call", (135488, 315284, 278771, 771743)),
            Item(7.2673, "drain_daemon", (881155, 974655, 415035, 654988)),
        ],
    ),
    "the hub looked for something to recall for ever": Script(
        2914,
        replace(PLAIN, durable=False, mess=0.2, task_s=1e-5, kinds="oooooooooooom", horizon_s=0.3),
        [
            Item(0.0128, "long_stall", (681918, 796869, 543602, 539958)),
            Item(0.0711, "map", (279315, 308272, 819924, 417627)),
            Item(0.1310, "kill_runner", (388287, 950829, 483854, 565662)),
            Item(0.1647, "drain_hard", (417539, 528445, 255662, 344815)),
        ],
    ),
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
def test_so_it_does_with_a_thousand_more_schedules() -> None:
    """The same in every run, or as many as time allows; `python -m tests.simulation` tries new ones."""
    until = monotonic() + FRESH_S
    for seed in range(FIRST, FIRST + 1000):
        if monotonic() > until:
            return
        assert_clean(seed)


@pytest.mark.parametrize("bug", REGRESSIONS)
def test_schedules_that_once_failed_do_not_fail_again(bug: str) -> None:
    assert simulate(REGRESSIONS[bug]).error is None


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
