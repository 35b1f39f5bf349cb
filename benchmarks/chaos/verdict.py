"""What a run came to: what every task did, and which fault explains each execution beyond the first."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.chaos.faults import Happened

UNEXPLAINED = "unexplained"
AFTERMATH_NS = 2_000_000_000
"""A task can run again so long after the fault that was the reason, and counts as explained by it."""


class Execution(NamedTuple):
    """One line of the record: a task has run to its end."""

    task: int
    pid: int
    at_ns: int


class Verdict(NamedTuple):
    """All that is said about a run."""

    tasks: int
    took_s: float
    longest_s: float
    """Without any result."""
    missing: int
    repeated: int
    wrong: int
    errors: dict[str, int]
    unrecorded: int
    """Tasks that have a result, and yet never ran."""
    beyond: Counter[str]
    """Executions beyond one per task, by the kind of fault that explains them."""
    faults: Counter[str]
    surprises: list[str]
    left: list[str]
    """What had to be killed at the end because it did not stop."""

    @property
    def unexplained(self) -> int:
        """Executions beyond one per task that no fault is the reason of."""
        return self.beyond[UNEXPLAINED]

    @property
    def reasons(self) -> list[str]:
        """Why this run failed; empty if it did not."""
        found = [
            (self.missing, "futures never got a result"),
            (self.repeated, "futures were done more than once"),
            (self.wrong, "results were wrong"),
            (sum(self.errors.values()), f"futures failed: {next(iter(self.errors), '')}"),
            (self.unrecorded, "tasks have a result and never ran"),
            (self.unexplained, "executions beyond one per task have no fault to explain them"),
            (len(self.surprises), f"processes ended by themselves: {'; '.join(self.surprises)}"),
            (len(self.left), f"processes did not stop when asked: {', '.join(self.left)}"),
        ]
        return [f"{count} {what}" for count, what in found if count]

    @property
    def good(self) -> bool:
        """Whether every future got its right result, once, and everything else is explained."""
        return not self.reasons


def read(record: Path) -> list[Execution]:
    """The record; a line that was cut off by a kill cannot be, since each is one write."""
    if not record.exists():
        return []
    return [Execution(*map(int, line.split())) for line in record.read_text().splitlines()]


def judge(
    tasks: int, told: dict[str, Any], record: Path, happened: Sequence[Happened], surprises: list[str], left: list[str]
) -> Verdict:
    """Sum up. `told` is what the client said."""
    runs: defaultdict[int, list[Execution]] = defaultdict(list)
    for execution in read(record):
        runs[execution.task].append(execution)
    return Verdict(
        tasks=tasks,
        unrecorded=tasks - len(runs),
        beyond=explain(runs.values(), happened),
        faults=Counter(fault.kind for fault in happened),
        surprises=surprises,
        left=left,
        **told,
    )


def explain(runs: Any, happened: Sequence[Happened]) -> Counter[str]:
    """For each execution beyond a task's first, the kind of fault that hit the process of an earlier one, or the hub.

    A kill explains if it ended that very process; a freeze or a cut, if it held that process around that time. The
    hub's faults explain what ran before and again after them.
    """
    by_pid: defaultdict[int, list[Happened]] = defaultdict(list)
    hub: list[Happened] = []
    for fault in happened:
        for pid in fault.pids:
            by_pid[pid].append(fault)
        if fault.name == "hub":
            hub.append(fault)
    found: Counter[str] = Counter()
    for executions in runs:
        executions.sort(key=lambda execution: execution.at_ns)
        for earlier, later in pairwise(executions):
            found[reason(earlier, later, by_pid[earlier.pid] + by_pid[later.pid], hub)] += 1
    return found


def reason(earlier: Execution, later: Execution, own: Sequence[Happened], hub: Sequence[Happened]) -> str:
    """The kind of fault between two executions of one task, or `UNEXPLAINED`."""
    for fault in [*own, *hub]:
        if fault.at_ns - AFTERMATH_NS <= later.at_ns and earlier.at_ns <= fault.until_ns + AFTERMATH_NS:
            return fault.kind
    return UNEXPLAINED
