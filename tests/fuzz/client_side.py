"""Targets: a client with a hostile hub, and one end of a link with a hostile other end."""

from __future__ import annotations

import contextlib
import pickle
from concurrent.futures import CancelledError
from typing import Any, cast
from unittest.mock import patch

from taskmesh import mapping, outcomes
from taskmesh.client import Client
from taskmesh.core import messages as m
from taskmesh.core.chunking import Chunking
from taskmesh.core.link import Link
from taskmesh.core.session import Session
from taskmesh.errors import PeerProtocolError, TaskmeshError
from taskmesh.futures import Future
from taskmesh.mapping import MapRun
from taskmesh.places import Place
from taskmesh.source import Columns
from taskmesh.source import Source as Items
from taskmesh.wire import payload
from taskmesh.wire.messages import decode
from taskmesh.wire.payload import dump_each, dump_error
from taskmesh.wire.stream import Stream

from .grammar import DIGESTS, EDGES, REPORT, Known, packed
from .oracle import Broken, Stopwatch
from .source import Source, chance, pick

FROM_HUB = (m.Results, m.Results, m.Results, m.Cancelled, m.Rejected, m.Goodbye, m.Dispatch, m.Body)
EVENTS = 40
BLOBS = (
    pickle.dumps([1]), pickle.dumps([1, 2]), pickle.dumps([1, 2, 3, 4]), pickle.dumps({"no": "list"}),
    pickle.dumps("two"), dump_each([pickle.dumps(1)]), dump_each([pickle.dumps(n) for n in range(3)]), b"", b"\x80",
    REPORT, b"\xff" * 9, dump_error(ValueError("no")), pickle.dumps((1, 2)), pickle.dumps(("a", "b", "c", b"d")),
    b"\x90", b"\x81\xa3why\x05",
)  # fmt: skip
"""What a hub may pass off as results: chosen, since opening what anybody sends runs code."""

LISTS = tuple(pickle.dumps([0] * count) for count in range(20))
_CLIENTS: list[Client] = []


def _loads(blob: Any) -> Any:
    """In place of unpickling."""
    data = bytes(blob)
    if data not in (*BLOBS, *LISTS) and not any(data in each for each in BLOBS):
        raise pickle.UnpicklingError("not one of those")
    return pickle.loads(data)


def _client() -> Client:
    """A client that has joined, without sockets; one for all inputs, with everything that it knows taken away."""
    if not _CLIENTS:
        _CLIENTS.append(Client("ipc:///nowhere", "fuzzed", lost_after=None))
    (client,) = _CLIENTS
    client.session = client._arrivals._session = client.submitter._session = Session()
    client.error = None
    client.submitter.open, client.submitter.closed = True, False
    client.membership.stream = Stream(7, 1)
    client.membership.registered = False
    client.submitter.retired.clear()
    return client


def client(source: Source) -> None:
    """Outcomes of tasks that exist and of others, with results that are none; what is left ends with honest ones."""
    patches = [patch.object(place, "loads", _loads) for place in (outcomes, mapping, payload)]
    with contextlib.ExitStack() as stack:
        for each in patches:
            stack.enter_context(each)
        _play(source, _client())


def _play(source: Source, client: Client) -> None:
    known, watch = Known(sessions=[client.instance], blobs=BLOBS), Stopwatch(1.0)
    places = [client.define("f", b"body", DIGESTS[0], None, 0) for _ in range(2)]
    futures: list[Future[Any]] = []
    runs: list[tuple[MapRun, int]] = []
    for _ in range(EVENTS):
        if source.spent or client.error is not None:
            break
        what = source.below(8)
        if what == 0:
            place = pick(source, places)
            futures += [client.submitter.submit(place, b"leaf") for _ in range(1 + source.below(4))]
            client.submitter.flush(place.spec)
        elif what == 1 and len(runs) < 3:
            runs.append(_mapped(client, pick(source, places), 1 + source.below(9)))
        elif what == 2 and futures:
            client._send_cancels({(pick(source, places).number, 0): [(0, 2)]}, source.below(2) == 1)
        elif what == 3:
            client.retire(places.pop(source.below(2)))
            places.append(client.define("g", b"other body", DIGESTS[2], None, 0))
            client.submitter.send_gathered()
        else:
            with contextlib.suppress(PeerProtocolError):
                message = cast(m.LinkMessage, decode(packed(source, known, FROM_HUB)))
                watch.start()
                client.on_message(message)
                watch.stop(message)
        client.session.check()
    _end(client, futures, runs)


def _mapped(client: Client, place: Place, count: int) -> tuple[MapRun, int]:
    run = MapRun(client, place, Items(Columns((range(count),)), Chunking(buffersize=16), "f"), None, deadline=0.0)
    run.feed()
    return run, count


def _end(client: Client, futures: list[Future[Any]], runs: list[tuple[MapRun, int]]) -> None:
    """The hub says of everything that is left that it has a result."""
    if client.error is None:
        for spec in list(client.session.specs.values()):
            for first, sent in list(spec.sent.items()):
                for lo, hi in sent.left:
                    outcome = m.Outcome(spec.number, first, lo, hi, m.Form.LIST, LISTS[hi - lo])
                    client.on_message(m.Results([outcome]))
        client.session.check()
    if not all(future.done() for future in futures):
        raise Broken("a future never ends")
    for run, count in runs:
        _drain(run, count)


def _drain(run: MapRun, count: int) -> None:
    """A map gives as many values as it has items, or raises why not."""
    given = 0
    try:
        for values in run.batches():
            given += len(values)
    except (TaskmeshError, CancelledError, ValueError):  # the last is what a task has raised
        return
    except TimeoutError as error:
        raise Broken("a map never ends") from error
    if given != count:
        raise Broken(f"a map of {count} items gave {given}")


def link(source: Source) -> None:
    """Acknowledgements, gaps and repetitions of any number; what arrives in order is accepted once."""
    ours, other, now = Link(), Link(), 1.0
    accepted = 0
    for _ in range(EVENTS * 4):
        if source.spent:
            break
        now += pick(source, (0.0, 0.0, 0.03, 0.2, 1.5))
        number = source.below(12) if not chance(source, 4) else max(0, pick(source, EDGES)) % 2**64
        what = source.below(9)
        with contextlib.suppress(PeerProtocolError):
            if what == 0:
                ours.record((0, b"frame"))
            elif what == 1:
                ours.on_ack(number, now)
            elif what == 2:
                ours.on_nak(number, now)
            elif what == 3:
                ours.on_received(number)
            elif what == 4:
                ours.resume(number, now)
            elif what == 5 and (item := ours.take(now)) is not None:
                ours.sent(item[0])
            elif what == 6:
                ours.on_time(now)
                ours.wants_nak(now)
                ours.wants_ack(now)
            else:
                taken = other.accept(number, now)
                if taken != (number == accepted + 1):
                    raise Broken(f"message {number} after {accepted}: accepted is {taken}")
                accepted += taken
        for each in (ours, other):
            each.check()
            each.next_deadline()
