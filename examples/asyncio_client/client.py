"""A mesh under an event loop: which Mersenne numbers are prime, asked in five ways, none of which blocks.

The work is the Lucas-Lehmer test of 2**p - 1, which takes milliseconds or seconds depending on p, and would
stop an event loop for as long. A ticker goes on, every 10 ms, while the answers are awaited; at the end one
test is run on the loop itself, and the ticker shows what that costs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, NamedTuple

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from typer import Option

from taskmesh import Mesh, task
from taskmesh.errors import TaskmeshError

TICK_S = 0.01
EXPONENTS = (9689, 2203, 4099, 3217, 9949, 4423, 11213, 7919, 2281, 10007, 4253, 9941)
"""Primes p; for eight of them 2**p - 1 is prime too (R. M. Robinson 1952 to D. B. Gillies 1963)."""
LONG_EXPONENT = 21701

console = Console(highlight=False)
if not console.is_terminal:
    console.width = 100


@task(name="asyncio_client.lucas_lehmer")
def lucas_lehmer(p: int) -> tuple[int, bool]:
    """Whether 2**p - 1 is prime, for an odd prime p (D. H. Lehmer, 1930)."""
    mersenne = (1 << p) - 1
    s = 4
    for _ in range(p - 2):
        s = s * s - 2
        s = (s & mersenne) + (s >> p)  # the remainder by 2**p - 1, or that and once 2**p - 1
        if s >= mersenne:
            s -= mersenne
    return p, s == 0


class Step(NamedTuple):
    """What the ticker saw during one step; `ticks_on_time` is how many there would be if none were late."""

    title: str
    seconds: float
    ticks: int
    ticks_on_time: int
    worst_lateness_s: float


class Ticker:
    """Ticks every 10 ms in the event loop, and turns the spinner: a blocked loop is one that you can see."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._line = progress.add_task("", total=None)
        self._ticks = 0
        self._worst_lateness_s = 0.0

    async def run(self) -> None:
        """Tick until cancelled."""
        while True:
            due = time.perf_counter() + TICK_S
            await asyncio.sleep(TICK_S)
            self._worst_lateness_s = max(self._worst_lateness_s, time.perf_counter() - due)
            self._ticks += 1
            if self._ticks % 8 == 0:
                self._progress.refresh()

    async def watch(self, title: str, step: Callable[[], Awaitable[str]]) -> Step:
        """Run one step of the programme and report how the ticker fared meanwhile."""
        self._progress.update(self._line, description=title)
        await asyncio.sleep(2 * TICK_S)  # let the screen catch up
        self._ticks, self._worst_lateness_s = 0, 0.0
        started = time.perf_counter()
        outcome = await step()
        seconds = time.perf_counter() - started
        await asyncio.sleep(2 * TICK_S)  # a tick that the step held up is counted with it
        on_time = round((time.perf_counter() - started) / TICK_S)
        self._progress.console.print(f"[bold]{escape(title)}[/]\n  {escape(outcome)}")
        return Step(title, seconds, self._ticks, on_time, self._worst_lateness_s)


async def await_one() -> str:
    """A future of the mesh can be awaited as it is."""
    return say(await lucas_lehmer.submit(4423))


async def gather_all() -> str:
    """Many at once; the results come in the order of the futures."""
    verdicts = await asyncio.gather(*(lucas_lehmer.submit(p) for p in EXPONENTS))
    primes = [p for p, is_prime in verdicts if is_prime]
    return f"{len(primes)} of {len(verdicts)} are prime: {', '.join(f'2**{p} - 1' for p in primes)}"


async def as_they_finish() -> str:
    """Many at once; each result as soon as there is one, so small exponents overtake large ones."""
    order = []
    for earliest in asyncio.as_completed([lucas_lehmer.submit(p) for p in EXPONENTS]):
        p, _ = await earliest
        order.append(p)
    return f"submitted {', '.join(map(str, EXPONENTS))}\n  finished  {', '.join(map(str, order))}"


async def in_an_executor(mesh: Mesh) -> str:
    """A mesh is an executor, so whatever takes an executor takes a mesh."""
    return say(await asyncio.get_running_loop().run_in_executor(mesh, lucas_lehmer, 9689))


async def with_a_timeout(seconds: float) -> str:
    """Giving up after a while. The timeout cancels the awaiting, and so the future."""
    future = lucas_lehmer.submit(LONG_EXPONENT)
    try:
        async with asyncio.timeout(seconds):
            return f"{say(await future)} (within {seconds} s)"
    except TimeoutError:
        state = "cancelled" if future.cancelled() else "still running"
        return f"2**{LONG_EXPONENT} - 1: no answer within {seconds} s; the future is {state}"


async def on_the_loop() -> str:
    """What not to do: the same function, called in the event loop."""
    return say(lucas_lehmer(11213))


def say(verdict: tuple[int, bool]) -> str:
    """A verdict as text."""
    p, is_prime = verdict
    return f"2**{p} - 1 is {'prime' if is_prime else 'composite'}"


async def programme(mesh: Mesh, timeout: float) -> list[Step]:
    """Every step, one after the other, with the ticker running beside them."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    silent = not console.is_terminal
    with Progress(*columns, console=console, auto_refresh=False, transient=True, disable=silent) as progress:
        ticker = Ticker(progress)
        ticking = asyncio.create_task(ticker.run())
        steps = [
            await ticker.watch("await future", await_one),
            await ticker.watch("asyncio.gather(*futures)", gather_all),
            await ticker.watch("asyncio.as_completed(futures)", as_they_finish),
            await ticker.watch("loop.run_in_executor(mesh, fn, p)", lambda: in_an_executor(mesh)),
            await ticker.watch(f"asyncio.timeout({timeout})", lambda: with_a_timeout(timeout)),
            await ticker.watch("for contrast: on the loop itself", on_the_loop),
        ]
        ticking.cancel()
    return steps


def show_steps(steps: list[Step]) -> None:
    """How long each step took, how many ticks there were and would have been, and by how much the worst was late."""
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("step", "seconds", "ticks", "if on time", "late by"):
        table.add_column(heading, justify="left" if heading == "step" else "right")
    for step in steps:
        late = f"{step.worst_lateness_s * 1000:.1f} ms"
        table.add_row(step.title, f"{step.seconds:.2f}", str(step.ticks), str(step.ticks_on_time), late)
    console.print(table)


Workers = Annotated[int | None, Option(min=1, help="Runners of the private mesh; else one per core.")]
Hub = Annotated[str | None, Option(help="Join this hub, e.g. tcp://127.0.0.1:5555; else a private mesh.")]
Timeout = Annotated[float, Option(min=0.01, help="Seconds to wait for the long test before giving up.")]


def main(workers: Workers = None, hub: Hub = None, timeout: Timeout = 0.5) -> None:
    """Use a mesh from asyncio, in five ways, while a ticker shows that the event loop is never blocked."""
    if hub is not None and workers is not None:
        raise typer.BadParameter("it is for a private mesh; a hub has its own workers", param_hint="--workers")
    try:
        with Mesh(hub) if hub else Mesh(workers=workers) as mesh:
            steps = asyncio.run(programme(mesh, timeout))
    except TaskmeshError as error:
        Console(stderr=True, highlight=False).print(f"[red]{type(error).__name__}:[/] {escape(str(error))}")
        raise typer.Exit(1) from None
    show_steps(steps)


if __name__ == "__main__":
    typer.run(main)
