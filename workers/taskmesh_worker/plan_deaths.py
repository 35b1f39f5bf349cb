"""Deaths: what becomes of what a runner had when it ended, and what is blamed for that. Part of the plan, and as pure.

- The claim names what ran. If that was one task, it is suspected: a strike, which goes to the hub. If it was a block of
  very short ones, they run again one at a time, so that the next death names one.
- A task that we ended the runner for gets its outcome here; no strike, for we have killed it.
- Everything else is queued again here, first. What had been claimed may have started, so that is another attempt.
- At most once: whatever may have started is never run again, but lost.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import msgpack

from taskmesh.core import messages as m
from taskmesh.core.limits import ATTEMPTS
from taskmesh.wire.pipe import Reason

from . import plan_recall
from .plan_events import RunnerGone
from .plan_state import Handed, Piece, Runner

if TYPE_CHECKING:
    from .plan import Plan

KINDS = {Reason.TIMEOUT: "timeout", Reason.MEMORY: "memory"}
"""What an outcome says that a task was lost to: see `Form.LOST` in the protocol."""


class Fate(StrEnum):
    """What a runner's end means for a task that it had been handed."""

    BEFORE = "before"  # it had ended, or so its claim says, and was not reported
    SUSPECT = "suspect"  # it ran when the runner died
    STOPPED = "stopped"  # it ran when we ended the runner for another reason
    DOOMED = "doomed"  # it is why we did
    AFTER = "after"  # it had not started


def on_gone(plan: Plan, event: RunnerGone, now: float) -> None:
    """A runner's process ended: each task that it had goes back, runs again, or is blamed."""
    runner = plan.runners.pop(event.runner, None)
    if runner is None:
        return
    plan.replace(runner, now)
    again: list[Piece] = []
    for handed in runner.handed:
        for start, end, fate in fates(runner, handed, event.claimed):
            lo, hi = handed.lo + start - handed.at, handed.lo + end - handed.at
            if fate is Fate.AFTER:
                again += plan_recall.spared(plan, runner, handed, lo, hi)
            else:
                again += _after_death(plan, runner, handed.piece._replace(lo=lo, hi=hi), fate, event.report)
    plan_recall.put_back(plan, again)


def _after_death(plan: Plan, runner: Runner, piece: Piece, fate: Fate, report: bytes) -> list[Piece]:
    """What to run again of a piece that a runner had claimed when it ended."""
    work, lo, hi = piece.work, piece.lo, piece.hi
    once = work.at_most_once or (fate is Fate.SUSPECT and hi == lo + 1)
    if work.wanted and (fate is Fate.DOOMED or once):
        if fate is Fate.DOOMED:
            plan.finish(work, lo, hi, *last_word(runner, report), 0.0)
        else:
            for offset in range(lo, hi):
                plan.report(m.Strike(work.dispatch.fence, offset, offset + 1, report))
        plan.account(work, hi - lo)
        return []
    blamed = fate is Fate.SUSPECT or (fate is Fate.STOPPED and runner.doom is not None)
    return [piece._replace(attempt=min(piece.attempt + 1, ATTEMPTS), solo=piece.solo or blamed)]


def fates(runner: Runner, handed: Handed, claimed: tuple[int, int]) -> list[tuple[int, int, Fate]]:
    """A runner is gone: what that means for positions `[start, end)` of what it had been handed, in order.

    Parameters
    ----------
    claimed
        The positions `[lo, hi)` that it claimed last.
    """
    lo, hi = claimed
    ran = Fate.STOPPED if runner.ending else Fate.SUSPECT
    at = runner.doom.position if runner.doom is not None and lo <= runner.doom.position < hi else hi
    cuts = ((handed.at, lo, Fate.BEFORE), (lo, at, ran), (at, min(at + 1, hi), Fate.DOOMED), (at + 1, hi, ran))
    parts = [*cuts, (hi, handed.end, Fate.AFTER)]
    limited = [(max(handed.at, start), min(handed.end, end), fate) for start, end, fate in parts]
    return [part for part in limited if part[0] < part[1]]


def last_word(runner: Runner, report: bytes) -> tuple[int, bytes]:
    """Form and blob of the outcome of the task that a runner was ended for; `report` says how that one ended."""
    doom = runner.doom
    assert doom is not None
    if doom.reason is Reason.CANCELLED:
        return m.Form.CANCELLED, b""
    return m.Form.LOST, msgpack.packb({**msgpack.unpackb(report), "kind": KINDS[doom.reason], **doom.about})
