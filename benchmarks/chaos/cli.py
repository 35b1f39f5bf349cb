"""The command line of a chaos run."""

import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks import processes
from benchmarks.chaos.faults import WEIGHTS
from benchmarks.chaos.fleet import DISK, STORES
from benchmarks.chaos.run import Failed, Plan, run
from benchmarks.chaos.verdict import Verdict

HELP = """Kill, stop and cut off real processes while tasks run: does every future get its right result, once?

Each task puts its number on record when it runs, so executions beyond one per task are counted by what
happened, and each has to be explained by a fault. The same seed makes the same faults at the same times.

The exit code is 0 if every result was right and everything is explained, 1 if not, 130 after Ctrl-C.

Examples:

  python -m benchmarks.chaos

      100,000 tasks, 60 s of faults, four in a second.

  python -m benchmarks.chaos --tasks 3000 --seconds 10 --faults kill-hub --keep /tmp/chaos

      One kind of fault alone; logs, record and store stay for a look.

  sudo python -m benchmarks.chaos --netns

      Each process on a host of its own (network namespaces), whose cables are pulled as well.
"""

SAY_EVERY_S = 10.0  # where there is no terminal for a bar

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(help=HELP)
def chaos(
    tasks: Annotated[int, typer.Option(min=1, help="How many tasks.")] = 100_000,
    kill_every: Annotated[float, typer.Option(min=0.01, help="Seconds between two faults.")] = 0.25,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long faults go on.")] = 60.0,
    seed: Annotated[int, typer.Option(help="Same seed, same faults.")] = 1,
    daemons: Annotated[int, typer.Option(min=1, max=50, help="How many worker daemons.")] = 3,
    runners: Annotated[int, typer.Option(min=1, help="Runners of each daemon.")] = 2,
    faults: Annotated[
        str, typer.Option(metavar="KIND,…", help=f"Which kinds. Default: all of {', '.join(WEIGHTS)}.")
    ] = "",
    store: Annotated[str, typer.Option(help="Where the hub keeps its work: disk (SQLite) or memory.")] = DISK,
    baseline: Annotated[bool, typer.Option(help="First run the same undisturbed, to compare the time.")] = True,
    netns: Annotated[bool, typer.Option(help="In network namespaces, with links cut and healed. Needs root.")] = False,
    keep: Annotated[Path | None, typer.Option(metavar="DIR", help="Keep logs, record and store here.")] = None,
) -> None:
    if store not in STORES:
        raise typer.BadParameter(f"no store is called {store!r}; there are {', '.join(STORES)}", param_hint="--store")
    plan = Plan(tasks, seconds, kill_every, seed, daemons, runners, chosen(faults), store)
    if netns:
        from tests.system.namespaces import why_not

        if lacking := why_not():
            raise typer.BadParameter(lacking, param_hint="--netns")
    processes.adopt_orphans()
    signal.signal(signal.SIGTERM, interrupt)
    try:
        calm = play(plan._replace(kinds=()), "undisturbed", netns, None) if baseline else None
        verdict = play(plan, f"seed {seed}", netns, keep)
    except Failed as failure:
        Console(stderr=True, highlight=False).print(f"failed: {failure}", markup=False)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    finally:
        left = processes.end_descendants(grace_s=0.5)
    if left:
        verdict.left.append(f"{left} more below us")
    show(verdict, calm, plan)
    if not verdict.good:
        raise typer.Exit(1)


def interrupt(_number: int, _frame: object) -> NoReturn:
    """Let SIGTERM do what Ctrl-C does."""
    raise KeyboardInterrupt


def chosen(text: str) -> tuple[str, ...]:
    """Kinds of faults, by name."""
    kinds = tuple(kind.strip() for kind in text.split(",") if kind.strip()) or tuple(WEIGHTS)
    for kind in kinds:
        if kind not in WEIGHTS:
            raise typer.BadParameter(f"no fault is called {kind!r}; there are {', '.join(WEIGHTS)}")
    return kinds


def play(plan: Plan, title: str, netns: bool, keep: Path | None) -> Verdict:
    """One run with a progress bar, or lines in a log; its folder goes with it, unless it is to be kept."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with (
        tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as scratch,
        Progress(*columns, console=console, transient=True, refresh_per_second=2) as bars,
    ):
        folder = Path(scratch) if keep is None else keep.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "record").unlink(missing_ok=True)
        bar = bars.add_task(title, total=plan.tasks, visible=console.is_terminal)
        said_at = time.monotonic()

        def progress(done: int) -> None:
            nonlocal said_at
            done = plan.tasks if done < 0 else done
            bars.update(bar, completed=done)
            if not console.is_terminal and time.monotonic() - said_at >= SAY_EVERY_S:
                said_at = time.monotonic()
                console.print(f"{title}: {done:,} of {plan.tasks:,} tasks done", highlight=False)

        return run(plan, folder, progress, netns)


def show(verdict: Verdict, calm: Verdict | None, plan: Plan) -> None:
    """Print what it came to."""
    console = Console(width=None if sys.stdout.isatty() else 100, highlight=False)
    table = Table(title=f"chaos, seed {plan.seed}", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("what")
    table.add_column("number", justify="right")
    table.add_column("executions beyond one per task that it explains", justify="right")
    for kind in sorted(verdict.faults | verdict.beyond):
        table.add_row(kind, f"{verdict.faults[kind]:,}" if kind in verdict.faults else "", f"{verdict.beyond[kind]:,}")
    table.add_section()
    table.add_row("all faults", f"{verdict.faults.total():,}", f"{verdict.beyond.total():,}")
    table.add_row("tasks", f"{verdict.tasks:,}", "")
    table.add_row("right results, once each", f"{right(verdict):,}", "")
    table.add_row("longest pause without a result, s", f"{verdict.longest_s:.2f}", "")
    table.add_row("time, s", f"{verdict.took_s:.1f}", "")
    if calm is not None:
        table.add_row("undisturbed: time, s", f"{calm.took_s:.1f}", "")
        table.add_row("undisturbed: longest pause, s", f"{calm.longest_s:.2f}", "")
    console.print(table)
    for reason in verdict.reasons:
        console.print(f"FAILED: {reason}", markup=False)
    if verdict.good:
        console.print("Every future got its right result, once; every other execution is explained by a fault.")


def right(verdict: Verdict) -> int:
    """How many futures were done once, with the right result."""
    return verdict.tasks - verdict.missing - verdict.repeated - verdict.wrong - sum(verdict.errors.values())


def main() -> None:
    """What `python -m benchmarks.chaos` calls."""
    app(prog_name="python -m benchmarks.chaos")
