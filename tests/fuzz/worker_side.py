"""Targets: the plan, with a hostile hub; and with a hostile runner beside one that keeps the rules."""

from __future__ import annotations

import contextlib
from collections import Counter, deque
from collections.abc import Callable
from typing import cast

from taskmesh.core import messages as m
from taskmesh.core.chunk import Chunk, pack_sizes
from taskmesh.errors import PeerProtocolError
from taskmesh.wire import pipe
from taskmesh.wire.messages import decode, encode
from taskmesh.wire.pipe import PipeOutcome, PipeStopped
from taskmesh_worker import plan_events as p
from taskmesh_worker.plan import Plan
from taskmesh_worker.plan_limits import RunnerLimits

from .grammar import DIGESTS, EDGES, REPORT, Known, packed
from .oracle import Broken, Stopwatch
from .source import Source, chance, pick

FROM_HUB = (m.Dispatch, m.Dispatch, m.Dispatch, m.Body, m.Revoke, m.Revoke, m.Forget, m.Settled, m.Results, m.Goodbye)
LIMITS = (RunnerLimits(), RunnerLimits(), RunnerLimits(1000, 3, 400))
SESSION = 1
EVENTS = 60
ROUNDS = 300
SPINS = 20  # rounds without a pause: those that ended in the last one are replaced in the next


class Model:
    """A runner that keeps the rules: it runs what it was handed, in order, as far as its limit allows."""

    def __init__(self) -> None:
        self.doses: deque[pipe.Dose] = deque()
        self.limit = 0
        self.claimed = 0

    def step(self, most: int) -> PipeOutcome | PipeStopped | None:
        """Run up to `most` tasks of its first dose."""
        if not self.doses:
            return None
        dose = self.doses[0]
        end = dose.at + dose.hi - dose.lo
        tasks = min(most, end - dose.at)
        if self.limit < dose.at + tasks:
            self.doses.popleft()
            return PipeStopped(dose.at, end)
        self.claimed = dose.at + tasks
        self.doses.popleft()
        if self.claimed < end:
            self.doses.appendleft(dose._replace(at=self.claimed, lo=dose.lo + tasks))
        return PipeOutcome(dose.at, tasks, m.Form.LIST, 0.001, b"honest")


class World:
    """A plan and its runners; those whose numbers are in `hostile` are only what the source makes of them."""

    def __init__(self, source: Source, slots: int) -> None:
        self.source = source
        self.now = 1.0
        self.plan = Plan(slots, keep_outcomes=source.below(2) == 1, limits=pick(source, LIMITS))
        self.models: dict[int, Model] = {}
        self.hostile: set[int] = set()
        self.known = Known(sessions=[SESSION, 2])
        self.watch = Stopwatch(1.0)
        self.accounted: Counter[tuple[int, int]] = Counter()
        self.blobs: set[bytes] = set()
        self.happens(p.Tick())

    def happens(self, event: p.Event) -> None:
        """Hand in an event, and perform what comes of it; actions run in order, as the daemon runs them."""
        events = deque([event])
        while events:
            event = events.popleft()
            self.watch.start()
            try:
                actions = self.plan.handle(event, self.now)
            except PeerProtocolError:
                if not isinstance(event, p.RunnerSaid | p.RunnerReady) or event.runner not in self.hostile:
                    raise
                events.append(self._dies(event.runner))
                continue
            finally:
                self.watch.stop(event)
            for action in actions:
                answer = self._perform(action)
                events.extend([answer] if answer is not None else ())
            self.plan.check()
            self.plan.held()

    def _dies(self, runner: int) -> p.RunnerGone:
        self.models.pop(runner, None)
        lo = self.number()
        return p.RunnerGone(runner, (lo, lo + self.source.below(4)), REPORT)

    def number(self) -> int:
        """A position as words in shared memory can have it: 52 bits."""
        return self.source.below(12) if not chance(self.source, 8) else abs(pick(self.source, EDGES)) % 2**52

    def _perform(self, action: p.Action) -> p.Event | None:
        if isinstance(action, p.Report):
            self._reported(action.message)
            return None
        model = self.models.get(action.runner)
        if isinstance(action, p.Start):
            self.models[action.runner] = Model()
            return p.RunnerReady(action.runner)
        if model is None:
            return None
        if isinstance(action, p.Hand):
            pipe.unpack_dose(b"".join(pipe.pack_dose(action.dose))[pipe.FRAME.size :])
            model.doses.append(action.dose)
            model.limit = action.limit
        elif isinstance(action, p.Lower):
            model.limit = action.limit
        elif isinstance(action, p.Peek):
            return p.Claimed(action.runner, self._claimed(action.runner, model))
        elif isinstance(action, p.Look):
            end = self._claimed(action.runner, model)
            return p.Seen(action.runner, max(0, end - 1), end, 0.0)
        elif isinstance(action, p.Sample):
            end = self._claimed(action.runner, model)
            return p.Sampled(action.runner, 100, max(0, end - 1), end)
        elif isinstance(action, p.Interrupt):
            assert 0 <= (action.position + 1) << 2 < 2**64, "no word of shared memory can hold this position"
        elif isinstance(action, p.Kill | p.End):
            del self.models[action.runner]
            return p.RunnerGone(action.runner, (model.claimed, model.claimed), REPORT)
        return None

    def _claimed(self, runner: int, model: Model) -> int:
        return self.number() if runner in self.hostile else model.claimed

    def _reported(self, message: object) -> None:
        """What goes to the hub is something that the hub can read."""
        if isinstance(message, m.Finished):
            done = decode(encode(m.Done([message])))
            assert isinstance(done, m.Done)
            (entry,) = done.entries
            self._account(entry.fence, entry.outcome.lo, entry.outcome.hi)
            if entry.outcome.form == m.Form.LIST:
                self.blobs.add(entry.outcome.blob)
            return
        arrived = decode(encode(cast(m.LinkMessage, message)))
        if isinstance(arrived, m.GiveBack):
            for lo, hi in arrived.returned:
                self._account(arrived.fence, lo, hi)
        elif isinstance(arrived, m.Strike):
            self._account(arrived.fence, arrived.lo, arrived.hi)
        elif isinstance(arrived, m.NeedBody):
            self.known.fences = self.known.fences[-8:]

    def _account(self, fence: int, lo: int, hi: int) -> None:
        self.accounted.update((fence, offset) for offset in range(lo, hi))

    def tick(self, seconds: float = 0.0) -> None:
        """The daemon's loop comes round."""
        self.now += seconds
        for _ in range(SPINS):
            self.happens(p.Tick())
            if self.plan.next_deadline() > self.now:
                return
        raise Broken("its loop would spin")

    def runs(self, most: int = 2) -> None:
        """Runners that keep the rules go on."""
        for number, model in list(self.models.items()):
            if number not in self.hostile:
                said = model.step(most)
                if said is not None:
                    self.happens(p.RunnerSaid(number, said))


def plan(source: Source) -> None:
    """A hostile hub: nothing that it says raises, and what it is told it can read."""
    world = World(source, 1 + source.below(3))

    def hub() -> None:
        with contextlib.suppress(PeerProtocolError):
            world.happens(p.FromHub(cast(m.LinkMessage, decode(packed(source, world.known, FROM_HUB)))))

    moves: tuple[Callable[[], object], ...] = (
        hub, hub, hub, hub, world.tick, world.runs, lambda: world.runs(50),
        lambda: world.tick(pick(source, (0.001, 0.01, 1.0))),
        lambda: world.happens(p.Reset(source.below(2) == 1)), lambda: world.happens(p.Hold(source.below(2) == 1)),
        lambda: world.happens(p.Drain(0.5)) if chance(source, 20) else world.tick(),
        lambda: world.happens(world._dies(1 + source.below(4))) if chance(source, 3) else world.tick(),
    )  # fmt: skip
    for _ in range(EVENTS):
        if source.spent:
            break
        pick(source, moves)()


def runner(source: Source) -> None:
    """A hostile runner: in the end each task is accounted for once, by the honest one or as having killed the other."""
    world = World(source, 2)
    world.hostile = {1}
    world.happens(p.FromHub(m.Body(DIGESTS[0], b"body")))
    given: Counter[tuple[int, int]] = Counter()

    def work() -> None:
        count = 1 + source.below(8)
        fence = len(given) + 1000 * (1 + len(given))
        items = pack_sizes([count]) if source.below(2) else b""
        chunk = Chunk(0, 0, count, pack_sizes([1] if items else [1] * count), items, 1, b"x" * (1 if items else count))
        limits = pick(source, (m.NO_LIMITS, m.NO_LIMITS, m.Limits(1.0, 0, False), m.Limits(at_most_once=True)))
        given.update((fence, offset) for offset in range(count))
        name = 1 + source.below(2)
        world.happens(
            p.FromHub(m.Dispatch(fence, SESSION, name, "f", DIGESTS[0], b"", 1, False, 0, count, limits, chunk))
        )

    moves: tuple[Callable[[], object], ...] = (
        work, world.tick, world.runs, lambda: world.tick(pick(source, (0.001, 0.01, 1.0, 3.0))),
        lambda: _lie(world), lambda: _lie(world), lambda: _lie(world),
    )  # fmt: skip
    for _ in range(EVENTS):
        if source.spent:
            break
        pick(source, moves)()
    for number in [number for number in world.models if number in world.hostile]:
        world.happens(world._dies(number))
    world.hostile.clear()
    for _ in range(ROUNDS):
        if world.plan.idle:
            break
        world.tick(0.1)
        world.runs(50)
    if world.accounted != given:
        wrong = {key: (given[key], world.accounted[key]) for key in given | world.accounted}
        raise Broken(f"accounted for wrongly: { {k: v for k, v in wrong.items() if v[0] != v[1]} }")


def _lie(world: World) -> None:
    """The hostile runner writes something into its pipe, or into the words that it shares."""
    source, (number, *_) = world.source, world.hostile
    if number not in world.models:
        world.hostile = {max(world.models, default=1)}
        return
    what = source.below(5)
    if what == 0:
        world.happens(p.RunnerReady(number))
    elif what == 1:
        lo = world.number()
        world.happens(p.Seen(number, lo, lo + source.below(4), pick(source, (0.0, 1.0, 1e12, -1.0))))
    elif what == 2 and chance(source, 4):
        world.happens(world._dies(number))
    else:
        _say(world, number)


def _say(world: World, number: int) -> None:
    source = world.source
    model = world.models[number]
    at = model.doses[0].at if model.doses and not chance(source, 4) else world.number()
    if source.below(2):
        said: PipeOutcome | PipeStopped = PipeOutcome(
            at, 1 + source.below(3), pick(source, (1, 2, 3, 5, 4, 77)), pick(source, (0.0, 0.1, float("nan"))), b"lie"
        )
        body = b"".join(pipe.pack_outcome(cast(PipeOutcome, said)))[pipe.FRAME.size :]
        with contextlib.suppress(PeerProtocolError):
            said = pipe.unpack_outcome(body)
            _forget(model, at + said.tasks)
            world.happens(p.RunnerSaid(number, said))
    else:
        end = at + 1 + source.below(3) if source.below(2) else world.number()
        with contextlib.suppress(PeerProtocolError):
            said = pipe.unpack_stopped(b"".join(pipe.pack_stopped(PipeStopped(at, end)))[pipe.FRAME.size :])
            _forget(model, end)
            world.happens(p.RunnerSaid(number, said))


def _forget(model: Model, until: int) -> None:
    """It has spoken of everything before `until`."""
    while model.doses and model.doses[0].at + model.doses[0].hi - model.doses[0].lo <= until:
        model.doses.popleft()
    if model.doses and model.doses[0].at < until:
        dose = model.doses[0]
        model.doses[0] = dose._replace(at=until, lo=dose.lo + until - dose.at)
