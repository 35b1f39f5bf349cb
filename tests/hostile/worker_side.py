"""What a worker with a good ticket can send that no worker of ours does. It has no slots, unless it says otherwise."""

from __future__ import annotations

from taskmesh.core import messages as m
from taskmesh.core.limits import REPORT, SLOTS
from taskmesh.wire.messages import encode

from .client_side import good_messages, joined
from .insider import Insider
from .target import Kind, Target

GOODBYE_S = 2.0


def a_clients_messages(target: Target) -> int:
    """Submitting, cancelling and closing, with a worker's ticket."""
    thrown = 0
    with joined(target, "worker") as insider:
        good = [encode(message) for message in good_messages(insider)]
        for n in target.times(5000):
            thrown += insider.put(insider.frame(good[n % len(good)]))
    with Insider(target, "worker") as insider:
        for _ in target.times(100):
            reply = insider.ask(insider.request()._replace(role="client"))
            assert isinstance(reply, m.Refused), "a worker's ticket is no client's"
            thrown += 1
    return thrown


def false_outcomes(target: Target) -> int:
    """Outcomes of tasks that it was never given, of every form."""
    thrown, random = 0, target.random
    with joined(target, "worker") as insider:
        for n in target.times(10_000):
            form = list(m.Form)[n % 5]
            width = 1 if form in (m.Form.ERROR, m.Form.LOST) else random.randrange(1, 100)
            lo = random.randrange(200)
            outcome = m.Outcome(n % 4, random.randrange(1000), lo, lo + width, form, random.randbytes(n % 300))
            entry = m.Finished(random.getrandbits(63), random.getrandbits(64), 1e300 * (n % 2), outcome)
            thrown += insider.send(m.Done([entry] * (1 + n % 20)))
    return thrown


def false_inventories(target: Target) -> int:
    thrown, random = 0, target.random
    with joined(target, "worker") as insider:
        for n in target.times(300):
            ranges = [(2 * k, 2 * k + 1) for k in range(n % 500 + 1)]
            holdings = [
                m.Holding(random.getrandbits(63), random.getrandbits(64), k % 5, k, 1 + n, n % 2 == 0, ranges)
                for k in range(50)
            ]
            thrown += insider.send(m.Inventory(holdings))
    return thrown


def false_strikes_and_returns(target: Target) -> int:
    thrown, random = 0, target.random
    with joined(target, "worker") as insider:
        for n in target.times(5000):
            fence = random.getrandbits(63) if n % 2 else n
            thrown += insider.send(m.Strike(fence, 0, 1 + n % 9, bytes(REPORT if n % 50 == 0 else 10)))
            thrown += insider.send(m.GiveBack(fence, [(0, 5)], [(5, 9)]))
    return thrown


def questions_for_functions(target: Target) -> int:
    thrown = 0
    with joined(target, "worker") as insider:
        for n in target.times(20_000):
            thrown += insider.send(m.NeedBody((n % 7).to_bytes(16, "little")))
    return thrown


def slots_that_flicker(target: Target) -> int:
    """It takes work with many slots, then has none, and gives back what it was given."""
    thrown = 0
    with joined(target, "worker") as insider:
        for n in target.times(500):
            thrown += insider.send(m.Slots(SLOTS if n % 2 else 0))
            message = insider.read(0.005)
            if isinstance(message, m.Dispatch | m.Revoke):
                thrown += insider.send(m.GiveBack(message.fence, [(message.lo, message.hi)], []))
            insider.acknowledge()
    return thrown


def takes_work_and_leaves(target: Target) -> int:
    """It takes what it gets, answers nothing, and hangs up; what it had runs elsewhere."""
    thrown = 0
    for _ in target.times(20):
        with joined(target, "worker", slots=64) as insider:
            for _ in range(50):
                thrown += 1
                if insider.read(0.01) is None:
                    break
    return thrown


def never_reads_its_lane(target: Target) -> int:
    """It takes work, says that it is alive, and reads nothing, until it goes."""
    thrown = 0
    with joined(target, "worker", slots=1000) as insider:
        for _ in target.times(50):
            thrown += insider.beat(seen=0) is not None
            insider.control.poll(20)
    return thrown


def leaves_again_and_again(target: Target) -> int:
    thrown = 0
    for n in target.times(50):
        with joined(target, "worker", slots=n % 2) as insider:
            for message in (m.Leaving(), m.Slots(0), m.Leaving(), m.Inventory([]), m.Slots(5)):
                thrown += insider.send(message)
            insider.read(0.02)
    return thrown


def joins_with_absurd_fields(target: Target) -> int:
    """Names that move a cursor, slots beyond counting, other releases."""
    thrown = 0
    with Insider(target, "worker") as insider:
        for n in target.times(500):
            request = insider.request()
            odd = [
                request._replace(name="\x1b[2J" * 200), request._replace(host="\0" * 255),
                request._replace(slots=SLOTS),
                request._replace(version="9.9.9"), request._replace(python="\n" * 60), request._replace(role="hub"),
                request._replace(key=b""), request._replace(secret=b""), request._replace(incarnation=2**64 - 1),
                request._replace(seen=2**64 - 1, epoch=2**32 - 1), request._replace(attempt=2**31 - 1),
            ]  # fmt: skip
            reply = insider.ask(odd[n % len(odd)]._replace(instance=1000 + n))
            assert isinstance(reply, m.Refused | m.Registered)
            thrown += 1
    return thrown


KINDS = [
    Kind("a client's messages", a_clients_messages),
    Kind("false outcomes", false_outcomes),
    Kind("false inventories", false_inventories),
    Kind("false strikes, returns", false_strikes_and_returns),
    Kind("NeedBody flood", questions_for_functions),
    Kind("slots that flicker", slots_that_flicker),
    Kind("takes work and leaves", takes_work_and_leaves),
    Kind("never reads its lane", never_reads_its_lane),
    Kind("leaves again and again", leaves_again_and_again),
    Kind("absurd registrations", joins_with_absurd_fields),
]
