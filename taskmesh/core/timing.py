"""How long a hub waits for peers that are silent, away, or not back yet."""

from __future__ import annotations

from typing import NamedTuple

from .roster import DEAD_AFTER_S
from .sessions import SESSION_GRACE_S

RECOVERY_S = 3.0


class Timing(NamedTuple):
    """Durations, in seconds.

    Attributes
    ----------
    dead_after_s
        Of silence, after which a peer is dead; infinity where its end is noticed otherwise.
    recovery_s
        After the start, in which work that was offered before waits for the daemons that may hold it.
    grace_s
        That a session outlives its connection.
    """

    dead_after_s: float = DEAD_AFTER_S
    recovery_s: float = RECOVERY_S
    grace_s: float = SESSION_GRACE_S


USUAL = Timing()
