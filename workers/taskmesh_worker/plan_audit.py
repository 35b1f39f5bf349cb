"""What a plan has: for its hub, and for its own check. Nothing here changes anything."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from taskmesh.core import messages as m
from taskmesh.core.ranges import Ranges, add
from taskmesh.errors import LocalProtocolError

from .plan_state import Piece

if TYPE_CHECKING:
    from .plan import Plan

HELD_MOST = 4096  # entries of a heartbeat


def held(plan: Plan) -> list[tuple[int, int, int]]:
    """What runners hold, as `(fence, lo, hi)`: it moves only when this daemon is dead, since it may be running.

    There may be more than a heartbeat should carry. Then each lease is named by its outermost offsets, because what
    is named in vain only waits longer; and what is surely running comes first.
    """
    heads = [r.handed[0] for r in plan.runners.values() if r.handed]
    rest = [h for r in plan.runners.values() for n, h in enumerate(r.handed) if n]
    leases: dict[int, Ranges] = {}
    for handed in (*heads, *rest):
        fence = handed.piece.work.dispatch.fence
        leases[fence] = add(leases.get(fence, []), handed.lo, handed.hi)
    parts = [(fence, lo, hi) for fence, ranges in leases.items() for lo, hi in ranges]
    if len(parts) > HELD_MOST:
        parts = [(fence, ranges[0][0], ranges[-1][1]) for fence, ranges in leases.items()][:HELD_MOST]
    return parts


def inventory(plan: Plan) -> m.Inventory:
    """Every lease of which something waits or runs here, without an outcome yet."""
    holdings: dict[int, m.Holding] = {}
    for piece in _pieces(plan):
        d = piece.work.dispatch
        if not piece.work.wanted:
            continue
        known = holdings.get(d.fence)
        if known is None:
            known = m.Holding(d.fence, d.session, d.spec, d.chunk.first, piece.attempt, piece.solo, [])
        holdings[d.fence] = known._replace(
            attempt=max(known.attempt, piece.attempt),
            solo=known.solo or piece.solo,
            ranges=add(known.ranges, piece.lo, piece.hi),
        )
    return m.Inventory(list(holdings.values()))


def _pieces(plan: Plan) -> Iterator[Piece]:
    yield from plan.queue
    for runner in plan.runners.values():
        for handed in runner.handed:
            yield handed.piece._replace(lo=handed.lo, hi=handed.hi)


def check(plan: Plan) -> None:
    """Compare every index with every other.

    Raises
    ------
    LocalProtocolError
        Two of them disagree.
    """
    queued = sum(piece.hi - piece.lo for piece in plan.queue)
    if queued != plan.queue.tasks:
        raise LocalProtocolError(f"{queued} tasks are queued, {plan.queue.tasks} on the books")
    for runner in plan.runners.values():
        at = None
        for h in runner.handed:
            if (at is not None and h.at < at) or h.lo >= h.hi or h.end > runner.next_at:
                raise LocalProtocolError(f"runner {runner.number}: positions out of order at {h.at}")
            at = h.end
    here: dict[int, int] = {}
    for piece in _pieces(plan):
        fence = piece.work.dispatch.fence
        if plan.works.get(fence) is not piece.work:
            raise LocalProtocolError(f"a piece of lease {fence}, which is not on the books")
        here[fence] = here.get(fence, 0) + piece.hi - piece.lo
    if here != plan.open_tasks or here.keys() != plan.works.keys():
        raise LocalProtocolError(f"leases hold {here}, the books say {plan.open_tasks}")
    plan.ledger.check()
