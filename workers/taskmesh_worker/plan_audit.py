"""Whether the plan's books agree with each other. Nothing here changes anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskmesh.errors import LocalProtocolError

from .plan_holdings import pieces

if TYPE_CHECKING:
    from .plan import Plan


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
    for piece in pieces(plan):
        fence = piece.work.dispatch.fence
        if plan.works.get(fence) is not piece.work:
            raise LocalProtocolError(f"a piece of lease {fence}, which is not on the books")
        here[fence] = here.get(fence, 0) + piece.hi - piece.lo
    if here != plan.open_tasks or here.keys() != plan.works.keys():
        raise LocalProtocolError(f"leases hold {here}, the books say {plan.open_tasks}")
    plan.ledger.check()
