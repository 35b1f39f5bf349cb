"""The plan: the daemon's side of every decision. Which runner gets what, and which to start.

Events come in, actions come out; the daemon's loop owns sockets, clocks and processes. What a runner is handed is
decided in `plan_doses`, what is taken back in `plan_recall`, whom to look at, interrupt or end in `plan_limits`, who
is blamed for a death in `plan_deaths`. The rules kept together:

- Doses: a runner is handed about 5 ms of measured work at a time, one task of an unknown function, then growing; and
  one dose ahead, so that it does not wait for the next one. A tail behind a long task is taken back when another
  runner idles.
- Claim and limit: positions count every task that a runner was ever handed; what lies behind a claim that was read
  after the limit was lowered is certainly not started.
- Blame: the claim names what ran when a runner died. One task: a strike, which goes to the hub. A block of very short
  ones: they run again one at a time, so that the next death names one. Everything else is queued again here, first.
- A slot is free only when its runner is: a runner that was told to drop its tail gets nothing until it said it did.
- Nothing is lost: outcomes are kept until they are settled. A hub that has forgotten this daemon is told first what
  ended here and then what is still here; what it does not want, it revokes.
- Silence: while the hub is not heard, `holding`, nothing starts, and what runners have not started is taken back.
- At most once: such a task is claimed, run and reported alone. Whatever its runner may have started is never run
  again, and a tail of them is ours again by the runner's own word only.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from taskmesh.core import messages as m
from taskmesh.core.limits import RESULT
from taskmesh.core.ranges import Ranges, add, overlap
from taskmesh.errors import PeerProtocolError
from taskmesh.wire.pipe import PipeOutcome, PipeStopped

from . import plan_audit, plan_deaths, plan_doses, plan_holdings, plan_recall
from .plan_events import (
    Action,
    Claimed,
    Drain,
    Event,
    FromHub,
    Hold,
    Peek,
    Report,
    Reported,
    Reset,
    RunnerGone,
    RunnerReady,
    RunnerSaid,
    Sampled,
    Seen,
    Start,
    Tick,
)
from .plan_ledger import Ledger, fitting
from .plan_limits import Limiter, RunnerLimits
from .plan_queue import Bodies, Paces, Queue
from .plan_state import NEVER, Phase, Piece, Runner, Work

RECALL_AFTER_S = 0.003  # a tail handed out longer ago than this is taken back when another runner idles
RESTART_BACKOFF_S = (0.0, 0.0, 0.1, 0.5, 1.0, 5.0)


class Plan:
    """Decides what the daemon's runners do.

    Parameters
    ----------
    slots
        How many runners to keep.
    keep_outcomes
        Whether outcomes are kept until they are settled; a hub in the same process has them when they are reported.
    limits
        What each runner may take.
    """

    def __init__(self, slots: int, keep_outcomes: bool = True, limits: RunnerLimits | None = None) -> None:
        self.slots = slots
        self.runners: dict[int, Runner] = {}
        self.draining = False
        self.holding = False
        self.leaving = False  # nothing is left here, and the hub was told
        self.ledger = Ledger()
        self.largest = RESULT  # bytes of outcomes that are reported together: the hub drops what has more
        self.queue = Queue()
        self.works: dict[int, Work] = {}  # by fence, until everything of it is accounted for
        self.open_tasks: dict[int, int] = {}  # fence: how many of its tasks are queued or handed out
        self.paces = Paces()
        self.bodies = Bodies()
        self.revokes: dict[int, Ranges] = {}  # by fence: what the hub wants back, and was not answered yet
        self.interrupts: dict[int, Ranges] = {}  # by fence: what is to be interrupted if it has started
        self.limiter = Limiter(limits or RunnerLimits(), self.do, partial(plan_recall.recall, self))
        self._keep_outcomes = keep_outcomes
        self._drain_at = NEVER  # when what still runs is ended
        self._numbers = 0  # of runners: none is used twice
        self._failed_starts = 0
        self._start_at = 0.0  # when the next runner may be started
        self._actions: list[Action] = []
        self._handlers: dict[type[Any], Callable[[Any, float], None]] = {
            FromHub: self._on_hub,
            RunnerReady: self._on_ready,
            RunnerSaid: self._on_said,
            RunnerGone: partial(plan_deaths.on_gone, self),
            Claimed: partial(plan_recall.on_claimed, self),
            Seen: self._on_looked,
            Sampled: self._on_looked,
            Reset: self._on_reset,
            Tick: self._on_tick,
            Drain: self._on_drain,
            Hold: self._on_hold,
        }
        self._hub_handlers: dict[type[Any], Callable[[Any, float], None]] = {
            m.Dispatch: self._on_dispatch,
            m.Body: self._on_body,
            m.Revoke: self._on_revoke,
            m.Forget: self._on_forget,
            m.Settled: self._on_settled,
        }

    def handle(self, event: Event, now: float) -> list[Action]:
        """Digest one event. `now` is monotonic time in seconds."""
        self._handlers[type(event)](event, now)
        actions, self._actions = self._actions, []
        return actions

    def next_deadline(self) -> float:
        """When `Tick` is due if nothing else happens."""
        runners = self.runners.values()
        deadline = min(self._drain_at, self.limiter.deadline(runners))
        if len(self.runners) < self.slots and not self.draining:
            deadline = min(deadline, self._start_at)
        idle, tail_at = False, NEVER
        for runner in runners:
            if runner.peek_at < deadline:
                deadline = runner.peek_at
            if not runner.handed:
                idle = idle or runner.open
            elif runner.handed_at < tail_at and runner.has_tail():
                tail_at = runner.handed_at
        return min(deadline, tail_at + RECALL_AFTER_S) if idle and not self.queue else deadline

    @property
    def idle(self) -> bool:
        """Whether nothing is queued or handed out."""
        return not self.queue and not any(r.handed for r in self.runners.values())

    @property
    def lone(self) -> bool:
        """Whether nothing waits for a runner."""
        return not self.queue and all(len(r.handed) < 2 for r in self.runners.values())

    # ---- from the hub ---------------------------------------------------------------------------------------

    def _on_hub(self, event: FromHub, now: float) -> None:
        handler = self._hub_handlers.get(type(event.message))
        if handler is not None:
            handler(event.message, now)

    def _on_dispatch(self, dispatch: m.Dispatch, now: float) -> None:
        if dispatch.fence in self.works:
            return
        if self.draining:
            self.report(m.GiveBack(dispatch.fence, [(dispatch.lo, dispatch.hi)], []))
            return
        work = Work(dispatch, self.paces.get((dispatch.session, dispatch.spec)))
        self.works[dispatch.fence] = work
        self.open_tasks[dispatch.fence] = dispatch.hi - dispatch.lo
        self.queue.push(Piece(work, dispatch.lo, dispatch.hi, dispatch.attempt, dispatch.solo))

    def _on_body(self, body: m.Body, now: float) -> None:
        self.bodies.put(body.digest, body.data)

    def _on_settled(self, settled: m.Settled, now: float) -> None:
        self.ledger.settle(settled.parts)

    def _on_revoke(self, revoke: m.Revoke, now: float) -> None:
        work = self.works.get(revoke.fence)
        if work is None:
            self.report(m.GiveBack(revoke.fence, [], [(revoke.lo, revoke.hi)]))
            return
        if revoke.interrupt:
            self.interrupts[revoke.fence] = add(self.interrupts.get(revoke.fence, []), revoke.lo, revoke.hi)
        self.revokes[revoke.fence] = add(self.revokes.get(revoke.fence, []), revoke.lo, revoke.hi)
        for runner in self.runners.values():
            if any(h.piece.work is work and overlap([(h.lo, h.hi)], revoke.lo, revoke.hi) for h in runner.handed):
                plan_recall.recall(self, runner, now)
        plan_recall.answer_revokes(self)
        plan_recall.interrupt(self, now)

    def _on_forget(self, forget: m.Forget, now: float) -> None:
        for work in self.works.values():
            if work.dispatch.session == forget.session:
                work.wanted = False
        self.ledger.forget(forget.session)
        self.paces.forget(forget.session)
        for piece in self.queue.drain():
            if piece.work.wanted:
                self.queue.push(piece)
            else:
                plan_recall.give_back(self, piece.work, [(piece.lo, piece.hi)])
        for runner in self.runners.values():
            if any(not h.piece.work.wanted for h in runner.handed):
                plan_recall.recall(self, runner, now)

    def _on_reset(self, event: Reset, now: float) -> None:
        """Say everything that the hub, or another one, needs to know of this daemon.

        What was said last may not have arrived. Outcomes are offered again. A `GiveBack` that was lost, or a `Strike`,
        shows in the inventory, which does not name those tasks: the hub queues them again. So such a death is not
        counted as a strike, which is all that is lost by it.
        """
        self.revokes.clear()
        self.interrupts.clear()
        self.bodies.ask_again()
        self.leaving = False
        self.largest = event.largest
        if event.again:
            for whole in self.ledger.entries():
                for entry in fitting(whole, self.largest):
                    self.report(entry)
            self.report(plan_holdings.inventory(self))
        if self.draining:
            self.report(m.Slots(0))

    def _on_hold(self, event: Hold, now: float) -> None:
        self.holding = event.hold
        if self.holding:
            for runner in self.runners.values():
                plan_recall.recall(self, runner, now)

    def _on_drain(self, event: Drain, now: float) -> None:
        self.draining = True
        self._drain_at = now + event.timeout_s
        self.report(m.Slots(0))
        for piece in self.queue.drain():
            plan_recall.give_back(self, piece.work, [(piece.lo, piece.hi)])
        for runner in self.runners.values():
            plan_recall.recall(self, runner, now)

    # ---- from the runners -----------------------------------------------------------------------------------

    def _on_ready(self, event: RunnerReady, now: float) -> None:
        runner = self.runners.get(event.runner)
        if runner is None:
            return
        if runner.phase is not Phase.STARTING:
            raise PeerProtocolError(f"runner {runner.number} has started twice")
        runner.phase = Phase.READY
        self._failed_starts = 0

    def _on_said(self, event: RunnerSaid, now: float) -> None:
        runner = self.runners.get(event.runner)
        if runner is None:
            return
        if isinstance(event.what, PipeOutcome):
            self._on_outcome(runner, event.what, now)
            runner.spoken = event.what.at + event.what.tasks
        else:
            self._on_stopped(runner, event.what)
            runner.spoken = event.what.end
        if runner.phase is Phase.RECALLING and runner.spoken == runner.next_at:
            runner.phase = Phase.READY
            runner.peek_at = NEVER

    def _on_outcome(self, runner: Runner, said: PipeOutcome, now: float) -> None:
        handed = runner.handed[0] if runner.handed else None
        if handed is None or said.at != handed.at or not handed.at < said.at + said.tasks <= handed.end:
            raise PeerProtocolError(f"runner {runner.number} reported {said.tasks} tasks at {said.at}, not its next")
        lo, hi = handed.lo, handed.lo + said.tasks
        handed.at += said.tasks
        handed.lo = hi
        if handed.lo == handed.hi:
            runner.handed.popleft()
        runner.handed_at = now
        work = handed.piece.work
        work.pace.observe(said.tasks, said.busy_s)
        if work.wanted:
            self.finish(work, lo, hi, said.form, said.blob, said.busy_s)
        else:
            self.report(m.GiveBack(work.dispatch.fence, [(lo, hi)], []))
        self.account(work, hi - lo)
        self.limiter.on_outcome(runner, hi - lo, now)

    def _on_stopped(self, runner: Runner, said: PipeStopped) -> None:
        """The runner skipped these. What a claim has already taken back is not here any more."""
        if not said.at == runner.spoken < said.end <= runner.next_at:
            raise PeerProtocolError(f"runner {runner.number} dropped {said.at} to {said.end}, not its next")
        for handed in [h for h in runner.handed if said.at < h.end and h.at < said.end]:
            plan_recall.take_back(self, runner, max(handed.at, said.at), min(handed.end, said.end))

    def _on_looked(self, event: Seen | Sampled, now: float) -> None:
        runner = self.runners.get(event.runner)
        if runner is None:
            return
        if isinstance(event, Seen):
            self.limiter.on_seen(runner, event, now)
            if runner.phase is Phase.RECALLING and runner.certain:
                plan_recall.on_claimed(self, Claimed(runner.number, event.end), now)
        else:
            self.limiter.on_sampled(runner, event, now)

    # ---- time -----------------------------------------------------------------------------------------------

    def _on_tick(self, event: Tick, now: float) -> None:
        for runner in self.runners.values():
            if now >= runner.peek_at:
                runner.peek_at = NEVER
                self.do(Peek(runner.number))
        self._start_runners(now)
        if now >= self._drain_at:
            self._drain_at = NEVER
            for runner in self.runners.values():
                if runner.handed:
                    self.limiter.kill(runner)
        self.limiter.on_tick(self.runners.values(), now)
        if self.revokes:
            plan_recall.answer_revokes(self)
        if self.interrupts:
            plan_recall.interrupt(self, now)
        if not self.holding:
            self._share_out(now)
        if self.draining and self.idle and not self.leaving:
            self.leaving = True
            self.report(m.Leaving())

    def _start_runners(self, now: float) -> None:
        """Each slot has a runner, unless this daemon drains."""
        while len(self.runners) < self.slots and not self.draining and now >= self._start_at:
            self._numbers += 1
            self.runners[self._numbers] = Runner(self._numbers)
            self.do(Start(self._numbers))

    def _share_out(self, now: float) -> None:
        """Hand out what waits; if nothing does, and a runner idles, take back what others have not come to."""
        if self.queue:
            plan_doses.hand_out(self, now)
        elif any(r.open and not r.handed for r in self.runners.values()):
            for runner in self.runners.values():
                if runner.has_tail() and now - runner.handed_at >= RECALL_AFTER_S:
                    plan_recall.recall(self, runner, now)

    # ---- what its parts need --------------------------------------------------------------------------------

    def do(self, action: Action) -> None:
        """Have this done, after what was decided before."""
        self._actions.append(action)

    def report(self, message: Reported) -> None:
        """Tell the hub."""
        self._actions.append(Report(message))

    def finish(self, work: Work, lo: int, hi: int, form: int, blob: bytes, busy_s: float) -> None:
        """Offsets `[lo, hi)` of a lease have ended: report their outcome, and keep it until it is settled."""
        d = work.dispatch
        whole = m.Finished(d.fence, d.session, busy_s, m.Outcome(d.spec, d.chunk.first, lo, hi, form, blob))
        for entry in fitting(whole, self.largest):
            if self._keep_outcomes:
                self.ledger.keep(entry)
            self.report(entry)

    def account(self, work: Work, tasks: int) -> None:
        """`tasks` of a lease have left this daemon."""
        fence = work.dispatch.fence
        self.open_tasks[fence] -= tasks
        if self.open_tasks[fence] <= 0:
            del self.open_tasks[fence], self.works[fence]

    def replace(self, runner: Runner, now: float) -> None:
        """A runner has ended: another one is started at once, but later and later if they do not come up."""
        if runner.phase is Phase.STARTING:
            self._failed_starts += 1
        self._start_at = now + RESTART_BACKOFF_S[min(self._failed_starts, len(RESTART_BACKOFF_S) - 1)]

    # ---- what it knows --------------------------------------------------------------------------------------

    def held(self) -> list[tuple[int, int, int]]:
        """What its runners hold, as `(fence, lo, hi)`, for heartbeats."""
        return plan_holdings.held(self)

    def check(self) -> None:
        """Compare every index with every other.

        Raises
        ------
        LocalProtocolError
            Two of them disagree.
        """
        plan_audit.check(self)


__all__ = [  # the events are here for tests/core/test_chaos.py alone: everybody else takes them from `plan_events`
    "Claimed", "Drain", "Event", "FromHub", "Hold", "Plan", "Reset", "RunnerGone", "RunnerLimits", "RunnerReady",
    "RunnerSaid", "Sampled", "Seen", "Tick",
]  # fmt: skip
