"""How a daemon that drains parts from its hub: not before its outcomes are in safe hands, and not too late."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from taskmesh.core import messages as m
from taskmesh.hub import Hub, HubConfig
from taskmesh.transport import membership
from taskmesh.transport.endpoints import Address
from taskmesh.transport.loop import Loop
from taskmesh.transport.sockets import new_context
from taskmesh_worker import daemon as shell
from taskmesh_worker import plan_events as p
from taskmesh_worker.farewell import Farewell
from taskmesh_worker.forking import NurseryProcess
from taskmesh_worker.memory import resident

from .world import calls

OUTCOME = m.Finished(1, 7, 0.1, m.Outcome(1, 0, 0, 1, m.Form.LIST, b"r"))


@pytest.fixture
def daemon(tmp_path: os.PathLike[str]) -> Iterator[shell.Daemon]:
    """A daemon whose hub is not there."""
    nursery = NurseryProcess("host", sys.path)
    context, loop = new_context(), Loop()
    started = shell.Daemon(
        shell.DaemonConfig(f"ipc://{os.fspath(tmp_path)}/c", 1, "name", sys.path), context, loop, nursery
    )
    try:
        yield started
    finally:
        started.close()
        loop.close()
        context.destroy(0)


def until(daemon: shell.Daemon, condition: Callable[[], object], seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not in time"
        daemon._loop.step()


def test_a_daemon_says_at_once_that_it_was_welcomed_and_gets_work_from_then_on(
    tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "KEEPER_HEARTBEAT_S", 3600.0)
    nursery = NurseryProcess("host", sys.path)
    context, loop = new_context(), Loop()
    hub = Hub(HubConfig(Address("ipc", os.fspath(tmp_path), 0)), context, loop)
    started = shell.Daemon(
        shell.DaemonConfig(f"ipc://{os.fspath(tmp_path)}/c", 1, "name", sys.path), context, loop, nursery
    )
    try:
        peers = hub.scheduler.roster.peers
        until(started, lambda: any(peer.takes_work(loop.now()) for peer in peers.values()))
    finally:
        started.close()
        hub.close("the test is over")
        loop.close()
        context.destroy(0)


def test_what_a_runner_had_is_not_forgotten_when_it_is_looked_at_after_its_end(daemon: shell.Daemon) -> None:
    until(daemon, lambda: daemon._pipes and daemon._pipes[1].pid is not None)
    runner = daemon._pipes[1]
    pid = runner.pid
    assert pid is not None
    until(daemon, lambda: resident(pid))
    daemon._perform(p.Sample(1))
    had = runner.bytes
    assert had > 0
    os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + 15
    while resident(pid):
        assert time.monotonic() < end, "not in time"
    daemon._perform(p.Sample(1))
    assert runner.bytes == had


def test_a_daemon_with_nothing_to_hand_over_leaves_without_its_hub(
    daemon: shell.Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    daemon.drain()
    until(daemon, lambda: daemon.left)
    assert "leaving without" not in caplog.text


def test_a_daemon_with_outcomes_waits_for_its_hub_and_says_what_is_lost_with_it(
    daemon: shell.Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    daemon.farewell = Farewell(daemon.plan, lost_grace_s=1.0)
    daemon.plan.ledger.keep(OUTCOME)
    daemon.drain()
    with caplog.at_level(logging.WARNING):
        until(daemon, lambda: "no answer from the hub" in caplog.text)
        assert not daemon.left, "it may only be restarting"
        until(daemon, lambda: daemon.left)
    assert "1 outcome may be lost" in caplog.text


def test_a_draining_daemon_goes_on_when_its_hub_says_goodbye_before_everything_has_run(daemon: shell.Daemon) -> None:
    dispatch = m.Dispatch(1, 7, 1, "f", b"d" * 16, b"", 1, False, 0, 1, m.NO_LIMITS, calls(1))
    daemon._act(p.FromHub(dispatch))
    daemon.plan.draining = True
    daemon.on_message(m.Goodbye("the hub was shut down"))
    daemon.on_lost()
    assert not daemon.left


def test_a_draining_daemon_leaves_when_its_hub_has_answered_its_leaving(daemon: shell.Daemon) -> None:
    daemon.drain()
    daemon._act(p.Tick())
    assert daemon.plan.leaving
    daemon.on_message(m.Goodbye("you left"))
    assert daemon.left


def test_a_daemon_that_its_hub_puts_out_for_good_does_not_wait_for_it(daemon: shell.Daemon) -> None:
    daemon.on_message(m.Goodbye("the hub was stopped", back=True))
    assert daemon.refused is None
    daemon.on_message(m.Goodbye("the ticket 'farm' was revoked", back=False))
    assert daemon.refused == "the ticket 'farm' was revoked"
