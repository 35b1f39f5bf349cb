"""What a plan holds, for its hub: in heartbeats, and in the inventory for a hub that has forgotten it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from taskmesh.core import messages as m
from taskmesh.core.limits import HELD
from taskmesh.core.ranges import Ranges, add

from .plan_state import Piece

if TYPE_CHECKING:
    from .plan import Plan


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
    if len(parts) > HELD:
        parts = [(fence, ranges[0][0], ranges[-1][1]) for fence, ranges in leases.items()][:HELD]
    return parts


def inventory(plan: Plan) -> m.Inventory:
    """Every lease of which something waits or runs here, without an outcome yet."""
    holdings: dict[int, m.Holding] = {}
    for piece in pieces(plan):
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


def pieces(plan: Plan) -> Iterator[Piece]:
    """Everything that waits or runs here."""
    yield from plan.queue
    for runner in plan.runners.values():
        for handed in runner.handed:
            yield handed.piece._replace(lo=handed.lo, hi=handed.hi)
