"""Limits: which runner is looked at, interrupted, ended or replaced, and when. Part of the plan, and as pure.

- A look reads a runner's claim. It is due when the task at the head of its doses may have reached its timeout, and,
  5 ms after the runner last spoke, when something behind the head may have ended and wait to be reported. Nobody looks
  at a runner that is idle, speaks, or runs the only task that it has.
- A task that has to end (timeout, cancelled) is interrupted, again and again until its runner speaks, and when its
  grace period is over its runner is killed. One that takes too much memory has no grace: what it takes, others lose.
- What becomes of the doomed task, and of what else its runner held, is decided in `plan_deaths` when that is gone.
- A runner that is being ended counts as busy until the nursery says that it is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from taskmesh.core import messages as m
from taskmesh.wire.pipe import Reason

from .plan_events import Action, End, Flush, Interrupt, Kill, Look, Sample, Sampled, Seen
from .plan_state import CLAIM_SETTLE_S, NEVER, Doom, Phase, Runner

EARLY_S = 0.005  # how long what has ended may wait behind a long task before it is asked for
LOOK_AGAIN_S = 1.0  # the longest pause between two looks at a runner that does not answer
GRACE_S = 2.0  # for a task to end after it was interrupted; as long as its timeout, when that is shorter,
LEAST_GRACE_S = 0.25  # but no shorter than this
SAMPLE_S = 0.15  # between two looks at a runner's memory
LEAVE_S = 1.0  # for a runner without tasks to end by itself


class RunnerLimits(NamedTuple):
    """What each runner of a daemon may take: bytes, tasks until it is replaced, bytes above which it is. 0: any."""

    memory: int = 0
    max_tasks: int = 0
    recycle_above: int = 0


class Limiter:
    """Watches runners for the plan.

    Parameters
    ----------
    limits
        For all runners.
    act
        Takes actions.
    recall
        Takes back what a runner has not started.
    """

    def __init__(
        self, limits: RunnerLimits, act: Callable[[Action], None], recall: Callable[[Runner, float], None]
    ) -> None:
        self._limits = limits
        self._act = act
        self._recall = recall

    # ---- what the plan says ---------------------------------------------------------------------------------

    def on_handed(self, runner: Runner, now: float) -> None:
        """A runner was handed a dose."""
        if runner.look_at == NEVER:
            self._arm(runner, now)
        if runner.sample_at == NEVER and self._has_memory_limit(runner):
            runner.sample_at = now + SAMPLE_S

    def on_outcome(self, runner: Runner, tasks: int, now: float) -> None:
        """A runner has reported `tasks` tasks."""
        runner.ran += tasks
        at = runner.handed[0].at if runner.handed else runner.next_at
        if runner.doom is not None and runner.doom.position < at and not runner.ending:
            runner.doom = None  # it has ended by itself
        runner.cancels = [(max(lo, at), hi) for lo, hi in runner.cancels if hi > at]
        runner.revoked = [(max(lo, at), hi) for lo, hi in runner.revoked if hi > at]
        self._arm(runner, now)
        if self._limits.max_tasks and runner.ran >= self._limits.max_tasks:
            self.retire(runner, now)

    def cancel(self, runner: Runner, start: int, end: int, now: float) -> None:
        """Tasks at positions `[start, end)` have started, and are to be interrupted."""
        runner.cancels.append((start, end))
        runner.look_at = now

    def retire(self, runner: Runner, now: float) -> None:
        """A runner gets nothing new, and is replaced when it is empty."""
        runner.retiring = True
        self._recall(runner, now)

    def kill(self, runner: Runner) -> None:
        """End a runner now; what it runs is not to blame, unless it is doomed."""
        if not runner.ending:
            runner.ending = True
            runner.look_at = runner.sample_at = NEVER
            self._act(Kill(runner.number))

    # ---- time -----------------------------------------------------------------------------------------------

    def deadline(self, runners: Collection[Runner]) -> float:
        """When `on_tick` is due."""
        deadline = NEVER
        for runner in runners:
            deadline = min(deadline, runner.look_at, runner.sample_at, runner.end_at)
            if runner.doom is not None and not runner.ending:
                deadline = min(deadline, runner.doom.again_at, runner.doom.kill_at)
        return deadline

    def on_tick(self, runners: Collection[Runner], now: float) -> None:
        """Do what is due."""
        for runner in runners:
            if now >= runner.look_at:
                runner.look_at = NEVER
                self._act(Look(runner.number))
            if now >= runner.sample_at:
                runner.sample_at = NEVER
                self._act(Sample(runner.number))
            if runner.retiring and not runner.handed and not runner.ending and runner.phase is Phase.READY:
                runner.ending = True
                runner.end_at = now + LEAVE_S
                self._act(End(runner.number))
            elif now >= runner.end_at:
                runner.end_at = NEVER
                self._act(Kill(runner.number))
            if runner.doom is not None and not runner.ending:
                self._press(runner, runner.doom, now)

    def _press(self, runner: Runner, doom: Doom, now: float) -> None:
        """The doomed task has not ended yet."""
        if now >= doom.kill_at:
            self.kill(runner)
        elif now >= doom.again_at:
            doom.again_at = now + doom.grace_s / 4
            self._act(Interrupt(runner.number, doom.position, doom.reason))

    # ---- what was seen --------------------------------------------------------------------------------------

    def on_seen(self, runner: Runner, seen: Seen, now: float) -> None:
        """A runner's claim: interrupt what runs, ask for what has ended, or look again when there may be more."""
        if runner.ending or not runner.handed:
            return
        head = runner.handed[0]
        running = max(seen.lo, head.at)
        if runner.doom is not None:
            if seen.end > running + 1:
                self._look_again(runner, now)  # an interrupt cuts a block as well
            return
        if seen.end <= running:
            self._look_again(runner, now)  # it has not come to it yet: it may be importing
            return
        if any(lo <= running < hi for lo, hi in runner.cancels):
            self._interrupt(runner, running, Reason.CANCELLED, GRACE_S, {}, now)
            return
        if running > head.at or seen.end > running + 1:
            self._act(Flush(runner.number))
            self._look_again(runner, now)
        timeout_s = _limits_at(runner, running).timeout_s
        if not timeout_s or seen.end > running + 1:
            return
        if seen.ran_s < timeout_s:
            runner.look_at = min(runner.look_at, now + max(timeout_s - seen.ran_s, 0.001))
        else:
            grace_s = min(GRACE_S, max(timeout_s, LEAST_GRACE_S))
            about = {"seconds": seen.ran_s + grace_s, "limit_s": timeout_s}
            self._interrupt(runner, running, Reason.TIMEOUT, grace_s, about, now)

    def on_sampled(self, runner: Runner, sampled: Sampled, now: float) -> None:
        """How much memory a runner has, and what it had claimed."""
        if runner.ending:
            return
        running = max(sampled.lo, runner.handed[0].at) if runner.handed else sampled.end
        limit = min((x for x in (self._limits.memory, _limits_at(runner, running).memory) if x), default=0)
        if limit and sampled.bytes > limit:
            if running >= sampled.end:
                self.retire(runner, now)  # what earlier tasks have left there is no fault of the next
                return
            about = {"bytes": sampled.bytes, "limit_bytes": limit}
            position = running if sampled.end == running + 1 else -1  # a block: its tasks run again, one by one
            runner.doom = Doom(position, Reason.MEMORY, 0.0, now, now, about)
            self.kill(runner)
            return
        if self._limits.recycle_above and sampled.bytes > self._limits.recycle_above:
            self.retire(runner, now)
        if runner.handed and self._has_memory_limit(runner):
            runner.sample_at = now + SAMPLE_S

    # ---- helpers --------------------------------------------------------------------------------------------

    def _arm(self, runner: Runner, now: float) -> None:
        """Another task is at the head: when does it have to be looked at?"""
        gap_s = CLAIM_SETTLE_S if runner.phase is Phase.RECALLING else EARLY_S
        runner.look_at, runner.look_gap_s = NEVER, gap_s
        if not runner.handed or runner.ending or runner.doom is not None:
            return
        head = runner.handed[0]
        if len(runner.handed) > 1 or head.hi - head.lo > 1:
            runner.look_at = now + gap_s
        timeout_s = head.piece.work.dispatch.limits.timeout_s
        if timeout_s:
            runner.look_at = min(runner.look_at, now + timeout_s)
        if runner.cancels:
            runner.look_at = now

    def _look_again(self, runner: Runner, now: float) -> None:
        runner.look_at = now + runner.look_gap_s
        runner.look_gap_s = min(2 * runner.look_gap_s, LOOK_AGAIN_S)

    def _interrupt(
        self, runner: Runner, position: int, reason: Reason, grace_s: float, about: dict[str, Any], now: float
    ) -> None:
        runner.look_at, runner.look_gap_s = now + CLAIM_SETTLE_S, CLAIM_SETTLE_S
        runner.doom = Doom(position, reason, grace_s, now + grace_s / 4, now + grace_s, about)
        self._act(Interrupt(runner.number, position, reason))
        self._recall(runner, now)

    def _has_memory_limit(self, runner: Runner) -> bool:
        if self._limits.memory or self._limits.recycle_above:
            return True
        return any(handed.piece.work.dispatch.limits.memory for handed in runner.handed)


def _limits_at(runner: Runner, position: int) -> m.Limits:
    """The limits of the task at a position."""
    for handed in runner.handed:
        if handed.at <= position < handed.end:
            return handed.piece.work.dispatch.limits
    return m.NO_LIMITS
