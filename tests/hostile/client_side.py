"""What a client with a good ticket can send that no client of ours does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgpack

from taskmesh.core import messages as m
from taskmesh.core.chunk import Chunk, pack_sizes
from taskmesh.core.identity import digest_of
from taskmesh.core.limits import BODY, TASKS
from taskmesh.wire.messages import encode
from taskmesh.wire.payload import dump_body, dump_call
from taskmesh.wire.stream import LAST, MORE, pack_control

from .insider import Insider
from .target import Kind, Target

NO_CHUNK = (0, 0, 1, b"\4\0\0\0", b"", 1, b"leaf")


def zeros(size: int) -> bytes:
    """A task that returns much for little."""
    return bytes(size)


@contextmanager
def joined(target: Target, ticket: str = "client", slots: int = 0) -> Iterator[Insider]:
    """A peer that has joined."""
    with Insider(target, ticket, slots) as insider:
        began = time.monotonic()
        if not insider.join():
            raise AssertionError(f"an insider with a good {ticket} ticket was not let in")
        target.until += time.monotonic() - began
        yield insider


def specified(insider: Insider, number: int = 1, function: Callable[..., object] = zeros) -> None:
    """The hub knows a function of ours."""
    body = dump_body(function, "f")
    digest = digest_of(body)
    insider.send(m.Spec(number, "f", digest, b"", 0, m.NO_LIMITS))
    insider.send(m.Body(digest, body))


def of_calls(first: int, *arguments: tuple[object, ...]) -> Chunk:
    """A chunk of calls."""
    leaves = [dump_call(args, {}, "f") for args in arguments]
    return Chunk(first, 0, len(leaves), pack_sizes([len(x) for x in leaves]), b"", 1, b"".join(leaves))


def good_messages(insider: Insider) -> list[m.LinkMessage]:
    """Of each kind that a client sends, and that others do."""
    digest = digest_of(b"x")
    outcome = m.Outcome(1, 0, 0, 1, m.Form.LIST, b"x")
    return [
        m.Spec(7, "f", digest, b"", 0), m.Body(digest, b"x"), m.Submit(7, Chunk(*NO_CHUNK)),
        m.Cancel(7, 0, 0, 1), m.Retire(9), m.Results([outcome]), m.Goodbye("x"), m.Forget(1),
        m.Done([m.Finished(1, insider.instance, 0.1, outcome)]), m.Leaving(), m.Slots(3), m.NeedBody(digest),
    ]  # fmt: skip


# ---- malformed ------------------------------------------------------------------------------------------------------


def mutated(target: Target) -> int:
    """Good messages with some bytes changed, cut out or put in."""
    random, thrown = target.random, 0
    with joined(target) as insider:
        good = [encode(message) for message in good_messages(insider)]
        for _ in target.times(20_000):
            data = bytearray(random.choice(good))
            for _ in range(random.randrange(1, 4)):
                at = random.randrange(len(data)) if data else 0
                data[at : at + random.randrange(3)] = random.randbytes(random.randrange(3))
            thrown += insider.put(insider.frame(bytes(data)))
    return thrown


def truncated(target: Target) -> int:
    thrown = 0
    with joined(target) as insider:
        good = [encode(message) for message in good_messages(insider)]
        for n in target.times(10_000):
            data = good[n % len(good)]
            cut = insider.frame(data)[: target.random.randrange(30 + len(data))]
            insider.seq -= len(cut) < 30  # that one does not count
            thrown += insider.put(cut)
    return thrown


def _bodies(target: Target, full: int, bodies: list[bytes]) -> int:
    thrown = 0
    with joined(target) as insider:
        for n in target.times(full):
            thrown += insider.send_body(bodies[n % len(bodies)])
    return thrown


def wrong_types(target: Target) -> int:
    values: list[object] = [None, True, -1, 1.5, "text", b"bytes", [], [[]], {}, {"a": 1}, 2**64 - 1, -(2**63)]
    kinds = range(50)
    bodies = [
        msgpack.packb([kind, *[values[(kind + n + shift) % len(values)] for n in range(fields)]])
        for kind in kinds for fields in (0, 1, 3, 6, 12) for shift in (0, 5)
    ]  # fmt: skip
    return _bodies(target, 5000, bodies)


def huge_numbers(target: Target) -> int:
    """Lengths that are announced and do not come, numbers that do not fit."""
    bodies = [
        b"\xdd\xff\xff\xff\xff", b"\x92\x03\xdd\xff\xff\xff\xff" + bytes(1000), b"\x93\x02\xc6\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xffx", b"\xc9\xff\xff\xff\xff\x01x",
        b"\xdc\xff\xff" + b"\x01" * 65535,
        *[msgpack.packb([3, n, list(NO_CHUNK), []]) for n in (2**62, 2**63, 2**64 - 1, -1, -(2**63))],
        *[msgpack.packb([3, 1, [*NO_CHUNK[:2], n, *NO_CHUNK[3:]], []]) for n in (0, 2**40, 2**64 - 1, -1)],
        *[msgpack.packb([4, 1, 0, lo, hi, False]) for lo, hi in ((0, 2**63), (2**64 - 2, 2**64 - 1), (5, 5), (9, 2))],
    ]  # fmt: skip
    return _bodies(target, 5000, bodies)


def deep_nesting(target: Target) -> int:
    return _bodies(target, 500, [b"\x91" * depth for depth in (100, 5000, 200_000, 1_000_000)] + [b"\x81" * 50_000])


def unknown_versions_and_kinds(target: Target) -> int:
    thrown = 0
    with joined(target) as insider:
        for n in target.times(5000):
            body = msgpack.packb([n % 5000, 1, 2, 3])
            thrown += insider.put(insider.frame(body, n % 256, version=(n * 7) % 256))
            thrown += insider.put(insider.frame(body))
    return thrown


def many_frames(target: Target) -> int:
    """Messages of several ZeroMQ frames."""
    thrown = 0
    with joined(target) as insider:
        for n in target.times(3000):
            good = insider.frame(encode(m.Retire(1)))
            thrown += insider.put_parts([good] * (2 + n % 50))
            thrown += insider.put_parts([b""] * (2 + n % 200))
    return thrown


def large_frames(target: Target) -> int:
    """Of just under 1 MiB, which the hub drops; of more, which end the connection."""
    thrown = 0
    with joined(target) as insider:
        for size in (BODY + 1, (1 << 20) - 100):
            for _ in target.times(40):
                thrown += insider.put(insider.frame(bytes(size)))
    for _ in target.times(5):
        with joined(target) as insider:
            thrown += insider.put(insider.frame(bytes(2 << 20)))
            insider.beat()
    return thrown


# ---- out of order ---------------------------------------------------------------------------------------------------


def replayed(target: Target) -> int:
    """Again, backwards, and out of the future."""
    thrown = 0
    with joined(target) as insider:
        specified(insider)
        frames = [insider.frame(encode(m.Submit(1, of_calls(n, (1,))))) for n in range(50)]
        for _ in target.times(100):
            target.random.shuffle(frames)
            thrown += sum(insider.put(frame) for frame in frames)
        for n in target.times(5000):
            thrown += insider.put(insider.frame(b"\x91\x06", seq=n * 2**50 % 2**64))
    return thrown


def stale_epochs(target: Target) -> int:
    """Frames of other registrations, also of those that there are."""
    thrown = 0
    with joined(target) as insider:
        assert insider.welcome is not None
        for n in target.times(10_000):
            thrown += insider.put(insider.frame(b"\x91\x06", epoch=n % 300, seq=1 + n // 300))
            thrown += insider.put(insider.frame(b"\x91\x06", incarnation=n))
    return thrown


def others_ids(target: Target) -> int:
    """Heartbeats and registrations for others, outcomes and cancels of others' tasks."""
    thrown = 0
    with joined(target) as one, joined(target) as other:
        for _ in target.times(300):
            stolen = one.request()._replace(instance=other.instance, attempt=1000)
            assert not isinstance(one.ask(stolen), m.Registered), "a session was taken over by its number"
            thrown += 1
            assert other.welcome is not None
            w = other.welcome
            reply = one.ask(m.Heartbeat(other.instance, w.incarnation, w.epoch, 0, []))
            assert isinstance(reply, m.HeartbeatReply)
            assert not reply.known, "a heartbeat for another counted"
            thrown += 1 + one.send(m.Cancel(1, 0, 0, 100, True))
    return thrown


def wild_acknowledgements(target: Target) -> int:
    thrown = 0
    with joined(target) as insider:
        for n in target.times(10_000):
            thrown += insider.put(insider.frame(b"", 2 + n % 2, ack=n * 2**40 % 2**64))
        for n in target.times(300):
            insider.beat(seen=n * 2**50 % 2**64)
            thrown += 1
    return thrown


# ---- too much -------------------------------------------------------------------------------------------------------


def endless_fragments(target: Target) -> int:
    """A message that never ends."""
    thrown, part = 0, bytes(BODY)
    with joined(target) as insider:
        for _ in target.times(3000):
            if not insider.put(insider.frame(part, MORE)):
                break
            thrown += 1
    return thrown


def many_half_messages(target: Target) -> int:
    """Of many sessions at once, each just as long as the hub takes."""
    thrown, part = 0, bytes(BODY)
    insiders: list[Insider] = []
    try:
        for _ in target.times(10):
            insiders.append(Insider(target))
            if not insiders[-1].join():
                break
            for _ in range(target.largest // BODY):
                thrown += insiders[-1].put(insiders[-1].frame(part, MORE))
    finally:
        for insider in insiders:
            insider.close()
    return thrown


def registrations(target: Target) -> int:
    """Thousands of sessions, by one connection: some are let in, the others told to come again."""
    thrown = 0
    with Insider(target) as insider:
        for n in target.times(10_000):
            request = insider.request()._replace(instance=n + 1, key=target.random.randbytes(32), attempt=1)
            reply = insider.ask(request)
            assert isinstance(reply, m.Registered | m.Refused)
            thrown += 1
    return thrown


def registered_again(target: Target) -> int:
    """One session that registers again and again."""
    thrown = 0
    with Insider(target) as insider:
        for _ in target.times(3000):
            reply = insider.ask(insider.request()._replace(key=target.random.randbytes(32)))
            assert isinstance(reply, m.Registered | m.Refused)
            thrown += 1
    return thrown


def results_that_nobody_reads(target: Target) -> int:
    """Small calls with large results, more than a session may have; the lane is never read."""
    thrown = 0
    with joined(target) as insider:
        specified(insider)
        for n in target.times(400):
            thrown += insider.send(m.Submit(1, of_calls(10 * n, *[(100_000,)] * 10)))
            insider.beat(seen=0)
        insider.beat(seen=0)
    return thrown


def answers_that_nobody_reads(target: Target) -> int:
    """Questions whose answers come on the lane: cancels of what is not there, chunks of no function."""
    thrown = 0
    with joined(target) as insider:
        for n in target.times(100_000):
            message = m.Cancel(n, n, 0, 1) if n % 2 else m.Submit(n, Chunk(*NO_CHUNK))
            if not insider.send(message):
                break
            thrown += 1
            if n % 5000 == 0:
                insider.beat(seen=0)
    return thrown


def cancels_one_by_one(target: Target) -> int:
    """One large chunk of nothing, each task of it cancelled by itself; the lane is never read."""
    thrown = 0
    with joined(target) as insider:
        specified(insider)
        for n in range(2):
            insider.send(m.Submit(1, Chunk(n * TASKS, 0, TASKS, bytes(4 * TASKS), b"", 1, b"")))
        for n in target.times(TASKS):
            if not insider.send(m.Cancel(1, TASKS, 2 * n % TASKS, 2 * n % TASKS + 1, n % 3 == 0)):
                break
            thrown += 1
    return thrown


def heartbeats(target: Target) -> int:
    thrown = 0
    with joined(target) as insider:
        held = [(n, 0, 1) for n in range(4096)]
        for _ in target.times(3000):
            insider.beat(held=held)
            thrown += 1
    return thrown


def naks(target: Target) -> int:
    """Each may send a window of messages again."""
    thrown = 0
    with joined(target) as insider:
        for n in range(600):
            insider.send(m.Cancel(n, 0, 0, 1))
        for _ in target.times(20_000):
            thrown += insider.nak(0)
    return thrown


def status_requests(target: Target) -> int:
    thrown = 0
    with Insider(target) as insider:
        request = pack_control(m.StatusRequest())
        for _ in target.times(5000):
            assert insider.ask_raw(request) is not None
            thrown += 1
    return thrown


def control_requests(target: Target) -> int:
    """Everything else that control may be asked, malformed and not."""
    thrown, random = 0, target.random
    with Insider(target) as insider:
        good = [pack_control(q) for q in (
            insider.request(), m.StatusRequest(), m.ListTickets(), m.RevokeTicket("admin"), m.Refused("x"),
            m.CreateTicket("x", "admin", bytes(32), 0), m.Heartbeat(1, 2, 3, 4, []),
        )]  # fmt: skip
        for n in target.times(5000):
            data = bytearray(good[n % len(good)])
            if n % 3:
                data[random.randrange(len(data))] = random.randrange(256)
            if n % 7 == 0:
                del data[random.randrange(len(data)) :]
            assert insider.ask_raw(bytes(data)) is not None
            thrown += 1
    return thrown


def many_specs(target: Target) -> int:
    """A million functions with long names, none of which is ever called."""
    thrown = 0
    with joined(target) as insider:
        for n in target.times(1_000_000):
            name = "\N{SNOWMAN}" * (1000 if n % 2 else 2000)
            if not insider.send(m.Spec(n, name, digest_of(name.encode()), b"", n % 1000, m.NO_LIMITS)):
                break
            thrown += 1
    return thrown


def large_bodies(target: Target) -> int:
    """Functions of 1 MB each, some that nothing refers to."""
    thrown = 0
    with joined(target) as insider:
        for n in target.times(300):
            body = n.to_bytes(4, "little") * 250_000
            if n % 3:
                insider.send(m.Spec(n, "f", digest_of(body), b"", 0, m.NO_LIMITS))
            if not insider.send(m.Body(digest_of(body), body)):
                break
            thrown += 1
    return thrown


def absurd_chunks(target: Target) -> int:
    tables = [
        (0, 0, TASKS, bytes(4 * TASKS), b"", 1, b""),
        (2**62 - 2, 0, 1, b"\1\0\0\0", b"", 1, b"x"),
        (0, 0, 2, b"\1\0\0\0" * 2, b"\0\0\0\0\2\0\0\0", 1, b"xx"),
        (0, 0, 1, b"\xff\xff\xff\xff", b"", 1, b"x"),
        (0, 0, 1, b"\1\0\0", b"", 1, b"x"),
        (0, 7, 1, b"\1\0\0\0", b"", 2**16, b"x"),
        (0, 0, 65536, b"\1\0\0\0", b"\0\0\1\0", 65536, b"x"),
    ]
    bodies = [msgpack.packb([3, 1, list(table), []]) for table in tables]
    bodies += [msgpack.packb([3, 1, list(tables[0]), [[2 * n, 2 * n + 1] for n in range(60_000)]])]
    thrown = 0
    with joined(target) as insider:
        specified(insider)
        for n in target.times(500):
            if not insider.send_body(bodies[n % len(bodies)]):
                break
            thrown += 1
    return thrown


def odd_moments(target: Target) -> int:
    """Close before anything, twice, between fragments, and what comes after it."""
    thrown = 0
    for n in target.times(60):
        with joined(target) as insider:
            if n % 3 == 1:
                specified(insider)
                insider.send(m.Submit(1, of_calls(0, *[(10,)] * 20)))
                insider.send(m.Cancel(1, 0, 0, 20, True))
            if n % 3 == 2:
                insider.put(insider.frame(bytes(BODY), MORE))
            for message in (m.Close(), m.Close(), m.Retire(1), m.Submit(1, of_calls(20, (1,)))):
                thrown += insider.put(insider.frame(encode(message), LAST))
    return thrown


def never_acknowledges(target: Target) -> int:
    """A client that reads what comes and confirms nothing of it."""
    thrown = 0
    with joined(target) as insider:
        specified(insider)
        for n in target.times(300):
            thrown += insider.send(m.Submit(1, of_calls(10 * n, *[(1000,)] * 10)))
            insider.seen = 0
            insider.lane.poll(1)
            insider.beat(seen=0)
            while insider.lane.poll(0):
                insider.lane.recv()
    return thrown


KINDS = [
    Kind("mutated messages", mutated),
    Kind("truncated messages", truncated),
    Kind("wrong types", wrong_types),
    Kind("huge numbers", huge_numbers),
    Kind("deep nesting", deep_nesting),
    Kind("unknown versions, kinds", unknown_versions_and_kinds),
    Kind("multi-frame messages", many_frames),
    Kind("frames of 1 MiB and more", large_frames),
    Kind("replayed, reordered", replayed),
    Kind("stale epochs", stale_epochs),
    Kind("ids of others", others_ids),
    Kind("wild acknowledgements", wild_acknowledgements),
    Kind("endless fragments", endless_fragments),
    Kind("many half messages", many_half_messages),
    Kind("unread results", results_that_nobody_reads),
    Kind("unread answers", answers_that_nobody_reads),
    Kind("cancels, one by one", cancels_one_by_one),
    Kind("heartbeats", heartbeats),
    Kind("NAKs", naks),
    Kind("status requests", status_requests),
    Kind("control requests", control_requests),
    Kind("a million specs", many_specs),
    Kind("large bodies", large_bodies),
    Kind("absurd chunks", absurd_chunks),
    Kind("odd moments", odd_moments),
    Kind("never acknowledges", never_acknowledges),
    Kind("registered again", registered_again),
]
LAST_KINDS = [Kind("registrations", registrations)]
"""Those that leave no room for others for some seconds."""
