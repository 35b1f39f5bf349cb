"""Pacing: how soon a peer asks for a registration, and asks again. It reads no clock: `now` is monotonic seconds.

A request that is not answered is repeated soon, because the reply may be lost with its connection, and the hub waits
only 0.5 s for a peer that has lost its lane. Each repetition waits twice as long as the one before, because the reply
to a request that was repeated is dropped: a slow hub would never be heard otherwise.

A registration that ends at once is asked for again at once, a few times. After that there are pauses: a peer whose
registrations never hold must not keep its hub busy.
"""

from __future__ import annotations

REPLY_TIMEOUT_S = 2.0  # a hub that is there and has not answered by then is slow, or does not
REGISTER_AGAIN_S = 0.15  # the first wait for the answer to a request
STEADY_S = 2.0  # a registration that ends sooner counts as hasty
HASTY = 3  # so many hasty ones in a row are followed at once
PAUSE_S = 0.1  # after one more; twice as much after two more, and so on,
LONGEST_PAUSE_S = 0.4  # but less than the hub waits for a peer that has lost its lane
NEVER = float("inf")


class Pacing:
    """When one peer may ask for a registration.

    Attributes
    ----------
    register_at
        Not before.
    patience_s
        Seconds to wait for the answer before the request is repeated.
    """

    def __init__(self) -> None:
        self.register_at = -NEVER
        self.patience_s = REGISTER_AGAIN_S
        self._welcomed_at = -NEVER
        self._hasty = 0  # registrations that ended at once, one after the other

    def on_welcome(self, now: float) -> None:
        """A registration begins."""
        self._welcomed_at = now

    def on_ended(self, now: float) -> None:
        """It has ended, and another one is wanted."""
        self._hasty = self._hasty + 1 if now - self._welcomed_at < STEADY_S else 0
        self.register_at = now + min(PAUSE_S * max(0, self._hasty - HASTY), LONGEST_PAUSE_S)

    def on_new_attempt(self) -> None:
        """What is asked for from now on is another registration than before."""
        self.patience_s = REGISTER_AGAIN_S

    def on_no_answer(self) -> None:
        """The patience has run out."""
        self.patience_s = min(2 * self.patience_s, REPLY_TIMEOUT_S)
