"""The client's shell: one session at one hub, its lock and its receive thread.

Callers add calls and send under the lock; only the receive thread reads sockets, settles futures and runs callbacks.
(A caller that read them itself was wedged by Ctrl-C in five of five runs.) The receive thread is a daemon thread: an
interpreter that exits waits for pending work through `atexit`, in `mesh`.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from time import monotonic
from typing import Any, Protocol

from . import __version__
from .arrivals import Arrivals, Spec
from .cancelling import Questions
from .collector import Collector
from .core import messages as m
from .core.gathering import Gathering
from .core.quota import largest_part
from .core.ranges import Ranges, add
from .core.session import CHUNK_BYTES, CHUNK_TASKS, WEIGHT, MapOwner, Session
from .errors import HubUnreachable, MeshClosed, PayloadError, RegistrationRefused, TaskmeshError
from .futures import Future, settle_error
from .places import Place
from .sizes import show_size
from .transport.curve import Credentials
from .transport.endpoints import parse_address
from .transport.handshake import explained
from .transport.loop import SPIN_S, Loop
from .transport.membership import Membership
from .transport.sockets import new_context
from .transport.versions import PYTHON
from .transport.waker import Waker
from .window import WINDOW, Window, in_event_loop
from .wire.stream import MAX_MESSAGE as LARGEST

log = logging.getLogger("taskmesh")

LOST_AFTER_S = 60.0
NEVER = float("inf")
LOOK_EVERY_S = 0.25
LARGE_CALL = 4096  # bytes
LONE_WEIGHT = 16 * 1024  # with less than this unsettled, bytes, somebody probably waits for it
GOODBYE_S = 1.0


class Keeper(Protocol):
    """Whoever runs the hub, if that is us."""

    def revive(self) -> None:
        """The hub does not answer: start it again if it died."""


class Client:
    """A session at the hub whose control endpoint is `control`.

    Parameters
    ----------
    control
        The hub's control endpoint.
    name
        What the session is called in the hub's status.
    keeper
        Set for a private mesh: revives the hub.
    lost_after
        Seconds without a hub after which pending tasks fail; None: never (a private hub is revived).
    window, window_timeout
        See `window.Window`.
    ticket
        The keys of a ticket; None for a hub without keys.
    """

    def __init__(
        self,
        control: str,
        name: str,
        keeper: Keeper | None = None,
        lost_after: float | None = LOST_AFTER_S,
        window: int = WINDOW,
        window_timeout: float | None = None,
        ticket: Credentials | None = None,
    ) -> None:
        self.instance = secrets.randbits(64)
        self.control = control
        self.session: Session[Future[Any]] = Session()
        self.lock = threading.RLock()
        self.error: TaskmeshError | None = None  # why this session cannot go on
        self._keeper = keeper
        self._lost_after = lost_after
        self._lost_since: float | None = None
        self._context = new_context()
        self._loop = Loop(0.0 if keeper is None else SPIN_S, lambda: self.session.weight < LONE_WEIGHT)
        self._waker = Waker(self._loop)
        self.wake = self._waker.wake
        self.window = Window(window, window_timeout, lambda: self.session.weight, self._over)
        self._gathering = Gathering()
        self._collector = Collector()
        self._due = 0.0  # when the registration or the link needs attention although nothing arrived
        self._welcomed = threading.Event()
        self._gone = threading.Event()  # the hub said goodbye to our Close
        self._settled = threading.Event()
        self._closing = False
        self._closed = False
        self._abandoned = False
        self._questions = Questions()
        self._retired: deque[Spec] = deque()
        self._arrivals = Arrivals(self.session, self.lock, self._questions, self._retired, control)
        register = m.Register(
            "client", self.instance, 0, 0, 0, 0, name, os.uname().nodename, os.getpid(), 0, __version__, PYTHON
        )
        self.membership = Membership(self._context, self._loop, control, register, self, self.lock, ticket=ticket)
        self._has_ticket = ticket is not None
        self._largest = LARGEST
        self._loop.add_part(self)
        self._thread = threading.Thread(target=self._run, name="taskmesh-receive", daemon=True)

    def start(self, timeout: float) -> None:
        """Join the hub.

        Raises
        ------
        HubUnreachable
            It did not answer within `timeout` seconds.
        RegistrationRefused
            It does not want us, or has other keys; the message says why.
        """
        self._thread.start()
        deadline, trouble = monotonic() + timeout, None
        while not self._welcomed.wait(max(0.0, min(LOOK_EVERY_S, deadline - monotonic()))):
            if trouble is None and self.membership.trouble is not None:
                trouble, final = explained(self.membership.trouble, parse_address(self.control), self._has_ticket)
                if final:
                    raise RegistrationRefused(f"no connection with the hub at {self.control}: {trouble}")
            if monotonic() >= deadline:
                raise HubUnreachable(
                    f"no hub answered at {self.control} within {timeout:g} s" + (f": {trouble}" if trouble else "")
                )
        if self.error is not None:
            raise self.error

    def in_receive_thread(self) -> bool:
        """Whether the caller is a callback of one of this session's futures."""
        return threading.current_thread() is self._thread

    # ---- callers --------------------------------------------------------------------------------------------

    def define(
        self,
        name: str,
        body: bytes,
        digest: bytes,
        init: tuple[bytes, bytes] | None,
        priority: int,
        limits: m.Limits = m.NO_LIMITS,
    ) -> Place:
        """Make a function known to the hub."""
        self._require_fit(len(body), f"the function {name}")
        with self.lock:
            self._require_open()
            spec = self.session.define(name, body, digest, init, priority, limits)
            self._send_unsent()
        return Place(self, spec)

    def retire(self, place: Place) -> None:
        """The function of `place` is gone. May be called at any time and from anywhere, as finalizers are."""
        self._retired.append(place.spec)

    def submit(self, place: Place, leaf: bytes) -> Future[Any]:
        """One more call; sends when the time has come (see `core.session`)."""
        spec, size = place.spec, len(leaf)
        if size >= LARGE_CALL:
            self._require_fit(size, f"the arguments of {spec.name}")
        while True:
            with self.lock:
                if self.error is not None or self._closing:
                    self._require_open()
                chunk = spec.open
                if chunk is not None and chunk.frozen:  # its sender was interrupted
                    self._seal(spec)
                    chunk = None
                if (chunk is not None and size < LARGE_CALL) or self._has_room(size + WEIGHT):
                    if chunk is None:
                        chunk = self.session.open_chunk(spec)
                    calls = chunk.calls
                    future: Future[Any] = Future(place, chunk, len(calls))
                    calls.append((leaf, future))
                    chunk.size += size
                    if len(calls) >= CHUNK_TASKS or chunk.size >= CHUNK_BYTES:
                        self._seal(spec)
                        self._collector.burst(self._gathering.sent_at)
                    elif len(calls) == 1 or self._gathering.due == NEVER:  # the latter if one was interrupted here
                        self._gather(spec)
                    return future
            self._wait_for_room(size + WEIGHT)

    def _gather(self, spec: Spec) -> None:
        """A call that may have to wait for company. If it goes at once the receive thread is not woken for it."""
        now = monotonic()
        if self._gathering.goes_at_once(now, self.session.weight > 0):
            self._seal(spec)
        elif self._gathering.begin(now, self.in_receive_thread()):
            self.wake()

    def submit_items(
        self, place: Place, leaves: list[bytes], items: list[int], grain: int, owner: MapOwner
    ) -> tuple[int, int]:
        """A chunk of map leaves; returns number of its first task, and how many."""
        size = sum(map(len, leaves)) + WEIGHT * len(leaves)
        self._require_fit(size, f"the items of {place.name}")
        while True:
            with self.lock:
                self._require_open()
                if self._has_room(size):
                    self._seal(place.spec)
                    chunk = self.session.add_items(place.spec, leaves, items, grain, owner)
                    self._send_unsent()
                    return chunk.first, chunk.count
            self._wait_for_room(size)

    def _has_room(self, size: int) -> bool:
        """Whether so many bytes may be added now. Asked under the lock: it holds until they are.

        What a callback submits is let through: its thread brings what the others wait for.
        """
        return self.window.fits(size) or self.in_receive_thread()

    def _wait_for_room(self, size: int) -> None:
        if not self._over():
            self.flush_all()  # what is still being gathered is not weighed yet
            self.window.wait(size)

    def _require_fit(self, size: int, what: str) -> None:
        """Nothing is sent that the hub would drop."""
        if size > largest_part(self._largest):
            raise PayloadError(
                f"{what} take {show_size(size)} pickled, and the hub at {self.control} takes messages of up to "
                f"{show_size(self._largest)} (--max-message): pass the name of a file, or split them"
            )

    def _over(self) -> bool:
        return self.error is not None or self._closing

    def flush(self, spec: Spec) -> None:
        """Send what is still being gathered of one function."""
        if spec.open is not None:
            with self.lock:
                self._seal(spec)

    def before_waiting(self, spec: Spec) -> None:
        """Somebody is going to wait for a task of `spec`.

        Raises
        ------
        MeshClosed
            In a fork, where nothing ever arrives.
        RuntimeError
            In a callback, which would wait for its own thread.
        """
        if self._abandoned:
            raise MeshClosed("this mesh belongs to the process that forked this one; its results arrive there")
        if self.in_receive_thread():
            raise RuntimeError(
                "a callback cannot wait for tasks of its own mesh, because its thread is the one that would bring the "
                "result: add a callback to that future, or wait in another thread"
            )
        self.flush(spec)

    def flush_all(self) -> None:
        """Send everything that is still being gathered."""
        with self.lock:
            for spec in list(self.session.filling):
                self._seal(spec)

    def _require_open(self) -> None:
        if self._closing and (self.error is None or isinstance(self.error, MeshClosed)):
            raise MeshClosed("cannot submit: this mesh has been shut down")
        if self.error is not None:
            raise self.error

    def _seal(self, spec: Spec) -> None:
        submit = self.session.seal(spec)
        if submit is not None:
            self._send([submit])
            self.session.sealed(spec)

    def _send(self, messages: Sequence[m.LinkMessage]) -> None:
        stream = self.membership.stream
        if stream is None:
            raise HubUnreachable(f"not joined to {self.control}")
        unsent = self.session.unsent
        if unsent or messages:
            self._gathering.sent_at = monotonic()
        while unsent:  # by a caller that was stopped
            stream.send(unsent[0])
            unsent.popleft()
        for message in messages:
            stream.send(message)
        self.membership.pump(self._loop.now())

    def _send_unsent(self) -> None:
        if self.session.unsent:
            self._send(())

    # ---- cancelling -----------------------------------------------------------------------------------------

    def cancel(self, futures: Iterable[Future[Any]], interrupt: bool) -> None:
        """Cancel tasks of this session; `interrupt`: also those that run.

        Waits up to a second for the hub's word, but not in a callback or an event loop.
        """
        pending: dict[tuple[int, int], Future[Any]] = {}
        wanted: dict[tuple[int, int], Ranges] = {}
        for future in futures:
            if not future.done():
                pending[future._place.number, future.number] = future
                chunk = (future._place.number, future._chunk.first)
                wanted[chunk] = add(wanted.get(chunk, []), future._index, future._index + 1)
        question = self._questions.ask(pending)
        try:
            self._send_cancels(wanted, interrupt)
            if pending and not self.in_receive_thread() and not in_event_loop():
                question.wait()
        finally:
            self._questions.forget(question, pending)

    def _send_cancels(self, wanted: dict[tuple[int, int], Ranges], interrupt: bool) -> None:
        with self.lock:
            if self.error is not None:
                return
            messages: list[m.LinkMessage] = []
            for (number, first), ranges in wanted.items():
                spec = self.session.specs.get(number)
                if spec is not None:
                    self._seal(spec)
                    messages += self.session.cancel(spec, first, ranges, interrupt)
            self._send(messages)

    def cancel_owner(self, owner: MapOwner) -> None:
        """Cancel what has not started of a map; does not wait."""
        with self.lock:
            if self.error is None:
                self._send(self.session.cancel_where(lambda sent: sent.owner is owner))

    def cancel_all(self) -> None:
        """Cancel everything that has not started; does not wait."""
        with self.lock:
            if self.error is None:
                self.flush_all()
                self._send(self.session.cancel_where(lambda sent: True))

    # ---- the receive thread ---------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._loop.run()
        except BaseException as error:  # a bug of ours: nobody may wait for ever because of it
            log.exception("the receive thread failed")
            self._fail(TaskmeshError(f"a bug in taskmesh: its receive thread failed: {error!r}"))
        finally:
            self.membership.close(linger_ms=200)
            self._context.destroy(linger=200)
            self._loop.close()
            self._waker.close()

    def on_welcome(self, welcome: m.Registered) -> None:
        """Joined. To a hub that does not know us, everything unsettled is offered again.

        Called under the lock, which has been held since the link was made new: were a caller's chunk sent before what
        is offered again, the hub would take the older chunks for repetitions.
        """
        self._lost_since = None
        self._largest = welcome.largest
        if not welcome.resume and self._welcomed.is_set():
            if self._closed:
                self._send([m.Close()])
            else:
                log.warning("the hub at %s began anew; offering it what has not ended", self.control)
                self._send(self.session.offer_again())
        self._welcomed.set()

    def on_refused(self, why: str) -> None:
        """The hub does not want us: nothing of this session can end any more."""
        self._fail(RegistrationRefused(f"the hub at {self.control} refused this client: {why}"))
        self._welcomed.set()

    def on_lost(self) -> None:
        """The hub does not answer."""
        if self._lost_since is None:
            self._lost_since = self._loop.now()
            if self._welcomed.is_set() and self._keeper is None:
                log.warning("no answer from the hub at %s; trying again", self.control)

    def on_message(self, message: m.LinkMessage) -> None:
        """Outcomes, refusals, or goodbye."""
        if isinstance(message, m.Results):
            for outcome in message.outcomes:
                self._arrivals.outcome(outcome)
            self._after_settling()
        elif isinstance(message, m.Cancelled):
            self._arrivals.kept(message)
        elif isinstance(message, m.Rejected):
            self._arrivals.rejected(message)
            self._after_settling()
        elif isinstance(message, m.Goodbye):
            if message.back and not self._closed:
                log.warning("the hub at %s is going away for a while (%s); waiting for it", self.control, message.why)
                self.membership.join_again()
                return
            self._gone.set()
            if not self._closing:
                self._fail(HubUnreachable(f"the hub at {self.control} has gone: {message.why}"))

    def _after_settling(self) -> None:
        self.window.changed()
        if self._closing:
            self._note_settled()

    def _note_settled(self) -> None:
        with self.lock:
            if not self.session.unsettled:
                self._settled.set()

    # ---- time -----------------------------------------------------------------------------------------------

    def on_time(self, now: float) -> None:
        """Send what was gathered for a millisecond, and keep the registration alive."""
        gathered = self._gathering.ready(monotonic(), bool(self.session.filling))
        if gathered or self._retired or self.session.unsent:
            self._send_gathered()
        elif now < self._due and not self.membership.touched:
            return
        with self.lock:
            self.membership.on_time(now)
            self.membership.pump(now)
            self._due = self.membership.next_deadline()
            self._collector.relax(monotonic())
        if not self.membership.registered:
            self._when_lost(now)

    def _send_gathered(self) -> None:
        with self.lock:
            self._gathering.end()
            if self.error is not None or self.membership.stream is None:
                return
            self._send_unsent()
            for spec in list(self.session.filling):
                self._seal(spec)
            while self._retired and not self._closed:
                self._send(self.session.retire(self._retired.popleft()))

    def _when_lost(self, now: float) -> None:
        if self._keeper is not None:
            try:
                self._keeper.revive()
            except TaskmeshError as error:
                self._fail(error)
        elif (
            self._lost_since is not None
            and self._lost_after is not None
            and self._welcomed.is_set()
            and now - self._lost_since > self._lost_after
            and self.error is None
        ):
            why = f"no answer from the hub at {self.control} for {self._lost_after:g} s: given up"
            trouble = self.membership.trouble
            self._fail(HubUnreachable(f"{why} ({trouble})" if trouble else why))

    def next_deadline(self) -> float:
        """When `on_time` is due if nothing arrives."""
        if self.membership.touched:
            return 0.0
        deadline = self._due
        if self._gathering.due < NEVER:
            left_s = self._gathering.due - monotonic()
            if left_s <= 0.0:
                return 0.0  # a wait of some microseconds would be rounded up to a millisecond
            deadline = min(deadline, self._loop.now() + left_s)
        if self._keeper is not None and not self.membership.registered:
            deadline = min(deadline, self._loop.now() + 0.1)
        return deadline

    # ---- the end --------------------------------------------------------------------------------------------

    def _fail(self, error: TaskmeshError) -> None:
        """This session cannot go on: everything pending fails with `error`."""
        with self.lock:
            if self.error is not None:
                return
            self.error = error
            waiting, owners = self.session.give_up()
        for owner in owners:
            owner.fail(error)
        for future in waiting:
            settle_error(future, error)
        self._questions.end()
        self.window.changed()
        self._settled.set()
        self._gone.set()

    def stop_taking(self) -> None:
        """Take no more calls."""
        with self.lock:
            self._closing = True
        self.window.changed()

    def wait_settled(self) -> None:
        """Take no more calls, and wait until everything has ended."""
        self.stop_taking()
        if self.error is None:
            self.flush_all()
            self._note_settled()
            self._settled.wait()

    def close(self) -> None:
        """End the session: what has not ended is cancelled."""
        with self.lock:
            self._closing = True
            if self.error is None and self.membership.stream is not None and self.membership.registered:
                self._send([m.Close()])
                self._closed = True  # the hub has no session for anything that follows
            else:
                self._gone.set()
        if threading.current_thread() is not self._thread:
            self._gone.wait(GOODBYE_S)
        self._fail(MeshClosed("the mesh was shut down before this task ended"))
        self._collector.relax(NEVER)
        self._loop.stopping = True
        self.wake()
        if threading.current_thread() is not self._thread and self._thread.is_alive():
            self._thread.join(2.0)

    def abandon(self) -> None:
        """In a fork: forget everything without a word, for the parent still uses it."""
        self._abandoned = True
        self.error = MeshClosed("this mesh belongs to the process that forked this one")
        self.lock = threading.RLock()  # the parent's may have been held by a thread that this process does not have
        self._waker.abandon()


__all__ = ["Client", "MapOwner"]
