"""Target: the scheduler, with hostile clients and daemons beside a client and a daemon that keep the rules.

Nothing that the hostile ones say raises anything, unbalances a book, or takes long; and when they are gone, every task
of the other client has ended once, and nothing of theirs is left.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from typing import cast

from taskmesh.core import actions as a
from taskmesh.core import events as e
from taskmesh.core import messages as m
from taskmesh.core.access import Grant, Role
from taskmesh.core.chunk import Chunk, pack_sizes
from taskmesh.core.scheduler import Scheduler
from taskmesh.core.timing import Timing
from taskmesh.errors import PeerProtocolError
from taskmesh.wire.messages import decode, encode

from .grammar import DIGESTS, Known, packed
from .oracle import Broken, Stopwatch
from .source import Source, chance, pick

CLIENT, EVE, MALLORY, DAEMON, LIAR = 1, 2, 3, 4, 5
FROM_CLIENT = (m.Spec, m.Body, m.Submit, m.Submit, m.Cancel, m.Retire, m.Close)
FROM_DAEMON = (m.Done, m.Done, m.Strike, m.GiveBack, m.GiveBack, m.Inventory, m.NeedBody, m.Slots, m.Leaving)
GRANTS = {
    CLIENT: Grant("honest client", Role.CLIENT, b"1" * 32, 0.0), DAEMON: Grant("honest", Role.WORKER, b"2" * 32, 0.0),
    EVE: Grant("eve", Role.CLIENT, b"3" * 32, 0.0), MALLORY: Grant("mallory", Role.ADMIN, b"4" * 32, 0.0),
    LIAR: Grant("liar", Role.WORKER, b"5" * 32, 0.0),
}  # fmt: skip
EVENTS = 60
ROUNDS = 400


class World:
    """A scheduler and its peers."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.now = 1.0
        self.durable = source.below(2) == 1
        self.with_liar = source.below(4) > 0
        self.scheduler = Scheduler(
            "1.0", "3.11", 1.0, Timing(recovery_s=pick(source, (0.0, 3.0))), durable=self.durable
        )
        self.known = Known(sessions=[CLIENT, EVE, MALLORY, LIAR])
        self.watch = Stopwatch(1.0)
        self.records = self.attempts = self.submitted = self.unacked = 0
        self.ended: Counter[int] = Counter()
        self.forms: set[int] = set()
        self.leases: list[m.Dispatch] = []  # with the honest daemon
        self.later: list[Callable[[], None]] = []  # what is said when the events of this moment are over
        for role, instance in (("daemon", DAEMON), ("client", CLIENT), ("client", EVE), ("client", MALLORY)):
            self.joins(role, instance)
        if self.with_liar:
            self.joins("daemon", LIAR, slots=4)
        self.hears(CLIENT, m.Spec(1, "f", DIGESTS[0], b"", 0))
        self.hears(CLIENT, m.Body(DIGESTS[0], b"body"))

    # ---- events -------------------------------------------------------------------------------------------------

    def happens(self, event: e.Event) -> None:
        """Hand in an event, perform what comes of it, and compare all books."""
        self.watch.start()
        actions = self.scheduler.handle(event, self.now)
        self.watch.stop(event)
        for action in actions:
            if isinstance(action, a.Persist):
                self.records += 1
            elif isinstance(action, a.Send):
                self._send(action)
        self.scheduler.check()
        self.scheduler.statistics(self.now)

    def _send(self, action: a.Send) -> None:
        message = cast(m.LinkMessage, decode(encode(action.message)))  # whatever it is, its peer has to understand it
        if isinstance(message, m.Dispatch):
            self.known.learn(message.fence)
            if action.instance == DAEMON:
                self.leases.append(message)
        elif action.instance == DAEMON and isinstance(message, m.Revoke):
            self._give_back(message)
        elif action.instance == DAEMON and isinstance(message, m.Forget):
            self._give_up([lease for lease in self.leases if lease.session == message.session])
        elif action.instance == CLIENT and isinstance(message, m.Results):
            self.unacked += 1
            for outcome in message.outcomes:
                self.forms.add(outcome.form)
                self.ended.update(outcome.first + n for n in range(outcome.lo, outcome.hi))

    def _give_up(self, leases: list[m.Dispatch]) -> None:
        """The honest daemon has no use for what nobody wants any more, and says so."""
        for lease in leases:
            self.leases.remove(lease)
            back = m.GiveBack(lease.fence, [(lease.lo, lease.hi)], [])
            self.later.append(lambda back=back: self.hears(DAEMON, back))  # type: ignore[misc]

    def _give_back(self, revoke: m.Revoke) -> None:
        """The honest daemon has started nothing yet of what it holds."""
        returned: list[tuple[int, int]] = []
        for lease in [lease for lease in self.leases if lease.fence == revoke.fence]:
            lo, hi = max(lease.lo, revoke.lo), min(lease.hi, revoke.hi)
            if lo < hi:
                self.leases.remove(lease)
                returned.append((lo, hi))
                parts = ((lease.lo, lo), (hi, lease.hi))
                self.leases += [lease._replace(lo=start, hi=end) for start, end in parts if start < end]
        self.later.append(lambda: self.hears(DAEMON, m.GiveBack(revoke.fence, returned, [])))

    def hears(self, instance: int, message: m.LinkMessage) -> None:
        """A message of a peer."""
        if instance in self.scheduler.roster.peers:
            self.scheduler.heard(instance, self.scheduler.roster.peers[instance].epoch, self.now)
        self.happens(e.Received(instance, message))
        self._say_what_was_left()

    def _say_what_was_left(self) -> None:
        while self.later:
            self.later.pop(0)()

    def joins(self, role: str, instance: int, slots: int = 2, epoch: int = 0, incarnation: int = 1) -> None:
        """A peer registers, perhaps again."""
        self.attempts += 1
        secret = b"s" * 16 if instance in (CLIENT, DAEMON) or not chance(self.source, 4) else b"t" * 16
        request = m.Register(
            role, instance, self.attempts, incarnation, epoch, 0, "n", "h", 1, slots if role == "daemon" else 0,
            "1.0", "3.11", b"", secret,
        )  # fmt: skip
        self.happens(e.Joined(request, False, GRANTS[instance]))
        self._say_what_was_left()

    def tick(self, seconds: float = 0.0) -> None:
        """Time goes by. The honest peers are heard, and the store commits."""
        self.now += seconds
        for instance in (CLIENT, DAEMON):
            peer = self.scheduler.roster.peers.get(instance)
            if peer is None:
                raise Broken(f"{'the client' if instance == CLIENT else 'the daemon'} was thrown out")
            self.scheduler.heard(instance, peer.epoch, self.now, [(d.fence, d.lo, d.hi) for d in self.leases[:50]])
        if self.durable:
            self.happens(e.Committed(self.records))
        self.happens(e.Tick())
        self._say_what_was_left()
        if self.scheduler.next_deadline() <= self.now:
            raise Broken("its loop would spin")

    # ---- who keeps the rules --------------------------------------------------------------------------------------

    def submits(self) -> None:
        """The honest client has a few more tasks."""
        count = 1 + self.source.below(6)
        chunk = Chunk(self.submitted, 0, count, pack_sizes([1] * count), b"", 1, b"c" * count)
        self.submitted += count
        self.hears(CLIENT, m.Submit(1, chunk))

    def answers(self) -> None:
        """The honest daemon has finished something, of whoever's."""
        if self.leases:
            lease = self.leases.pop(0)
            middle = lease.lo + 1 + self.source.below(lease.hi - lease.lo)
            if middle < lease.hi:
                self.leases.append(lease._replace(lo=middle))
            outcome = m.Outcome(lease.spec, lease.chunk.first, lease.lo, middle, m.Form.LIST, b"honest")
            self.hears(DAEMON, m.Done([m.Finished(lease.fence, lease.session, 0.001, outcome)]))

    def acknowledges(self) -> None:
        """The honest client has what it was sent."""
        messages, self.unacked = self.unacked, 0
        self.happens(e.Delivered(CLIENT, messages))

    # ---- who does not -----------------------------------------------------------------------------------------------

    def lies(self, instance: int, kinds: tuple[type, ...]) -> None:
        """A hostile peer says something that can be decoded."""
        data = packed(self.source, self.known, kinds)
        with contextlib.suppress(PeerProtocolError):
            self.hears(instance, cast(m.LinkMessage, decode(data)))

    def comes_back(self) -> None:
        """A hostile peer registers again, with or without what it had."""
        instance = pick(self.source, (EVE, MALLORY, LIAR))
        role = "daemon" if instance == LIAR else "client"
        peer = self.scheduler.roster.peers.get(instance)
        epoch = peer.epoch if peer is not None and chance(self.source, 2) else 0
        if instance != LIAR or self.with_liar:
            self.joins(role, instance, 1 + self.source.below(4), epoch, self.source.below(2))

    def poses(self) -> None:
        """A hostile peer registers as one of the others, and has their number but not their secret."""
        victim, role = pick(self.source, ((CLIENT, "client"), (DAEMON, "daemon")))
        self.attempts += 1
        request = m.Register(
            role, victim, self.attempts, 1, 0, 0, "n", "h", 1, self.source.below(2), "1.0", "3.11", b"", b"t" * 16
        )
        self.happens(e.Joined(request, False, GRANTS[EVE if role == "client" else LIAR]))

    def loses_its_ticket(self) -> None:
        """An admin ends a hostile peer's ticket."""
        instance = pick(self.source, (EVE, MALLORY, LIAR))
        self.happens(e.Revoked(GRANTS[instance].name, "it was revoked"))
        self._say_what_was_left()

    def breaks_off(self) -> None:
        """A hostile peer's lane is gone."""
        instance = pick(self.source, (EVE, MALLORY, LIAR))
        peer = self.scheduler.roster.peers.get(instance)
        if peer is not None:
            self.happens(e.LaneDown(instance, peer.epoch))


def scheduler(source: Source) -> None:
    """Events in any order; then the hostile peers go, and the others have to come to an end."""
    world = World(source)
    moves: tuple[Callable[[], object], ...] = (
        lambda: world.lies(EVE, FROM_CLIENT), lambda: world.lies(MALLORY, FROM_CLIENT),
        lambda: world.lies(LIAR, FROM_DAEMON), lambda: world.lies(LIAR, FROM_DAEMON), world.submits, world.answers,
        world.tick, world.acknowledges, lambda: world.tick(pick(source, (0.05, 0.6, 1.1, 4.0))), world.comes_back,
        world.breaks_off, lambda: world.lies(pick(source, (EVE, LIAR)), (*FROM_CLIENT, *FROM_DAEMON)),
        lambda: world.happens(e.Delivered(EVE, source.below(3))), world.poses, world.loses_its_ticket,
    )  # fmt: skip
    for _ in range(EVENTS):
        if source.spent:
            break
        pick(source, moves)()
    _hostile_peers_go(world)
    _the_others_end(world)
    _nothing_is_left(world)


def _hostile_peers_go(world: World) -> None:
    for instance in (EVE, MALLORY, LIAR):
        peer = world.scheduler.roster.peers.get(instance)
        if peer is not None:
            world.happens(e.LaneDown(instance, peer.epoch))
    world.tick(1.0)
    for instance in (EVE, MALLORY, LIAR):
        if instance in world.scheduler.roster.peers:
            raise Broken(f"hostile peer {instance} is still there")


def _the_others_end(world: World) -> None:
    for _ in range(ROUNDS):
        if len(world.ended) >= world.submitted and not world.leases:
            break
        world.tick(0.5)
        for _ in range(8):
            world.answers()
    if world.ended != Counter(range(world.submitted)):
        raise Broken(f"of {world.submitted} tasks these ended, so often: {sorted(world.ended.items())}")
    if not world.with_liar and not world.forms <= {m.Form.LIST}:
        raise Broken(f"tasks that only an honest daemon has had ended otherwise: {world.forms}")


def _nothing_is_left(world: World) -> None:
    """A grace period later, nothing of hostile peers is kept."""
    for _ in range(16):
        world.tick(5.0)
        world.acknowledges()
    world.tick()
    hub = world.scheduler
    left = {
        "sessions": set(hub.sessions) - {CLIENT}, "daemons": set(hub.daemons) - {DAEMON},
        "waits": len(hub.ready.pieces()),
        "held": len(hub.recovery.held), "said": len(hub.recovery.outcomes) + len(hub.recovery.holdings),
        "bodies": set(hub.bodies._data) - {DIGESTS[0]}, "asked": len(hub.repairs._asked),
        "uncommitted": len(hub.deliveries._uncommitted), "unfetched": len(hub.sessions[CLIENT].outbox),
        "leases": len(hub.daemons[DAEMON].leases), "settled": len(hub.daemons[DAEMON].settled),
        "brought": set(hub.bodies.bytes) - {CLIENT}, "references": sum(hub.bodies._references.values()) - 1,
    }  # fmt: skip
    if any(left.values()):
        raise Broken(f"left behind: { {name: what for name, what in left.items() if what} }")
    if hub.daemons[DAEMON].tasks_out:
        raise Broken(f"the books of the honest daemon say {hub.daemons[DAEMON].tasks_out}")
