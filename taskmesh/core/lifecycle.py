"""The life of a task as the hub sees it, as one literal table.

A task waits (`READY`), is out with a daemon (`LEASED`), and ends once. What is not in the table cannot happen: asking
for it raises, because it would be a bug of ours and not of a peer.
"""

from __future__ import annotations

from enum import StrEnum

from ..errors import IllegalTransition


class State(StrEnum):
    """Where a task is."""

    READY = "ready"
    LEASED = "leased"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Step(StrEnum):
    """What happens to a task."""

    DISPATCHED = "dispatched"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    RETURNED = "returned"
    LOST = "lost"


TRANSITIONS: dict[tuple[State, Step], State] = {
    (State.READY, Step.DISPATCHED): State.LEASED,
    (State.READY, Step.SUCCEEDED): State.DONE,  # a late success of an earlier dispatch
    (State.READY, Step.CANCELLED): State.CANCELLED,
    (State.LEASED, Step.SUCCEEDED): State.DONE,
    (State.LEASED, Step.FAILED): State.FAILED,
    (State.LEASED, Step.CANCELLED): State.CANCELLED,
    (State.LEASED, Step.RETURNED): State.READY,
    (State.LEASED, Step.LOST): State.FAILED,  # it may have started, and must not start again
    (State.READY, Step.LOST): State.FAILED,  # it may have started under the hub before this one
}


def next_state(state: State, step: Step) -> State:
    """Where `step` leads from `state`.

    Raises
    ------
    IllegalTransition
        Nowhere: the table has no such edge.
    """
    try:
        return TRANSITIONS[state, step]
    except KeyError:
        raise IllegalTransition(f"a task that is {state} cannot be {step}") from None
