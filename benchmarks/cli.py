"""The command line: what to measure, progress while it is measured, tables and JSON when it is."""

import difflib
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import drive, machine, processes, report
from benchmarks.peers.registry import PEERS, PeerInfo, missing
from benchmarks.workloads import WORKLOADS
from benchmarks.workloads.base import Workload

Named = TypeVar("Named")
DEFAULT_PEERS = [name for name, peer in PEERS.items() if not peer.only_asked]
OTHER_PEERS = [name for name, peer in PEERS.items() if peer.only_asked]
PLAIN_WIDTH = 110
"""Columns of a table that goes to a file, where nobody knows how wide it may be."""

HELP = """Measure taskmesh and its peers with the same workloads, in the same minutes, on this machine.

Every measurement runs in a process of its own. Peers are interleaved (repeat 1 of every peer, then repeat 2
of every peer, …), so that a slow minute of the machine hits all of them alike. What each workload measures
and how to read the tables is in benchmarks/README.md.

Examples:

  python -m benchmarks --scale 0.02 --repeats 1

      Does everything run? Takes a minute or two.

  python -m benchmarks --workloads W2 --peers taskmesh,ProcessPoolExecutor

      One question, two peers.

  python -m benchmarks --json benchmarks/results/today.json

      All of it. Takes about half an hour; leave the machine alone.
"""

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(help=HELP)
def run(
    workloads: Annotated[
        str, typer.Option(metavar="W1,W2,…", help=f"Which workloads. Default: all of {', '.join(WORKLOADS)}.")
    ] = "",
    peers: Annotated[
        str,
        typer.Option(
            metavar="NAME,…",
            help=f"Which peers. Default: all installed of {', '.join(DEFAULT_PEERS)}. "
            f"There are also {', '.join(OTHER_PEERS)}.",
        ),
    ] = "",
    repeats: Annotated[int, typer.Option(min=1, help="Measurements of each workload on each peer.")] = 5,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes in each pool.")] = 2,
    scale: Annotated[
        float, typer.Option(min=0.0001, max=1.0, help="Shrink task counts for a quick try, e.g. 0.02.")
    ] = 1.0,
    deadline: Annotated[
        int, typer.Option(min=1, help="Seconds that one measurement may take before it counts as failed.")
    ] = 600,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json",
            dir_okay=False,
            help="Also write every sample, the summary and the machine's facts here.",
        ),
    ] = None,
) -> None:
    settings = drive.Settings(workers, repeats, scale, deadline)
    chosen = choose(WORKLOADS, workloads, "workload")
    takers = installed(choose(PEERS, peers or ",".join(DEFAULT_PEERS), "peer"))
    if not any(workload.applies_to(peer) for workload in chosen for peer in takers):
        raise typer.BadParameter("none of these workloads is for any of these peers.")
    processes.adopt_orphans()
    signal.signal(signal.SIGTERM, interrupt)
    facts = machine.facts(takers)
    samples, interrupted = measure_all(chosen, takers, settings)
    show(chosen, samples, settings, facts)
    if json_file is not None:
        write(json_file, report.document(chosen, samples, settings, facts))
    if interrupted:
        notice("Interrupted: the tables show what was measured until then.")
        raise typer.Exit(130)
    if any(sample.error for sample in samples):
        raise typer.Exit(1)


def interrupt(_number: int, _frame: object) -> NoReturn:
    """Let SIGTERM do what Ctrl-C does, so that there is one way out."""
    raise KeyboardInterrupt


def choose(registry: dict[str, Named], names: str, what: str) -> list[Named]:
    """Look up names, or take all; refuse an unknown one and say which was probably meant."""
    wanted = [name.strip() for name in names.split(",") if name.strip()] or list(registry)
    lower = {name.lower(): name for name in registry}
    for name in wanted:
        if name.lower() not in lower:
            close = difflib.get_close_matches(name.lower(), lower, n=1)
            hint = f"Did you mean {lower[close[0]]}?" if close else f"There are {', '.join(registry)}."
            raise typer.BadParameter(f"no {what} is called {name!r}. {hint}")
    return [registry[lower[name.lower()]] for name in dict.fromkeys(wanted)]


def installed(peers: Sequence[PeerInfo]) -> list[PeerInfo]:
    """Leave out peers that this Python cannot import, and say so."""
    found: list[PeerInfo] = []
    for peer in peers:
        if lacking := missing(peer):
            notice(f"{peer.name} is left out: {', '.join(lacking)} is not installed.")
        else:
            found.append(peer)
    if not found:
        raise typer.BadParameter("none of these peers is installed.")
    return found


def measure_all(
    workloads: Sequence[Workload], peers: Sequence[PeerInfo], settings: drive.Settings
) -> tuple[list[drive.Sample], bool]:
    """Make every measurement; return the samples, and whether somebody pressed Ctrl-C before the end.

    A peer that fails in a workload is not asked again there: it would most likely take its whole deadline
    each time. The bar is redrawn only between measurements, since redrawing takes a core that is being
    measured.
    """
    orders = list(drive.plan(workloads, peers, settings.repeats))
    samples: list[drive.Sample] = []
    failed: set[tuple[str, str]] = set()
    with progress_bar() as progress:
        say = progress.console.print
        bar = progress.add_task("", total=len(orders))
        try:
            for order in orders:
                name = f"{order.workload} {order.peer} #{order.repeat}"
                progress.update(bar, description=name, refresh=True)
                if not progress.console.is_terminal:
                    say(name)  # for a log, where no bar can be
                if (order.workload, order.peer) not in failed:
                    sample = drive.measured(order, settings)
                    samples.append(sample)
                    if sample.error is not None:
                        failed.add((order.workload, order.peer))
                        say(f"{name} failed: {sample.error}\n{sample.log}", markup=False)
                progress.advance(bar)
        except KeyboardInterrupt:
            return samples, True
    return samples, False


def progress_bar() -> Progress:
    """On stderr, so that the tables can be piped; silent where nobody looks."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        auto_refresh=False,
        transient=True,
    )


def show(
    workloads: Sequence[Workload],
    samples: Sequence[drive.Sample],
    settings: drive.Settings,
    facts: dict[str, object],
) -> None:
    """Print a table for each workload of which there is a sample."""
    console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False)
    console.print(escape(machine.line(facts)))
    measured = {sample.order.workload for sample in samples}
    for workload in workloads:
        if workload.name in measured:
            console.print()
            console.print(report.table(workload, samples, settings))


def write(path: Path, document: dict[str, object]) -> None:
    """Write the JSON file, making its folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def notice(text: str) -> None:
    """Tell the user something that is not a result."""
    Console(stderr=True, highlight=False).print(escape(text))


def main() -> None:
    """What `python -m benchmarks` calls."""
    app(prog_name="python -m benchmarks")
