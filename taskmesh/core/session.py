"""The session: the client's side of every decision.

It numbers tasks, fills chunks, and remembers everything that the hub has not settled, so that all of it can be offered
again to a hub that has lost its memory. What waits for a task (a future, a place in a map) is opaque here.

Filling happens in the caller's thread, which Ctrl-C may interrupt between any two steps. So a call is added by one
append, and a chunk that is being sealed is frozen first: sealing it can be repeated until it is done, and the hub takes
no notice of a chunk that it has. Whatever else callers compose goes to `unsent` first, and the receive thread sends
what they did not.

A chunk is full at 512 tasks or 64 KiB; when one goes that is not full, `gathering` decides.

What is unsettled is weighed, so that a shell can make callers wait (`window`): the bytes of its payload until its chunk
has ended, and 512 bytes for each call (each leaf of a map) for what is kept around it here and at the hub.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, Protocol, TypeVar

from ..errors import LocalProtocolError
from . import messages as m
from .chunk import Chunk, pack_sizes
from .limits import printable
from .ranges import Ranges, count, overlap, subtract

CHUNK_TASKS = 512
CHUNK_BYTES = 64 * 1024
WEIGHT = 512  # bytes that a call, or a leaf of a map, is counted as besides its payload

W = TypeVar("W")


class MapOwner(Protocol):
    """Takes the outcomes of a map's chunks."""

    def deliver(self, outcome: m.Outcome, fresh: Ranges) -> None:
        """An outcome, and which of the offsets that it speaks of had not ended before."""

    def refuse(self, first: int, left: Ranges, error: BaseException) -> None:
        """These offsets of a chunk will never run."""

    def fail(self, error: BaseException) -> None:
        """There will be no more outcomes."""


@dataclass(slots=True, eq=False)
class OpenChunk(Generic[W]):
    """Tasks of one spec that are not sent yet: `calls` holds `(leaf, waiter)`, together `size` bytes.

    `frozen`: it is being sealed, and takes no more calls. `most`: how many calls it takes.
    """

    first: int
    calls: list[tuple[bytes, W]] = field(default_factory=list)
    size: int = 0
    frozen: bool = False
    most: int = CHUNK_TASKS


@dataclass(slots=True, eq=False)
class SentChunk(Generic[W]):
    """A chunk that is with the hub. `waiters` is empty for a map, whose `owner` takes the outcomes.

    It weighs `fixed` bytes until it has ended, and `each` more for each task that has not. `cancels` is what was asked
    of the hub about it.
    """

    chunk: Chunk
    waiters: list[W]
    owner: MapOwner | None
    left: Ranges
    fixed: int
    each: int
    cancels: list[m.Cancel] = field(default_factory=list)

    def weight(self) -> int:
        """How much of the window it takes, in bytes."""
        return self.fixed + self.each * count(self.left) if self.left else 0


@dataclass(slots=True, eq=False)
class ClientSpec(Generic[W]):
    """A function as the session knows it."""

    number: int
    name: str
    digest: bytes
    init: bytes
    init_body: bytes
    priority: int
    body: bytes
    limits: m.Limits
    next: int = 0
    open: OpenChunk[W] | None = None
    sent: dict[int, SentChunk[W]] = field(default_factory=dict)
    retired: bool = False


class Delivery(NamedTuple, Generic[W]):
    """Whose outcome it was, and which of the offsets that it speaks of had not ended before."""

    spec: ClientSpec[W]
    sent: SentChunk[W]
    fresh: Ranges


class Session(Generic[W]):
    """One client's specs and unsettled chunks."""

    def __init__(self) -> None:
        self.specs: dict[int, ClientSpec[W]] = {}
        self._numbers = 0
        self._bodies_sent: dict[bytes, int] = {}  # digest: how many specs refer to it
        self.weight = 0  # of all that is sent and unsettled, in bytes
        self.filling: set[ClientSpec[W]] = set()
        # Composed, but the caller may have been stopped before it sent them. They go before anything that is newer:
        # the hub takes the chunks of a spec in order.
        self.unsent: deque[m.LinkMessage] = deque()

    # ---- specs ----------------------------------------------------------------------------------------------

    def define(
        self,
        name: str,
        body: bytes,
        digest: bytes,
        init: tuple[bytes, bytes] | None,
        priority: int,
        limits: m.Limits = m.NO_LIMITS,
    ) -> ClientSpec[W]:
        """A new spec; what tells the hub of it waits in `unsent`. `init` is digest and body of the initializer."""
        self._numbers += 1
        spec: ClientSpec[W] = ClientSpec(self._numbers, name, digest, *(init or (b"", b"")), priority, body, limits)
        self.unsent.extend(self._introduce(spec))
        self.specs[spec.number] = spec
        self._count_bodies(spec)
        return spec

    def _introduce(self, spec: ClientSpec[W]) -> list[m.LinkMessage]:
        messages: list[m.LinkMessage] = [
            m.Spec(spec.number, printable(spec.name), spec.digest, spec.init, spec.priority, spec.limits)
        ]
        messages += [
            m.Body(digest, body)
            for digest, body in ((spec.digest, spec.body), (spec.init, spec.init_body))
            if digest and digest not in self._bodies_sent
        ]
        return messages

    def _count_bodies(self, spec: ClientSpec[W]) -> None:
        for digest in (spec.digest, spec.init):
            if digest:
                self._bodies_sent[digest] = self._bodies_sent.get(digest, 0) + 1

    def retire(self, spec: ClientSpec[W]) -> list[m.LinkMessage]:
        """The function is gone: forget its spec as soon as nothing of it is unsettled."""
        spec.retired = True
        if spec.sent or spec.open is not None or spec.number not in self.specs:
            return []
        del self.specs[spec.number]
        for digest in (spec.digest, spec.init):
            if digest:
                self._bodies_sent[digest] -= 1
                if not self._bodies_sent[digest]:
                    del self._bodies_sent[digest]
        return [m.Retire(spec.number)]

    def _require_known(self, spec: ClientSpec[W]) -> None:
        if self.specs.get(spec.number) is not spec:
            raise LocalProtocolError(f"a call of {spec.name}, spec {spec.number}, which the hub was told to forget")

    # ---- filling --------------------------------------------------------------------------------------------

    def open_chunk(self, spec: ClientSpec[W]) -> OpenChunk[W]:
        """The chunk that the next call of `spec` goes into."""
        if spec.open is None:
            self._require_known(spec)
            self.filling.add(spec)
            spec.open = OpenChunk(spec.next)
        return spec.open

    def seal(self, spec: ClientSpec[W]) -> m.Submit | None:
        """Close the open chunk of `spec`; the caller records the message. See `sealed`."""
        opened = spec.open
        if opened is None or not opened.calls:
            self.sealed(spec)
            return None
        opened.frozen = True
        leaves = [leaf for leaf, _ in opened.calls]
        sizes = pack_sizes([len(leaf) for leaf in leaves])
        chunk = Chunk(opened.first, 0, len(leaves), sizes, b"", 1, b"".join(leaves))
        waiters = [waiter for _, waiter in opened.calls]
        if chunk.first not in spec.sent:
            self._keep(spec, SentChunk(chunk, waiters, None, [(0, chunk.count)], len(chunk.payload), WEIGHT))
        return m.Submit(spec.number, chunk)

    def _keep(self, spec: ClientSpec[W], sent: SentChunk[W]) -> None:
        weight, first = sent.weight(), sent.chunk.first
        spec.sent[first] = sent  # an interrupt comes with a call, so these two happen together
        self.weight += weight

    def sealed(self, spec: ClientSpec[W]) -> None:
        """The message of `seal` is on the link: the next call opens a new chunk."""
        if spec.open is not None:
            spec.next = spec.open.first + len(spec.open.calls)
            spec.open.calls = []  # futures keep the chunk, and it must not keep their arguments
            spec.open = None
        self.filling.discard(spec)

    def add_items(
        self, spec: ClientSpec[W], leaves: list[bytes], items: list[int], grain: int, owner: MapOwner
    ) -> Chunk:
        """A chunk of map leaves, `items[i]` tasks in `leaves[i]`, of a spec that was sealed; it waits in `unsent`."""
        self._require_known(spec)
        chunk = Chunk(
            spec.next, 0, sum(items), pack_sizes([len(leaf) for leaf in leaves]), pack_sizes(items), grain,
            b"".join(leaves),
        )  # fmt: skip
        spec.next += chunk.count
        fixed = len(chunk.payload) + WEIGHT * len(leaves)
        self.unsent.append(m.Submit(spec.number, chunk))
        self._keep(spec, SentChunk(chunk, [], owner, [(0, chunk.count)], fixed, 0))
        return chunk

    # ---- settling -------------------------------------------------------------------------------------------

    def outcome(self, outcome: m.Outcome) -> Delivery[W] | None:
        """Book an outcome. None: nobody waits for it any more."""
        spec = self.specs.get(outcome.spec)
        sent = spec.sent.get(outcome.first) if spec else None
        if spec is None or sent is None or outcome.hi > sent.chunk.count:
            return None
        self._seen(spec, outcome.first)
        fresh = overlap(sent.left, outcome.lo, outcome.hi)
        if not fresh:
            return None
        self._settle(spec, sent, fresh)
        return Delivery(spec, sent, fresh)

    def _seen(self, spec: ClientSpec[W], first: int) -> None:
        """The hub speaks of a chunk, so it has it: if the caller was stopped before `sealed`, that is made up for."""
        if spec.open is not None and spec.open.first == first:
            self.sealed(spec)

    def _settle(self, spec: ClientSpec[W], sent: SentChunk[W], ended: Ranges) -> None:
        for lo, hi in ended:
            sent.left = subtract(sent.left, lo, hi)
            self.weight -= sent.each * (hi - lo)
        if not sent.left:
            del spec.sent[sent.chunk.first]
            self.weight -= sent.fixed

    def rejected(self, message: m.Rejected) -> tuple[SentChunk[W], Ranges] | None:
        """The hub did not take a chunk: book it as ended. Returns it, and what of it had not ended before."""
        spec = self.specs.get(message.spec)
        sent = spec.sent.get(message.first) if spec else None
        if spec is None or sent is None:
            return None
        self._seen(spec, message.first)
        left = sent.left
        self._settle(spec, sent, left)
        return sent, left

    # ---- cancelling -----------------------------------------------------------------------------------------

    def cancel(self, spec: ClientSpec[W], first: int, ranges: Ranges, interrupt: bool = False) -> list[m.Cancel]:
        """Ask the hub to cancel what has not ended of `ranges` in a chunk; remembered, should the hub forget it."""
        sent = spec.sent.get(first)
        if sent is None:
            return []
        parts = [part for lo, hi in ranges for part in overlap(sent.left, lo, hi)]
        cancels = [m.Cancel(spec.number, first, lo, hi, interrupt) for lo, hi in parts]
        sent.cancels += [cancel for cancel in cancels if cancel not in sent.cancels]
        return cancels

    def cancel_where(self, chosen: Callable[[SentChunk[W]], bool]) -> list[m.Cancel]:
        """Ask the hub to cancel what has not started of the chosen chunks."""
        return [
            cancel
            for spec in self.specs.values()
            for first, sent in spec.sent.items()
            if chosen(sent)
            for cancel in self.cancel(spec, first, sent.left)
        ]

    # ---- the hub is another, or gone ------------------------------------------------------------------------

    def offer_again(self) -> list[m.LinkMessage]:
        """Everything unsettled, for a hub that has forgotten this session."""
        self._bodies_sent.clear()
        messages: list[m.LinkMessage] = []
        for spec in self.specs.values():
            messages += self._introduce(spec)
            self._count_bodies(spec)
            for sent in spec.sent.values():
                messages.append(m.Submit(spec.number, sent.chunk, sent.left))
                messages += sent.cancels
            if spec.open is not None and spec.open.first in spec.sent:
                self.sealed(spec)  # its caller was stopped before it had sent it
        self.unsent.clear()  # all of it is among these messages, and a chunk must not come after a newer one
        if self._numbers and self._numbers not in self.specs:
            messages.append(m.Retire(self._numbers))  # the hub drops all that were passed over: up to here
        return messages

    def give_up(self) -> tuple[list[W], list[MapOwner]]:
        """Nothing will end any more: forget all that is unsettled. Returns waiters, and owners of maps."""
        waiters: list[W] = []
        owners: dict[int, MapOwner] = {}
        for spec in self.specs.values():
            for sent in spec.sent.values():
                if sent.owner is not None:
                    owners[id(sent.owner)] = sent.owner
                waiters += sent.waiters
            if spec.open is not None and spec.open.first not in spec.sent:
                waiters += [waiter for _, waiter in spec.open.calls]
            spec.sent.clear()
            self.sealed(spec)
        self.unsent.clear()
        self.weight = 0
        return waiters, list(owners.values())

    @property
    def unsettled(self) -> int:
        """How many tasks have not ended."""
        waiting = sum(len(spec.open.calls) for spec in self.filling if spec.open)
        return waiting + sum(count(c.left) for spec in self.specs.values() for c in spec.sent.values())

    def check(self) -> None:
        """Cross-check the books.

        Raises
        ------
        LocalProtocolError
            They contradict each other.
        """
        weight = sum(sent.weight() for spec in self.specs.values() for sent in spec.sent.values())
        if weight != self.weight:
            raise LocalProtocolError(f"what is unsettled weighs {weight} bytes, not {self.weight}")
        for spec in self.specs.values():
            if (spec.open is not None) != (spec in self.filling):
                raise LocalProtocolError(f"spec {spec.number} is open and not filling, or the reverse")
            end = 0
            for first, sent in sorted(spec.sent.items()):
                if first < end or not sent.left:
                    raise LocalProtocolError(f"chunk {first} of spec {spec.number} overlaps, or has ended")
                end = first + sent.chunk.count
            frozen = len(spec.open.calls) if spec.open is not None and spec.open.frozen else 0
            if end > spec.next + frozen:
                raise LocalProtocolError(f"spec {spec.number} has sent task {end - 1}, but is at {spec.next}")
