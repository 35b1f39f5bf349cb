"""The roster: which peers are registered, and which of them are alive.

Rules (docs/guarantees.md):

- A registration carries an instance id and a number that rises with each try. The same number, or a
  lower one, gets the reply that it had. A peer that the roster still knows resumes its link; any other starts anew.
- A peer that has said nothing since its registration may never have got the reply, or have gone meanwhile: it gets no
  work yet. Daemons say something as soon as they have it.
- A lane that is disconnected and not registered again within 0.5 s is a dead peer. A silent peer is suspected after
  3 s and dead after 15 s. Suspicion stops new work and moves what is queued; only the verdict moves what runs.

A peer's deadline only ever moves later, but for a lane that breaks. So deadlines live in a heap, and one that comes up
is compared with what the peer has said since: nothing here looks at every peer.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from .limits import printable
from .messages import Register
from .ranges import Ranges, normal

LANE_GRACE_S = 0.5
SUSPECT_AFTER_S = 3.0
DEAD_AFTER_S = 15.0
NEVER = float("inf")


@dataclass(slots=True)
class Peer:
    """A registered client or daemon. Times are monotonic seconds.

    `proof`: a digest of its secret. `ticket`: the name of the ticket with which it came.
    `confirmed`: it has said something since it was welcomed. `holding`: what its runners held at its last heartbeat, as
    `(fence, lo, hi)`; None before the first. `moved`: it is suspect, and what it had queued was moved.
    """

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
    confirmed: bool
    proof: bytes
    ticket: str
    lane_down_at: float | None = None
    holding: list[tuple[int, int, int]] | None = None
    moved: bool = False
    watched_at: float = NEVER  # its entry among the deadlines; other entries of it are void

    def held(self) -> dict[int, Ranges] | None:
        """What its runners held at its last heartbeat, by fence. Put in order when asked for: heartbeats come often."""
        if self.holding is None:
            return None
        held: dict[int, Ranges] = {}
        for fence, lo, hi in self.holding:
            held.setdefault(fence, []).append((lo, hi))
        return {fence: normal(ranges) for fence, ranges in held.items()}

    def verdict_at(self) -> float:
        """When this peer is dead if nothing more is heard of it."""
        silent = self.heard_at + self.dead_after_s
        return silent if self.lane_down_at is None else min(silent, self.lane_down_at + LANE_GRACE_S)

    def takes_work(self, now: float) -> bool:
        """Whether to give it new work."""
        return self.confirmed and not self.suspected(now)

    def suspected(self, now: float) -> bool:
        """Whether it may be dead."""
        return self.lane_down_at is not None or now >= self.heard_at + SUSPECT_AFTER_S

    def deadline(self) -> float:
        """When to look at it again if nothing more is heard of it."""
        verdict = self.verdict_at()
        return verdict if self.moved else min(verdict, self.heard_at + SUSPECT_AFTER_S)


class Roster:
    """Registered peers by instance id. `dead_after_s`: how long a silent one is waited for."""

    def __init__(self, dead_after_s: float = DEAD_AFTER_S) -> None:
        self._dead_after_s = dead_after_s
        self.peers: dict[int, Peer] = {}
        self._epochs = 0
        self._deadlines: list[tuple[float, int, int]] = []  # (no later than this, epoch, instance)

    def register(
        self, request: Register, now: float, local: bool = False, proof: bytes = b"", ticket: str = ""
    ) -> tuple[Peer, bool] | None:
        """Take a peer in; a `local` one shares the hub's process, and lives as long as it does.

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
            request.instance, request.role, printable(request.name), printable(request.host),
            request.pid, request.slots, self._epochs, request.attempt, NEVER if local else now,
            known.joined_at if known else now, self._dead_after_s, local, proof, ticket,
        )  # fmt: skip
        self.peers[request.instance] = peer
        self._watch(peer)
        return peer, known is not None

    def heard(self, instance: int, epoch: int, now: float) -> Peer | None:
        """Something came from a peer. Returns it if this registration is the live one."""
        peer = self.peers.get(instance)
        if peer is None or peer.epoch != epoch:
            return None
        peer.confirmed = True
        if peer.heard_at < now:
            peer.heard_at = now
            if peer.moved:
                peer.moved = False
                self._watch(peer)
        return peer

    def holds(self, peer: Peer, parts: list[tuple[int, int, int]]) -> None:
        """What a daemon's runners hold, as `(fence, lo, hi)`."""
        if peer.role == "daemon":
            peer.holding = parts

    def lane_down(self, instance: int, epoch: int, now: float) -> None:
        """The lane of a registration was disconnected."""
        peer = self.peers.get(instance)
        if peer is not None and peer.epoch == epoch and peer.lane_down_at is None:
            peer.lane_down_at = now
            self._watch(peer)

    def overdue(self, now: float) -> tuple[list[Peer], list[Peer]]:
        """The peers that are dead (still in the roster: see `remove`), and those that have just become suspect."""
        dead, suspect = [], []
        while self._deadlines and self._deadlines[0][0] <= now:
            at, epoch, instance = heapq.heappop(self._deadlines)
            peer = self.peers.get(instance)
            if peer is None or peer.epoch != epoch or peer.watched_at != at:
                continue
            if now >= peer.verdict_at():
                peer.watched_at = NEVER
                dead.append(peer)
                continue
            if not peer.moved and now >= peer.heard_at + SUSPECT_AFTER_S:
                peer.moved = True
                suspect.append(peer)
            self._watch(peer)
        return dead, suspect

    def _watch(self, peer: Peer) -> None:
        deadline = peer.watched_at = peer.deadline()
        if deadline < NEVER:
            heapq.heappush(self._deadlines, (deadline, peer.epoch, peer.instance))

    def remove(self, instance: int) -> None:
        """Forget a peer; if it comes back, it starts anew."""
        del self.peers[instance]

    def next_deadline(self) -> float:
        """When `overdue` should next be asked, or earlier."""
        return self._deadlines[0][0] if self._deadlines else NEVER
