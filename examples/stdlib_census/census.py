"""A census of this Python's own standard library, once in this process and once on a mesh.

Every `.py` file is one task: parse it, count what is in it. The counting is in analysis.py; this file finds
the files, submits them, draws the progress bar and the tables, and compares the two runs. A file's text
travels with its task, and analysis.py with the first one: workers need neither the library nor this folder.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import sysconfig
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import starmap
from pathlib import Path
from typing import Annotated, NamedTuple

import analysis
import cloudpickle
import typer
from analysis import Census, FileReport, FunctionReport, Row
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Table
from rich.text import Text
from typer import Option

from taskmesh import Mesh, as_completed, task
from taskmesh.errors import TaskmeshError

NOT_THE_LIBRARY = {"site-packages", "dist-packages", "__pycache__"}
TEST_FOLDERS = {"test", "tests", "idle_test"}

console = Console(highlight=False)
if not console.is_terminal:
    console.width = 100


class Source(NamedTuple):
    """One file of the library: its name below the library's folder, and its text."""

    path: str
    text: bytes


class Run(NamedTuple):
    """One pass over all files; `seconds` is everything from the first step to the last result."""

    census: Census
    reports: list[FileReport]
    seconds: float
    startup_seconds: float

    @property
    def rate(self) -> float:
        """Files per second."""
        return len(self.reports) / self.seconds


@task(name="census.analyse")
def analyse(path: str, text: bytes) -> Row:
    """The task: one file in, its counts out.

    Arguments and result are of built-in types, which cost least: a class that the other side cannot import
    would travel again with every call.
    """
    return analysis.analyse_source(path, text).to_row()


def read_library(root: Path, with_tests: bool) -> list[Source]:
    """Read every `.py` file below `root`, largest first, so that no long task is left over for the end."""
    skipped = NOT_THE_LIBRARY if with_tests else NOT_THE_LIBRARY | TEST_FOLDERS
    sources = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if name not in skipped]
        for path in (Path(folder, name) for name in names if name.endswith(".py")):
            sources.append(Source(path.relative_to(root).as_posix(), path.read_bytes()))
    return sorted(sources, key=lambda source: (-len(source.text), source.path))


def run_here(sources: list[Source]) -> Run:
    """The baseline: the same function over the same files, in this process, one after another."""
    started = time.perf_counter()
    rows = _tracked("In this process", starmap(analyse, sources), len(sources))
    reports = [FileReport.from_row(row) for row in rows]
    return Run(analysis.summarise(reports), reports, time.perf_counter() - started, 0.0)


def run_on_mesh(sources: list[Source], open_mesh: Callable[[], Mesh]) -> Run:
    """One task per file, and the reports in whatever order they are ready."""
    started = time.perf_counter()
    with open_mesh():
        startup_seconds = time.perf_counter() - started
        futures = [analyse.submit(source.path, source.text) for source in sources]
        finished = (future.result() for future in as_completed(futures))
        reports = [FileReport.from_row(row) for row in _tracked("On the mesh", finished, len(futures))]
        seconds = time.perf_counter() - started
    return Run(analysis.summarise(reports), reports, seconds, startup_seconds)


class _Rate(ProgressColumn):
    """Files per second, over the whole run so far."""

    def render(self, task: Task) -> Text:
        seconds = task.finished_time if task.finished else task.elapsed
        return Text(f"{task.completed / seconds:,.0f} tasks/s" if seconds else "", style="cyan")


def _tracked(title: str, rows: Iterable[Row], total: int) -> Iterator[Row]:
    """Pass the rows on, under a progress bar if somebody is looking."""
    columns = (
        TextColumn("{task.description:<15}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        _Rate(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task(title, total=total)
        for row in rows:
            progress.advance(bar)
            yield row


def show_functions(title: str, functions: list[FunctionReport]) -> None:
    table = _table(title, "function", "file", "lines", "complexity", left=2)
    for one in functions:
        place = f"{one.path}:{one.first_line}"
        table.add_row(Text(one.name), Text(place), f"{one.lines:,}", f"{one.complexity:,}")
    console.print(table)


def show_imports(census: Census, count: int) -> None:
    table = _table("Most imported modules", "module", "files that import it", "share of all files")
    for module, files in sorted(census.importers.items(), key=lambda item: (-item[1], item[0]))[:count]:
        table.add_row(Text(module), f"{files:,}", f"{files / census.files:.0%}")
    console.print(table)


def show_totals(census: Census) -> None:
    table = _table("Totals", "", "")
    table.show_header = False
    table.add_row("files", f"{census.files:,}")
    table.add_row("bytes", f"{census.bytes:,}")
    table.add_row("lines", f"{census.lines:,}")
    table.add_row("classes", f"{census.classes:,}")
    table.add_row("functions and methods", f"{len(census.functions):,}")
    table.add_row("mean cyclomatic complexity of these", f"{census.mean_complexity:.2f}")
    table.add_row("modules, public classes and functions", f"{census.documentable:,}")
    table.add_row("of these with a docstring", f"{census.docstring_coverage:.1%}")
    table.add_row("files that do not parse", f"{len(census.failures):,}")
    console.print(table)


def show_failures(failures: tuple[FileReport, ...]) -> None:
    table = _table("Files that do not parse", "file", "reason", left=2)
    for report in failures:
        table.add_row(Text(report.path), Text(report.error or ""))
    console.print(table)


def show_speed(mesh: Run, baseline: Run | None, hub: str | None) -> None:
    table = _table("Speed", "run", "seconds", "of these start-up", "tasks/s", "speed-up")
    if baseline is not None:
        table.add_row("in this process", f"{baseline.seconds:.2f}", "", f"{baseline.rate:,.0f}", "1.00")
    speed_up = f"{baseline.seconds / mesh.seconds:.2f}" if baseline else "not measured"
    where = f"on the mesh at {hub}" if hub else "on a private mesh"
    table.add_row(where, f"{mesh.seconds:.2f}", f"{mesh.startup_seconds:.2f}", f"{mesh.rate:,.0f}", speed_up)
    console.print(table)
    cores = usable_cores()
    limit = "" if hub else f", so expect no speed-up above {cores}"
    console.print(f"This process may use {cores} of this machine's {os.cpu_count()} cores{limit}.")
    if baseline is not None:
        same = baseline.census == mesh.census
        console.print("Both runs found the same." if same else "[red]The two runs found different things.[/]")


def _table(title: str, *headings: str, left: int = 1) -> Table:
    """A table whose first `left` columns hold text and the others numbers."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for column, heading in enumerate(headings):
        table.add_column(heading, justify="left" if column < left else "right", overflow="fold")
    return table


def usable_cores() -> int:
    """The cores this process may run on, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def save(path: Path, mesh: Run, baseline: Run | None) -> None:
    """Write every file's report, and both timings, as JSON."""
    content = {
        "python": platform.python_version(),
        "cores": usable_cores(),
        "mesh_seconds": mesh.seconds,
        "baseline_seconds": baseline.seconds if baseline else None,
        "files": [
            {**dataclasses.asdict(report), "functions": [one._asdict() for one in report.functions]}
            for report in sorted(mesh.reports, key=lambda report: report.path)
        ],
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    console.print(f"Every file's report is in {path}.")


Workers = Annotated[int | None, Option(min=1, help="Runners of the private mesh; else one per core.")]
Hub = Annotated[str | None, Option(help="Join this hub, e.g. tcp://127.0.0.1:5555; else a private mesh.")]
Top = Annotated[int, Option(min=1, help="Rows in each table.")]
WithTests = Annotated[
    bool, Option("--with-tests", help="Count the library's own tests too; some do not parse, on purpose.")
]
NoBaseline = Annotated[bool, Option("--no-baseline", help="Leave out the run in this process.")]
JsonFile = Annotated[Path | None, Option("--json", dir_okay=False, help="Also write every file's report to this file.")]


def main(
    workers: Workers = None,
    hub: Hub = None,
    top: Top = 10,
    with_tests: WithTests = False,
    no_baseline: NoBaseline = False,
    json_file: JsonFile = None,
) -> None:
    """Take a census of this Python's standard library: every file is a task on a mesh."""
    if hub is not None and workers is not None:
        raise typer.BadParameter("it is for a private mesh; a hub has its own workers", param_hint="--workers")
    if json_file is not None and not json_file.absolute().parent.is_dir():
        raise typer.BadParameter(f"there is no folder {json_file.absolute().parent}", param_hint="--json")
    cloudpickle.register_pickle_by_value(analysis)  # so that workers need not have analysis.py
    root = Path(sysconfig.get_path("stdlib"))
    sources = read_library(root, with_tests)
    size = sum(len(source.text) for source in sources)
    what = "with its tests" if with_tests else "without its tests"
    console.print(f"Python {platform.python_version()}: {len(sources):,} files, {size / 1e6:.1f} MB of source, {what}")
    baseline = None if no_baseline else run_here(sources)
    try:
        mesh = run_on_mesh(sources, lambda: Mesh(hub) if hub else Mesh(workers=workers))
    except TaskmeshError as error:
        Console(stderr=True, highlight=False).print(f"[red]{type(error).__name__}:[/] {escape(str(error))}")
        raise typer.Exit(1) from None
    console.print()
    show_functions("Longest functions", mesh.census.longest(top))
    show_functions("Most complex functions", mesh.census.most_complex(top))
    show_imports(mesh.census, top)
    show_totals(mesh.census)
    if mesh.census.failures:
        show_failures(mesh.census.failures)
    show_speed(mesh, baseline, hub)
    if json_file is not None:
        save(json_file, mesh, baseline)


if __name__ == "__main__":
    typer.run(main)
