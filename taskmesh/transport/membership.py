"""The peer's side of a registration: how a client or a daemon joins a hub, stays joined, and joins again.

It owns the peer's sockets: REQ to control (registration and heartbeats), PULL from its lane, PUSH to submit or sink.
All of them belong to one thread, except that a client's callers may push under its lock. A lane that breaks, a hub that
does not know us any more, or one that is silent, leads to a new registration; the hub says whether the link goes on.
A daemon's heartbeats also say what its runners hold, and their answers let it start work: see `silence`.

With keys, a registration is asked for over a control connection with the ticket's key, and names a fresh one. All its
other connections have that one: lane, inbox, and control itself, which is opened anew for the heartbeats.
"""

from __future__ import annotations

import secrets
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Protocol

import zmq

from ..core import messages as m
from ..errors import AddressError, PeerProtocolError
from ..wire.messages import SECRET_BYTES
from ..wire.stream import MAX_MESSAGE, Stream, open_envelope, pack_control, unpack_control
from .curve import Credentials, fresh, present, raw
from .endpoints import foreign, reached
from .handshake import HandshakeWatch, of_ticket
from .loop import Loop
from .pacing import REPLY_TIMEOUT_S, Pacing
from .progress import Progress
from .silence import Keeper, Silence
from .sockets import Context, Socket, close, connect, disconnect_monitor, get, make, put

HEARTBEAT_S = 1.0
KEEPER_HEARTBEAT_S = 0.5  # of a daemon: two may go unanswered before it holds
KEEPER_PATIENCE_S = 0.7  # a daemon asks again when a heartbeat was not answered for so long
EAGER_S = 0.05  # between heartbeats while nothing may start before one is answered
SILENCE_S = 5.0  # without an answer to a heartbeat for this long, register again
RETRY_FULL_S = 0.01
BESIDE = 1 << 20  # bytes of a message of a hub beside the largest thing that anybody may have sent it
FRAMES_PER_ROUND = 256
NEVER = float("inf")


class Owner(Protocol):
    """A peer that joins: it is told of what arrives."""

    def on_welcome(self, welcome: m.Registered) -> None:
        """Registered; without `resume` the link is new. Under the lock: what is sent here goes before all else."""

    def on_message(self, message: m.LinkMessage) -> None:
        """A message from the hub, in order, once."""

    def on_refused(self, why: str) -> None:
        """The hub does not want us."""

    def on_lost(self) -> None:
        """The hub does not answer; we go on trying."""


class Membership:
    """One peer's registration at one hub.

    Parameters
    ----------
    context, loop
        Where sockets are made and watched.
    control
        The hub's control endpoint.
    register
        The request, without cursors.
    owner
        Is told of what arrives.
    lock
        Guards the stream, for a client whose callers send; a daemon needs none.
    keeper
        A daemon that holds while the hub is silent.
    ticket
        The keys of a ticket; None for a hub without keys.

    Raises
    ------
    AddressError
        This process may open no more sockets or files. Whatever reads or acts on time may raise it, too.
    """

    def __init__(
        self,
        context: Context,
        loop: Loop,
        control: str,
        register: m.Register,
        owner: Owner,
        lock: AbstractContextManager[object] | None = None,
        keeper: Keeper | None = None,
        ticket: Credentials | None = None,
    ) -> None:
        self._lock = lock or nullcontext()
        self._context = context
        self._loop = loop
        self._endpoint = control
        self._ticket = ticket
        self._own: Credentials | None = None  # the keys of this registration
        self._request = register._replace(secret=secrets.token_bytes(SECRET_BYTES))
        self._owner = owner
        self._silence = Silence(keeper) if keeper is not None else None
        self._progress = Progress()
        self._beat_s = KEEPER_HEARTBEAT_S if keeper is not None else HEARTBEAT_S
        self._patience_s = KEEPER_PATIENCE_S if keeper is not None else REPLY_TIMEOUT_S
        self.stream: Stream | None = None
        self.registered = False
        self.touched = True  # something arrived, or changed, since the last `on_time`
        self._attempt = 0
        self._refused = False  # a refusal is final: whoever owns us says what follows from it
        self._control: Socket | None = None
        self._watch: HandshakeWatch | None = None
        self._lane: Socket | None = None
        self._monitor: Socket | None = None
        self._outbox: Socket | None = None
        self._asked_at = -NEVER  # when the request that waits for its reply was sent
        self._waiting = False
        self._pacing = Pacing()
        self._heartbeat_at = 0.0
        self._answered_at = loop.now()
        self._full_until = 0.0
        self.trouble: str | None = None  # why it has not joined yet, as far as is known
        self._postponement = (-NEVER, "")  # when the hub said last that it is to be asked again, and why
        self._new_key()
        self._open_control()

    # ---- control --------------------------------------------------------------------------------------------

    def _new_key(self) -> None:
        """A key for the next registration: whatever comes by it is of that one."""
        if self._ticket is not None:
            self._own = fresh(self._ticket.hub_key)
            self._request = self._request._replace(key=raw(self._own.public_key))

    def _open_control(self) -> None:
        self._close_control()
        self._opened_at = self._loop.now()
        control = self._control = make(self._context, zmq.REQ)
        control.setsockopt(zmq.RECONNECT_IVL, 50)
        control.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        present(control, self._own if self.registered else self._ticket)
        if self._endpoint.startswith("tcp:"):
            try:
                self._watch = HandshakeWatch(control, self._ticket is not None)
            except AddressError:
                self._close_control()
                raise
            self._loop.watch(self._watch.monitor, self._read_watch)
        connect(control, self._endpoint)
        self._loop.watch(control, self._read_control)

    def _close_control(self) -> None:
        if self._watch is not None:
            self._loop.forget(self._watch.monitor)
            self._watch.close()
            self._watch = None
        if self._control is not None:
            self._loop.forget(self._control)
            close(self._control)
            self._control = None

    def _read_watch(self) -> None:
        """A handshake on control has failed, or succeeded."""
        assert self._watch is not None
        why = self._watch.failure()
        if why is None:
            return
        why = of_ticket(why, self._ticket.name if self._ticket is not None else "")
        self.touched = True
        if self.registered:
            self.join_again()  # the hub does not know this registration's key any more
        elif self._watch.final and self.stream is None:
            self._refuse(why)
        else:
            # Anybody who can take the hub's port, or its traffic, can say this: it is not signed by the hub's key. A
            # hub tells a peer that it puts out on the peer's lane. So one that had joined goes on asking; and where
            # nothing final was said, a hub may come yet (`handshake.explained` knows more, and takes time).
            self.trouble = why
            self._ask_anew()

    def _refuse(self, why: str) -> None:
        self._refused = True
        self._owner.on_refused(why)

    def _ask(self, message: m.ControlMessage, now: float) -> None:
        assert self._control is not None
        if self._silence is not None:
            self._silence.asked()
        put(self._control, pack_control(message))
        self._loop.again(self._control)
        self._asked_at = now
        self._waiting = True

    def _register(self, now: float) -> None:
        if self._control is None:
            self._open_control()
        stream = self.stream
        incarnation, epoch, seen = (stream.incarnation, stream.epoch, stream.link.seen) if stream else (0, 0, 0)
        request = self._request._replace(attempt=self._attempt, incarnation=incarnation, epoch=epoch, seen=seen)
        self._ask(request, now)

    def join_again(self) -> None:
        """The registration does not hold any more: start another one."""
        now = self._loop.now()
        if self.registered:
            self._pacing.on_ended(now)
        with self._lock:  # callers may be sending
            self.registered = False
            self._close_outbox()  # or ZeroMQ connects it to the next hub there, which does not know its key
        self.touched = True
        self._attempt += 1
        self._waiting = False
        self._pacing.on_new_attempt()
        self._asked_at = -NEVER
        if self._ticket is not None:
            self._new_key()
            self._open_control()

    def _read_control(self) -> None:
        while self._control is not None and (frame := get(self._control)) is not None:
            self.touched = True
            self._waiting = False
            try:
                reply = unpack_control(frame)
            except PeerProtocolError as error:
                self._on_nonsense(error)
                continue
            now = self._loop.now()
            if isinstance(reply, m.Registered):
                self._on_registered(reply, now)
            elif isinstance(reply, m.Refused):
                self._on_refused(reply)
            elif isinstance(reply, m.HeartbeatReply):
                self._on_heartbeat_reply(reply, now)

    def _on_nonsense(self, error: PeerProtocolError) -> None:
        if not self.registered:  # one bad reply does not end a good registration; silence would
            self._refuse_stranger(error)

    def _on_registered(self, welcome: m.Registered, now: float) -> None:
        if self.registered:
            return
        why = foreign(self._endpoint)
        if why is not None:
            self._refuse(why)
            return
        try:
            self._welcome(welcome, now)
        except (PeerProtocolError, zmq.ZMQError) as error:  # cursors or endpoints that are none
            self._close_lane()
            self._refuse_stranger(error)

    def _on_refused(self, refusal: m.Refused) -> None:
        if not refusal.again:
            self._refuse(refusal.why)
            return
        self.trouble, self._postponement = refusal.why, (self._loop.now(), refusal.why)
        self._ask_anew()  # a hub without room has none for connections of those that wait

    def _ask_anew(self) -> None:
        """Ask again when the patience for an answer has run out, and over a new connection.

        ZeroMQ would dial again at once, and again, wherever a connection comes about and a handshake does not.
        """
        self._waiting = True
        self._close_control()

    def _on_heartbeat_reply(self, reply: m.HeartbeatReply, now: float) -> None:
        if not self.registered:
            return
        self._answered_at = now
        if not reply.known:
            self.join_again()
            return
        self._acknowledge(reply, now)
        self._on_word(reply, now)
        assert self.stream is not None
        if self._progress.stuck(self.stream.link, reply, now):
            self.join_again()

    def _refuse_stranger(self, error: Exception) -> None:
        self._refuse(f"what answers at {self._endpoint} is no hub of this release ({error})")

    def _acknowledge(self, reply: m.HeartbeatReply, now: float) -> None:
        assert self.stream is not None
        with self._lock, suppress(PeerProtocolError):  # of what was never sent
            self.stream.link.on_ack(reply.seen, now)
            self.stream.link.on_received(reply.received)

    def _on_word(self, reply: m.HeartbeatReply, now: float) -> None:
        if self._silence is not None:
            self._silence.answered(reply)
            if self._silence.waits_for_word:
                self._heartbeat_at = min(self._heartbeat_at, now + EAGER_S)

    def _welcome(self, welcome: m.Registered, now: float) -> None:
        again = self.stream is not None
        resume = welcome.resume and again
        with self._lock:
            if self.stream is None:
                self.stream = Stream(welcome.incarnation, welcome.epoch)
            else:
                self.stream.renew(welcome.incarnation, welcome.epoch, welcome.seen if resume else None, now)
            self.stream.largest = min(MAX_MESSAGE, welcome.largest + BESIDE)
            self._pacing.on_welcome(now)
            self._open_lane(welcome)
            self.registered = True
            self._answered_at = now
            # A daemon gets work when it has said something: that this reply has arrived.
            self._heartbeat_at = now if self._silence is not None else now + self._beat_s
            self._progress = Progress()
            self.trouble = None
            self._owner.on_welcome(welcome._replace(resume=resume))
        if self._ticket is not None:
            self._open_control()
        if self._silence is not None:
            self._silence.registered(again, resume, self.stream.link.last)

    @property
    def postponed(self) -> str | None:
        """Why the hub, which answers, takes nobody in for now; None: it has not said so lately."""
        at, why = self._postponement
        return why if self._loop.now() - at <= SILENCE_S and not self.registered else None

    # ---- lane and outbox ------------------------------------------------------------------------------------

    def _open_lane(self, welcome: m.Registered) -> None:
        self._close_lane()
        lane = self._lane = make(self._context, zmq.PULL)
        present(lane, self._own)
        lane.setsockopt(zmq.RECONNECT_IVL, -1)  # a lane is for one registration: never come back to its port
        outbox = self._outbox = make(self._context, zmq.PUSH, linger_ms=1000)
        present(outbox, self._own)
        outbox.setsockopt(zmq.RECONNECT_IVL, 50)
        outbox.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        if not welcome.lane.startswith("inproc:"):
            self._monitor = disconnect_monitor(lane)
            self._loop.watch(self._monitor, self._read_monitor)
        self._loop.watch(lane, self._read_lane)
        connect(lane, reached(welcome.lane, self._endpoint))
        connect(outbox, reached(welcome.inbox, self._endpoint))

    def _close_lane(self, linger_ms: int = 0) -> None:
        if self._monitor is not None:
            self._loop.forget(self._monitor)
            self._monitor = None
        if self._lane is not None:
            self._loop.forget(self._lane)
            close(self._lane)
            self._lane = None
        self._close_outbox(linger_ms)

    def _close_outbox(self, linger_ms: int = 0) -> None:
        if self._outbox is not None:
            close(self._outbox, linger_ms)
            self._outbox = None

    def _read_monitor(self) -> None:
        assert self._monitor is not None
        if get(self._monitor) is None:
            return
        self._loop.forget(self._monitor)
        if self.registered:
            self.join_again()

    def _read_lane(self) -> None:
        lane, stream = self._lane, self.stream
        assert lane is not None and stream is not None
        for _ in range(FRAMES_PER_ROUND):
            frame = get(lane)
            if frame is None:
                return
            self.touched = True
            now = self._loop.now()
            try:
                envelope = open_envelope(frame)
                if envelope.epoch != stream.epoch or envelope.incarnation != stream.incarnation:
                    raise PeerProtocolError("a frame of another registration")
                with self._lock:
                    message = stream.receive(envelope, now)
            except PeerProtocolError:
                continue
            if message is not None:
                self._owner.on_message(message)
                if lane is not self._lane:  # the owner closed us
                    return
        self._loop.again(lane)

    def read(self) -> None:
        """Everything has been read by the loop's readers: before anything is decided, notice silence, or its end."""
        if self._silence is not None:
            self._silence.check(self.stream.link.seen if self.registered and self.stream is not None else -1)

    # ---- out ------------------------------------------------------------------------------------------------

    def send(self, message: m.LinkMessage) -> None:
        """Record a message on the link; before the first registration there is nobody to send to, and it is dropped."""
        if self.stream is not None:
            self.stream.send(message)

    @property
    def unacked(self) -> int:
        """How many messages the hub has not confirmed."""
        return self.stream.link.unacked if self.stream is not None else 0

    def pump(self, now: float) -> None:
        """Put on the wire what the stream has. Under the caller's lock, where there is one."""
        outbox = self._outbox
        if not self.registered or outbox is None or self.stream is None or now < self._full_until:
            return
        sent = self.stream.pump(lambda frame: put(outbox, frame), now)
        self._full_until = 0.0 if sent else now + RETRY_FULL_S

    # ---- time -----------------------------------------------------------------------------------------------

    def on_time(self, now: float) -> None:
        """Register, send heartbeats, and notice silence. `pump` is separate, because callers have a lock for it."""
        self.touched = False
        if self._waiting and now - self._asked_at > self._wait_s():
            self._waiting = False
            self._heartbeat_at = now
            self._pacing.on_no_answer()
            if now - self._answered_at > REPLY_TIMEOUT_S:
                self._owner.on_lost()
        if now - max(self._answered_at, self._opened_at) > SILENCE_S:
            self._open_control()  # its connection may be half open, and nothing else would end that soon
            self._waiting = False
        if not self.registered:
            if not self._waiting and not self._refused and now >= self._pacing.register_at:
                self._register(now)
        elif now - self._answered_at > SILENCE_S:
            self._owner.on_lost()
            self.join_again()
        elif now >= self._heartbeat_at and not self._waiting:
            self._heartbeat_at = now + self._beat_s
            assert self.stream is not None
            s, held = self.stream, self._silence.keeper.held() if self._silence is not None else []
            self._ask(m.Heartbeat(self._request.instance, s.incarnation, s.epoch, s.link.seen, held), now)
        if self.stream is not None:
            with self._lock:
                self.stream.link.on_time(now)

    def _wait_s(self) -> float:
        """How long to wait for the reply to what was asked last."""
        return self._patience_s if self.registered else self._pacing.patience_s

    def next_deadline(self) -> float:
        """When `read`, `on_time` or `pump` is due."""
        deadline = NEVER if self._silence is None else self._loop.now() + self._silence.left_s()
        if not self.registered:
            ask_at = max(self._asked_at + self._wait_s(), self._pacing.register_at)
            return deadline if self._refused else min(deadline, ask_at)
        deadline = min(deadline, self._asked_at + self._wait_s() if self._waiting else self._heartbeat_at)
        assert self.stream is not None
        link_deadline = self.stream.link.next_deadline()
        return min(deadline, self._full_until or link_deadline)

    def close(self, linger_ms: int = 1000) -> None:
        """Close every socket; what is unsent is kept for `linger_ms`."""
        self.registered = False
        self._close_lane(linger_ms)
        self._close_control()
