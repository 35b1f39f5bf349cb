"""`python -m tests.fuzz`: give every target its share of the time, and say what was found.

A finding is made shorter and saved in `tests/fuzz/corpus`, where an ordinary test tries it again; the command that
replays it is printed. Without atheris (`pip install -e '.[fuzz]'`) inputs are made blindly.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from .corpus import replay, save, shrink
from .engines import Progress, available, child
from .oracle import ROOT, Finding
from .targets import TARGETS

GRACE_S = 60.0  # beyond its time, for an engine that is in the middle of an input


@dataclass
class Job:
    """An engine that runs."""

    target: str
    engine: str
    process: subprocess.Popen[bytes]
    path: Path
    kill_at: float


@dataclass
class Plan:
    """What is to be done."""

    targets: list[str]
    seconds: float
    seed: int
    jobs: int
    folder: Path
    engines: list[str]
    done: list[Progress] = field(default_factory=list)


def run(plan: Plan) -> None:
    """Start engines, so many at a time, until all have had their share."""
    waiting = [(target, engine) for target in plan.targets for engine in plan.engines]
    share = plan.seconds * plan.jobs / len(waiting)
    running: list[Job] = []
    began = time.monotonic()
    while waiting or running:
        while waiting and len(running) < plan.jobs:
            running.append(_start(plan, *waiting.pop(0), share))
        time.sleep(0.5)
        for job in list(running):
            if job.process.poll() is None and time.monotonic() > job.kill_at:
                job.process.kill()
            if job.process.poll() is not None:
                running.remove(job)
                plan.done.append(_progress(job))
        _tell([*plan.done, *map(_progress, running)], time.monotonic() - began, plan.seconds)
    print(file=sys.stderr)


def _start(plan: Plan, target: str, engine: str, share: float) -> Job:
    arguments = [sys.executable, "-m", "tests.fuzz", "--child", target, engine, str(share), str(plan.seed)]
    with (plan.folder / f"{target}-{engine}.log").open("wb") as log:
        process = subprocess.Popen([*arguments, str(plan.folder)], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
    path = plan.folder / f"{target}-{engine}.json"
    return Job(target, engine, process, path, time.monotonic() + share + GRACE_S)


def _progress(job: Job) -> Progress:
    progress = Progress(job.target, job.engine)
    if job.path.exists():
        progress = Progress(**json.loads(job.path.read_text()))
    if job.process.poll() not in (None, 0):
        log = job.path.with_suffix(".log").read_text(errors="replace")
        progress.findings["the process died"] = (f"exit code {job.process.poll()}\n{log[-3000:]}", "")
    return progress


def _tell(all_of_them: list[Progress], passed_s: float, seconds: float) -> None:
    inputs, found = sum(p.inputs for p in all_of_them), sum(len(p.findings) for p in all_of_them)
    line = f"{passed_s:,.0f} of about {seconds:,.0f} s: {inputs:,} inputs, {found} findings"
    if sys.stderr.isatty():
        print(f"\r{line}", end="", file=sys.stderr, flush=True)


def summary(plan: Plan) -> None:
    """A table: what each target got, and what it found."""
    print(f"{'target':<12} {'engine':<8} {'inputs':>12} {'inputs/s':>10} {'findings':>9}")
    for done in plan.done:
        rate = done.inputs / done.seconds if done.seconds else 0.0
        print(f"{done.target:<12} {done.engine:<8} {done.inputs:>12,} {rate:>10,.0f} {len(done.findings):>9}")
    print(f"{'all':<12} {'':<8} {sum(done.inputs for done in plan.done):>12,}")


def keep(plan: Plan) -> int:
    """Make findings shorter, save them, and say how to replay them. Returns how many there are."""
    seen: set[tuple[str, str]] = set()
    for done in plan.done:
        for where, (text, data) in done.findings.items():
            if (done.target, where) in seen:
                continue
            seen.add((done.target, where))
            print(f"\n{done.target}: {where}\n{text[-2500:]}")
            if data:
                finding = shrink(Finding(done.target, where, text, bytes.fromhex(data)))
                path = save(finding).relative_to(ROOT)
                print(f"saved; replay it with: python -m tests.fuzz --replay {path}")
    return len(seen)


def main() -> int:
    """Read the command line and do it; 1 when something was found."""
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2:])
        return 0
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Feed hostile input to everything.")
    parser.add_argument("--minutes", type=float, default=1.0, help="for everything together")
    parser.add_argument("--target", action="append", choices=list(TARGETS), help="only this one; may be repeated")
    parser.add_argument("--seed", type=int, default=0, help="another one makes other inputs")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--engine", choices=["atheris", "blind"], help="only this one")
    parser.add_argument("--replay", type=Path, help="one saved input")
    options = parser.parse_args()
    if options.replay is not None:
        logging.disable(logging.CRITICAL)
        found = replay(options.replay.resolve())
        print(found.text if found else "nothing is wrong with it")
        return 1 if found else 0
    if not available() and options.engine != "blind":
        print("atheris is not installed: inputs are made blindly (pip install -e '.[fuzz]')", file=sys.stderr)
    engines = [options.engine] if options.engine else ["atheris", "blind"] if available() else ["blind"]
    with TemporaryDirectory() as folder:
        plan = Plan(
            options.target or list(TARGETS), 60 * options.minutes, options.seed, options.jobs, Path(folder), engines
        )
        run(plan)
        summary(plan)
        return 1 if keep(plan) else 0


if __name__ == "__main__":
    sys.exit(main())
