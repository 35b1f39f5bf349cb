"""A plan, and what it asked for: fails on actions that nobody expected."""

from __future__ import annotations

from typing import TypeVar

from taskmesh.core import messages as m
from taskmesh.core.chunk import Chunk, pack_sizes
from taskmesh.wire.pipe import PipeOutcome, PipeStopped
from taskmesh_worker import plan_events as p
from taskmesh_worker.plan import Plan
from taskmesh_worker.plan_limits import RunnerLimits

A = TypeVar("A")
DIGEST = b"0123456789abcdef"
SESSION = 7


def calls(count: int, first: int = 0) -> Chunk:
    """A chunk of calls of one byte each."""
    return Chunk(first, 0, count, pack_sizes([1] * count), b"", 1, b"c" * count)


def items(count: int, grain: int = 1) -> Chunk:
    """A chunk of one map leaf."""
    return Chunk(0, 0, count, pack_sizes([count]), pack_sizes([count]), grain, b"i" * count)


class PlanWorld:
    """Drives a plan by hand. `check()` runs after every event; time stands still unless it is advanced.

    Looks at runners are kept apart, in `looks`: they change nothing.
    """

    def __init__(self, slots: int, limits: RunnerLimits | None = None, *, keep_outcomes: bool = True) -> None:
        self.plan = Plan(slots, keep_outcomes, limits)
        self.now = 100.0
        self.actions: list[p.Action] = []
        self.looks: list[int] = []

    def happens(self, event: p.Event) -> None:
        """Hand in an event and keep what the plan wants done."""
        for action in self.plan.handle(event, self.now):
            if isinstance(action, p.Look):
                self.looks.append(action.runner)
            else:
                self.actions.append(action)
        self.plan.check()

    def tick(self, seconds: float = 0.0) -> None:
        """Time goes by, and the daemon's loop comes round."""
        self.now += seconds
        self.happens(p.Tick())

    def take(self, kind: type[A]) -> A:
        """The next action, which has to be of this kind."""
        assert self.actions, f"expected {kind.__name__}, and nothing was asked for"
        action = self.actions.pop(0)
        assert isinstance(action, kind), f"expected {kind.__name__}, got {action}"
        return action

    def expect(self, *actions: p.Action) -> None:
        """The next actions are exactly these."""
        for expected in actions:
            assert self.take(type(expected)) == expected

    def expect_report(self, message: object) -> None:
        """The next action tells the hub this."""
        assert self.take(p.Report).message == message

    def nothing_else(self) -> None:
        """Everything that was asked for has been looked at."""
        assert not self.actions, f"nobody expected {self.actions}"

    # ---- what usually happens -----------------------------------------------------------------------------------

    def start_runners(self) -> None:
        """The plan starts its runners, and they come up."""
        self.tick()
        for number in range(1, self.plan.slots + 1):
            self.expect(p.Start(number))
            self.happens(p.RunnerReady(number))
        self.nothing_else()

    def dispatch(
        self,
        chunk: Chunk,
        fence: int = 1,
        lo: int = 0,
        hi: int | None = None,
        *,
        spec: int = 1,
        session: int = SESSION,
        limits: m.Limits = m.NO_LIMITS,
    ) -> m.Dispatch:
        """A lease arrives, of a function that is known."""
        self.happens(p.FromHub(m.Body(DIGEST, b"body")))
        end = chunk.count if hi is None else hi
        dispatch = m.Dispatch(fence, session, spec, "f", DIGEST, b"", 1, False, lo, end, limits, chunk)
        self.happens(p.FromHub(dispatch))
        return dispatch

    def hand(self, runner: int, lo: int, hi: int) -> p.Hand:
        """The next action hands offsets `[lo, hi)` to a runner; its function may come first."""
        if self.actions and isinstance(self.actions[0], p.GiveBody):
            self.take(p.GiveBody)
        hand = self.take(p.Hand)
        assert (hand.runner, hand.dose.lo, hand.dose.hi) == (runner, lo, hi)
        assert hand.limit == hand.dose.at + hi - lo
        return hand

    def outcome(self, runner: int, at: int, count: int = 1, busy_s: float = 1e-5) -> m.Finished:
        """A runner reports results; the plan passes them on."""
        self.happens(p.RunnerSaid(runner, PipeOutcome(at, count, m.Form.LIST, busy_s, b"r")))
        finished = self.take(p.Report).message
        assert isinstance(finished, m.Finished)
        return finished

    def stopped(self, runner: int, at: int, end: int) -> None:
        """A runner says that it skipped positions `[at, end)`."""
        self.happens(p.RunnerSaid(runner, PipeStopped(at, end)))

    def warm_up(self, runner: int = 1, tasks: int = 256, task_s: float = 1e-5, *, spec: int = 1) -> int:
        """Let one runner do some tasks of a function, so that its pace is known; returns the runner's next position."""
        self.dispatch(calls(tasks, first=10**6), fence=999, spec=spec)
        self.tick()
        while self.actions:
            hand = self.actions.pop(0)
            if isinstance(hand, p.Hand):
                tasks = hand.dose.hi - hand.dose.lo
                self.happens(p.RunnerSaid(hand.runner, PipeOutcome(hand.dose.at, tasks, 1, task_s * tasks, b"")))
                self.happens(p.Tick())
        assert self.plan.idle
        self.happens(p.FromHub(m.Settled([(999, 0, 256)])))
        return self.plan.runners[runner].next_at
