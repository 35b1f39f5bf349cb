"""A client: the real session and registration, and tickets in place of futures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from taskmesh.core import messages as m
from taskmesh.core.gathering import LINGER_S
from taskmesh.core.identity import digest_of
from taskmesh.core.ranges import Ranges
from taskmesh.core.session import ClientSpec, Session
from taskmesh.transport.membership import Membership

from .hub import ADDRESS
from .process import Process
from .runner import names
from .world import Violation

if TYPE_CHECKING:
    from .checks import Book
    from .network import Network


@dataclass(eq=False, slots=True)
class Ticket:
    """A task as its submitter sees it; `ended` must come to hold exactly one word."""

    kind: str
    limits: m.Limits
    ended: list[str] = field(default_factory=list)
    cancelled: bool = False  # somebody asked for that
    interrupted: bool = False  # even if it runs


class SimulatedClient:
    """One session, from its start to its end."""

    def __init__(self, network: Network, book: Book, name: str, instance: int, rate: float) -> None:
        self.name = name
        self.book = book
        self.instance = instance
        self.process = Process(network, name, rate, float(instance % 991))
        self.session: Session[Ticket] = Session()
        self.specs: list[ClientSpec[Ticket]] = []
        self.tickets: list[Ticket] = []
        self.closing = False
        self.over = False
        self.revoked = False  # its ticket was
        self._welcomed = False
        self._sent_at = 0.0
        self.membership = Membership(
            self.process.context, self.process.loop, ADDRESS.control, book.register("client", instance, name, 0), self
        )
        self.process.loop.add_part(self)
        self.process.after_round = self._after_round
        self.process.poke()

    @property
    def usable(self) -> bool:
        """Whether its user can still do something."""
        return self._welcomed and not self.closing and not self.gone

    @property
    def gone(self) -> bool:
        """Whether nobody waits for anything here, although it was never closed."""
        return self.revoked or self.process.dead

    # ---- its user ------------------------------------------------------------------------------------------------

    def define(self, body: bytes, priority: int, limits: m.Limits) -> ClientSpec[Ticket]:
        """A function, by a body that also makes its digest."""
        spec = self.session.define("f", body, digest_of(body), None, priority, limits)
        self._send_unsent()
        self.specs.append(spec)
        if limits.at_most_once:
            self.book.once.add((self.instance, spec.number))
        return spec

    def call(self, spec: ClientSpec[Ticket], kinds: str) -> None:
        """One call for each letter."""
        if spec.open is not None and spec.open.frozen:
            self.seal(spec)
        for kind in kinds:
            ticket = self._ticket(spec, kind)
            self.session.open_chunk(spec).calls.append((kind.encode(), ticket))
        self.process.poke()

    def _ticket(self, spec: ClientSpec[Ticket], kind: str) -> Ticket:
        ticket = Ticket(kind, spec.limits)
        self.tickets.append(ticket)
        return ticket

    def seal(self, spec: ClientSpec[Ticket], *, interrupted: bool = False) -> None:
        """Send the open chunk; `interrupted`: the caller is stopped before it has booked that, and does it again."""
        submit = self.session.seal(spec)
        if submit is not None:
            self._send(submit)
            if not interrupted:
                self.session.sealed(spec)

    def map(self, spec: ClientSpec[Ticket], leaves: list[str], grain: int) -> None:
        """One task for each letter of each leaf."""
        self.seal(spec)
        tickets: Any = [self._ticket(spec, kind) for leaf in leaves for kind in leaf]
        self.session.add_items(spec, [leaf.encode() for leaf in leaves], [len(leaf) for leaf in leaves], grain, tickets)
        self._send_unsent()

    def cancel(self, pick: int, length: int, interrupt: bool) -> None:
        """Cancel a part of a chunk that is with the hub."""
        sent = [(spec, chunk) for spec in self.session.specs.values() for chunk in spec.sent.values()]
        if sent:
            spec, chunk = sent[pick % len(sent)]
            lo = pick % chunk.chunk.count
            hi = min(chunk.chunk.count, lo + length)
            for ticket in _tickets(chunk)[lo:hi]:
                ticket.cancelled = True
                ticket.interrupted = ticket.interrupted or interrupt
            for message in self.session.cancel(spec, chunk.chunk.first, [(lo, hi)], interrupt):
                self._send(message)

    def retire(self) -> None:
        """Retire what has no tasks left."""
        for spec in [s for s in self.specs if not s.sent and s.open is None]:
            self.specs.remove(spec)
            for message in self.session.retire(spec):
                self._send(message)

    def close(self) -> None:
        """Nobody waits for the rest."""
        self.closing = True
        self._send(m.Close())

    def _send_unsent(self) -> None:
        self._send()

    def _send(self, *messages: m.LinkMessage) -> None:
        while self.session.unsent:  # before anything newer
            self.membership.send(self.session.unsent.popleft())
        for message in messages:
            self.membership.send(message)
        self._sent_at = self.process.loop.now()
        self.process.poke()

    # ---- the hub -------------------------------------------------------------------------------------------------

    def on_welcome(self, welcome: m.Registered) -> None:
        self.process.world.log(self.name, f"joins, {'goes on' if welcome.resume else 'on a new link'}")
        if not welcome.resume and self._welcomed:
            if self.closing:
                self.over = True
                return
            for message in self.session.offer_again():
                self._send(message)
        self._welcomed = True

    def on_message(self, message: m.LinkMessage) -> None:
        match message:
            case m.Results(outcomes):
                for outcome in outcomes:
                    self._on_outcome(outcome)
            case m.Goodbye(_, back):
                if back and not self.closing:
                    self.membership.join_again()
                else:
                    self.over = True
            case m.Rejected():
                self._on_rejected(message)
            case m.Cancelled():
                pass
            case _:
                raise Violation(f"{self.name} was sent {message}")

    def _on_outcome(self, outcome: m.Outcome) -> None:
        delivery = self.session.outcome(outcome)
        if delivery is None:
            return
        first, lo, hi = outcome.first, outcome.lo, outcome.hi
        if outcome.form <= m.Form.ERROR and outcome.blob != names(range(first + lo, first + hi)):
            raise Violation(f"{self.name} got somebody else's result for {first + lo}")
        tickets = _tickets(delivery.sent)
        if self.process.world.trace is not None:
            self._note(outcome)
        for offset in _each(delivery.fresh):
            tickets[offset].ended.append(m.Form(outcome.form).name)
            if outcome.form == m.Form.CANCELLED and not tickets[offset].interrupted:
                self.book.cancelled.append((self.instance, outcome.spec, first + offset))

    def _note(self, outcome: m.Outcome) -> None:
        lo, hi = outcome.first + outcome.lo, outcome.first + outcome.hi
        report = f" {outcome.blob!r}" if outcome.form == m.Form.LOST else ""
        text = f"{self.instance:x}-{outcome.spec}-[{lo}, {hi}) ended: {m.Form(outcome.form).name}{report}"
        self.process.world.log(self.name, text)

    def _on_rejected(self, message: m.Rejected) -> None:
        rejected = self.session.rejected(message)
        if rejected is not None:
            chunk, left = rejected
            for offset in _each(left):
                _tickets(chunk)[offset].ended.append("REJECTED")

    def on_refused(self, why: str) -> None:
        if not self.revoked:
            raise Violation(f"{self.name} was refused: {why}")
        self.process.kill()

    def on_lost(self) -> None:
        """It waits for ever."""

    # ---- rounds --------------------------------------------------------------------------------------------------

    def on_time(self, now: float) -> None:
        if self._welcomed and not self.closing:
            if self.session.unsent:
                self._send_unsent()
            for spec in sorted(self.session.filling, key=lambda s: s.number):
                if now - self._sent_at >= LINGER_S or len(spec.open.calls if spec.open else ()) >= 64:
                    self.seal(spec)
        self.membership.on_time(now)
        self.membership.pump(now)

    def next_deadline(self) -> float:
        if self.membership.touched:
            return 0.0
        deadline = self.membership.next_deadline()
        return (
            min(deadline, self._sent_at + LINGER_S)
            if self.session.filling and self._welcomed and not self.closing
            else deadline
        )

    def _after_round(self) -> None:
        self.session.check()
        if self.membership.stream is not None:
            self.membership.stream.link.check()
        if self.over:
            self.process.kill()


def _tickets(chunk: object) -> list[Ticket]:
    tickets = chunk.owner or chunk.waiters  # type: ignore[attr-defined]
    assert isinstance(tickets, list)
    return tickets


def _each(ranges: Ranges) -> Iterator[int]:
    return (offset for lo, hi in ranges for offset in range(lo, hi))


__all__ = ["SimulatedClient", "Ticket"]
