"""A mesh in memory: the three machines and their streams, with wires that lose frames and processes that die.

The shells (hub, daemon, client) are replaced by the least that can stand in for them; the machines, the links and the
codec are the real ones. Each task is one byte of payload that says what it does: `o` returns, `e` raises, `k` kills
its runner. So whatever is cut, handed out, taken back or run again can be checked against what was submitted.
"""

from __future__ import annotations

import struct
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from taskmesh.core import actions as a
from taskmesh.core import messages as m
from taskmesh.core.ranges import Ranges
from taskmesh.core.scheduler import Scheduler
from taskmesh.core.session import ClientSpec, Session
from taskmesh.errors import PeerProtocolError
from taskmesh.wire.pipe import Dose, PipeOutcome, PipeStopped
from taskmesh.wire.stream import Stream, open_envelope
from taskmesh_worker import plan as p

VERSION, PYTHON = "1.0", "3.11"
Wire = deque[bytes]
TaskId = tuple[int, int, int]


def names(numbers: range) -> bytes:
    """A result blob that names the tasks it is of."""
    return struct.pack(f"<{len(numbers)}Q", *numbers)


def put(wire: Wire) -> Callable[[bytes], bool]:
    """A socket that always takes a frame."""

    def always(frame: bytes) -> bool:
        wire.append(frame)
        return True

    return always


@dataclass(eq=False)
class Ticket:
    """A task as its submitter sees it; `ended` must come to hold exactly one word."""

    kind: str
    ended: list[str] = field(default_factory=list)


class RunnerModel:
    """A runner that can be stopped between any two of its steps."""

    def __init__(self, daemon: DaemonModel, number: int) -> None:
        self.daemon = daemon
        self.number = number
        self.inbox: deque[p.GiveBody | Dose] = deque()
        self.outbox: deque[PipeOutcome | PipeStopped] = deque()
        self.claimed = (0, 0)
        self.limit = 0
        self.ready = False
        self.dead = False
        self._bodies: set[bytes] = set()
        self._dose: Dose | None = None
        self._offset = 0
        self._running: tuple[int, int] | None = None
        self._results: list[PipeOutcome] = []

    def step(self, flush: bool) -> bool:
        """Do the next thing; `flush` sends outcomes before the next claim. False: there is nothing to do."""
        if self.dead:
            return False
        if not self.ready:
            self.ready = True
            self.daemon.act(p.RunnerReady(self.number))
        elif self._running is not None:
            self._run(flush)
        elif self._dose is not None:
            self._claim(self._dose)
        elif self.inbox:
            self._take(self.inbox.popleft())
        else:
            return False
        return True

    def _take(self, what: p.GiveBody | Dose) -> None:
        if isinstance(what, Dose):
            assert what.digest in self._bodies, "a dose before its function"
            assert what.chunk.base <= what.lo < what.hi <= what.chunk.end
            self._dose, self._offset = what, what.lo
        else:
            self._bodies.discard(what.drop or b"")
            self._bodies.add(what.digest)

    def _claim(self, dose: Dose) -> None:
        lo = self._offset
        hi = min(dose.hi, lo + dose.block)
        end = dose.at + hi - dose.lo
        if lo < dose.hi and self.limit >= end:
            self.claimed = (end - (hi - lo), end)
            self._running = (lo, hi)
            return
        self._flush()
        self._dose = None
        if lo < dose.hi:
            self.outbox.append(PipeStopped(dose.at + lo - dose.lo, dose.at + dose.hi - dose.lo))

    def _run(self, flush: bool) -> None:
        assert self._dose is not None
        assert self._running is not None
        dose, (lo, hi) = self._dose, self._running
        for offset in range(lo, hi):
            number = dose.chunk.first + offset
            self.daemon.mesh.started[dose.session, dose.spec, number] += 1
            kind = chr(dose.chunk.payload[offset - dose.chunk.base])
            if kind == "k":
                self.die()
                return
            form = m.Form.ERROR if kind == "e" else m.Form.LIST
            at = dose.at + offset - dose.lo
            self._results.append(PipeOutcome(at, 1, form, self.daemon.mesh.task_s, names(range(number, number + 1))))
        self._offset, self._running = hi, None
        if flush:
            self._flush()

    def _flush(self) -> None:
        """Neighbouring successes travel together, as the runner's do."""
        run: list[PipeOutcome] = []
        for outcome in self._results:
            if run and run[-1].form == outcome.form == m.Form.LIST:
                run[-1] = run[-1]._replace(tasks=run[-1].tasks + 1, blob=run[-1].blob + outcome.blob)
            else:
                run.append(outcome)
        self.outbox += run
        self._results.clear()

    def report_early(self) -> None:
        """The handler of the signal to flush: it acts only while a task runs."""
        if self._running is not None and not self.dead:
            self._flush()

    def die(self) -> None:
        """What it has written is still read; what it had not flushed is lost."""
        self.dead = True


class PeerModel:
    """One end of a stream to the hub."""

    role = ""

    def __init__(self, mesh: MeshModel, instance: int) -> None:
        self.mesh = mesh
        self.instance = instance
        self.stream: Stream | None = None
        self.up: Wire = deque()
        self.down: Wire = deque()
        self.gone = False
        self.slots = 0
        self._attempt = 0

    def join(self) -> None:
        """Register, for the first time or again; whatever was on the wires is lost."""
        self.up.clear()
        self.down.clear()
        self._attempt += 1
        s = self.stream
        incarnation, epoch, seen = (s.incarnation, s.epoch, s.link.seen) if s else (0, 0, 0)
        request = m.Register(
            self.role, self.instance, self._attempt, incarnation, epoch, seen, "name", "host", 1, self.slots,
            VERSION, PYTHON,
        )  # fmt: skip
        welcome = self.mesh.hub.register(request, self.down)
        again = s is not None
        if s is None:
            self.stream = Stream(welcome.incarnation, welcome.epoch)
        else:
            s.renew(welcome.incarnation, welcome.epoch, welcome.seen if welcome.resume else None, self.mesh.now)
        if again and not welcome.resume:
            self.on_reset()

    def on_reset(self) -> None:
        """The hub knows nothing of us."""

    def on_message(self, message: m.LinkMessage) -> None:
        """In order, and once."""

    def send(self, message: m.LinkMessage) -> None:
        """Record a message."""
        assert self.stream is not None
        self.stream.send(message)

    def pump(self) -> None:
        """Put on the wire what may go."""
        assert self.stream is not None
        self.stream.link.on_time(self.mesh.now)
        self.stream.pump(put(self.up), self.mesh.now)
        self.stream.link.check()

    def receive(self, frames: int) -> None:
        """Read up to so many frames."""
        for _ in range(min(frames, len(self.down))):
            envelope = open_envelope(self.down.popleft())
            assert self.stream is not None
            if (envelope.incarnation, envelope.epoch) != (self.stream.incarnation, self.stream.epoch):
                continue
            message = self.stream.receive(envelope, self.mesh.now)
            if message is not None:
                self.on_message(message)


class DaemonModel(PeerModel):
    """Plan and runners."""

    role = "daemon"

    def __init__(self, mesh: MeshModel, instance: int, slots: int) -> None:
        super().__init__(mesh, instance)
        self.slots = slots
        self.plan = p.Plan(slots)
        self.runners: dict[int, RunnerModel] = {}
        self._finished: list[m.Finished] = []

    def on_reset(self) -> None:
        self._finished.clear()  # the plan has them all
        self.act(p.Reset())

    def on_message(self, message: m.LinkMessage) -> None:
        if isinstance(message, m.Goodbye):
            self.gone = True
        else:
            self.act(p.FromHub(message))

    def act(self, event: p.Event) -> None:
        """One event, and what the plan wants done."""
        for action in self.plan.handle(event, self.mesh.now):
            self._perform(action)
        self.plan.check()

    def _perform(self, action: p.Action) -> None:
        match action:
            case p.Report(message):
                self._report(message)
            case p.Start(number):
                self.runners[number] = RunnerModel(self, number)
            case p.Hand(number, dose, limit):
                self.runners[number].limit = limit
                self.runners[number].inbox.append(dose)
            case p.GiveBody(number):
                self.runners[number].inbox.append(action)
            case p.Lower(number, limit):
                self.runners[number].limit = limit
            case p.Peek(number):
                self.act(p.Claimed(number, self.runners[number].claimed[1]))
            case p.Look(number):
                self.act(p.Seen(number, *self.runners[number].claimed, 0.0))
            case p.Flush(number):
                self.runners[number].report_early()
            case p.Kill(number):
                self.runners[number].die()
            case other:
                raise AssertionError(f"nobody here can {other}")

    def _report(self, message: m.LinkMessage | m.Finished) -> None:
        if isinstance(message, m.Finished):
            self._finished.append(message)
            return
        self._flush()
        self.send(message)

    def _flush(self) -> None:
        if self._finished:
            self.send(m.Done(self._finished.copy()))
            self._finished.clear()

    def tick(self) -> None:
        """A round of the daemon's loop: runners' words, their deaths, then time."""
        for number, runner in list(self.runners.items()):
            while runner.outbox:
                self.act(p.RunnerSaid(number, runner.outbox.popleft()))
            if runner.dead:
                del self.runners[number]
                self.act(p.RunnerGone(number, runner.claimed, b"died"))
        self.act(p.Tick())
        self._flush()


class ClientModel(PeerModel):
    """Session and tickets."""

    role = "client"

    def __init__(self, mesh: MeshModel, instance: int) -> None:
        super().__init__(mesh, instance)
        self.session: Session[Ticket] = Session()
        self.specs: list[ClientSpec[Ticket]] = []
        self.tickets: list[Ticket] = []
        self.closing = False

    def define(self, body: bytes, priority: int) -> ClientSpec[Ticket]:
        """A function, by a body that also makes its digest."""
        spec, _ = self.session.define("f", body, body.ljust(16, b"."), None, priority)
        self._send_unsent()
        self.specs.append(spec)
        return spec

    def call(self, spec: ClientSpec[Ticket], kinds: str) -> None:
        """One call for each letter; they wait in the open chunk."""
        if spec.open is not None and spec.open.frozen:
            self.seal(spec)
        for kind in kinds:
            ticket = Ticket(kind)
            self.tickets.append(ticket)
            self.session.open_chunk(spec).calls.append((kind.encode(), ticket))

    def seal(self, spec: ClientSpec[Ticket], *, interrupted: bool = False) -> None:
        """Send the open chunk; `interrupted`: the caller is stopped before it has booked that, and does it again."""
        submit = self.session.seal(spec)
        if submit is not None:
            self.send(submit)
            if not interrupted:
                self.session.sealed(spec)

    def map(self, spec: ClientSpec[Ticket], leaves: list[str], grain: int) -> None:
        """One task for each letter of each leaf."""
        self.seal(spec)
        tickets = [Ticket(kind) for leaf in leaves for kind in leaf]
        self.tickets += tickets
        sizes = [len(leaf) for leaf in leaves]
        self.session.add_items(spec, [leaf.encode() for leaf in leaves], sizes, grain, tickets)
        self._send_unsent()

    def _send_unsent(self) -> None:
        while self.session.unsent:
            self.send(self.session.unsent.popleft())

    def cancel(self, pick: int, length: int) -> None:
        """Cancel a part of a chunk that is with the hub."""
        sent = [(spec, chunk) for spec in self.session.specs.values() for chunk in spec.sent.values()]
        if sent:
            spec, chunk = sent[pick % len(sent)]
            lo = pick % chunk.chunk.count
            self.send(m.Cancel(spec.number, chunk.chunk.first, lo, min(chunk.chunk.count, lo + length)))

    def retire(self) -> None:
        """Retire what has no tasks left."""
        for spec in [s for s in self.specs if not s.sent and s.open is None]:
            self.specs.remove(spec)
            for message in self.session.retire(spec):
                self.send(message)

    def close(self) -> None:
        """Nobody waits for the rest."""
        if not self.closing:
            self.closing = True
            self.tickets = [t for t in self.tickets if t.ended]
            self.send(m.Close())

    def on_reset(self) -> None:
        if self.closing:
            self.gone = True
            return
        for message in self.session.offer_again():
            self.send(message)

    def on_message(self, message: m.LinkMessage) -> None:
        if isinstance(message, m.Results):
            for outcome in message.outcomes:
                self._on_outcome(outcome)
        elif not isinstance(message, m.Cancelled):
            assert isinstance(message, m.Goodbye)
            self.gone = True
        self.session.check()

    def _on_outcome(self, outcome: m.Outcome) -> None:
        delivery = self.session.outcome(outcome)
        if delivery is None:
            return
        first = delivery.chunk.chunk.first
        tickets = delivery.chunk.owner or delivery.chunk.waiters
        assert isinstance(tickets, list)
        if delivery.form == m.Form.CANCELLED:
            spec = delivery.spec.number
            self.mesh.cancelled += [(self.instance, spec, first + offset) for offset in _each(delivery.fresh)]
        elif delivery.form != m.Form.LOST:
            assert delivery.blob == names(range(first + delivery.lo, first + delivery.hi)), "somebody else's result"
        for offset in _each(delivery.fresh):
            tickets[offset].ended.append(m.Form(delivery.form).name)

    def verify(self) -> None:
        """Every task ended once, and as it should."""
        fits = {"o": {"LIST", "CANCELLED"}, "e": {"ERROR", "CANCELLED"}, "k": {"LOST", "CANCELLED"}}
        for ticket in self.tickets:
            assert len(ticket.ended) == 1, f"a task of kind {ticket.kind} ended {ticket.ended}"
            assert ticket.ended[0] in fits[ticket.kind], f"a task of kind {ticket.kind} ended as {ticket.ended[0]}"


def _each(ranges: Ranges) -> Iterator[int]:
    return (offset for lo, hi in ranges for offset in range(lo, hi))


class HubModel:
    """Scheduler and lanes, as `taskmesh.hub` joins them."""

    def __init__(self, mesh: MeshModel, incarnation: int) -> None:
        self.mesh = mesh
        self.incarnation = incarnation
        self.scheduler = Scheduler(VERSION, PYTHON, mesh.now, incarnation << 32)
        self.lanes: dict[int, tuple[Stream, Wire]] = {}
        self._results: dict[int, deque[int]] = {}  # numbers of the Results messages that a client has not acknowledged
        self._by_epoch: dict[int, tuple[int, Stream]] = {}

    def register(self, request: m.Register, down: Wire) -> m.Registered:
        known = self.lanes.get(request.instance)
        if known is None or request.incarnation != self.incarnation or not known[0].resumable(request.seen):
            request = request._replace(epoch=0)
        for action in self._handle(a.Joined(request)):
            if isinstance(action, a.Admit):
                resume = action.resume and known is not None
                stream = known[0] if known is not None and resume else Stream(self.incarnation, action.epoch)
                seen = stream.link.seen
                if known is not None:
                    self._by_epoch.pop(known[0].epoch, None)
                if not resume:
                    self._results.pop(request.instance, None)
                if resume:
                    stream.renew(self.incarnation, action.epoch, request.seen, self.mesh.now)
                self.lanes[request.instance] = stream, down
                self._by_epoch[action.epoch] = request.instance, stream
                return m.Registered(self.incarnation, action.epoch, resume, seen, "", "", VERSION)
            self._perform(action)
        raise AssertionError("not admitted")

    def lane_down(self, instance: int) -> None:
        """The lane of a peer broke."""
        if instance in self.lanes:
            self.act(a.LaneDown(instance, self.lanes[instance][0].epoch))

    def heartbeat(self, peer: PeerModel) -> bool:
        """Whether the hub still counts a peer's registration as live."""
        s = peer.stream
        return (
            s is not None
            and s.incarnation == self.incarnation
            and self.scheduler.heard(peer.instance, s.epoch, self.mesh.now)
        )

    def receive(self, wire: Wire, frames: int) -> None:
        for _ in range(min(frames, len(wire))):
            envelope = open_envelope(wire.popleft())
            known = self._by_epoch.get(envelope.epoch)
            if known is None or envelope.incarnation != self.incarnation:
                continue
            instance, stream = known
            self.scheduler.heard(instance, envelope.epoch, self.mesh.now)
            message = stream.receive(envelope, self.mesh.now)
            if message is not None:
                self.act(a.Received(instance, message))
            self._deliver(instance, stream)

    def _deliver(self, instance: int, stream: Stream) -> None:
        results, messages = self._results.get(instance, deque()), 0
        while results and results[0] <= stream.link.acked:
            results.popleft()
            messages += 1
        if messages:
            self.act(a.Delivered(instance, messages))

    def act(self, event: a.Event) -> None:
        for action in self._handle(event):
            self._perform(action)

    def _handle(self, event: a.Event) -> list[a.Action]:
        actions = self.scheduler.handle(event, self.mesh.now)
        self.scheduler.check()
        self.scheduler.statistics(self.mesh.now)
        return actions

    def _perform(self, action: a.Action) -> None:
        if isinstance(action, a.Dropped):
            assert action.text.startswith("Inventory"), f"nobody here sends what has to be dropped: {action}"
        if isinstance(action, a.Send) and action.instance in self.lanes:
            stream = self.lanes[action.instance][0]
            stream.send(action.message)
            if isinstance(action.message, m.Results):
                self._results.setdefault(action.instance, deque()).append(stream.link.last)
        elif isinstance(action, a.Dismiss):
            stream, wire = self.lanes.pop(action.instance)
            self._by_epoch.pop(stream.epoch, None)
            if not action.dead:
                stream.pump(put(wire), self.mesh.now)

    def tick(self) -> None:
        self.act(a.Tick())
        for stream, wire in self.lanes.values():
            stream.link.on_time(self.mesh.now)
            stream.pump(put(wire), self.mesh.now)
            stream.link.check()


class MeshModel:
    """A hub, clients and daemons. `task_s`: how long a task takes, as its runner reports it."""

    def __init__(self, task_s: float = 1e-6) -> None:
        self.now = 1000.0
        self.task_s = task_s
        self.started: Counter[TaskId] = Counter()
        self.cancelled: list[TaskId] = []
        self.calm = True  # nothing has died: then no task may start twice, and no cancelled one may have started
        self.clients: list[ClientModel] = []
        self.daemons: list[DaemonModel] = []
        self._instances = 0
        self._incarnations = 1
        self.hub = HubModel(self, 1)

    @property
    def peers(self) -> list[PeerModel]:
        return [*self.clients, *self.daemons]

    def add_client(self) -> ClientModel:
        self._instances += 1
        client = ClientModel(self, self._instances)
        client.join()
        self.clients.append(client)
        return client

    def add_daemon(self, slots: int) -> DaemonModel:
        self._instances += 1
        daemon = DaemonModel(self, self._instances, slots)
        daemon.join()
        self.daemons.append(daemon)
        return daemon

    def restart_hub(self) -> None:
        """A hub without memory, and without anything that was on the way."""
        self.calm = False
        self._incarnations += 1
        self.hub = HubModel(self, self._incarnations)
        for peer in self.peers:
            peer.up.clear()
            peer.down.clear()

    def advance(self, seconds: float) -> None:
        """Time goes by, with a heartbeat of everybody in it."""
        self.now += seconds
        self.heartbeats()

    def heartbeats(self) -> None:
        """Those whom the hub does not know any more join again."""
        for peer in self.peers:
            if not self.hub.heartbeat(peer) and not peer.gone:
                self.calm = False
                peer.join()
        self.bury()

    def bury(self) -> None:
        """Forget peers that are done."""
        self.daemons = [d for d in self.daemons if not d.gone]

    def round(self) -> None:
        """Everybody reads, ticks and writes once, and nothing is lost."""
        for peer in self.peers:
            peer.receive(10**6)
        for daemon in self.daemons:
            daemon.tick()
        for peer in self.peers:
            peer.pump()
            self.hub.receive(peer.up, 10**6)
        self.hub.tick()

    def settle(self) -> None:
        """Lose nothing and kill nobody any more, until everything has ended."""
        if not any(not d.plan.draining for d in self.daemons):
            self.add_daemon(2)
        for client in [c for c in self.clients if not c.closing]:
            for spec in list(client.session.filling):
                client.seal(spec)
        for daemon in self.daemons:
            daemon.act(p.Hold(False))
        n = stalled = 0
        progress = (-1, -1)
        while stalled < 100:
            n += 1
            self.heartbeats()
            for daemon in self.daemons:
                for runner in list(daemon.runners.values()):
                    while runner.step(flush=False):
                        continue
            self.round()
            self.advance(1.1 if n % 20 == 19 else 0.06)
            if self._quiet():
                break
            before, progress = progress, (sum(c.session.unsettled for c in self.clients), self.started.total())
            stalled = stalled + 1 if before == progress else 0
        self.verify()

    def _quiet(self) -> bool:
        return (
            all(c.gone or (not c.closing and not c.session.unsettled) for c in self.clients)
            and all(d.plan.idle for d in self.daemons)
            and all(p.gone or p.stream is None or not p.stream.link.unacked for p in self.peers)
            and not any(peer.up or peer.down for peer in self.peers if not peer.gone)
            and not any(d.tasks_out for d in self.hub.scheduler.daemons.values())
        )

    def verify(self) -> None:
        """Every accepted task ended exactly once, and the books balance."""
        for client in self.clients:
            client.verify()
            assert client.closing or client.session.unsettled == 0
        scheduler = self.hub.scheduler
        assert scheduler.idle
        assert all(not piece.chunk.ready for _, _, piece in scheduler.ready.pieces())
        for state in scheduler.daemons.values():
            assert not state.leases
            assert state.tasks_out == 0
        for daemon in self.daemons:
            assert daemon.plan.idle
            assert not daemon.plan._open
            assert not daemon.plan._works
        self.verify_calm()

    def verify_calm(self) -> None:
        """While nothing dies, no task starts twice, and none that was cancelled starts."""
        if self.calm:
            assert all(times == 1 for times in self.started.values()), "a task ran twice"
            assert not [task for task in self.cancelled if self.started[task]], "a cancelled task ran"


__all__ = ["ClientModel", "DaemonModel", "MeshModel", "PeerProtocolError", "RunnerModel", "Ticket"]
