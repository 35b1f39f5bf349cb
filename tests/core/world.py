"""A scheduler, and what it asked for: fails on actions that nobody expected."""

from __future__ import annotations

from taskmesh.core import actions as a
from taskmesh.core import events as e
from taskmesh.core import messages as m
from taskmesh.core.chunk import Chunk, pack_sizes
from taskmesh.core.quota import UNLIMITED, Quotas
from taskmesh.core.scheduler import Scheduler
from taskmesh.core.timing import Timing

DIGEST = b"0123456789abcdef"
CLIENT, DAEMON = 11, 21


def calls(count: int, first: int = 0) -> Chunk:
    """A chunk of calls of one byte each."""
    return Chunk(first, 0, count, pack_sizes([1] * count), b"", 1, b"c" * count)


def register(role: str, instance: int, attempt: int = 1, slots: int = 1, epoch: int = 0) -> m.Register:
    """A request to take part, of the right release."""
    return m.Register(role, instance, attempt, 1, epoch, 0, f"{role}{instance}", "host", 1, slots, "1.0", "3.11")


class World:
    """Drives a scheduler by hand. `check()` runs after every event; time stands still unless it is advanced.

    Notes are left out: they are for the log.
    """

    def __init__(self, recovery_s: float = 0.0, durable: bool = False, quotas: Quotas = UNLIMITED) -> None:
        self.now = 100.0
        self.scheduler = Scheduler(
            "1.0", "3.11", self.now, Timing(recovery_s=recovery_s), durable=durable, quotas=quotas
        )  # fmt: skip
        self.actions: list[a.Action] = []

    def happens(self, event: e.Event) -> None:
        """Hand in an event and keep what the scheduler wants done."""
        actions = self.scheduler.handle(event, self.now)
        self.actions += [action for action in actions if not isinstance(action, a.Note)]
        self.scheduler.check()
        self.scheduler.statistics(self.now)

    def tick(self, seconds: float = 0.0) -> None:
        """Time goes by, and the hub's loop comes round."""
        self.now += seconds
        self.happens(e.Tick())

    def expect(self, *actions: a.Action) -> None:
        """The next actions are exactly these."""
        for expected in actions:
            assert self.actions, f"expected {expected}, and nothing was asked for"
            assert self.actions.pop(0) == expected

    def expect_send(self, instance: int, message: m.LinkMessage) -> None:
        """The next action sends this."""
        self.expect(a.Send(instance, message))

    def expect_dispatch(self, lo: int, hi: int, daemon: int = DAEMON) -> m.Dispatch:
        """The next action leases offsets `[lo, hi)` to a daemon; the function may come first."""
        while self.actions and isinstance(self.actions[0], a.Send) and isinstance(self.actions[0].message, m.Body):
            self.actions.pop(0)
        assert self.actions, f"expected a lease of [{lo}, {hi}), and nothing was asked for"
        action = self.actions.pop(0)
        assert isinstance(action, a.Send)
        dispatch = action.message
        assert isinstance(dispatch, m.Dispatch)
        assert (action.instance, dispatch.lo, dispatch.hi) == (daemon, lo, hi)
        return dispatch

    def expect_dispatches(self) -> list[m.Dispatch]:
        """The leases among what was asked for, which is dropped."""
        sent = [action.message for action in self.actions if isinstance(action, a.Send)]
        self.actions.clear()
        return [message for message in sent if isinstance(message, m.Dispatch)]

    def nothing_else(self) -> None:
        """Everything that was asked for has been looked at."""
        assert not self.actions, f"nobody expected {self.actions}"

    # ---- what usually happens -----------------------------------------------------------------------------------

    def hears(self, instance: int, message: m.LinkMessage) -> None:
        """A message of a peer arrives."""
        self.heard(instance)
        self.happens(e.Received(instance, message))

    def joins(self, role: str, instance: int, slots: int = 1) -> None:
        """A peer registers for the first time."""
        self.happens(e.Joined(register(role, instance, slots=slots)))
        admit = self.actions.pop(0)
        assert isinstance(admit, a.Admit)
        assert (admit.instance, admit.role, admit.resume) == (instance, role, False)
        self.heard(instance)

    def heard(self, instance: int) -> None:
        """A heartbeat of a peer arrives, or a frame."""
        peer = self.scheduler.roster.peers.get(instance)
        if peer is not None:
            self.scheduler.heard(instance, peer.epoch, self.now)

    def submits(
        self,
        count: int,
        *,
        client: int = CLIENT,
        spec: int = 1,
        first: int = 0,
        priority: int = 0,
        limits: m.Limits = m.NO_LIMITS,
        left: list[tuple[int, int]] | None = None,
    ) -> None:
        """A chunk arrives, with its function if that is new; `left`: it is offered again."""
        self.hears(client, m.Spec(spec, "f", DIGEST, b"", priority, limits))
        self.hears(client, m.Body(DIGEST, b"body"))
        self.hears(client, m.Submit(spec, calls(count, first), left or []))

    def outcome(
        self, dispatch: m.Dispatch, lo: int, hi: int, form: int = m.Form.LIST, *, daemon: int = DAEMON
    ) -> m.Outcome:
        """A daemon reports on a lease; returns the outcome that the client should hear of."""
        outcome = m.Outcome(dispatch.spec, dispatch.chunk.first, lo, hi, form, b"r")
        self.hears(daemon, m.Done([m.Finished(dispatch.fence, dispatch.session, 0.2, outcome)]))
        return outcome
