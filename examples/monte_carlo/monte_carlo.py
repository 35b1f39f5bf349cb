"""Two Monte Carlo estimates that converge while you watch: pi, and the price of an Asian option.

Every task simulates one batch and returns six numbers. The script adds the batches up in the order in which
they arrive, draws the estimate with its confidence band, and stops when there are enough of them. The
mathematics is in models.py, the drawing in plot.py.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

import cloudpickle
import models
import typer
from models import AsianCall, Batch, Estimate, Sums
from plot import Point, draw
from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text
from typer import Option

from taskmesh import Mesh, as_completed, task
from taskmesh.errors import TaskmeshError

console = Console(highlight=False)
if not console.is_terminal:
    console.width = 100


class Model(StrEnum):
    """What to estimate."""

    PI = "pi"
    ASIAN = "asian"


@task(name="monte_carlo.pi")
def pi_batch(seed: str, samples: int) -> Batch:
    """A task: throw `samples` darts."""
    return models.simulate_pi(seed, samples)


@task(name="monte_carlo.asian")
def asian_batch(terms: tuple[float, ...], seed: str, samples: int) -> Batch:
    """A task: walk `samples` paths of the price; `terms` are those of an `AsianCall`, as a plain tuple."""
    spot, strike, rate, volatility, years, steps = terms
    return models.simulate_asian(AsianCall(spot, strike, rate, volatility, years, int(steps)), seed, samples)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to estimate, from how much, and how well it must be known before the rest is called off."""

    model: Model
    option: AsianCall
    samples: int
    batch: int
    seed: int
    confidence: float
    until: float

    def sizes(self) -> Iterator[int]:
        """The number of samples of each batch; the last may be smaller."""
        for start in range(0, self.samples, self.batch):
            yield min(self.batch, self.samples - start)

    def submit(self) -> list[Future[Batch]]:
        """Submit every batch. The seed of each is its number, so no two of them draw the same samples."""
        numbered = enumerate(self.sizes())
        if self.model is Model.PI:
            return [pi_batch.submit(f"{self.seed}/{number}", size) for number, size in numbered]
        terms = tuple(self.option)
        return [asian_batch.submit(terms, f"{self.seed}/{number}", size) for number, size in numbered]


@dataclass
class Run:
    """What has arrived so far. The main thread adds; the thread that refreshes the screen only reads."""

    plan: Plan
    batches: list[Batch] = field(default_factory=list)
    sums: Sums = field(default_factory=Sums)
    points: list[Point] = field(default_factory=list)

    def add(self, batch: Batch) -> Estimate:
        """Take one result in; returns the estimate from all results up to here."""
        self.batches.append(batch)
        self.sums = self.sums.plus(batch)
        estimate = self.sums.estimate(self.plan.confidence)
        if not self.points or self.sums.n - self.points[-1].x >= self.plan.samples / 1000:
            self.points.append(Point(self.sums.n, *estimate))
        return estimate

    def picture(self, height: int) -> Text:
        """The estimate and its band over the number of samples."""
        exact = math.pi if self.plan.model is Model.PI else None
        return draw(self.points, min(console.width, 100), height, self.plan.samples, exact)


def collect(run: Run, futures: list[Future[Batch]]) -> Iterator[Estimate]:
    """Yield the estimate after each result; once it is good enough, cancel the tasks that are left."""
    for future in as_completed(futures):
        estimate = run.add(future.result())
        yield estimate
        if estimate.margin <= run.plan.until and len(run.batches) > 1:
            for pending in futures:
                pending.cancel()
            return


def watch(run: Run, futures: list[Future[Batch]]) -> None:
    """On a terminal: redraw the picture eight times a second while results arrive."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    progress = Progress(*columns, console=console)
    bar = progress.add_task("no result yet", total=len(futures))
    height = max(min(console.height - 4, 22), 8)
    with Live(get_renderable=lambda: Group(run.picture(height), progress), console=console, refresh_per_second=8):
        for estimate in collect(run, futures):
            progress.update(bar, advance=1, description=say(estimate))


def log(run: Run, futures: list[Future[Batch]]) -> None:
    """In a pipe or a file: a line for each tenth of the results, and the picture once, at the end."""
    every = max(len(futures) // 10, 1)
    for number, estimate in enumerate(collect(run, futures), start=1):
        if number % every == 0:
            console.print(f"{run.sums.n:>14,} samples: {say(estimate)}")
    console.print(run.picture(22))


def say(estimate: Estimate) -> str:
    """An estimate as text."""
    return f"{estimate.mean:.5f} ± {estimate.margin:.5f}"


def show_results(run: Run, seconds: float) -> None:
    """The estimates from all that arrived, and what they can be checked against."""
    plan, sums = run.plan, Sums.of(run.batches)
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("estimate", f"mean ± {plan.confidence:.0%} margin", "exact value"):
        table.add_column(heading, justify="left" if heading == "estimate" else "right")
    plain = sums.estimate(plan.confidence)
    if plan.model is Model.PI:
        table.add_row("pi", say(plain), _judged(math.pi, plain))
    else:
        exact = plan.option.price_of_geometric_average()
        table.add_row("price of the option", say(plain), "not known")
        controlled = sums.controlled_estimate(exact, plan.confidence)
        table.add_row("the same, with a control variate", say(controlled), "not known")
        control = sums.control_estimate(plan.confidence)
        table.add_row("check: on the geometric average", say(control), _judged(exact, control))
    console.print(table)
    tasks = len(run.batches)
    console.print(f"{sums.n:,} samples in {tasks:,} tasks and {seconds:.2f} s: {sums.n / seconds:,.0f} per second")


def _judged(exact: float, estimate: Estimate) -> str:
    inside = abs(exact - estimate.mean) <= estimate.margin
    return f"{exact:.5f}, {'inside' if inside else 'outside'} the interval"


Samples = Annotated[int | None, Option(min=2, help="How many in all; else 60 million darts or 500,000 paths.")]
BatchSize = Annotated[int | None, Option(min=1, help="How many in one task; else a 300th of all of them.")]
Until = Annotated[float, Option(min=0.0, help="Stop when the margin is this small; 0 runs every batch.")]
Confidence = Annotated[float, Option(min=0.5, max=0.9999, help="How often the interval is to hold the truth.")]
Seed = Annotated[int, Option(help="The same seed gives the same numbers on any number of workers.")]
Strike = Annotated[float, Option(min=0.01, help="Asian option: the strike price; the share starts at 100.")]
Volatility = Annotated[float, Option(min=0.001, help="Asian option: of the share, per year.")]
Workers = Annotated[int | None, Option(min=1, help="Runners of the private mesh; else one per core.")]
Hub = Annotated[str | None, Option(help="Join this hub, e.g. tcp://127.0.0.1:5555; else a private mesh.")]


def main(
    model: Annotated[Model, typer.Argument(help="What to estimate.")] = Model.ASIAN,
    samples: Samples = None,
    batch: BatchSize = None,
    until: Until = 0.0,
    confidence: Confidence = 0.95,
    seed: Seed = 1,
    strike: Strike = 100.0,
    volatility: Volatility = 0.2,
    workers: Workers = None,
    hub: Hub = None,
) -> None:
    """Estimate pi, or the price of an Asian option, and draw how the estimate converges."""
    if hub is not None and workers is not None:
        raise typer.BadParameter("it is for a private mesh; a hub has its own workers", param_hint="--workers")
    samples = samples or (60_000_000 if model is Model.PI else 500_000)
    option = AsianCall(strike=strike, volatility=volatility)
    plan = Plan(model, option, samples, batch or -(-samples // 300), seed, confidence, until)
    cloudpickle.register_pickle_by_value(models)  # so that workers need not have models.py
    run, started = Run(plan), time.perf_counter()
    try:
        with Mesh(hub) if hub else Mesh(workers=workers):
            (watch if console.is_terminal else log)(run, plan.submit())
            seconds = time.perf_counter() - started
    except TaskmeshError as error:
        Console(stderr=True, highlight=False).print(f"[red]{type(error).__name__}:[/] {escape(str(error))}")
        raise typer.Exit(1) from None
    show_results(run, seconds)


if __name__ == "__main__":
    typer.run(main)
