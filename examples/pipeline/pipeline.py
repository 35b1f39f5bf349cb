"""Which words do the docstrings of Python's standard library use most? Four stages, on many machines.

    files ─▶ extract ─▶ tokenise ─▶ count ─┐
    files ─▶ extract ─▶ tokenise ─▶ count ─┼─▶ merge ─┐
    files ─▶ extract ─▶ tokenise ─▶ count ─┘          ├─▶ merge ─▶ the answer
    …                                      …  merge ──┘

No stage waits for the one before it as a whole: each task is submitted at the moment when its own inputs are
there (flow.py). Every result says where it was computed; the report (report.py) shows who ran what, and when.
"""

from __future__ import annotations

import ast
import os
import re
import sysconfig
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from flow import Flow, Place, Result
from report import console, show_places, show_timeline, show_words, stage_bars
from rich.console import Console
from rich.markup import escape
from typer import Option

from taskmesh import Mesh, current_task, task
from taskmesh.errors import TaskmeshError

FAN_IN = 4
"""How many counts one merge takes."""

TEXT_SUFFIXES = (".py", ".txt", ".md", ".rst")
SKIPPED_FOLDERS = {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test"}

Files = list[tuple[str, bytes]]
"""File names with their contents, which travel with the task: no worker needs to see this machine's disk."""


@task(name="pipeline.extract")
def extract(files: Files) -> Result[str]:
    """Stage 1: the prose in some files: the docstrings of a Python file, and all of any other."""
    started = time.perf_counter()
    texts = (_docstrings(data) if name.endswith(".py") else data.decode(errors="replace") for name, data in files)
    return "\n".join(texts), here(started)


@task(name="pipeline.tokenise", priority=1)
def tokenise(prose: str) -> Result[list[str]]:
    """Stage 2: its words, in lower case."""
    started = time.perf_counter()
    return re.findall(r"[a-z]+(?:'[a-z]+)?", prose.lower()), here(started)


@task(name="pipeline.count", priority=2)
def count(words: list[str]) -> Result[dict[str, int]]:
    """Stage 3: how often each occurs."""
    started = time.perf_counter()
    return dict(Counter(words)), here(started)


@task(name="pipeline.merge", priority=3)
def merge(*counts: dict[str, int]) -> Result[dict[str, int]]:
    """Stage 4, a node of the tree: a few counts become one."""
    started = time.perf_counter()
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(total), here(started)


def here(started: float) -> Place:
    """Where the current task runs, and for how long it has: what the report is made of."""
    current = current_task()
    host = current.host if current else "not on a mesh"
    return host, os.getppid(), os.getpid(), time.perf_counter() - started


def _docstrings(source: bytes) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    documented = ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef
    found = (ast.get_docstring(node, clean=False) for node in ast.walk(tree) if isinstance(node, documented))
    return "\n".join(text for text in found if text)


class WordCount:
    """The plan of the pipeline: what each result sets going. Runs in the client; the flow calls it back.

    Only `ahead` batches are under way at a time, so this process never holds all the files in memory. Later
    stages have a higher priority: what is nearest to its end goes first, before new batches are begun.
    """

    def __init__(self, flow: Flow, batches: list[Batch], ahead: int) -> None:
        self._flow = flow
        self._batches = iter(batches)
        self._loose: list[dict[str, int]] = []  # counts that no merge has taken yet
        self._expected = len(batches)  # counts and merges that are still to come
        self.total: dict[str, int] = {}
        for _ in range(ahead):
            self._start_batch()

    def _start_batch(self) -> None:
        if batch := next(self._batches, None):
            self._flow.start(extract, batch.read(), then=self._extracted)

    def _extracted(self, prose: str) -> None:
        self._flow.start(tokenise, prose, then=self._tokenised)

    def _tokenised(self, words: list[str]) -> None:
        self._flow.start(count, words, then=self._counted)

    def _counted(self, counts: dict[str, int]) -> None:
        self._start_batch()
        self._merge_when_ready(counts)

    def _merge_when_ready(self, counts: dict[str, int]) -> None:
        self._expected -= 1
        self._loose.append(counts)
        if len(self._loose) >= FAN_IN or (self._expected == 0 and len(self._loose) > 1):
            ready, self._loose = self._loose[:FAN_IN], self._loose[FAN_IN:]
            self._expected += 1
            self._flow.start(merge, *ready, then=self._merge_when_ready)
        elif self._expected == 0:
            self.total = self._loose.pop()


class Batch(NamedTuple):
    """Some text files below `root`, to be read when their turn comes."""

    root: Path
    paths: list[Path]

    def read(self) -> Files:
        """The files' names and contents."""
        return [(path.relative_to(self.root).as_posix(), path.read_bytes()) for path in self.paths]


def find_batches(root: Path, batch_bytes: int) -> Iterator[Batch]:
    """Group the text files below `root` into batches of at least `batch_bytes` (the last may be smaller)."""
    paths: list[Path] = []
    size = 0
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if name not in SKIPPED_FOLDERS)
        for path in (Path(folder, name) for name in sorted(names) if name.endswith(TEXT_SUFFIXES)):
            paths.append(path)
            size += path.stat().st_size
            if size >= batch_bytes:
                yield Batch(root, paths)
                paths, size = [], 0
    if paths:
        yield Batch(root, paths)


Texts = Annotated[
    Path | None,
    Option(exists=True, file_okay=False, help="Count the words in this folder instead of the standard library."),
]
Hub = Annotated[
    str | None,
    Option(envvar="TASKMESH_HUB", help="Join this hub, e.g. tcp://127.0.0.1:5555; else a private mesh."),
]
BatchKb = Annotated[int, Option(min=1, help="About how many kilobytes of text one first-stage task gets.")]
Ahead = Annotated[int, Option(min=1, help="Batches under way at a time; good: twice the runners.")]
Rounds = Annotated[int, Option(min=1, help="Read the files so many times: time to start and stop workers.")]
Letters = Annotated[int, Option(min=1, help="Show only words of at least so many letters.")]
Top = Annotated[int, Option(min=1, help="Show so many words.")]


def main(
    hub: Hub = None,
    texts: Texts = None,
    batch_kb: BatchKb = 64,
    ahead: Ahead = 16,
    rounds: Rounds = 1,
    letters: Letters = 6,
    top: Top = 12,
) -> None:
    """Count the words in docstrings (*.py) and texts (*.txt, *.md, *.rst) in four overlapping stages."""
    root = texts or Path(sysconfig.get_path("stdlib"))
    batches = list(find_batches(root, batch_kb * 1000)) * rounds
    if not batches:
        raise typer.BadParameter(f"no {', '.join(TEXT_SUFFIXES)} files below {root}", param_hint="--texts")
    files = sum(len(batch.paths) for batch in batches)
    console.print(f"{files:,} files in {len(batches):,} batches")
    tasks_by_stage = dict.fromkeys(("extract", "tokenise", "count"), len(batches))
    tasks_by_stage["merge"] = -(-(len(batches) - 1) // (FAN_IN - 1))
    try:
        with Mesh(hub) if hub else Mesh(), stage_bars(tasks_by_stage) as advance:
            flow = Flow(on_result=advance, on_silence=hint_at_workers)
            plan = WordCount(flow, batches, ahead)
            flow.run()
    except TaskmeshError as error:
        Console(stderr=True, highlight=False).print(f"[red]{type(error).__name__}:[/] {escape(str(error))}")
        raise typer.Exit(1) from None
    show_words(plan.total, letters, top)
    show_places(flow.records, list(tasks_by_stage))
    show_timeline(flow.records, list(tasks_by_stage))


def hint_at_workers() -> None:
    """Nothing came back for a while: say what may be missing."""
    console.print("No result for 5 seconds. Does the hub have a worker? `taskmesh status` tells.")


if __name__ == "__main__":
    typer.run(main)
