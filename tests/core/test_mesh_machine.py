"""The three machines together, in memory, under everything that can go wrong (design, section 7).

`check()` of every machine runs after every event; at the end every task has ended exactly once and the books balance.
"""

from __future__ import annotations

import os
from random import Random

import pytest

from .storm import Storm

SCHEDULES = int(os.environ.get("TASKMESH_SCHEDULES", "200"))
STEPS = 500
SEEDS = [Random(1).randrange(10**9) + n for n in range(SCHEDULES)]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("batch", range(4))
def test_while_nothing_dies_every_task_runs_once_and_no_cancelled_one_runs(batch: int) -> None:
    """Links lose, double and reorder; clients cancel; runners are recalled at any moment."""
    for seed in SEEDS[batch::4]:
        run(seed, deadly=False)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("batch", range(4))
def test_whatever_dies_every_task_ends_once(batch: int) -> None:
    """Runners, daemons, sessions and the hub die, and come back with or without a memory."""
    for seed in SEEDS[batch::4]:
        run(seed, deadly=True)


def run(seed: int, *, deadly: bool) -> None:
    try:
        Storm(seed, deadly=deadly).run(STEPS)
    except Exception as error:
        error.add_note(f"repeat with Storm({seed}, deadly={deadly}).run({STEPS})")
        raise
