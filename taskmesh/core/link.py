"""One end of a link: the reliable, ordered message stream between two peers.

Sockets reconnect silently, and what was in them is lost, doubled or reordered. So each message has a sequence
number, starting from 1, and:

1. seq <= seen: dropped. seq > seen + 1: dropped, and `Nak(seen)` asked for at most every 100 ms.
2. A Nak moves the sender's cursor back to the first message that the peer lacks, at most every 50 ms, since each may
   cost a window of messages; so does 1 s without progress, unless the peer is known to have everything (`on_received`)
   and only may not acknowledge it yet.
3. Acknowledgements are cumulative and ride on whatever goes back; when nothing does, one goes alone after 50 ms or
   64 messages. An acknowledgement frees the resend buffer and nothing else.
   What has to be stored first is acknowledged when it is (`permit`).
4. At most `WINDOW` messages are unacknowledged on the wire; the rest wait here. That bounds what a resend costs.

Gaps, duplicates and reordering are never errors. A new link (after `reset`) starts from 1 on both sides.
"""

from __future__ import annotations

from collections import deque

from ..errors import LocalProtocolError, PeerProtocolError

WINDOW = 512
ACK_EVERY = 64
ACK_DELAY_S = 0.05
NAK_INTERVAL_S = 0.1
BACK_INTERVAL_S = NAK_INTERVAL_S / 2
RESEND_AFTER_S = 1.0
NEVER = float("inf")
Frame = tuple[int, bytes]
"""Flags and body of a message on the wire, or of a fragment of one; what is in them is not looked at here."""


class Link:
    """Sending and receiving cursors of one peer of a link."""

    __slots__ = (
        "_acked",
        "_back_at",
        "_cursor",
        "_frames",
        "_nak_at",
        "_owed_since",
        "_progress_at",
        "_there",
        "_wants_nak",
        "permitted",
        "seen",
    )

    def __init__(self) -> None:
        self._frames: deque[Frame] = deque()  # unacknowledged, oldest first
        self._acked = 0  # every sequence number up to this one has been received by the peer
        self._cursor = 1  # the next sequence number to put on the wire
        self._there = 0  # the peer has received this many, and acknowledges them when it may
        self._progress_at = 0.0  # when an acknowledgement last moved, or sending began from idle
        self.seen = 0  # every sequence number up to this one has been received here
        self.permitted: int | None = None  # acknowledge no more than this; None: all that was received
        self._owed_since: float | None = None  # when the oldest received but unacknowledged message came
        self._nak_at = -NEVER
        self._wants_nak = False
        self._back_at = -NEVER  # when a Nak last moved the cursor

    # ---- sending --------------------------------------------------------------------------------------------

    @property
    def last(self) -> int:
        """The sequence number of the newest recorded message."""
        return self._acked + len(self._frames)

    @property
    def unacked(self) -> int:
        """How many recorded messages the peer has not acknowledged."""
        return len(self._frames)

    def record(self, frame: Frame) -> None:
        """Append a message. One append, so that an interrupted caller leaves either all of it or nothing."""
        self._frames.append(frame)

    def record_all(self, frames: list[Frame]) -> None:
        """Append several messages, all of them or none."""
        self._frames.extend(frames)

    def take(self, now: float) -> tuple[int, Frame] | None:
        """The next message to put on the wire and its number, or None. The cursor does not move: see `sent`."""
        index = self._cursor - self._acked - 1
        if index >= len(self._frames) or index >= WINDOW:
            return None
        if index == 0:
            self._progress_at = now
        return self._cursor, self._frames[index]

    def sent(self, seq: int) -> None:
        """Message `seq` went to the socket: the cursor moves behind it."""
        self._cursor = max(self._cursor, seq + 1)

    def on_ack(self, ack: int, now: float) -> int:
        """The peer has received everything up to `ack`.

        Returns
        -------
        int
            How many messages this freed.

        Raises
        ------
        PeerProtocolError
            The peer acknowledges what was never sent.
        """
        if ack > self.last:
            raise PeerProtocolError(f"acknowledged message {ack}, but only {self.last} exist")
        freed = ack - self._acked
        if freed <= 0:
            return 0
        for _ in range(freed):
            self._frames.popleft()
        self._acked = ack
        self._cursor = max(self._cursor, ack + 1)
        self._progress_at = now
        return freed

    def on_received(self, seq: int) -> None:
        """The peer has received everything up to `seq`: it need not be sent again, acknowledged or not."""
        self._there = max(self._there, min(seq, self.last))

    def on_nak(self, seen: int, now: float) -> None:
        """The peer lacks what follows `seen`: go back to it."""
        self.on_ack(seen, now)
        self._there = min(self._there, seen)
        if seen >= self._acked and now - self._back_at >= BACK_INTERVAL_S:
            self._back_at = now
            self._cursor = seen + 1

    # ---- receiving ------------------------------------------------------------------------------------------

    def accept(self, seq: int, now: float) -> bool:
        """Whether message `seq` is the next one, and is to be delivered; anything else is to be dropped."""
        if seq == self.seen + 1:
            self.seen = seq
            self._wants_nak = False
            if self._owed_since is None:
                self._owed_since = now
            self._owe(seq)
            return True
        if seq > self.seen:
            self._wants_nak = True
        elif self._owed_since is None:
            self._owed_since = now  # a duplicate: the peer may have missed the acknowledgement
        return False

    def _owe(self, seq: int) -> None:
        if seq % ACK_EVERY == 0:
            self._owed_since = -NEVER  # enough have come: acknowledge at once

    @property
    def acked(self) -> int:
        """Every message up to this one has been received by the peer."""
        return self._acked

    @property
    def safe(self) -> int:
        """What may be acknowledged: what was received, and is stored if it has to be."""
        return self.seen if self.permitted is None else self.permitted

    def permit(self, seq: int, now: float) -> None:
        """Messages up to `seq` may be acknowledged."""
        if self.permitted is not None and seq > self.permitted:
            self.permitted = seq
            self._owed_since = now if self._owed_since is None else self._owed_since

    def acknowledged(self) -> int:
        """The cumulative acknowledgement to put on an outgoing frame. Calling it pays what was owed."""
        self._owed_since = None
        return self.safe

    def wants_ack(self, now: float) -> bool:
        """Whether an acknowledgement should go alone now."""
        return self._owed_since is not None and now - self._owed_since >= ACK_DELAY_S

    def wants_nak(self, now: float) -> bool:
        """Whether to send `Nak(seen)` now. Calling it when True counts as sent."""
        if self._wants_nak and now - self._nak_at >= NAK_INTERVAL_S:
            self._wants_nak = False
            self._nak_at = now
            return True
        return False

    # ---- time -----------------------------------------------------------------------------------------------

    def on_time(self, now: float) -> None:
        """Go back to the first unacknowledged message when there has been no progress for a second."""
        if self._cursor > max(self._acked, self._there) + 1 and now - self._progress_at >= RESEND_AFTER_S:
            self._cursor = self._acked + 1
            self._progress_at = now

    def next_deadline(self) -> float:
        """When `on_time`, `wants_ack` or `wants_nak` should next be asked."""
        deadline = NEVER
        if self._frames and self._cursor > max(self._acked, self._there) + 1:
            deadline = self._progress_at + RESEND_AFTER_S
        if self._owed_since is not None:
            deadline = min(deadline, self._owed_since + ACK_DELAY_S)
        if self._wants_nak:
            deadline = min(deadline, self._nak_at + NAK_INTERVAL_S)
        return deadline

    def resume(self, peer_seen: int, now: float) -> None:
        """The peers met again: go on behind what the other side says it has received.

        Raises
        ------
        PeerProtocolError
            The peer's cursor is not one that this link can go on from.
        """
        if not self._acked <= peer_seen <= self.last:
            raise PeerProtocolError(f"cannot resume from {peer_seen}: have {self._acked + 1} to {self.last}")
        self._back_at = -NEVER
        self.on_nak(peer_seen, now)

    def check(self) -> None:
        """Cross-check the cursors.

        Raises
        ------
        LocalProtocolError
            They contradict each other.
        """
        if not self._acked < self._cursor <= self.last + 1:
            raise LocalProtocolError(f"cursor {self._cursor} outside {self._acked + 1}..{self.last + 1}")
        if self._cursor - self._acked - 1 > WINDOW:
            raise LocalProtocolError(f"{self._cursor - self._acked - 1} messages in flight, over {WINDOW}")
