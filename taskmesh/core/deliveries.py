"""Deliveries: outcomes until their client has them and their daemon may forget them.

An outcome is kept here until the client has acknowledged the message that brought it. The daemon that made it keeps it
too, until it is safe: committed, where there is a store; delivered, where there is none (design, rule 3).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from . import messages as m
from . import records as r
from .actions import Action, Persist, Send
from .events import Committed, Delivered
from .leases import ChunkState, DaemonState
from .outbox import Ended

if TYPE_CHECKING:
    from .sessions import Session

SETTLED_PARTS = 4096  # in one message to a daemon


class Deliveries:
    """What has ended and is not settled.

    Parameters
    ----------
    sessions, daemons
        Those of the scheduler.
    durable
        Whether there is a store.
    do
        Has an action done, after what was decided before.
    """

    def __init__(
        self,
        sessions: Mapping[int, Session],
        daemons: Mapping[int, DaemonState],
        durable: bool,
        do: Callable[[Action], None],
    ) -> None:
        self._sessions = sessions
        self._daemons = daemons
        self._durable = durable
        self._do = do
        self._talkative: set[int] = set()  # sessions with something to send
        self._settling: set[int] = set()  # daemons that are to be told what they may forget
        self._uncommitted: deque[tuple[int, Ended]] = deque()  # outcomes, by the number of records up to them
        # Chunks of which tasks have ended in this round, by session: what is left of each is written once, at its end.
        # A round is committed as a whole, so it is safe with the outcomes.
        self._shrunk: dict[int, dict[ChunkState, None]] = {}
        self._records = 0
        self._committed = 0  # of those

    def persist(self, record: r.Record) -> None:
        """One more record for the store, if there is one."""
        if self._durable:
            self._records += 1
            self._do(Persist(record))

    def add(self, state: ChunkState, outcome: m.Outcome, origin: Ended | None) -> None:
        """Tasks have ended: their client is to hear it, and the store to remember it until then."""
        session = self._sessions[state.spec.session]
        ended = origin or Ended(outcome, 0, 0, outcome.lo, outcome.hi)
        session.outbox.add(ended)
        self._talkative.add(session.instance)
        if self._durable:
            self.persist(r.PutOutcome(session.instance, outcome))
            self._shrunk.setdefault(session.instance, {})[state] = None
            self._uncommitted.append((self._records, ended))

    def duplicate(self, session: int, ended: Ended) -> None:
        """Nobody needs this outcome; but its daemon keeps it until the one that counted is safe."""
        owner = self._sessions.get(session)
        if self._durable and self._records > self._committed:
            self._uncommitted.append((self._records, ended))
        elif self._durable or owner is None:
            self.settled(ended)
        else:
            owner.outbox.add(ended._replace(outcome=None))
            self._talkative.add(session)

    def again(self, session: Session) -> None:
        """A client has a new link: what it has not acknowledged is sent again."""
        session.outbox.again()
        self._talkative.add(session.instance)

    def drop(self, session: Session) -> set[int]:
        """A session is over. Returns the daemons that keep outcomes of it."""
        self._talkative.discard(session.instance)
        self._shrunk.pop(session.instance, None)
        undelivered = session.outbox.everything()
        for ended in undelivered:
            self.settled(ended)
        return {ended.daemon for ended in undelivered}

    def forget_daemon(self, instance: int) -> None:
        """A daemon is gone: it is told nothing more."""
        self._settling.discard(instance)

    def on_delivered(self, event: Delivered, now: float) -> None:
        """A client has acknowledged messages."""
        session = self._sessions.get(event.instance)
        if session is None:
            return
        for ended in session.outbox.acknowledged(event.messages):
            outcome = ended.outcome
            if not self._durable:
                self.settled(ended)
            elif outcome is not None:
                self.persist(r.DropOutcome(session.instance, outcome.spec, outcome.first, outcome.lo, outcome.hi))
        if session.outbox.can_send:
            self._talkative.add(session.instance)

    def on_committed(self, event: Committed, now: float) -> None:
        """The store has committed records."""
        self._committed = event.records
        while self._uncommitted and self._uncommitted[0][0] <= event.records:
            self.settled(self._uncommitted.popleft()[1])

    def uncommitted_of(self, daemon: int) -> bool:
        """Whether a daemon's outcomes are not safe yet."""
        return any(ended.daemon == daemon for _, ended in self._uncommitted)

    def settled(self, ended: Ended) -> None:
        """The daemon that made this outcome may forget it."""
        daemon = self._daemons.get(ended.daemon)
        if daemon is not None and not daemon.local:
            daemon.settled.append((ended.fence, ended.lo, ended.hi))
            self._settling.add(ended.daemon)

    def send(self, session: Session) -> None:
        """Send a client what waits for it."""
        if session.gone_at is not None:
            return
        messages, duplicates = session.outbox.send()
        for outcomes in messages:
            self._do(Send(session.instance, m.Results(outcomes)))
        for ended in duplicates:
            self.settled(ended)

    def tick(self) -> None:
        """Send what has gathered, and write down what is left."""
        for session, states in self._shrunk.items():
            for state in states:
                self.persist(r.PutLeft(session, state.spec.number, state.chunk.first, state.left))
        self._shrunk.clear()
        for instance in self._talkative:
            self.send(self._sessions[instance])
        self._talkative.clear()
        for instance in self._settling:
            daemon = self._daemons[instance]
            parts, daemon.settled = daemon.settled, []
            for start in range(0, len(parts), SETTLED_PARTS):
                self._do(Send(instance, m.Settled(parts[start : start + SETTLED_PARTS])))
        self._settling.clear()
