"""Silence: a daemon's right to start work, as a lease in time that its hub renews.

The daemon measures from the *sending* of the last request that was answered. When that is `HOLD_AFTER_S` ago, it holds.
The hub counts from the last thing that it heard, which is never earlier, and takes work back later: so whatever moves
elsewhere is not started here. Clocks need not agree, only run at about the same speed.

The time that counts is that of the world: it goes on while this process is stopped, or its machine sleeps. (The loop's
clock does not, because a peer is not dead for our own sleep.)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from ..core import messages as m

HOLD_AFTER_S = 2.0
CLOCK_GRAIN_S = 0.001
NEVER = float("inf")


def world_time() -> float:
    """Monotonic seconds by a clock that does not stop while the machine sleeps, where there is one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Keeper(Protocol):
    """A daemon: has work that it must not start while its hub is silent."""

    def on_silence(self) -> None:
        """Hold: start nothing."""

    def on_heard(self) -> None:
        """Everything that the hub has revoked is known: go on."""

    def held(self) -> list[tuple[int, int, int]]:
        """What runners hold, as `(fence, lo, hi)`."""


class Silence:
    """When to hold, and when to go on.

    Parameters
    ----------
    keeper
        Is told, once each.
    clock
        Monotonic seconds that go on while the process is stopped.
    """

    def __init__(self, keeper: Keeper, clock: Callable[[], float] = world_time) -> None:
        self.keeper = keeper
        self.holding = False
        self._clock = clock
        self._asked_at = 0.0
        self._confirmed_at = NEVER  # when the last request that was answered was sent; never: not registered yet
        self._hub_sees = 0.0  # what the hub has to have received before its word counts
        self._we_see = NEVER  # what we have to have received before we go on; never: no word that counts has come

    def asked(self) -> None:
        """A request goes to the hub; replies to earlier ones do not come any more."""
        self._asked_at = self._clock()

    def registered(self, again: bool, resumed: bool, last: int) -> None:
        """The hub has answered a registration; `last`: the number of our last message.

        On a new link it does not yet know what is here, and may not want it: hold until it has read that.
        """
        self._confirmed_at = self._asked_at
        self._we_see = NEVER
        if not resumed:
            self._hub_sees = last if again else 0
            if again:
                self._hold()

    def answered(self, reply: m.HeartbeatReply) -> None:
        """The hub has answered a heartbeat, and knows this registration."""
        self._expire()
        self._confirmed_at = self._asked_at
        if reply.seen >= self._hub_sees:
            self._we_see = min(self._we_see, reply.last)

    def check(self, seen: int) -> None:
        """Hold, or go on; `seen`: the number of the last message that has been received."""
        if self._expire():
            self._hold()
        elif self.holding and seen >= self._we_see:
            self.holding = False
            self.keeper.on_heard()

    def _expire(self) -> bool:
        """Whether the hub has been silent for too long; what it said before that does not count."""
        silent = self._clock() - self._confirmed_at > HOLD_AFTER_S
        if silent:
            self._we_see = NEVER
        return silent

    def _hold(self) -> None:
        if not self.holding:
            self.holding = True
            self.keeper.on_silence()

    @property
    def waits_for_word(self) -> bool:
        """Whether a heartbeat should be answered soon: nothing starts before one is."""
        return self.holding and self._we_see == NEVER

    def left_s(self) -> float:
        """Seconds until `check` should be called if the hub stays silent."""
        return NEVER if self.holding else self._confirmed_at + HOLD_AFTER_S + CLOCK_GRAIN_S - self._clock()
