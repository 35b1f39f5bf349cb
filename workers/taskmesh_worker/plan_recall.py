"""Taking back: what a runner has not started is ours again, and goes to another one or to the hub.

- Claim and limit: the runner's limit is lowered, and 1 ms later its claim is read: what lies behind that is certainly
  not started. If it has claimed a block, it is asked to cut it, and looked at again.
- A runner that was told to drop its tail gets nothing until it said that it did.
- A revoke is answered when it is certain what has started; what was to be interrupted is, then.
- At most once: a tail of such tasks is ours again by the runner's own word only.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from taskmesh.core import messages as m
from taskmesh.core.ranges import Ranges, add, count, overlap, within, without

from . import plan_doses
from .plan_events import Claimed, Lower
from .plan_state import CLAIM_SETTLE_S, Handed, Phase, Piece, Runner, Work

if TYPE_CHECKING:
    from .plan import Plan


def recall(plan: Plan, runner: Runner, now: float) -> None:
    """Ask a runner for all that it has not started."""
    if runner.phase is not Phase.READY or not runner.handed:
        return
    runner.phase = Phase.RECALLING
    runner.limit = runner.handed[0].at
    runner.peek_at = now + CLAIM_SETTLE_S
    runner.certain = False
    plan.do(Lower(runner.number, runner.limit))


def on_claimed(plan: Plan, event: Claimed, now: float) -> None:
    """A recalled runner's claim was read: what lies behind it is ours again."""
    runner = plan.runners.get(event.runner)
    if runner is None or runner.phase is not Phase.RECALLING:
        return
    if not runner.certain and runner.handed and event.end > runner.handed[0].at + 1:
        # A block, perhaps: there is more to take back when the runner has cut it.
        runner.look_at, runner.look_gap_s = now, CLAIM_SETTLE_S
    runner.certain = True
    take_back(plan, runner, max(event.end, runner.limit), runner.next_at, by_claim=True)
    interrupt(plan, now)
    if plan.queue and not plan.holding:
        plan_doses.hand_out(plan, now)  # a claim is read on a tick: there may be no other one soon


def take_back(plan: Plan, runner: Runner, start: int, end: int, by_claim: bool = False) -> None:
    """Positions `[start, end)` are not going to be run by this runner: they are ours again.

    `by_claim`: it did not say so itself, which does not do for tasks that may start at most once.
    """
    kept: deque[Handed] = deque()
    again: list[Piece] = []
    for handed in runner.handed:
        a, b = max(handed.at, start), min(handed.end, end)
        if a >= b or (by_claim and handed.piece.work.at_most_once):
            kept.append(handed)
            continue
        lo, hi = handed.lo + a - handed.at, handed.lo + b - handed.at
        again += spared(plan, runner, handed, lo, hi)
        if handed.at < a:
            kept.append(Handed(handed.at, handed.piece, handed.lo, lo, handed.price_s))
        if b < handed.end:
            kept.append(Handed(b, handed.piece, hi, handed.hi, handed.price_s))
    runner.handed = kept
    put_back(plan, again)
    answer_revokes(plan)


def spared(plan: Plan, runner: Runner, handed: Handed, lo: int, hi: int) -> list[Piece]:
    """What was handed to a runner and has not started: what the hub wanted back goes there, the rest is queued again.

    The hub was told that a runner had claimed that; but the block was cut, or the runner died before it came to it.
    """
    revoked = [(handed.lo + p - handed.at, handed.lo + q - handed.at) for p, q in runner.revoked]
    give_back(plan, handed.piece.work, within([(lo, hi)], revoked))
    return [handed.piece._replace(lo=p, hi=q) for p, q in without([(lo, hi)], revoked)]


def put_back(plan: Plan, pieces: list[Piece]) -> None:
    """Queue pieces again, first, in their order; give them back instead when nobody wants them here."""
    for piece in reversed(pieces):
        if plan.draining or not piece.work.wanted:
            give_back(plan, piece.work, [(piece.lo, piece.hi)])
        else:
            plan.queue.push(piece, front=True)


def give_back(plan: Plan, work: Work, ranges: Ranges, kept: Ranges | None = None) -> None:
    """Tell the hub that it has these again, and that what was `kept` of a revoke has started."""
    if ranges or kept:
        plan.report(m.GiveBack(work.dispatch.fence, ranges, kept or []))
        plan.account(work, count(ranges))


def answer_revokes(plan: Plan) -> None:
    """Give back what is queued of revoked ranges; what a runner has claimed is kept, once that is certain."""
    for fence in list(plan.revokes):
        work = plan.works.get(fence)
        if work is None:
            for lo, hi in plan.revokes.pop(fence):
                plan.report(m.GiveBack(fence, [], [(lo, hi)]))
            continue
        holders = [r for r in plan.runners.values() if any(h.piece.work is work for h in r.handed)]
        returned = plan.queue.take(work, plan.revokes[fence])
        if any(r.phase is Phase.RECALLING and (work.at_most_once or not r.certain) for r in holders):
            give_back(plan, work, returned)
            continue  # a claim is about to be read, or the runner's word to be heard
        revoked = plan.revokes.pop(fence)
        kept: Ranges = []
        for runner, handed in [(r, h) for r in holders for h in r.handed if h.piece.work is work]:
            parts = within([(handed.lo, handed.hi)], revoked)
            for lo, hi in parts:
                runner.revoked = add(runner.revoked, handed.at + lo - handed.lo, handed.at + hi - handed.lo)
            kept += parts
        give_back(plan, work, returned, kept)


def interrupt(plan: Plan, now: float) -> None:
    """What has started of revoked ranges is ended, where that was asked for and what has started is certain."""
    for fence in list(plan.interrupts):
        work = plan.works.get(fence)
        held = [(r, h) for r in plan.runners.values() for h in r.handed if h.piece.work is work]
        if any(r.phase is Phase.RECALLING and not r.certain for r, _ in held):
            continue  # a claim is about to be read
        for lo, hi in plan.interrupts.pop(fence):
            for runner, h in held:
                for a, b in overlap([(h.lo, h.hi)], lo, hi):
                    plan.limiter.cancel(runner, h.at + a - h.lo, h.at + b - h.lo, now)
