"""The farewell: when a daemon that drains goes. Pure: time is an argument, and the daemon says what it does.

- A daemon that has nothing left tells its hub that it leaves, and goes when the hub has said goodbye to that.
- Any other goodbye is of a hub that comes back, or that puts this daemon out for good.
- A hub that is silent may only be restarting, and may not have all outcomes: a daemon with unsettled ones waits a while
  for it. One that has none goes at once.
- A hub that is there may have no reason to say goodbye soon, as long as a client does not fetch what ended here. The
  daemon waits longer for that, but not for ever.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from taskmesh.core import messages as m

if TYPE_CHECKING:
    from .plan import Plan

LOST_GRACE_S = 10.0
"""Seconds that a daemon with unsettled outcomes waits for a hub that is silent."""

GOODBYE_S = 10.0
"""Seconds that it waits, once everything here has ended, for the goodbye of a hub that is there."""

LONG_GOODBYE_S = 60.0
"""The same, while outcomes are not settled."""

NEVER = float("inf")


class Parting(Enum):
    """What a goodbye means."""

    FOR_GOOD = 1  # the daemon leaves, as it wanted to
    FOR_NOW = 2  # the hub comes back, or has not heard everything: join again
    PUT_OUT = 3  # the hub does not want this daemon any more


class Farewell:
    """Decides when a daemon goes. Attribute `left`: it is time.

    Parameters
    ----------
    plan
        Says whether it drains, is idle, has told the hub that it leaves, and how many outcomes are unsettled.
    lost_grace_s, goodbye_s, long_goodbye_s
        Seconds; see the constants.
    """

    def __init__(
        self,
        plan: Plan,
        lost_grace_s: float = LOST_GRACE_S,
        goodbye_s: float = GOODBYE_S,
        long_goodbye_s: float = LONG_GOODBYE_S,
    ) -> None:
        self.left = False
        self._plan = plan
        self._lost_grace_s = lost_grace_s
        self._goodbye_s = goodbye_s
        self._long_goodbye_s = long_goodbye_s
        self._lost_since: float | None = None
        self._finished_at: float | None = None  # when everything here had ended, and it drained

    def on_heard(self) -> None:
        """The hub is there."""
        self._lost_since = None

    def on_goodbye(self, goodbye: m.Goodbye, unacked: int) -> Parting:
        """The hub said goodbye, and has not acknowledged `unacked` of our messages."""
        if self._plan.leaving and not unacked:
            self.left = True
            return Parting.FOR_GOOD
        return Parting.FOR_NOW if goodbye.back or self._plan.leaving else Parting.PUT_OUT

    def on_lost(self, now: float) -> bool:
        """The hub is silent. Returns whether it was heard until now."""
        news = self._lost_since is None
        if self._lost_since is None:
            self._lost_since = now
        return news

    def lost_s(self, now: float) -> float:
        """For how many seconds the hub is known to be silent."""
        return 0.0 if self._lost_since is None else now - self._lost_since

    def leave_without_hub(self, now: float) -> bool:
        """The hub is silent: whether to go all the same, with outcomes that it may not have.

        Everything has to have run here. A hub that is only restarting takes what it does not have, so wait for it.
        """
        if not self._done:
            return False
        if self._plan.ledger.outcomes and self.lost_s(now) < self._lost_grace_s:
            return False
        self.left = True
        return True

    def on_time(self, now: float) -> float:
        """Wait for the hub's goodbye when nothing is left here, but not for ever. Returns when to look again."""
        if not self._done:
            return NEVER
        if self._finished_at is None:
            self._finished_at = now
        until = self._finished_at + (self._long_goodbye_s if self._plan.ledger.outcomes else self._goodbye_s)
        if now < until:
            return until
        self.left = True
        return NEVER

    @property
    def _done(self) -> bool:
        """Whether the daemon drains, and everything that it had has ended."""
        return self._plan.draining and self._plan.idle
