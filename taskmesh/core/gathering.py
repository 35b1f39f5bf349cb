"""When the calls that a session gathers go out.

One message per task costs ten times as much as a message for many; but a lone call must not wait for company. So a call
goes at once when nothing is unsettled, or nothing was sent for a millisecond. Otherwise it begins to be gathered, and
what is gathered goes after a millisecond at the latest (a full chunk goes before that). What callbacks submit goes at
the end of the round in which they are called.
"""

from __future__ import annotations

LINGER_S = 0.001
NEVER = float("inf")


class Gathering:
    """The time rule of one session. Times are in seconds, of any clock that does not go back.

    Attributes: `sent_at`, when a message was sent last; `due`, when the receive thread is to send what is gathered,
    infinity while it need not look.
    """

    __slots__ = ("due", "sent_at")

    def __init__(self) -> None:
        self.sent_at = -NEVER
        self.due = NEVER

    def goes_at_once(self, now: float, unsettled: bool) -> bool:
        """Whether the first call of a chunk is sent without waiting for more."""
        return not unsettled or now - self.sent_at >= LINGER_S

    def begin(self, now: float, in_callback: bool) -> bool:
        """Calls are being gathered. Returns whether the receive thread has to be told; once is enough."""
        first = self.due == NEVER
        self.due = min(self.due, now if in_callback else now + LINGER_S)
        return first

    def ready(self, now: float, filling: bool) -> bool:
        """Whether to send what is gathered.

        `filling`: whether there is anything. What nobody has told of, because its caller was interrupted, goes at once.
        """
        return now >= self.due if self.due < NEVER else filling

    def end(self) -> None:
        """What was gathered is being sent."""
        self.due = NEVER
