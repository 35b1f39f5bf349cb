"""The roster: which peers are registered, and which of them are alive.

Rules (design, section 7):

- A registration carries an instance id and a number that rises with each try. The same number, or a
  lower one, gets the reply that it had. A peer that the roster still knows resumes its link; any other starts anew.
- A lane that is disconnected and not registered again within 0.5 s is a dead peer. A silent peer is suspected after
  3 s and dead after 15 s. Suspicion stops new work; only the verdict moves what a peer holds.
"""

from __future__ import annotations

from dataclasses import dataclass

from .messages import Register

LANE_GRACE_S = 0.5
SUSPECT_AFTER_S = 3.0
DEAD_AFTER_S = 15.0
NEVER = float("inf")


@dataclass(slots=True)
class Peer:
    """A registered client or daemon. Times are monotonic seconds."""

    instance: int
    role: str
    name: str
    host: str
    pid: int
    slots: int
    epoch: int
    attempt: int
    heard_at: float
    joined_at: float
    dead_after_s: float
    lane_down_at: float | None = None

    def verdict_at(self) -> float:
        """When this peer is dead if nothing more is heard of it."""
        silent = self.heard_at + self.dead_after_s
        return silent if self.lane_down_at is None else min(silent, self.lane_down_at + LANE_GRACE_S)

    def suspected(self, now: float) -> bool:
        """Whether to stop giving it new work."""
        return self.lane_down_at is not None or now - self.heard_at > SUSPECT_AFTER_S


class Roster:
    """Registered peers by instance id. `dead_after_s`: how long a silent one is waited for."""

    def __init__(self, dead_after_s: float = DEAD_AFTER_S) -> None:
        self._dead_after_s = dead_after_s
        self.peers: dict[int, Peer] = {}
        self._epochs = 0

    def register(self, request: Register, now: float) -> tuple[Peer, bool] | None:
        """Take a peer in.

        Returns
        -------
        tuple[Peer, bool] or None
            The peer under a new epoch, and whether it was known (so that its link goes on); None for a stale try.
        """
        known = self.peers.get(request.instance)
        if known is not None and request.attempt <= known.attempt:
            return None
        self._epochs += 1
        peer = Peer(
            request.instance, request.role, request.name, request.host, request.pid, request.slots,
            self._epochs, request.attempt, now, known.joined_at if known else now, self._dead_after_s,
        )  # fmt: skip
        self.peers[request.instance] = peer
        return peer, known is not None

    def heard(self, instance: int, epoch: int, now: float) -> bool:
        """Something came from a peer. Returns whether this registration is the live one."""
        peer = self.peers.get(instance)
        if peer is None or peer.epoch != epoch:
            return False
        peer.heard_at = now
        return True

    def lane_down(self, instance: int, epoch: int, now: float) -> None:
        """The lane of a registration was disconnected."""
        peer = self.peers.get(instance)
        if peer is not None and peer.epoch == epoch and peer.lane_down_at is None:
            peer.lane_down_at = now

    def dead(self, now: float) -> list[Peer]:
        """The peers whose verdict is due. They are still in the roster: see `remove`."""
        return [peer for peer in self.peers.values() if now >= peer.verdict_at()]

    def remove(self, instance: int) -> None:
        """Forget a peer; if it comes back, it starts anew."""
        del self.peers[instance]

    def next_deadline(self) -> float:
        """When the next verdict could be due."""
        return min((peer.verdict_at() for peer in self.peers.values()), default=NEVER)
