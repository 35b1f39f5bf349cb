"""The garbage collector during a burst of submits.

A million futures are a million objects that Python's collector visits again and again, although none of them is
garbage: a third of the time of a burst went there. So while calls come by full chunks, the youngest generation may grow
to 50,000 objects before it is looked at; a second after the last full chunk, the threshold is what it was. Nothing is
switched off, and a threshold that the user has set in the meantime, or that is higher already, stays.
"""

from __future__ import annotations

import gc

BURST_THRESHOLD = 50_000
CALM_AFTER_S = 1.0
NEVER = float("inf")


class Collector:
    """Raises the collector's first threshold for a burst, and puts it back."""

    def __init__(self) -> None:
        self._before: tuple[int, int, int] | None = None
        self._calm_at = NEVER

    def burst(self, now: float) -> None:
        """A full chunk was submitted."""
        if self._before is None:
            before = gc.get_threshold()
            if 0 < before[0] < BURST_THRESHOLD:
                self._before = before
                gc.set_threshold(BURST_THRESHOLD, *before[1:])
        self._calm_at = now + CALM_AFTER_S

    def relax(self, now: float) -> None:
        """Put the threshold back, if the burst is over."""
        if now < self._calm_at:
            return
        self._calm_at = NEVER
        before, self._before = self._before, None
        if before is not None and gc.get_threshold()[0] == BURST_THRESHOLD:
            gc.set_threshold(*before)
