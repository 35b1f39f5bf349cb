"""Runners that lie: they run what users wrote, and that can write anything into the pipe."""

from __future__ import annotations

import math
import struct

import pytest

from taskmesh.core import messages as m
from taskmesh.core.limits import ATTEMPTS
from taskmesh.errors import PeerProtocolError
from taskmesh.wire import pipe
from taskmesh.wire.messages import decode, encode
from taskmesh.wire.pipe import PipeOutcome, PipeStopped
from taskmesh_worker import plan_events as p

from .world import PlanWorld, calls


def packed(outcome: PipeOutcome) -> bytes:
    return b"".join(pipe.pack_outcome(outcome))[pipe.FRAME.size :]


@pytest.mark.parametrize(
    "outcome",
    [
        PipeOutcome(0, 1, 77, 0.1, b""),
        PipeOutcome(0, 1, m.Form.LOST, 0.1, b""),
        PipeOutcome(0, 0, m.Form.LIST, 0.1, b""),
        PipeOutcome(0, 2, m.Form.ERROR, 0.1, b""),
        PipeOutcome(0, 1, m.Form.LIST, math.nan, b""),
        PipeOutcome(0, 1, m.Form.LIST, math.inf, b""),
        PipeOutcome(0, 1, m.Form.LIST, -1.0, b""),
    ],
)
def test_what_the_hub_would_refuse_does_not_get_among_the_outcomes_of_others(outcome: PipeOutcome) -> None:
    with pytest.raises(PeerProtocolError):
        pipe.unpack_outcome(packed(outcome))


@pytest.mark.parametrize("body", [b"", b"x" * 20])
def test_too_few_bytes_are_no_outcome(body: bytes) -> None:
    with pytest.raises(PeerProtocolError):
        pipe.unpack_outcome(body)


@pytest.mark.parametrize("body", [b"", b"x" * 17, struct.pack("<QQ", 5, 5), struct.pack("<QQ", 5, 4)])
def test_what_was_dropped_is_a_range_of_positions(body: bytes) -> None:
    with pytest.raises(PeerProtocolError):
        pipe.unpack_stopped(body)


def test_a_frame_without_end_is_refused_and_nothing_of_it_is_kept() -> None:
    frames = pipe.Frames()
    with pytest.raises(PeerProtocolError):
        list(frames.feed(pipe.FRAME.pack(1 << 40, pipe.OUTCOME) + bytes(1000)))
    assert list(frames.feed(pipe.FRAME.pack(0, pipe.READY))) == [(pipe.READY, b"")]


@pytest.mark.parametrize("said", [PipeStopped(0, 1 << 60), PipeStopped(1, 2), PipeStopped(5, 6)])
def test_a_runner_drops_only_what_is_its_next(said: PipeStopped) -> None:
    """What it was told to drop, and says of it, frees its slot: other words would keep that for ever."""
    world = PlanWorld(1)
    world.start_runners()
    world.dispatch(calls(3))
    world.tick()
    world.hand(1, 0, 1)
    with pytest.raises(PeerProtocolError):
        world.plan.handle(p.RunnerSaid(1, said), world.now)
    world.plan.check()
    assert world.plan.runners[1].tasks() == 1


def test_an_attempt_stays_one_that_a_dose_and_an_inventory_can_carry() -> None:
    world = PlanWorld(1)
    world.start_runners()
    dispatch = world.dispatch(calls(2))._replace(fence=2, attempt=ATTEMPTS, lo=0, hi=2)
    world.happens(p.FromHub(m.Revoke(1, 0, 2)))
    world.happens(p.FromHub(dispatch))
    world.tick()
    world.happens(p.RunnerGone(1, (0, 2), b""))
    world.actions.clear()
    world.happens(p.Reset())
    (inventory,) = [act.message for act in world.actions if isinstance(act, p.Report)]
    assert isinstance(inventory, m.Inventory)
    assert inventory.holdings[0].attempt == ATTEMPTS
    assert decode(encode(inventory)) == inventory
