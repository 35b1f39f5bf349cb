"""The client's shell: one session at one hub, its lock and its receive thread.

Callers add calls and send under the lock; only the receive thread reads sockets, ends futures and runs callbacks.
(A caller that read them itself was wedged by Ctrl-C in five of five runs.) The receive thread is a daemon thread: an
interpreter that exits waits for pending work through `atexit`, in `mesh`.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
from collections.abc import Iterable
from time import monotonic
from typing import Any, Protocol

from . import __version__
from .arrivals import Arrivals, Spec
from .cancelling import Questions
from .core import messages as m
from .core.ranges import Ranges, add
from .core.session import MapOwner, Session
from .errors import AddressError, HubUnreachable, MeshClosed, RegistrationRefused, TaskmeshError
from .futures import Future, end_error
from .places import Place
from .submitting import Submitter, receive_here
from .transport.curve import Credentials
from .transport.endpoints import parse_address
from .transport.handshake import explained
from .transport.loop import SPIN_S, Loop
from .transport.membership import Membership
from .transport.sockets import new_context
from .transport.versions import PYTHON
from .transport.waker import Waker
from .window import WINDOW, in_event_loop

log = logging.getLogger("taskmesh")

LOST_AFTER_S = 60.0
NEVER = float("inf")
LOOK_EVERY_S = 0.25
LONE_WEIGHT = 16 * 1024  # with less than this unsettled, bytes, somebody probably waits for it
GOODBYE_S = 1.0


class Reviver(Protocol):
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
    reviver
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
        reviver: Reviver | None = None,
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
        self._reviver = reviver
        self._lost_after = lost_after
        self._lost_since: float | None = None
        self._context = new_context()
        self._loop = Loop(0.0 if reviver is None else SPIN_S, lambda: self.session.weight < LONE_WEIGHT)
        self._waker = Waker(self._loop)
        self.wake = self._waker.wake
        self.submitter = Submitter(self, window, window_timeout)
        self._due = 0.0  # when the registration or the link needs attention although nothing arrived
        self._welcomed = threading.Event()
        self._gone = threading.Event()  # the hub said goodbye to our Close
        self._all_ended = threading.Event()
        self._abandoned = False
        self._questions = Questions()
        self._arrivals = Arrivals(self.session, self.lock, self._questions, self.submitter.retired, control)
        register = m.Register(
            "client", self.instance, 0, 0, 0, 0, name, os.uname().nodename, os.getpid(), 0, __version__, PYTHON
        )
        self.membership = Membership(self._context, self._loop, control, register, self, self.lock, ticket=ticket)
        self._has_ticket = ticket is not None
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
                raise self._postponed(f"within {timeout:g} s") or HubUnreachable(
                    f"no hub answered at {self.control} within {timeout:g} s" + (f": {trouble}" if trouble else "")
                )
        if self.error is not None:
            raise self.error

    def _postponed(self, how_long: str) -> RegistrationRefused | None:
        """Set if it has not joined because its hub, which is there, takes nobody in."""
        why = self.membership.postponed
        if why is None:
            return None
        return RegistrationRefused(f"the hub at {self.control} did not take this client in {how_long}: {why}")

    def now(self) -> float:
        """The time of the loop, in monotonic seconds."""
        return self._loop.now()

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
        self.submitter.require_fit(len(body), f"the function {name}")
        self.refuse_reentry()
        with self.lock:
            self.require_open()
            spec = self.session.define(name, body, digest, init, priority, limits)
            self.submitter.send_unsent()
        return Place(self, spec)

    def retire(self, place: Place) -> None:
        """The function of `place` is gone. May be called at any time and from anywhere, as finalizers are."""
        self.submitter.retired.append(place.spec)

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
        self.refuse_reentry()
        self.submitter.flush(spec)

    def refuse_reentry(self) -> None:
        """Refuse what comes in the middle of another call of the same thread, which cannot go on before it returns.

        Raises
        ------
        RuntimeError
            A signal handler or a finalizer has interrupted that call.
        """
        if self.lock._is_owned():  # type: ignore[attr-defined]  # as threading.Condition asks it
            raise RuntimeError(
                "a signal handler or finalizer has interrupted another call of this mesh, in the same thread: neither "
                "submit nor wait there, but set a flag, or start a thread"
            )

    def require_open(self) -> None:
        """Refuse what cannot be submitted any more.

        Raises
        ------
        MeshClosed, HubUnreachable, RegistrationRefused
            The session has ended, and why.
        """
        if not self.submitter.open and (self.error is None or isinstance(self.error, MeshClosed)):
            raise MeshClosed("cannot submit: this mesh has been shut down")
        if self.error is not None:
            raise self.error

    # ---- cancelling -----------------------------------------------------------------------------------------

    def cancel(self, futures: Iterable[Future[Any]], interrupt: bool) -> None:
        """Cancel tasks of this session; `interrupt`: also those that run.

        Waits up to a second for the hub's word, but not in a callback or an event loop.
        """
        if self._abandoned:
            return
        self.refuse_reentry()
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
            if pending and self.error is None and not self.in_receive_thread() and not in_event_loop():
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
                    self.submitter.seal(spec)
                    messages += self.session.cancel(spec, first, ranges, interrupt)
            self.submitter.send(messages)

    def drop(self, owner: MapOwner) -> None:
        """Cancel what has not started of a map. May be called at any time and from anywhere, as finalizers are."""
        if self.error is None:
            self.submitter.dropped.append(owner)
            self.wake()

    def cancel_all(self) -> None:
        """Cancel everything that has not started; does not wait."""
        self.refuse_reentry()
        with self.lock:
            if self.error is None:
                self.submitter.flush_all()
                self.submitter.send(self.session.cancel_where(lambda sent: True))

    # ---- the receive thread ---------------------------------------------------------------------------------

    def _run(self) -> None:
        receive_here()
        try:
            self._loop.run()
        except AddressError as error:  # no files are left for another connection
            self._fail(error)
            self._welcomed.set()
        except BaseException as error:  # a bug of ours: nobody may wait for ever because of it
            log.exception("the receive thread failed")
            self._fail(TaskmeshError(f"a bug in taskmesh: its receive thread failed: {error!r}"))
        finally:
            self._release()

    def _release(self) -> None:
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
        self.submitter.largest = welcome.largest
        if not welcome.resume and self._welcomed.is_set():
            if self.submitter.closed:
                self.submitter.close()
            else:
                log.warning("the hub at %s began anew; offering it what has not ended", self.control)
                self.submitter.send(self.session.offer_again())
        self._welcomed.set()

    def on_refused(self, why: str) -> None:
        """The hub does not want us: nothing of this session can end any more."""
        self._fail(RegistrationRefused(f"the hub at {self.control} refused this client: {why}"))
        self._welcomed.set()

    def on_lost(self) -> None:
        """The hub does not answer."""
        if self._lost_since is None:
            self._lost_since = self._loop.now()
            if self._welcomed.is_set() and self._reviver is None:
                self._say_that_it_is_lost()

    def _say_that_it_is_lost(self) -> None:
        postponed = self.membership.postponed
        if postponed is not None:
            log.warning("the hub at %s takes no client in now: %s; asking again", self.control, postponed)
        else:
            log.warning("no answer from the hub at %s; trying again", self.control)

    def on_message(self, message: m.LinkMessage) -> None:
        """Outcomes, refusals, or goodbye."""
        if isinstance(message, m.Results):
            for outcome in message.outcomes:
                self._arrivals.outcome(outcome)
            self._after_endings()
        elif isinstance(message, m.Cancelled):
            self._arrivals.kept(message)
        elif isinstance(message, m.Rejected):
            self._arrivals.rejected(message)
            self._after_endings()
        elif isinstance(message, m.Goodbye):
            if message.back and not self.submitter.closed:
                log.warning("the hub at %s is going away for a while (%s); waiting for it", self.control, message.why)
                self.membership.join_again()
                return
            self._gone.set()
            if self.submitter.open:
                self._fail(HubUnreachable(f"the hub at {self.control} has gone: {message.why}"))

    def _after_endings(self) -> None:
        self.submitter.window.changed()
        if not self.submitter.open:
            self._note_ended()

    def _note_ended(self) -> None:
        with self.lock:
            if not self.session.unsettled:
                self._all_ended.set()

    # ---- time -----------------------------------------------------------------------------------------------

    def on_time(self, now: float) -> None:
        """Send what was gathered for a millisecond, and keep the registration alive."""
        if self.submitter.ready:
            self.submitter.send_gathered()
        elif now < self._due and not self.membership.touched:
            return
        with self.lock:
            self.membership.on_time(now)
            self.membership.pump(now)
            self._due = self.membership.next_deadline()
            self.submitter.relax(monotonic())
        if not self.membership.registered:
            self._when_lost(now)

    def _when_lost(self, now: float) -> None:
        if self._reviver is not None:
            try:
                self._reviver.revive()
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
            postponed = self._postponed(f"for {self._lost_after:g} s: given up")
            self._fail(postponed or HubUnreachable(f"{why} ({trouble})" if trouble else why))

    def next_deadline(self) -> float:
        """When `on_time` is due if nothing arrives."""
        if self.membership.touched:
            return 0.0
        deadline = min(self._due, self.submitter.next_deadline(self._loop.now()))
        if self._reviver is not None and not self.membership.registered:
            deadline = min(deadline, self._loop.now() + 0.1)
        return deadline

    # ---- the end --------------------------------------------------------------------------------------------

    def _fail(self, error: TaskmeshError) -> None:
        """This session cannot go on: everything pending fails with `error`."""
        with self.lock:
            if self.error is not None:
                return
            self.error = error
            self.submitter.open = False
            self.submitter.dropped.clear()
            self.submitter.retired.clear()
            waiting, owners = self.session.give_up()
        for owner in owners:
            owner.fail(error)
        for future in waiting:
            end_error(future, error)
        self._questions.end()
        self.submitter.window.changed()
        self._all_ended.set()
        self._gone.set()

    def stop_taking(self) -> None:
        """Take no more calls."""
        with self.lock:
            self.submitter.open = False
        self.submitter.window.changed()

    def wait_ended(self) -> None:
        """Take no more calls, and wait until everything has ended."""
        self.refuse_reentry()
        self.stop_taking()
        if self.error is None:
            self.submitter.flush_all()
            self._note_ended()
            self._all_ended.wait()

    def close(self) -> None:
        """End the session: what has not ended is cancelled."""
        with self.lock:
            self.submitter.open = False
            if self.error is None and self.membership.stream is not None and self.membership.registered:
                self.submitter.close()
            else:
                self._gone.set()
        if not self.in_receive_thread():
            self._gone.wait(GOODBYE_S)
        self._fail(MeshClosed("the mesh was shut down before this task ended"))
        self.submitter.relax(NEVER)
        self._loop.stopping = True
        if self._thread.ident is None:  # it was never started
            self._release()
            return
        self.wake()
        if not self.in_receive_thread() and self._thread.is_alive():
            self._thread.join(2.0)

    def abandon(self) -> None:
        """In a fork: forget everything without a word, for the parent still uses it."""
        self._abandoned = True
        self.submitter.open = False
        self.error = MeshClosed("this mesh belongs to the process that forked this one")
        self.lock = threading.RLock()  # the parent's may have been held by a thread that this process does not have
        self._waker.abandon()
