"""What arrives at a client of its tasks: outcomes, refusals and answers, on their way to futures, maps and callers.

Everything here happens in the receive thread. The session is touched under its lock; futures and maps are told
without it, because callbacks run then.
"""

from __future__ import annotations

from collections import deque
from contextlib import AbstractContextManager
from typing import Any

from .cancelling import Questions
from .core import messages as m
from .core.ranges import Ranges
from .core.session import ClientSpec, Session
from .errors import HubFull
from .futures import Future, end_cancelled, end_error
from .outcomes import end

Spec = ClientSpec[Future[Any]]


class Arrivals:
    """Settles what a session waits for.

    Parameters
    ----------
    session, lock
        The session, and what guards it.
    questions
        Callers that asked to cancel something.
    retired
        Takes functions that are gone and of which nothing is unsettled any more.
    hub
        Its address, for errors.
    """

    def __init__(
        self,
        session: Session[Future[Any]],
        lock: AbstractContextManager[object],
        questions: Questions,
        retired: deque[Spec],
        hub: str,
    ) -> None:
        self._session = session
        self._lock = lock
        self._questions = questions
        self._retired = retired
        self._hub = hub

    def outcome(self, outcome: m.Outcome) -> None:
        """Tasks of a chunk have ended."""
        with self._lock:
            delivery = self._session.outcome(outcome)
        if delivery is None:
            return
        spec, sent, fresh = delivery
        if sent.owner is not None:
            sent.owner.deliver(outcome, fresh)
        elif outcome.form == m.Form.CANCELLED:
            for future in sent.waiters[outcome.lo : outcome.hi]:
                end_cancelled(future)
        else:
            end(sent.waiters[outcome.lo : outcome.hi], spec.name, outcome)
        self._ended(spec, outcome.first, fresh)

    def rejected(self, message: m.Rejected) -> None:
        """The hub did not take a chunk."""
        with self._lock:
            spec = self._session.specs.get(message.spec)
            rejected = self._session.rejected(message)
        if spec is None or rejected is None:
            return
        sent, left = rejected
        error = HubFull(f"the hub at {self._hub} did not take tasks of {spec.name}: {message.why}")
        if sent.owner is not None:
            sent.owner.refuse(message.first, left, error)
        for lo, hi in left:
            for future in sent.waiters[lo:hi]:
                end_error(future, error)
        self._ended(spec, message.first, left)

    def kept(self, message: m.Cancelled) -> None:
        """What was asked to be cancelled, and has started."""
        self._questions.answered(message.spec, message.first, message.kept)

    def _ended(self, spec: Spec, first: int, ranges: Ranges) -> None:
        self._questions.answered(spec.number, first, ranges)
        if spec.retired and not spec.sent:
            self._retired.append(spec)
