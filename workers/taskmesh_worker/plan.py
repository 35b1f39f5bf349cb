"""The plan: the daemon's side of every decision. Which runner gets what, and which to start.

Events come in, actions come out; the daemon's loop owns sockets, clocks and processes. The rules kept here:

- Doses: a runner is handed about 5 ms of measured work at a time, one task of an unknown function, then doubling; and
  one dose ahead, so that it does not wait for the next one. A tail behind a long task is taken back when another
  runner idles.
- Claim and limit: positions count every task that a runner was ever handed. To take a tail back, the plan lowers the
  runner's limit, waits 1 ms, and reads what it has claimed by then; what lies behind is certainly not started.
- Blame: the claim names what ran when a runner died. One task: a strike, which goes to the hub. A block of very short
  ones: they run again one at a time, so that the next death names one. Everything else is queued again here, first.
- A slot is free only when its runner is: a runner that was told to drop its tail gets nothing until it said it did.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

from taskmesh.core import messages as m
from taskmesh.core.credit import Pace
from taskmesh.core.ranges import Ranges, add, overlap
from taskmesh.errors import LocalProtocolError, PeerProtocolError
from taskmesh.wire.pipe import CLAIM_MOST, Dose, PipeOutcome, PipeStopped

from .plan_events import (
    Action,
    Claimed,
    Drain,
    End,
    Event,
    Flush,
    FromHub,
    GiveBody,
    Hand,
    Interrupt,
    Kill,
    Look,
    Lower,
    Peek,
    Report,
    Reset,
    RunnerGone,
    RunnerReady,
    RunnerSaid,
    Sample,
    Sampled,
    Seen,
    Start,
    Tick,
)
from .plan_limits import AFTER, DOOMED, STOPPED, SUSPECT, Limiter, RunnerLimits, fates, last_word
from .plan_state import NEVER, Handed, Phase, Piece, Runner, Work

BLOCK_S = 0.0005  # very short items are claimed in blocks of about this many seconds of work
BLOCK_BELOW_S = 5e-6  # items longer than this are claimed one at a time
RECALL_AFTER_S = 0.003  # a tail handed out longer ago than this is taken back when another runner idles
CLAIM_SETTLE_S = 0.001  # how long a lowered limit takes to be seen for certain
BODIES_KEPT = 512
PACES_KEPT = 4096
RESTART_BACKOFF_S = (0.0, 0.0, 0.1, 0.5, 1.0, 5.0)


class Plan:
    """Decides what the daemon's runners do.

    Parameters
    ----------
    slots
        How many runners to keep.
    limits
        What each of them may take.
    """

    def __init__(self, slots: int, limits: RunnerLimits | None = None) -> None:
        self.slots = slots
        self._limiter = Limiter(limits or RunnerLimits(), lambda action: self._actions.append(action), self._recall)
        self._drain_at = NEVER
        self._interrupts: dict[int, Ranges] = {}  # by fence: what is to be interrupted if it has started
        self.runners: dict[int, Runner] = {}
        self.draining = False
        self._queue: deque[Piece] = deque()
        self._queued = 0
        self._works: dict[int, Work] = {}  # by fence, until everything of it is accounted for
        self._open: dict[int, int] = {}  # fence: how many of its tasks are queued or handed out
        self._paces: OrderedDict[tuple[int, int], Pace] = OrderedDict()
        self._bodies: OrderedDict[bytes, bytes] = OrderedDict()
        self._asked: set[bytes] = set()
        self._revokes: dict[int, Ranges] = {}
        self._numbers = 0
        self._failed_starts = 0
        self._start_at = 0.0
        self._left = False
        self._actions: list[Action] = []
        self._handlers: dict[type[Any], Callable[[Any, float], None]] = {
            FromHub: self._on_hub,
            RunnerReady: self._on_ready,
            RunnerSaid: self._on_said,
            RunnerGone: self._on_gone,
            Claimed: self._on_claimed,
            Seen: self._on_looked,
            Sampled: self._on_looked,
            Reset: self._on_reset,
            Tick: self._on_tick,
            Drain: self._on_drain,
        }
        self._hub_handlers: dict[type[Any], Callable[[Any, float], None]] = {
            m.Dispatch: self._on_dispatch,
            m.Body: self._on_body,
            m.Revoke: self._on_revoke,
            m.Forget: self._on_forget,
        }

    def handle(self, event: Event, now: float) -> list[Action]:
        """Digest one event. `now` is monotonic time in seconds."""
        self._handlers[type(event)](event, now)
        actions, self._actions = self._actions, []
        return actions

    def next_deadline(self) -> float:
        """When `Tick` is due if nothing else happens."""
        deadline = min(
            min((r.peek_at for r in self.runners.values()), default=NEVER),
            self._limiter.deadline(self.runners.values()),
            self._drain_at,
        )
        if len(self.runners) < self.slots and not self.draining:
            deadline = min(deadline, self._start_at)
        if not self._queue and any(r.open and not r.handed for r in self.runners.values()):
            tails = (r.handed_at for r in self.runners.values() if r.has_tail())
            deadline = min(deadline, min(tails, default=NEVER) + RECALL_AFTER_S)
        return deadline

    @property
    def idle(self) -> bool:
        """Whether nothing is queued or handed out."""
        return not self._queue and not any(r.handed for r in self.runners.values())

    # ---- from the hub ---------------------------------------------------------------------------------------

    def _on_hub(self, event: FromHub, now: float) -> None:
        handler = self._hub_handlers.get(type(event.message))
        if handler is not None:
            handler(event.message, now)

    def _on_dispatch(self, dispatch: m.Dispatch, now: float) -> None:
        if dispatch.fence in self._works:
            return
        if self.draining:
            self._report(m.GiveBack(dispatch.fence, [(dispatch.lo, dispatch.hi)], []))
            return
        pace = self._pace((dispatch.session, dispatch.spec))
        work = Work(dispatch, pace)
        self._works[dispatch.fence] = work
        self._open[dispatch.fence] = dispatch.hi - dispatch.lo
        self._enqueue(Piece(work, dispatch.lo, dispatch.hi, dispatch.attempt, dispatch.solo), front=False)

    def _pace(self, key: tuple[int, int]) -> Pace:
        """What was measured of a spec; the least recently dispatched are forgotten."""
        pace = self._paces.setdefault(key, Pace())
        self._paces.move_to_end(key)
        if len(self._paces) > PACES_KEPT:
            self._paces.popitem(last=False)
        return pace

    def _on_body(self, body: m.Body, now: float) -> None:
        self._bodies[body.digest] = body.data
        self._asked.discard(body.digest)
        while len(self._bodies) > BODIES_KEPT:
            self._bodies.popitem(last=False)

    def _on_revoke(self, revoke: m.Revoke, now: float) -> None:
        work = self._works.get(revoke.fence)
        if work is None:
            self._report(m.GiveBack(revoke.fence, [], [(revoke.lo, revoke.hi)]))
            return
        if revoke.interrupt:
            self._interrupts[revoke.fence] = add(self._interrupts.get(revoke.fence, []), revoke.lo, revoke.hi)
        self._revokes[revoke.fence] = add(self._revokes.get(revoke.fence, []), revoke.lo, revoke.hi)
        for runner in self.runners.values():
            if any(h.piece.work is work and overlap([(h.lo, h.hi)], revoke.lo, revoke.hi) for h in runner.handed):
                self._recall(runner, now)
        self._answer_revokes(now)

    def _on_forget(self, forget: m.Forget, now: float) -> None:
        for work in self._works.values():
            if work.dispatch.session == forget.session:
                work.wanted = False
        for key in [key for key in self._paces if key[0] == forget.session]:
            del self._paces[key]
        self._drop_unwanted(now)

    def _on_reset(self, event: Reset, now: float) -> None:
        for work in self._works.values():
            work.wanted = False
        self._revokes.clear()
        self._interrupts.clear()
        self._asked.clear()
        self._drop_unwanted(now, tell=False)
        self._works.clear()
        self._open.clear()
        if self.draining:
            self._left = False

    def _drop_unwanted(self, now: float, tell: bool = True) -> None:
        """Nobody waits for this work: drop it from the queue, and take it back from the runners."""
        pieces, self._queue = self._queue, deque()
        self._queued = 0
        for piece in pieces:
            if piece.work.wanted:
                self._enqueue(piece, front=False)
            elif tell:
                self._give_back(piece.work, [(piece.lo, piece.hi)])
        for runner in self.runners.values():
            if any(not h.piece.work.wanted for h in runner.handed):
                self._recall(runner, now)

    def _on_drain(self, event: Drain, now: float) -> None:
        self.draining = True
        self._drain_at = now + event.timeout_s
        self._report(m.Slots(0))
        while self._queue:
            piece = self._dequeue()
            self._give_back(piece.work, [(piece.lo, piece.hi)])
        for runner in self.runners.values():
            self._recall(runner, now)

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
            self._answer_revokes(now)
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
            d = work.dispatch
            outcome = m.Outcome(d.spec, d.chunk.first, lo, hi, said.form, said.blob)
            self._report(m.Finished(d.fence, d.session, said.busy_s, outcome))
        else:
            self._report(m.GiveBack(work.dispatch.fence, [(lo, hi)], []))
        self._account(work, hi - lo)
        self._limiter.on_outcome(runner, hi - lo, now)

    def _on_stopped(self, runner: Runner, said: PipeStopped) -> None:
        """The runner skipped these. What a claim has already taken back is not here any more."""
        for handed in [h for h in runner.handed if said.at < h.end and h.at < said.end]:
            self._take_back(runner, max(handed.at, said.at), min(handed.end, said.end))

    def _on_gone(self, event: RunnerGone, now: float) -> None:
        runner = self.runners.pop(event.runner, None)
        if runner is None:
            return
        if runner.phase is Phase.STARTING:
            self._failed_starts += 1
        self._start_at = now + RESTART_BACKOFF_S[min(self._failed_starts, len(RESTART_BACKOFF_S) - 1)]
        again: list[Piece] = []
        for handed in runner.handed:
            for start, end, fate in fates(runner, handed, event.claimed):
                lo, hi = handed.lo + start - handed.at, handed.lo + end - handed.at
                again += self._after_death(runner, handed.piece._replace(lo=lo, hi=hi), fate, event.report)
        self._put_back(again)

    def _after_death(self, runner: Runner, piece: Piece, fate: str, report: bytes) -> list[Piece]:
        """What to run again of a piece that a runner held when it ended."""
        work, d = piece.work, piece.work.dispatch
        single = piece.hi == piece.lo + 1 and work.wanted
        if fate == DOOMED and work.wanted:
            outcome = m.Outcome(d.spec, d.chunk.first, piece.lo, piece.hi, *last_word(runner, report))
            self._report(m.Finished(d.fence, d.session, 0.0, outcome))
            self._account(work, 1)
        elif single and (fate == SUSPECT or (fate == STOPPED and d.limits.at_most_once)):
            self._report(m.Strike(d.fence, piece.lo, piece.hi, report))
            self._account(work, 1)
        elif fate == AFTER:
            return [piece]
        else:
            blamed = fate == SUSPECT or (fate == STOPPED and runner.doom is not None)
            return [piece._replace(attempt=piece.attempt + 1, solo=piece.solo or blamed)]
        return []

    # ---- taking back ----------------------------------------------------------------------------------------

    def _recall(self, runner: Runner, now: float) -> None:
        if runner.phase is not Phase.READY or not runner.handed:
            return
        runner.phase = Phase.RECALLING
        runner.limit = runner.handed[0].at
        runner.peek_at = now + CLAIM_SETTLE_S
        runner.certain = False
        self._actions.append(Lower(runner.number, runner.limit))

    def _on_claimed(self, event: Claimed, now: float) -> None:
        runner = self.runners.get(event.runner)
        if runner is None or runner.phase is not Phase.RECALLING:
            return
        runner.certain = True
        self._take_back(runner, max(event.end, runner.limit), runner.next_at)
        self._answer_revokes(now)

    def _on_looked(self, event: Seen | Sampled, now: float) -> None:
        runner = self.runners.get(event.runner)
        if runner is None:
            return
        if isinstance(event, Seen):
            self._limiter.on_seen(runner, event, now)
        else:
            self._limiter.on_sampled(runner, event, now)

    def _take_back(self, runner: Runner, start: int, end: int) -> None:
        """Positions `[start, end)` are not going to be run by this runner: they are ours again."""
        kept: deque[Handed] = deque()
        again: list[Piece] = []
        for handed in runner.handed:
            a, b = max(handed.at, start), min(handed.end, end)
            if a >= b:
                kept.append(handed)
                continue
            lo, hi = handed.lo + a - handed.at, handed.lo + b - handed.at
            again.append(handed.piece._replace(lo=lo, hi=hi))
            if handed.at < a:
                kept.append(Handed(handed.at, handed.piece, handed.lo, lo, handed.price_s))
            if b < handed.end:
                kept.append(Handed(b, handed.piece, hi, handed.hi, handed.price_s))
        runner.handed = kept
        self._put_back(again)

    def _put_back(self, pieces: list[Piece]) -> None:
        """Queue pieces again, first, in their order; give them back instead when nobody wants them here."""
        for piece in reversed(pieces):
            if self.draining or not piece.work.wanted:
                self._give_back(piece.work, [(piece.lo, piece.hi)])
            else:
                self._enqueue(piece, front=True)

    def _give_back(self, work: Work, ranges: Ranges, kept: Ranges | None = None) -> None:
        if ranges or kept:
            self._report(m.GiveBack(work.dispatch.fence, ranges, kept or []))
        self._account(work, sum(hi - lo for lo, hi in ranges))

    def _answer_revokes(self, now: float) -> None:
        """Give back what is queued of revoked ranges; what a runner has claimed is kept, once that is certain."""
        for fence in list(self._revokes):
            work = self._works.get(fence)
            if work is None:
                self._interrupts.pop(fence, None)
                for lo, hi in self._revokes.pop(fence):
                    self._report(m.GiveBack(fence, [], [(lo, hi)]))
                continue
            holders = [r for r in self.runners.values() if any(h.piece.work is work for h in r.handed)]
            if any(r.phase is Phase.RECALLING and not r.certain for r in holders):
                continue  # a claim is about to be read
            revoked = self._revokes.pop(fence)
            returned: Ranges = []
            pieces, self._queue, self._queued = self._queue, deque(), 0
            for piece in pieces:
                parts: Ranges = [(piece.lo, piece.hi)]
                if piece.work is work:
                    gone = [part for lo, hi in revoked for part in overlap([(piece.lo, piece.hi)], lo, hi)]
                    returned += gone
                    for lo, hi in gone:
                        parts = [q for a, b in parts for q in ((a, min(b, lo)), (max(a, hi), b)) if q[0] < q[1]]
                for lo, hi in parts:
                    self._enqueue(piece._replace(lo=lo, hi=hi), front=False)
            kept = [
                part
                for r in holders
                for h in r.handed
                if h.piece.work is work
                for lo, hi in revoked
                for part in overlap([(h.lo, h.hi)], lo, hi)
            ]
            self._give_back(work, returned, kept)
            self._interrupt(fence, holders, now)

    def _interrupt(self, fence: int, holders: list[Runner], now: float) -> None:
        """What has started of these offsets is to be ended."""
        for lo, hi in self._interrupts.pop(fence, []):
            for runner in holders:
                for h in runner.handed:
                    if h.piece.work.dispatch.fence == fence:
                        for a, b in overlap([(h.lo, h.hi)], lo, hi):
                            self._limiter.cancel(runner, h.at + a - h.lo, h.at + b - h.lo, now)

    # ---- handing out ----------------------------------------------------------------------------------------

    def _on_tick(self, event: Tick, now: float) -> None:
        for runner in self.runners.values():
            if now >= runner.peek_at:
                runner.peek_at = NEVER
                self._actions.append(Peek(runner.number))
        if not self.draining:
            while len(self.runners) < self.slots and now >= self._start_at:
                self._numbers += 1
                self.runners[self._numbers] = Runner(self._numbers)
                self._actions.append(Start(self._numbers))
        if now >= self._drain_at:
            self._drain_at = NEVER
            for runner in self.runners.values():
                if runner.handed:
                    self._limiter.kill(runner)
        self._limiter.on_tick(self.runners.values(), now)
        if self._revokes:
            self._answer_revokes(now)
        if self._queue:
            self._hand_out(now)
        elif any(r.open and not r.handed for r in self.runners.values()):
            for runner in self.runners.values():
                if runner.has_tail() and now - runner.handed_at >= RECALL_AFTER_S:
                    self._recall(runner, now)
        if self.draining and self.idle and not self._left:
            self._left = True
            self._report(m.Leaving())

    def _hand_out(self, now: float) -> None:
        runners = sorted((r for r in self.runners.values() if r.open), key=lambda r: len(r.handed))
        waiting = 0  # pieces at the end of the queue whose function is still to come
        progress = True
        while progress:
            progress = False
            for runner in runners:
                if waiting < len(self._queue) and runner.has_room(self._queue[0].work.pace):
                    if not self._hand(runner, now):
                        self._queue.rotate(-1)
                        waiting += 1
                    progress = True

    def _hand(self, runner: Runner, now: float) -> bool:
        """Give the first queued piece, or a dose of it, to a runner. False: its function has to come first."""
        piece = self._queue[0]
        d = piece.work.dispatch
        if not all(self._provide(runner, digest) for digest in (d.digest, d.init) if digest):
            return False
        pace, chunk = piece.work.pace, d.chunk
        share = -(-self._queued // max(1, len(self.runners)))
        tasks = min(pace.dose(piece.solo), max(share, pace.least()))
        if chunk.grain > 1:
            tasks = max(chunk.grain, tasks - tasks % chunk.grain)
        hi = min(piece.hi, piece.lo + tasks)
        if hi < piece.hi and chunk.grain == 1:
            hi = chunk.whole_leaves(piece.lo, hi)
        self._dequeue()
        if hi < piece.hi:
            self._enqueue(piece._replace(lo=hi), front=True)
        at = runner.next_at
        dose = Dose(
            at, d.session, d.spec, piece.attempt, piece.lo, hi, _block(piece),
            d.name, d.digest, d.init, chunk.cut(piece.lo, hi),
            d.limits.timeout_s, d.limits.memory > 0 or d.limits.at_most_once,
        )  # fmt: skip
        runner.handed.append(Handed(at, piece, piece.lo, hi, pace.price_s()))
        runner.next_at = runner.limit = at + hi - piece.lo
        runner.handed_at = now
        self._actions.append(Hand(runner.number, dose, runner.limit))
        self._limiter.on_handed(runner, now)
        return True

    def _provide(self, runner: Runner, digest: bytes) -> bool:
        """See to it that a runner has a function. False: the hub was asked for it."""
        if digest in runner.bodies:
            runner.bodies.move_to_end(digest)
            return True
        body = self._bodies.get(digest)
        if body is None:
            if digest not in self._asked:
                self._asked.add(digest)
                self._report(m.NeedBody(digest))
            return False
        self._bodies.move_to_end(digest)
        drop = runner.bodies.popitem(last=False)[0] if len(runner.bodies) >= BODIES_KEPT else None
        runner.bodies[digest] = None
        self._actions.append(GiveBody(runner.number, digest, body, drop))
        return True

    # ---- books ----------------------------------------------------------------------------------------------

    def _report(self, message: Any) -> None:
        self._actions.append(Report(message))

    def _enqueue(self, piece: Piece, front: bool) -> None:
        self._queued += piece.hi - piece.lo
        if front:
            self._queue.appendleft(piece)
        else:
            self._queue.append(piece)

    def _dequeue(self) -> Piece:
        piece = self._queue.popleft()
        self._queued -= piece.hi - piece.lo
        return piece

    def _account(self, work: Work, tasks: int) -> None:
        """`tasks` of a lease have left this daemon."""
        fence = work.dispatch.fence
        if self._works.get(fence) is not work:
            return  # of a registration that is over
        self._open[fence] -= tasks
        if self._open[fence] <= 0:
            del self._open[fence], self._works[fence]

    def check(self) -> None:
        """Compare every index with every other.

        Raises
        ------
        LocalProtocolError
            Two of them disagree.
        """
        held: dict[int, int] = {}
        for piece in self._queue:
            held[piece.work.dispatch.fence] = held.get(piece.work.dispatch.fence, 0) + piece.hi - piece.lo
        if sum(held.values()) != self._queued:
            raise LocalProtocolError(f"{sum(held.values())} tasks are queued, {self._queued} on the books")
        for runner in self.runners.values():
            at = None
            for h in runner.handed:
                if (at is not None and h.at < at) or h.lo >= h.hi or h.end > runner.next_at:
                    raise LocalProtocolError(f"runner {runner.number}: positions out of order at {h.at}")
                at = h.end
                fence = h.piece.work.dispatch.fence
                if self._works.get(fence) is h.piece.work:
                    held[fence] = held.get(fence, 0) + h.hi - h.lo
        if held != self._open:
            raise LocalProtocolError(f"leases hold {held}, the books say {self._open}")


def _block(piece: Piece) -> int:
    """How many tasks a runner may claim at once: one, or `BLOCK_S` of work where items are known to be very short."""
    pace, d = piece.work.pace, piece.work.dispatch
    if d.limits != m.NO_LIMITS:
        return 1  # each is timed, and blamed, by itself
    if not d.chunk.items or piece.solo or pace.mean_s is None or pace.peak_s >= BLOCK_BELOW_S:
        return 1
    return min(CLAIM_MOST, int(BLOCK_S / max(pace.peak_s, 1e-9)))


__all__ = [
    "Action", "Claimed", "Drain", "End", "Event", "Flush", "FromHub", "GiveBody", "Hand", "Interrupt", "Kill", "Look",
    "Lower", "Peek", "Plan", "Report", "Reset", "RunnerGone", "RunnerLimits", "RunnerReady", "RunnerSaid", "Sample",
    "Sampled", "Seen", "Start", "Tick",
]  # fmt: skip
