"""A peer that asks and never reads the answers: the hub stops reading it, and goes on when it reads."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from taskmesh.complaints import Complaint
from taskmesh.core import messages as m
from taskmesh.core.chunk import Chunk
from taskmesh.core.limits import TASKS
from taskmesh.core.outbox import WEIGHT
from taskmesh.core.quota import Quotas
from taskmesh.hub import Hub, HubConfig
from taskmesh.inboxes import UNREAD
from taskmesh.lanes import Lane
from taskmesh.transport.endpoints import Address
from taskmesh.transport.loop import Loop
from taskmesh.transport.sockets import new_context
from tests.hostile.client_side import specified
from tests.hostile.insider import Insider
from tests.hostile.target import Target

from .processes import until

ROUND = 512  # frames that the hub reads before it looks again


class HubHere:
    """A hub without keys in a thread of this process."""

    def __init__(self, quotas: Quotas) -> None:
        self.context, self.loop = new_context(), Loop()
        self.hub = Hub(HubConfig(Address("tcp", "127.0.0.1", 0), lanes=None, quotas=quotas), self.context, self.loop)
        self._thread = threading.Thread(target=self.loop.run, daemon=True)
        self._thread.start()

    def lane(self, insider: Insider) -> Lane:
        """Of a peer."""
        return self.hub.lanes.by_instance[insider.instance]

    def close(self) -> None:
        """It ends."""
        self.loop.stopping = True
        self._thread.join(20.0)
        self.hub.close("over")
        self.context.destroy(linger=0)
        self.loop.close()


@contextmanager
def met(quotas: Quotas) -> Iterator[tuple[HubHere, Insider]]:
    """A hub, and a client that has joined by hand."""
    here, context = HubHere(quotas), new_context()
    target = Target(psutil.Process(), str(here.hub.address), {}, context, random.Random(0), 60.0, 1.0, 1 << 20)
    insider = Insider(target)
    try:
        assert insider.join()
        yield here, insider
    finally:
        insider.close()
        context.destroy(linger=0)
        here.close()


def all_was_read(here: HubHere, insider: Insider) -> None:
    """What was sent before has been looked at when something that is none was counted."""
    counted = here.hub.complaints.counts[Complaint.FRAME]
    assert insider.put(insider.frame(b"", epoch=999))
    until(lambda: here.hub.complaints.counts[Complaint.FRAME] > counted, "all was read", 60)


def test_who_does_not_read_the_answers_is_not_read_and_is_again_when_it_reads() -> None:
    asked = UNREAD + 10_000
    with met(Quotas()) as (here, insider):
        for n in range(asked):
            assert insider.send(m.Cancel(n, 0, 0, 1))
        link = here.lane(insider).stream.link
        until(lambda: link.unacked > UNREAD, "there are many answers", 60)
        all_was_read(here, insider)
        assert link.unacked <= UNREAD + ROUND
        heard = link.seen
        assert heard < asked
        answers = 0
        while answers < UNREAD:
            answers += insider.read(20.0) is not None
            if answers % 100 == 0:
                insider.acknowledge()
        insider.acknowledge()
        insider.put(insider.frame(b"\x91\x06", seq=heard + 1))
        until(lambda: link.seen > heard, "it is read again", 30)


def test_who_cancels_one_by_one_and_fetches_nothing_is_not_read_for_long() -> None:
    quotas = Quotas(queued_bytes=1 << 20)
    with met(quotas) as (here, insider):
        specified(insider)
        insider.send(m.Submit(1, Chunk(0, 0, TASKS, bytes(4 * TASKS), b"", 1, b"")))
        for n in range(0, 40_000, 2):
            if not insider.send(m.Cancel(1, 0, n, n + 1)):
                break
        all_was_read(here, insider)
        session = here.hub.scheduler.sessions[insider.instance]
        assert session.outbox.bytes <= 2 * quotas.queued_bytes + ROUND * WEIGHT
        assert here.hub.scheduler.overdrawn(insider.instance)
