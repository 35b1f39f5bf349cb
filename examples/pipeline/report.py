"""How the pipeline tells what it does: a bar per stage, then who ran what, then when each stage ran."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from flow import Record
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

BLOCKS = " ▁▂▃▄▅▆▇█"
TIMELINE_WIDTH = 40

console = Console(highlight=False)
if not console.is_terminal:
    console.width = 100


@contextmanager
def stage_bars(tasks_by_stage: Mapping[str, int]) -> Iterator[Callable[[str], None]]:
    """One bar per stage while the flow runs; yields the function that moves a stage's bar by one."""
    columns = (TextColumn("{task.description:<9}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bars = {stage: progress.add_task(stage, total=tasks) for stage, tasks in tasks_by_stage.items()}
        yield lambda stage: progress.advance(bars[stage])


def show_words(total: Mapping[str, int], letters: int, count: int) -> None:
    """The most frequent long words."""
    long_words = Counter({word: times for word, times in total.items() if len(word) >= letters})
    table = _table("Most frequent words", "word", "times")
    for word, times in long_words.most_common(count):
        table.add_row(word, f"{times:,}")
    console.print(table)
    console.print(f"{sum(total.values()):,} words, {len(total):,} different ones\n")


def show_places(records: Sequence[Record], stages: Sequence[str]) -> None:
    """Which process on which host ran how many tasks of each stage.

    The runners of one worker have the same parent process, so workers that share a host can be told apart.
    """
    by_place: dict[tuple[str, int, int], list[Record]] = defaultdict(list)
    for record in records:
        by_place[record.host, record.parent_pid, record.pid].append(record)
    workers = {worker: str(n) for n, worker in enumerate(sorted({place[:2] for place in by_place}), start=1)}
    table = _table("Who ran what", "host", "worker", "process", *stages, "busy for")
    for place in sorted(by_place):
        host, _, pid = place
        counts = Counter(record.stage for record in by_place[place])
        busy_s = sum(record.seconds for record in by_place[place])
        shares = (f"{counts[stage]:,}" for stage in stages)
        table.add_row(Text(host), workers[place[:2]], str(pid), *shares, f"{busy_s:.2f} s")
    console.print(table)


def show_timeline(records: Sequence[Record], stages: Sequence[str]) -> None:
    """When each stage was at work: a column's height is how many of its tasks ran then, on average.

    A task is drawn from as long before its arrival as it ran for. So only durations are taken from the
    workers' clocks, and machines whose clocks disagree do no harm.
    """
    if not records:
        return
    end = max(record.arrived_s for record in records)
    width = end / TIMELINE_WIDTH
    title = f"When (each column is {width * 1000:.0f} ms)"
    table = _table(title, "stage", "running", "first done", "last done")
    for stage in stages:
        own = [record for record in records if record.stage == stage]
        if own:
            arrivals = [record.arrived_s for record in own]
            table.add_row(stage, _skyline(own, width), f"{min(arrivals):.2f} s", f"{max(arrivals):.2f} s")
    console.print(table)


def _skyline(records: Sequence[Record], width: float) -> str:
    """How busy the tasks of one stage kept the mesh in each column, against that stage's busiest column."""
    load = [0.0] * TIMELINE_WIDTH
    for record in records:
        start = max(record.arrived_s - record.seconds, 0.0)
        for column in range(int(start / width), min(int(record.arrived_s / width) + 1, TIMELINE_WIDTH)):
            overlap = min(record.arrived_s, (column + 1) * width) - max(start, column * width)
            load[column] += max(overlap, 0.0)
    top = max(load) or 1.0
    return "".join(BLOCKS[-(-int(share / top * 1000) * 8 // 1000)] for share in load)


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, min_width=24)
    for heading in headings:
        is_text = heading in ("word", "host", "stage", "running")
        table.add_column(heading, justify="left" if is_text else "right")
    return table
