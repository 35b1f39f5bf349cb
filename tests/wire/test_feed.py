"""The events channel's socket: it comes back at its port, whoever has that meanwhile."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import zmq

from taskmesh.complaints import Complaints
from taskmesh.door import Door
from taskmesh.feed import AGAIN_AT_MOST_S, NEVER, Feed
from taskmesh.transport.loop import Loop
from tests.system.processes import until


@pytest.fixture
def context() -> Iterator[zmq.Context[Any]]:
    made: zmq.Context[Any] = zmq.Context()
    yield made
    made.destroy(linger=0)


@pytest.fixture
def feed(context: zmq.Context[Any]) -> Iterator[Feed]:
    loop = Loop()
    made = Feed("tcp://127.0.0.1:0", context, loop, Door(None, Complaints(), context, loop))
    yield made
    made.close()
    loop.close()


def hears(context: zmq.Context[Any], feed: Feed) -> bool:
    """Whether somebody who comes now is told what happens."""
    with context.socket(zmq.SUB) as reader:
        reader.subscribe(b"")
        reader.connect(feed.endpoint)

        def told() -> bool:
            feed.publish("tested", why="it is")
            return bool(reader.poll(20))

        until(told, "something is told")
        event = json.loads(reader.recv())
        return (event["event"], event["why"]) == ("tested", "it is")


def opens(feed: Feed) -> bool:
    """Whether it has opened by now."""
    feed.on_time(feed.next_deadline())
    return feed.next_deadline() == NEVER


def takes(port: int) -> socket.socket:
    """Listen at a port as soon as it is free."""
    taken: list[socket.socket] = []

    def free() -> bool:
        try:
            taken.append(socket.create_server(("127.0.0.1", port)))
        except OSError:
            return False
        return True

    until(free, "the port is free")
    return taken[0]


def test_it_opens_again_at_its_port(context: zmq.Context[Any], feed: Feed) -> None:
    endpoint = feed.endpoint
    assert hears(context, feed)
    feed.renew()
    feed.publish("missed")
    until(lambda: opens(feed), "it is open")
    assert feed.endpoint == endpoint
    assert hears(context, feed)


def test_a_port_that_somebody_else_has_taken_is_said_once_and_waited_for(
    context: zmq.Context[Any], feed: Feed, caplog: pytest.LogCaptureFixture
) -> None:
    feed.renew()
    with takes(int(feed.endpoint.rpartition(":")[2])):
        pauses = []
        for _ in range(12):
            now = feed.next_deadline()
            feed.on_time(now)
            pauses.append(feed.next_deadline() - now)
        assert pauses[-1] == pytest.approx(AGAIN_AT_MOST_S)
        assert sorted(pauses) == pauses
        assert caplog.text.count("no events are told") == 1
    until(lambda: opens(feed), "it is open")
    assert hears(context, feed)
