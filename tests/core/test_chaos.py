"""The scheduler and the plan alone, with events that are well formed and make no sense.

Whatever a peer says, a machine raises nothing but `PeerProtocolError` where that is documented, and its books balance.
"""

from __future__ import annotations

import contextlib
import os

import msgpack
from hypothesis import given, settings
from hypothesis import strategies as st

from taskmesh.core import events as e
from taskmesh.core import messages as m
from taskmesh.core.chunk import Chunk, pack_sizes
from taskmesh.core.scheduler import Scheduler
from taskmesh.core.timing import Timing
from taskmesh.errors import PeerProtocolError
from taskmesh.wire.pipe import PipeOutcome, PipeStopped
from taskmesh_worker import plan as p

from .world import DIGEST

EXAMPLES = int(os.environ.get("TASKMESH_CHAOS_EXAMPLES", "150"))
SMALL = st.integers(0, 4)
FENCE = st.integers(0, 12)
BLOB = st.just(b"")
DIGESTS = st.sampled_from([DIGEST, b"f" * 16, b"g" * 16])
RANGE = st.tuples(st.integers(0, 6), st.integers(1, 6)).map(lambda pair: (pair[0], pair[0] + pair[1]))
RANGES = st.lists(RANGE, max_size=3)
FORM = st.sampled_from(m.Form)
BUSY = st.sampled_from([0.0, 1e-9, 1e-6, 1e-3, 1.0, 1e300])

LIMITS = st.sampled_from(
    [m.NO_LIMITS, m.NO_LIMITS, m.Limits(0.5), m.Limits(0.0, 1000), m.Limits(1e-6, 0, True), m.Limits(at_most_once=True)]
)


@st.composite
def chunks(draw: st.DrawFn) -> Chunk:
    first, grain = draw(SMALL), draw(st.sampled_from([1, 1, 3]))
    leaves = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    items = pack_sizes(leaves) if draw(st.booleans()) else b""
    return Chunk(first, 0, sum(leaves) if items else len(leaves), pack_sizes(leaves), items, grain, bytes(sum(leaves)))


@st.composite
def outcomes(draw: st.DrawFn) -> m.Outcome:
    form = draw(FORM)
    lo, hi = draw(RANGE)
    return m.Outcome(draw(SMALL), draw(SMALL), lo, hi if form <= m.Form.EACH else lo + 1, form, b"")


@st.composite
def dispatches(draw: st.DrawFn) -> m.Dispatch:
    chunk = draw(chunks())
    lo = draw(st.integers(0, chunk.count - 1))
    hi = draw(st.integers(lo + 1, chunk.count))
    return m.Dispatch(
        draw(FENCE), draw(SMALL), draw(SMALL), "f", draw(DIGESTS), draw(DIGESTS | st.just(b"")), 1,
        draw(st.booleans()), lo, hi, draw(LIMITS), chunk,
    )  # fmt: skip


FROM_CLIENT = st.one_of(
    st.builds(m.Spec, SMALL, st.just("f"), DIGESTS, DIGESTS | st.just(b""), st.integers(-2, 2)),
    st.builds(m.Body, DIGESTS, BLOB),
    st.builds(m.Submit, SMALL, chunks()),
    st.builds(m.Cancel, SMALL, SMALL, SMALL, st.integers(5, 9)),
    st.builds(m.Retire, SMALL),
    st.builds(m.Close),
)
FROM_DAEMON = st.one_of(
    st.builds(m.Done, st.lists(st.builds(m.Finished, FENCE, SMALL, BUSY, outcomes()), max_size=3)),
    st.builds(lambda f, r: m.Strike(f, r[0], r[1], b""), FENCE, RANGE),
    st.builds(m.GiveBack, FENCE, RANGES, RANGES),
    st.builds(m.NeedBody, DIGESTS),
    st.builds(m.Slots, st.integers(0, 3)),
    st.builds(m.Leaving),
)
FROM_HUB = st.one_of(
    dispatches(),
    st.builds(m.Body, DIGESTS, BLOB),
    st.builds(lambda f, r, i: m.Revoke(f, r[0], r[1], i), FENCE, RANGE, st.booleans()),
    st.builds(m.Forget, SMALL),
    st.builds(m.Results, st.just([])),
    st.builds(m.Settled, st.lists(st.builds(lambda f, r: (f, *r), FENCE, RANGE), max_size=3)),
)
REGISTER = st.builds(
    m.Register, st.sampled_from(["client", "daemon", "daemon", "king"]), SMALL, st.integers(0, 5), st.just(1), SMALL,
    SMALL, st.just("n"), st.just("h"), st.just(1), st.integers(-1, 3), st.just("1.0"), st.just("3.11"),
)  # fmt: skip
HUB_EVENT = st.one_of(
    st.builds(e.Received, SMALL, FROM_CLIENT),
    st.builds(e.Received, SMALL, FROM_DAEMON),
    st.builds(e.Joined, REGISTER),
    st.builds(e.LaneDown, SMALL, st.integers(0, 9)),
    st.just(e.Tick()),
    st.sampled_from([e.Tick(), e.Tick(), e.Tick(), e.Drain()]),
)
RUNNER = st.integers(0, 4)
PLAN_EVENT = st.one_of(
    FROM_HUB.map(p.FromHub),
    FROM_HUB.map(p.FromHub),
    st.builds(p.RunnerReady, RUNNER),
    st.builds(p.RunnerSaid, RUNNER, st.builds(PipeOutcome, st.integers(0, 9), SMALL, FORM, BUSY, BLOB)),
    st.builds(p.RunnerSaid, RUNNER, st.builds(PipeStopped, st.integers(0, 9), st.integers(0, 12))),
    st.builds(p.RunnerGone, RUNNER, RANGE, st.just(msgpack.packb({}))),
    st.builds(p.Claimed, RUNNER, st.integers(0, 12)),
    st.builds(p.Seen, RUNNER, st.integers(0, 9), st.integers(0, 12), BUSY),
    st.builds(p.Sampled, RUNNER, st.sampled_from([10, 500, 5000]), st.integers(0, 9), st.integers(0, 12)),
    st.just(p.Tick()),
    st.just(p.Tick()),
    st.sampled_from([p.Tick(), p.Tick(), p.Reset(), p.Drain(), p.Drain(0.5)]),
    st.builds(p.Hold, st.booleans()),
)
RUNNER_LIMITS = st.sampled_from([p.RunnerLimits(), p.RunnerLimits(1000, 3, 400)])
PAUSE = st.sampled_from([0.0, 0.0, 0.001, 0.6, 16.0])


@settings(max_examples=EXAMPLES)
@given(st.lists(st.tuples(HUB_EVENT, PAUSE), min_size=10, max_size=80))
def test_no_order_of_events_upsets_the_scheduler(events: list[tuple[e.Event, float]]) -> None:
    now = 1.0
    scheduler = Scheduler("1.0", "3.11", now, Timing(recovery_s=0.0))
    for instance in (1, 2, 3):
        role = "client" if instance == 1 else "daemon"
        request = m.Register(role, instance, 0, 1, 0, 0, "n", "h", 1, 2, "1.0", "3.11")
        scheduler.handle(e.Joined(request), now)
        scheduler.heard(instance, instance, now)
    for event, pause in events:
        now += pause
        scheduler.handle(event, now)
        scheduler.check()
        statistics = scheduler.statistics(now)
        assert statistics.waiting >= 0
        assert statistics.out >= 0
        assert not isinstance(event, e.Tick) or scheduler.next_deadline() > now, "a loop would spin"


@settings(max_examples=EXAMPLES)
@given(st.lists(st.tuples(PLAN_EVENT, PAUSE), min_size=10, max_size=80), st.integers(1, 3), RUNNER_LIMITS)
def test_no_order_of_events_upsets_the_plan(
    events: list[tuple[p.Event, float]], slots: int, limits: p.RunnerLimits
) -> None:
    now = 1.0
    plan = p.Plan(slots, limits=limits)
    plan.handle(p.Tick(), now)
    plan.handle(p.RunnerReady(1), now)
    for event, pause in events:
        now += pause
        with contextlib.suppress(PeerProtocolError):
            plan.handle(event, now)
        plan.check()
        assert not isinstance(event, p.Tick) or plan.next_deadline() > now, "a loop would spin"
