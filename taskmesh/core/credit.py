"""How much work to hand out ahead of need: the pace of a spec, and the credit of a daemon.

Too little, and a daemon idles for a round trip; too much, and work waits behind a long task while another daemon is
free. So a daemon is kept `AHEAD_S` seconds ahead by measured time, an unknown spec starts slowly, and what is out is
priced when it is handed out, so that the books balance whatever the measurements do later.
"""

from __future__ import annotations

AHEAD_S = 0.03
"""Seconds of work for each slot that a daemon may hold: several round trips and doses."""

DOSE_S = 0.005
"""Seconds of work that a runner is handed at a time."""

LEAST_S = 0.0003
"""Seconds of work that is worth a dose of its own: less is not split between runners."""

UNKNOWN_S = AHEAD_S
"""The price of a task of which nothing is known: with it, a daemon is handed twice its slots."""

ONE_AHEAD_BELOW_S = 0.25
"""Tasks shorter than this, on average, are held one for each slot ahead of need, however long the last ones were."""

LONGEST_S = 1e6
"""No report counts for more: what one task took must not make the books of a daemon overflow."""

GROWTH, TINY_S, TINY_GROWTH = 1, 3e-4, 32
"""By how much a dose may exceed all that was measured of its spec; and by how much when its tasks seem to be tiny: then
what is handed out goes wrong by little, and the steps of a slow start take longer than the tasks do."""

_WEIGHT = 0.5
_FADE = 0.8


class Pace:
    """Seconds per task of one spec: a moving average in which the newest report counts half, and a fading maximum.

    Half, because the first calls of a function often pay for its imports: a mean that starts 10^5 too high is right
    again after 17 reports. More than half if it speaks of more tasks than all before it. The maximum, which fades by a
    fifth with each task, is for tasks of very different length: whoever hands out several at once because the last few
    were short makes the others wait for a long one.
    """

    __slots__ = ("finished", "mean_s", "peak_s")

    def __init__(self) -> None:
        self.mean_s: float | None = None
        self.peak_s = 0.0
        self.finished = 0

    def observe(self, tasks: int, busy_s: float) -> None:
        """`tasks` finished, in `busy_s` seconds of one runner's time."""
        sample = min(max(0.0, busy_s), LONGEST_S) / tasks
        weight = max(_WEIGHT, tasks / (tasks + self.finished))
        self.mean_s = sample if self.mean_s is None else self.mean_s + weight * (sample - self.mean_s)
        self.peak_s = max(sample, self.peak_s * _FADE**tasks)
        self.finished += tasks

    def trusted(self) -> int:
        """How many tasks may be handed out on the strength of what was measured."""
        return self.finished * (TINY_GROWTH if self.tiny else GROWTH)

    @property
    def tiny(self) -> bool:
        """Whether all that is known speaks for tasks that cost less than handing them out."""
        return self.mean_s is not None and self.peak_s < TINY_S

    def price_s(self) -> float:
        """What to count a task of this spec as, in seconds."""
        return UNKNOWN_S if self.mean_s is None else max(self.mean_s, 1e-7)

    def dose(self, solo: bool = False) -> int:
        """How many tasks make a dose: `DOSE_S` of work, one of an unknown spec, growing step by step."""
        if solo or self.mean_s is None:
            return 1
        return max(1, min(int(DOSE_S / max(self.peak_s, 1e-7)), self.trusted()))

    def least(self) -> int:
        """How many tasks are too few to be split between runners."""
        return 1 if self.mean_s is None else max(1, int(LEAST_S / max(self.peak_s, 1e-7)))


def room(slots: int, tasks_out: int, load_s: float, pace: Pace, grain: int = 1) -> int:
    """How many more tasks of a spec a daemon may be handed.

    Parameters
    ----------
    slots
        How many tasks it runs at once.
    tasks_out, load_s
        What it holds: tasks, and the sum of their prices in seconds.
    pace
        Of the spec in question.
    grain
        How many of its tasks go together, to one runner: they count as one.
    """
    if slots <= 0:
        return 0
    out, price_s = -(-tasks_out // grain), grain * pace.price_s()
    ahead = int((AHEAD_S * slots - load_s) / price_s)
    if pace.mean_s is not None:
        ahead = min(ahead, max(2 * slots, pace.trusted() // grain))
    else:
        ahead = min(ahead, 2 * slots - out)
    if price_s < ONE_AHEAD_BELOW_S:
        ahead = max(ahead, 2 * slots - out)
    if out >= 2 * slots and load_s > AHEAD_S * slots / 2 and pace.tiny and ahead * grain < pace.dose():
        return 0  # as TCP avoids silly windows: it has enough for now, and crumbs cost as much as a dose
    return max(slots - out, ahead, 0) * grain
