"""Start each task when its inputs are there: a loop over results, in the order in which they arrive.

The client holds the plan; the mesh only ever sees tasks that can run at once. A future's callback does
nothing but put the future on a queue; the rest happens in the caller's thread, so the plan needs no locks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from taskmesh import Task

T = TypeVar("T")

Place = tuple[str, int, int, float]
"""Where a task ran and for how long: host, its process's parent and its process (as ids), seconds."""

Result = tuple[T, Place]
"""What every stage returns: its value, and where it came from."""

SILENCE_S = 5.0


@dataclass(frozen=True, slots=True)
class Record:
    """One finished task. `arrived_s` is in seconds since the flow began, by this machine's clock."""

    stage: str
    host: str
    parent_pid: int
    pid: int
    seconds: float
    arrived_s: float


class Flow:
    """Tasks under way, and what is to happen with each one's value.

    Parameters
    ----------
    on_result
        Called with the name of the stage after each result.
    on_silence
        Called once if nothing arrives for `SILENCE_S` seconds.
    """

    def __init__(self, on_result: Callable[[str], None], on_silence: Callable[[], None]) -> None:
        self._on_result = on_result
        self._on_silence: Callable[[], None] | None = on_silence
        self._under_way: dict[Future[Any], tuple[str, Callable[[Any], None]]] = {}
        self._arrivals: SimpleQueue[Future[Any]] = SimpleQueue()
        self._began = time.perf_counter()
        self.records: list[Record] = []

    def start(self, stage: Task[..., Result[T]], *args: object, then: Callable[[T], None]) -> None:
        """Submit a task; when it is done, `then` gets its value, and may start more."""
        future = stage.submit(*args)
        self._under_way[future] = (stage.function.__name__, then)
        future.add_done_callback(self._arrivals.put)

    def run(self) -> None:
        """Take results in until none is under way. Raises what a task raised."""
        while self._under_way:
            future = self._next()
            stage, then = self._under_way.pop(future)
            value, (host, parent_pid, pid, seconds) = future.result()
            arrived_s = time.perf_counter() - self._began
            self.records.append(Record(stage, host, parent_pid, pid, seconds, arrived_s))
            then(value)
            self._on_result(stage)

    def _next(self) -> Future[Any]:
        if self._on_silence is not None:
            try:
                return self._arrivals.get(timeout=SILENCE_S)
            except Empty:
                self._on_silence()
                self._on_silence = None
        return self._arrivals.get()
