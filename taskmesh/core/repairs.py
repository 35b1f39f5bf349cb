"""Repairs: functions that daemons have lost, and ask for again.

A question costs a daemon some bytes and the hub a whole function. So however often one is asked for, it is sent with
the next tick, once, and then not before a second has gone by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from . import messages as m
from .actions import Action, Send
from .bodies import Bodies
from .leases import DaemonState

REPAIR_S = 1.0
NEVER = float("inf")


class Repairs:
    """What is to be sent again. `due`: when `tick` has something to do that it could not do the last time.

    Parameters
    ----------
    bodies, daemons
        Those of the scheduler.
    do
        Has an action done, after what was decided before.
    """

    def __init__(self, bodies: Bodies, daemons: Mapping[int, DaemonState], do: Callable[[Action], None]) -> None:
        self._bodies = bodies
        self._daemons = daemons
        self._do = do
        self._asked: dict[tuple[int, bytes], None] = {}
        self.due = NEVER

    def on_need_body(self, daemon: DaemonState, need: m.NeedBody) -> None:
        """A daemon does not have a function that it needs."""
        if self._bodies.get(need.digest) is not None:
            self._asked[daemon.instance, need.digest] = None

    def tick(self, now: float) -> None:
        """Send what may be sent."""
        if not self._asked:
            return
        self.due = NEVER
        for instance, digest in list(self._asked):
            daemon, body = self._daemons.get(instance), self._bodies.get(digest)
            if daemon is not None and body is not None:
                again_at = daemon.repaired.get(digest, -NEVER) + REPAIR_S
                if now < again_at:
                    self.due = min(self.due, again_at)
                    continue
                daemon.repaired[digest] = now
                self._bodies.given(digest, daemon)
                self._do(Send(instance, m.Body(digest, body)))
            del self._asked[instance, digest]
