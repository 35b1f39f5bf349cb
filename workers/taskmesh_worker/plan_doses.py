"""Doses: what waits goes to the runners that have room.

A runner is handed about 5 ms of measured work at a time, one task of an unknown function, then growing. A function
goes to a runner before the first dose that needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskmesh.core import messages as m
from taskmesh.wire.pipe import CLAIM_MOST, Dose

from .plan_events import GiveBody, Hand
from .plan_queue import BODIES_KEPT
from .plan_state import Handed, Piece, Runner

if TYPE_CHECKING:
    from .plan import Plan


def hand_out(plan: Plan, now: float) -> None:
    """Give queued work to the runners that have room for it, one dose each in turn, those that hold least first.

    A piece whose function has to be asked for goes to the end of the queue, and the others are tried before it.
    """
    runners = sorted((r for r in plan.runners.values() if r.open), key=lambda r: len(r.handed))
    waiting = 0  # pieces at the end of the queue whose function is still to come
    progress = True
    while progress:
        progress = False
        for runner in runners:
            if waiting < len(plan.queue) and runner.has_room(plan.queue.first.work):
                if not _hand(plan, runner, now):
                    plan.queue.postpone()
                    waiting += 1
                progress = True


def _hand(plan: Plan, runner: Runner, now: float) -> bool:
    """Give the first queued piece, or a dose of it, to a runner. False: its function has to come first."""
    piece = plan.queue.first
    d = piece.work.dispatch
    if not all(_provide(plan, runner, digest) for digest in (d.digest, d.init) if digest):
        return False
    pace, chunk = piece.work.pace, d.chunk
    share = -(-plan.queue.tasks // max(1, len(plan.runners)))
    tasks = min(pace.dose(piece.solo), max(share, pace.least()))
    if piece.work.at_most_once:
        tasks = 1  # a runner reports at the end of each dose
    elif chunk.grain > 1:
        tasks = max(chunk.grain, tasks - tasks % chunk.grain)
    hi = min(piece.hi, piece.lo + tasks)
    if hi < piece.hi and chunk.grain == 1:
        hi = chunk.whole_leaves(piece.lo, hi)
    plan.queue.pop()
    if hi < piece.hi:
        plan.queue.push(piece._replace(lo=hi), front=True)
    at = runner.next_at
    dose = Dose(
        at, d.session, d.spec, piece.attempt, piece.lo, hi, _block(piece),
        d.name, d.digest, d.init, chunk.cut(piece.lo, hi), d.limits.timeout_s, d.limits.memory > 0,
        plan.largest,
    )  # fmt: skip
    runner.handed.append(Handed(at, piece, piece.lo, hi, pace.price_s()))
    runner.next_at = runner.limit = at + hi - piece.lo
    runner.handed_at = now
    plan.do(Hand(runner.number, dose, runner.limit))
    plan.limiter.on_handed(runner, now)
    return True


def _provide(plan: Plan, runner: Runner, digest: bytes) -> bool:
    """See to it that a runner has a function. False: the hub was asked for it."""
    if digest in runner.bodies:
        runner.bodies.move_to_end(digest)
        return True
    body = plan.bodies.get(digest)
    if body is None:
        if plan.bodies.ask(digest):
            plan.report(m.NeedBody(digest))
        return False
    drop = runner.bodies.popitem(last=False)[0] if len(runner.bodies) >= BODIES_KEPT else None
    runner.bodies[digest] = None
    plan.do(GiveBody(runner.number, digest, body, drop))
    return True


def _block(piece: Piece) -> int:
    """How many tasks a runner may claim at once: one, or as many as it finds right where items seem to be tiny."""
    if (
        not piece.work.dispatch.chunk.items
        or piece.solo
        or piece.work.dispatch.limits != m.NO_LIMITS  # each is timed, and blamed, by itself
        or not piece.work.pace.tiny
    ):
        return 1
    return CLAIM_MOST
