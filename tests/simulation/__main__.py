"""`python -m tests.simulation`: run as many seeds as asked on all cores."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from time import monotonic

from .script import Script, script
from .shrink import shrink
from .simulator import Report, simulate

BATCH = 25
SHOWN = 5  # failing seeds that are shrunk and shown


@dataclass(slots=True)
class Totals:
    """Of some seeds."""

    seeds: int = 0
    steps: int = 0
    tasks: int = 0
    seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[int, str]] = field(default_factory=list)

    def add(self, other: Totals) -> None:
        """Both together."""
        self.seeds += other.seeds
        self.steps += other.steps
        self.tasks += other.tasks
        self.seconds += other.seconds
        self.faults += other.faults
        self.failures += other.failures


def run_batch(first: int, count: int) -> Totals:
    """So many seeds, one after the other."""
    totals = Totals()
    for seed in range(first, first + count):
        report = simulate(script(seed))
        faults = +report.faults
        one = [(seed, report.error)] if report.error else []
        totals.add(Totals(1, report.steps, report.tasks, report.seconds, faults, one))
    return totals


def run(start: int, seeds: int, jobs: int) -> Totals:
    """All of them, with a line that says how far it is."""
    totals, began = Totals(), monotonic()
    batches = [(first, min(BATCH, start + seeds - first)) for first in range(start, start + seeds, BATCH)]
    with ProcessPoolExecutor(jobs) as pool:
        for part in pool.map(run_batch, *zip(*batches, strict=True)):
            totals.add(part)
            rate = totals.seeds / max(monotonic() - began, 1e-9)
            line = f"{totals.seeds:,} of {seeds:,} seeds, {rate:.0f}/s, {len(totals.failures)} failed"
            if sys.stderr.isatty() or totals.seeds == seeds:
                print(f"\r{line}", end="" if totals.seeds < seeds else "\n", file=sys.stderr, flush=True)
    return totals


def show_totals(totals: Totals) -> None:
    """What all of that was."""
    print(
        f"{totals.seeds:,} seeds: {totals.steps:,} steps in {totals.seconds:,.0f} virtual seconds, "
        f"{totals.tasks:,} tasks, {sum(totals.faults.values()):,} faults"
    )
    for kind, count in sorted(totals.faults.items(), key=lambda pair: -pair[1]):
        print(f"  {kind:<14} {count:>10,}")


def show(schedule: Script, report: Report) -> None:
    """A schedule, what happened, and how it ended."""
    print(f"seed {schedule.seed}: {schedule.settings}")
    for item in schedule.items:
        print(f"  at {item.at:8.4f} s: {item.kind} {item.numbers}")
    print("\n".join(report.trace))
    print(f"{report.steps} steps, digest {report.digest:08x}: {report.error or 'everything came out even'}")


def show_failures(failures: list[tuple[int, str]]) -> None:
    """Each failing seed with the command that repeats it; the first few made short."""
    for number, (seed, error) in enumerate(failures):
        print(f"\nseed {seed} failed: {error}\n  repeat it with: python -m tests.simulation --seed {seed} --trace")
        if number < SHOWN:
            schedule = shrink(script(seed))
            print("made short:")
            show(schedule, simulate(schedule, traced=True))


def main() -> int:
    """Read the command line and do it; 1 when a seed has failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description="Simulate faulty schedules.")
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--start", type=int, default=0, help="the first of them")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--seed", type=int, help="one seed alone, as it is, without making it short")
    parser.add_argument("--trace", action="store_true", help="with --seed: print everything that happens")
    parser.add_argument("--short", action="store_true", help="with --seed: make it short first, if it fails")
    options = parser.parse_args()
    if options.seed is None and (options.trace or options.short):
        parser.error("--trace and --short go with --seed")
    if min(options.seeds, options.jobs) < 1:
        parser.error("--seeds and --jobs are at least 1")
    if options.seed is not None:
        schedule = script(options.seed)
        if options.short and simulate(schedule).error:
            schedule = shrink(schedule)
        report = simulate(schedule, traced=options.trace)
        show(schedule, report)
        return 1 if report.error else 0
    totals = run(options.start, options.seeds, options.jobs)
    show_totals(totals)
    show_failures(totals.failures)
    return 1 if totals.failures else 0


if __name__ == "__main__":
    sys.exit(main())
