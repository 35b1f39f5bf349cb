"""W8: what a killed worker process costs: 2,000 sleeps of 5 ms, and a SIGKILL after the first second.

Every start of a task is written to a file, so that tasks that ran twice are counted by what happened and not by what
anybody says. The same amount runs undisturbed first, on the same pool: the delay is the difference.
"""

import contextlib
import os
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import tasks
from benchmarks.peers.base import Peer
from benchmarks.workloads.base import Metric, Outcome, Setting, Workload, running

COUNT = 2_000
TASK_S = 0.005
KILLED_AFTER_SHARE = 0.2
"""Of the ideal time: one second of the five that two workers need."""
STUCK_AFTER_S = 5.0
"""A result that does not come for so long, while it is the only one waited for, counts as lost."""
GIVEN_UP_AFTER_S = 60.0


class Gathering:
    """Collects results one by one; what hangs is left to hang, in a thread of its own.

    Peers that lose a task differ: some fail its handle, some never answer it. So one thread asks for result after
    result, and when it does not get on, another goes on behind it.

    Attributes
    ----------
    results
        How many came. Errors are none: the tasks raise nothing.
    last_at
        When the last one came, by `time.perf_counter`.
    """

    def __init__(self, peer: Peer[Any], handles: Sequence[Any]) -> None:
        self._peer = peer
        self._handles = handles
        self._next = 0
        self._answered = 0
        self._lock = threading.Lock()
        self.results = 0
        self.last_at = time.perf_counter()

    def run(self) -> None:
        """Return when every handle has answered, or those that have not will not."""
        deadline = time.perf_counter() + GIVEN_UP_AFTER_S
        stuck: list[threading.Thread] = []
        while self._next < len(self._handles) and time.perf_counter() < deadline:
            thread = threading.Thread(target=self._ask, daemon=True)
            thread.start()
            self._until_stuck(thread, deadline)
            stuck.append(thread)
        for thread in stuck:
            thread.join(0.1)

    def _until_stuck(self, thread: threading.Thread, deadline: float) -> None:
        before, since = self._answered, time.perf_counter()
        while thread.is_alive() and (now := time.perf_counter()) < deadline:
            thread.join(0.05)
            if self._answered != before:
                before, since = self._answered, now
            elif now - since > STUCK_AFTER_S:
                return

    def _ask(self) -> None:
        while True:
            with self._lock:
                if self._next >= len(self._handles):
                    return
                handle = self._handles[self._next]
                self._next += 1
            came = False
            with contextlib.suppress(Exception, SystemExit):
                self._peer.result(handle)
                came = True
            with self._lock:
                self._answered += 1
                if came:
                    self.results += 1
                    self.last_at = time.perf_counter()


def measure(setting: Setting) -> Outcome:
    """The same sleeps twice: undisturbed, then with a kill."""
    killed_after_s = KILLED_AFTER_SHARE * setting.amount * TASK_S / setting.workers
    with running(setting) as peer, tempfile.TemporaryDirectory(prefix="w8-") as folder:
        calm, storm = Path(folder, "calm"), Path(folder, "storm")
        calm_s, _ = play(peer, setting.amount, calm, None)
        victim = int(calm.read_text().split()[-1])  # the process of the last task
        storm_s, results = play(peer, setting.amount, storm, (victim, killed_after_s))
        starts = Counter(storm.read_text().split()[::2])
    return Outcome(
        {
            "results": float(results),
            "delay_s": storm_s - calm_s,
            "twice": float(sum(starts.values()) - len(starts)),
            "calm_s": calm_s,
        }
    )


def play(peer: Peer[Any], amount: int, record: Path, kill: tuple[int, float] | None) -> tuple[float, int]:
    """Run the tasks, and kill a process a while after the first submit. Seconds to the last result; results."""
    began = time.perf_counter()
    handles = [peer.submit(tasks.recorded_sleep, str(record), number, TASK_S) for number in range(amount)]
    if kill is not None:
        pid, after_s = kill
        threading.Timer(max(0.0, began + after_s - time.perf_counter()), os.kill, (pid, signal.SIGKILL)).start()
    gathering = Gathering(peer, handles)
    gathering.run()
    return gathering.last_at - began, gathering.results


W8 = Workload(
    name="W8",
    title="2,000 sleeps of 5 ms, one worker process killed after 1 s",
    metrics=(
        Metric("results", "results", higher_is_better=True),
        Metric("delay_s", "delay s", higher_is_better=False, decimals=3),
        Metric("twice", "run twice", higher_is_better=False),
        Metric("calm_s", "undisturbed s", higher_is_better=False, decimals=3, shown=False),
    ),
    measure=measure,
    amount=COUNT,
    remark=lambda _workers, _scale: (
        "Delay: last result with the kill against last result without. Where results are missing, it means little. "
        f"A result that hangs for {STUCK_AFTER_S:g} s while it is waited for is missing."
    ),
)
