"""Real processes killed and frozen while tasks run: see `benchmarks.chaos`, of which these are small runs.

The mixed run says whether anything is lost; one run for each kind of fault says which kind it was.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.chaos.faults import CUTS, WEIGHTS, Happened, Planned, schedule
from benchmarks.chaos.fleet import DISK, MEMORY
from benchmarks.chaos.run import Plan, run
from benchmarks.chaos.verdict import UNEXPLAINED, Execution, Verdict, explain, judge
from taskmesh.core.roster import SUSPECT_AFTER_S

from .namespaces import why_not

S = 1_000_000_000  # a second, in ns
SEED = int(os.environ.get("TASKMESH_CHAOS_SEED", "7"))
netns = pytest.mark.skipif(why_not() is not None, reason=f"no network namespaces: {why_not()}")
long = pytest.mark.skipif(not os.environ.get("TASKMESH_LONG_TESTS"), reason="long: set TASKMESH_LONG_TESTS=1")


def chaos(
    folder: Path,
    kinds: tuple[str, ...],
    seconds: float,
    every_s: float,
    tasks: int = 2000,
    netns: bool = False,
    store: str = DISK,
) -> Verdict:
    """A run that has to be good."""
    print(f"seed {SEED}; to choose another: TASKMESH_CHAOS_SEED={SEED + 1}")
    plan = Plan(tasks, seconds, every_s, SEED, daemons=2, runners=2, kinds=kinds, store=store)
    verdict = run(plan, folder, lambda done: None, netns)
    print(verdict)
    assert verdict.good, f"{verdict.reasons}\n{logs(folder)}"
    return verdict


def logs(folder: Path) -> str:
    """The last lines of each process."""
    return "\n".join(f"--- {path.name}:\n{path.read_text(errors='replace')[-2000:]}" for path in folder.glob("*.log"))


def test_everything_at_once(tmp_path: Path) -> None:
    kinds = ("kill-runner", "kill-nursery", "kill-daemon", "kill-hub", "freeze-runner", "freeze-daemon", "freeze-hub")
    verdict = chaos(tmp_path, kinds, seconds=8.0, every_s=0.5)
    assert verdict.faults.total() >= 8


def test_killed_runners_repeat_only_what_ran(tmp_path: Path) -> None:
    verdict = chaos(tmp_path, ("kill-runner",), seconds=3.0, every_s=0.2)
    kills = verdict.faults["kill-runner"]
    assert kills >= 8
    assert verdict.beyond.total() <= kills
    assert verdict.longest_s < SUSPECT_AFTER_S, "a pipe that breaks tells at once"


def test_killed_nurseries_repeat_only_what_ran(tmp_path: Path) -> None:
    verdict = chaos(tmp_path, ("kill-nursery",), seconds=2.5, every_s=0.5)
    assert verdict.faults["kill-nursery"] >= 3
    assert verdict.beyond.total() <= 2 * verdict.faults["kill-nursery"]
    assert verdict.longest_s < SUSPECT_AFTER_S


def test_killed_daemons_lose_nothing(tmp_path: Path) -> None:
    verdict = chaos(tmp_path, ("kill-daemon",), seconds=4.0, every_s=1.5)
    assert verdict.faults["kill-daemon"] >= 2
    assert verdict.beyond.total() <= 10 * verdict.faults["kill-daemon"]  # what ran, and what was not reported yet


def test_frozen_daemons_lose_nothing(tmp_path: Path) -> None:
    verdict = chaos(tmp_path, ("freeze-daemon", "freeze-machine"), seconds=3.0, every_s=1.0)
    assert verdict.faults.total() >= 2


def test_frozen_runners_hold_up_nothing_but_their_tasks(tmp_path: Path) -> None:
    verdict = chaos(tmp_path, ("freeze-runner",), seconds=2.0, every_s=0.6)
    assert verdict.beyond.total() == 0


@pytest.mark.parametrize("store", [DISK, pytest.param(MEMORY, marks=long)])
def test_killed_hubs_lose_and_repeat_nothing(tmp_path: Path, store: str) -> None:
    verdict = chaos(tmp_path, ("kill-hub",), seconds=4.0, every_s=2.0, store=store)
    assert verdict.faults["kill-hub"] >= 1
    assert verdict.beyond.total() == 0
    assert verdict.longest_s < 10.0  # away for up to 1 s, then up to 3 s for the daemons to say what they hold


@long
@pytest.mark.timeout(400)
def test_everything_at_once_for_a_minute(tmp_path: Path) -> None:
    chaos(tmp_path, tuple(WEIGHTS), seconds=60.0, every_s=0.25, tasks=30_000)


@netns
@pytest.mark.parametrize(
    ("kind", "seconds"),
    [
        ("cut-daemon", 1.0),
        pytest.param("cut-daemon", 4.0, marks=long),
        pytest.param("cut-hub", 1.0, marks=long),
        pytest.param("cut-hub", 4.0, marks=long),
        pytest.param("cut-client", 4.0, marks=long),
        pytest.param("cut-daemon", 20.0, marks=long),
        pytest.param("cut-hub", 20.0, marks=long),
        pytest.param("cut-client", 20.0, marks=long),
    ],
)
def test_a_cable_that_is_pulled_and_plugged_in_again(tmp_path: Path, kind: str, seconds: float) -> None:
    plan = Plan(2000, 60.0, 1.0, SEED, daemons=2, runners=2, work_s=0.006 if seconds < 10.0 else 0.03)
    verdict = run(plan, tmp_path, lambda done: None, True, [Planned(1.0, kind, 0.0, 0.0, seconds)])
    print(verdict)
    assert verdict.good, f"{verdict.reasons}\n{logs(tmp_path)}"
    assert verdict.faults == {kind: 1}
    # Cut off for less than 3 s, a daemon is not even suspected. After that, what it had queued moves; what its runners
    # had taken since its last heartbeat counts as queued. After 15 s everything moves.
    assert verdict.beyond.total() <= (0 if seconds < 3.0 else 40)


@long
@netns
def test_everything_at_once_with_cables(tmp_path: Path) -> None:
    verdict = chaos(tmp_path, ("kill-runner", "kill-daemon", "kill-hub"), seconds=20.0, every_s=1.0, netns=True)
    assert sum(verdict.faults[kind] for kind in CUTS)


def test_the_same_seed_makes_the_same_faults() -> None:
    kinds = ("kill-runner", "freeze-hub")
    one, two, other = (schedule(seed, kinds, 0.5) for seed in (1, 1, 2))
    first = [next(one) for _ in range(50)]
    assert first == [next(two) for _ in range(50)]
    assert first != [next(other) for _ in range(50)]


def test_only_a_fault_that_hit_one_of_its_processes_explains_that_a_task_ran_twice(tmp_path: Path) -> None:
    runs = [[Execution(1, 10, 5 * S), Execution(1, 11, 6 * S)]]
    assert explain(runs, []) == {UNEXPLAINED: 1}
    assert explain(runs, [Happened("kill-runner", "d1", frozenset({99}), 5 * S, 5 * S)]) == {UNEXPLAINED: 1}
    assert explain(runs, [Happened("kill-runner", "d1", frozenset({10}), 50 * S, 50 * S)]) == {UNEXPLAINED: 1}
    assert explain(runs, [Happened("kill-runner", "d1", frozenset({10}), 5 * S, 5 * S)]) == {"kill-runner": 1}
    assert explain(runs, [Happened("kill-hub", "hub", frozenset(), 5 * S, 6 * S)]) == {"kill-hub": 1}


def test_a_verdict_names_everything_that_is_wrong(tmp_path: Path) -> None:
    record = tmp_path / "record"
    record.write_text("0 10 5000000000\n0 11 9000000000\n1 10 6000000000\n")
    told = {"took_s": 1.0, "longest_s": 0.1, "missing": 1, "repeated": 0, "wrong": 1, "errors": {"KeyError: 'x'": 1}}
    reasons = judge(4, told, record, [], ["d1 ended by itself with code 1"], ["hub"]).reasons
    assert len(reasons) == 7
    assert "2 tasks have a result and never ran" in reasons
    assert "1 executions beyond one per task have no fault to explain them" in reasons
