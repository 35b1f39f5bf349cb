"""What the plan is told, and what it wants done: its events and its actions."""

from __future__ import annotations

from typing import NamedTuple

from taskmesh.core import messages as m
from taskmesh.core.limits import RESULT
from taskmesh.wire.pipe import Dose, PipeOutcome, PipeStopped, Reason


class FromHub(NamedTuple):
    """A message from the hub."""

    message: m.LinkMessage


class RunnerReady(NamedTuple):
    """A runner has started and waits for work."""

    runner: int


class RunnerSaid(NamedTuple):
    """A runner reported an outcome, or that it dropped what the limit told it to."""

    runner: int
    what: PipeOutcome | PipeStopped


class RunnerGone(NamedTuple):
    """A runner's process ended. `claimed`: the positions `[lo, hi)` of its last claim; `report`: how it died."""

    runner: int
    claimed: tuple[int, int]
    report: bytes


class Claimed(NamedTuple):
    """The answer to `Peek`: the end of what the runner has claimed."""

    runner: int
    end: int


class Seen(NamedTuple):
    """The answer to `Look`: the positions `[lo, end)` claimed last; `ran_s`: since when, if that task has a timeout."""

    runner: int
    lo: int
    end: int
    ran_s: float


class Sampled(NamedTuple):
    """The answer to `Sample`: resident memory, and the positions `[lo, end)` that the runner had claimed."""

    runner: int
    bytes: int
    lo: int
    end: int


class Reset(NamedTuple):
    """A new link to a hub that knows nothing of this daemon. `again`: the daemon was registered before.

    `largest`: how many bytes that hub takes of outcomes that are reported together.
    """

    again: bool = True
    largest: int = RESULT


class Hold(NamedTuple):
    """The hub is silent: start nothing, and take back what has not started. Or, with False, it is heard again."""

    hold: bool


class Tick(NamedTuple):
    """Everything that could be read has been read: hand out work, and act on time."""


class Drain(NamedTuple):
    """Give back what has not started, finish the rest, then leave; end what still runs after `timeout_s` seconds."""

    timeout_s: float = float("inf")


Event = FromHub | RunnerReady | RunnerSaid | RunnerGone | Claimed | Seen | Sampled | Reset | Hold | Tick | Drain


class Start(NamedTuple):
    """Have the nursery fork a runner."""

    runner: int


class Hand(NamedTuple):
    """Give a dose to a runner, and raise its limit to `limit`."""

    runner: int
    dose: Dose
    limit: int


class GiveBody(NamedTuple):
    """Give a function to a runner; it forgets `drop` first."""

    runner: int
    digest: bytes
    data: bytes
    drop: bytes | None


class Lower(NamedTuple):
    """Lower a runner's limit."""

    runner: int
    limit: int


class Peek(NamedTuple):
    """Read a runner's claim and answer with `Claimed`."""

    runner: int


class Look(NamedTuple):
    """Read what a runner has claimed and since when, and answer with `Seen`."""

    runner: int


class Flush(NamedTuple):
    """Ask a runner to report what has ended, although a task runs, and to give up the rest of a block behind it."""

    runner: int


class Interrupt(NamedTuple):
    """Raise in the task at a position, if that is what the runner runs."""

    runner: int
    position: int
    reason: Reason


class Sample(NamedTuple):
    """Measure a runner's memory and answer with `Sampled`."""

    runner: int


class End(NamedTuple):
    """Let a runner that has no tasks end."""

    runner: int


class Kill(NamedTuple):
    """Kill a runner; its end comes as `RunnerGone`."""

    runner: int


Reported = m.Finished | m.Strike | m.GiveBack | m.Inventory | m.NeedBody | m.Slots | m.Leaving


class Report(NamedTuple):
    """Tell the hub. `Finished` entries of one round travel in one `Done`."""

    message: Reported


Action = Start | Hand | GiveBody | Lower | Peek | Look | Flush | Interrupt | Sample | End | Kill | Report
