"""The daemon's shell: its membership at the hub, its nursery and its runners' pipes around the plan.

Each round reads what hub, nursery and runners have said, hands it to the plan, ends with a `Tick`, and performs what
the plan wants. It never waits for a runner, and nothing that a runner writes can stop it.
"""

from __future__ import annotations

import logging
import os
import platform
import secrets
import signal
import sys
from collections import deque
from dataclasses import dataclass, field
from time import monotonic_ns

from taskmesh import __version__
from taskmesh.core import messages as m
from taskmesh.core.limits import RESULT
from taskmesh.core.quota import largest_part
from taskmesh.errors import MeshStartError, PeerProtocolError
from taskmesh.transport.curve import Credentials
from taskmesh.transport.local import LocalHub, LocalMembership
from taskmesh.transport.loop import Loop
from taskmesh.transport.membership import Membership
from taskmesh.transport.sockets import Context
from taskmesh.transport.versions import PYTHON
from taskmesh.wire import pipe

from . import plan_events as p
from .cells import FLUSH_SIGNAL, INTERRUPT_SIGNAL
from .deaths import Deaths
from .farewell import Farewell, Parting
from .forking import HIDDEN, NurseryProcess, RunnerPipe
from .memory import resident
from .plan import Plan
from .plan_limits import RunnerLimits

log = logging.getLogger("taskmesh.worker")

DONE_BYTES = 128 * 1024
NURSERY_DEATHS, NURSERY_WINDOW_S = 3, 30.0
NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class DaemonConfig:
    """What a daemon is.

    Attributes
    ----------
    control
        The hub's control endpoint.
    slots
        How many runners to keep: how many tasks run at once.
    name
        What it is called in logs and status.
    sys_path
        Where runners look for modules.
    limits
        What each runner may take.
    ticket
        The keys of a ticket; None for a hub without keys.
    """

    control: str
    slots: int
    name: str
    sys_path: list[str] = field(default_factory=lambda: list(sys.path))
    limits: RunnerLimits = field(default_factory=RunnerLimits)
    ticket: Credentials | None = None


def host_name() -> str:
    """What this machine is called."""
    return platform.node() or "localhost"


class Daemon:
    """A running daemon on `loop`.

    Parameters
    ----------
    config
        What it is.
    context, loop
        Where its sockets live.
    nursery
        Already started: it starts before the context does, so that the two start at the same time.
    hub
        The hub, when it shares this process; `config.control` is then only its name.
    """

    def __init__(
        self,
        config: DaemonConfig,
        context: Context,
        loop: Loop,
        nursery: NurseryProcess,
        hub: LocalHub | None = None,
    ) -> None:
        self._config = config
        self._loop = loop
        self._host = host_name()
        self.plan = Plan(config.slots, keep_outcomes=hub is None, limits=config.limits)
        self.farewell = Farewell(self.plan)
        self._deaths = Deaths(self._host, config.name, config.limits.memory)
        self._nursery = nursery
        self._hidden = HIDDEN if hub is None else ()
        self._pipes: dict[int, RunnerPipe] = {}
        self._finished: list[m.Finished] = []
        self._touched = True  # something happened in this round
        self._events: deque[p.Event] = deque()
        self._acting = False
        self._due = 0.0  # when `on_time` has something to do although nothing happened
        self.refused: str | None = None
        self._joined = False
        self._nursery_deaths: list[float] = []
        register = m.Register(
            "daemon", secrets.randbits(64), 0, 0, 0, 0, config.name, self._host, os.getpid(), config.slots,
            __version__, PYTHON,
        )  # fmt: skip
        self.membership: Membership | LocalMembership = (
            LocalMembership(hub, register, self)
            if hub is not None
            else Membership(context, loop, config.control, register, self, keeper=self, ticket=config.ticket)
        )
        loop.watch(nursery.sock.fileno(), self._read_nursery)
        loop.add_part(self)

    @property
    def left(self) -> bool:
        """Whether it has drained, and it is time to go."""
        return self.farewell.left

    # ---- the hub --------------------------------------------------------------------------------------------

    def on_welcome(self, welcome: m.Registered) -> None:
        """Registered; a hub that does not know us is told what we have."""
        if not welcome.resume:
            self._finished.clear()  # outcomes on the way to the former one: the plan keeps them
            self._act(p.Reset(self._joined, min(RESULT, largest_part(welcome.largest))))
        self._joined = True
        self.farewell.on_heard()
        log.info(
            "joined %s as %s with %d runner%s",
            self._config.control,
            self._config.name,
            self._config.slots,
            "" if self._config.slots == 1 else "s",
        )

    def on_message(self, message: m.LinkMessage) -> None:
        """Work, functions, cancellations, or goodbye."""
        if isinstance(message, m.Goodbye):
            self._on_goodbye(message)
        else:
            self._act(p.FromHub(message))

    def _on_goodbye(self, message: m.Goodbye) -> None:
        parting = self.farewell.on_goodbye(message, self.membership.unacked)
        if parting is Parting.FOR_NOW:
            log.warning("the hub said goodbye (%s); waiting for it to come back", message.why)
            self.membership.join_again()
        elif parting is Parting.PUT_OUT:
            self.on_refused(message.why)

    def on_refused(self, why: str) -> None:
        """The hub does not want us: `refused` says why."""
        self.refused = why

    def on_lost(self) -> None:
        """The hub is silent: say so once, and go on trying."""
        now = self._loop.now()
        if self.farewell.on_lost(now) and self.membership.postponed is None:  # or whoever runs us has said why
            log.warning("no answer from the hub at %s; trying again until it comes", self._config.control)
        unsettled = self.plan.ledger.outcomes
        if self.farewell.leave_without_hub(now) and unsettled:
            log.warning(
                "leaving without the hub at %s, which did not come back within %.0f s: %d outcome%s may be lost with "
                "this daemon, and those tasks run again elsewhere",
                self._config.control, self.farewell.lost_s(now), unsettled, "" if unsettled == 1 else "s",
            )  # fmt: skip

    def _see_itself_off(self, now: float) -> float:
        """Nothing is left here: wait for the hub's goodbye, but not for ever. Returns when to look again."""
        left = self.farewell.left
        due = self.farewell.on_time(now)
        if self.farewell.left and not left:
            log.warning("leaving without the goodbye of the hub at %s", self._config.control)
        return due

    def on_silence(self) -> None:
        """The hub may move what we have: start nothing."""
        self._act(p.Hold(True))

    def on_heard(self) -> None:
        """The hub is there, and what it has revoked is known."""
        self.farewell.on_heard()
        self._act(p.Hold(False))

    def held(self) -> list[tuple[int, int, int]]:
        """What runners hold, as `(fence, lo, hi)`."""
        return self.plan.held()

    # ---- the nursery ----------------------------------------------------------------------------------------

    def _read_nursery(self) -> None:
        try:
            for forked, number, value in self._nursery.answers():
                if forked:
                    self._pipes[number].forked(value)
                else:
                    self._bury(number, value)
        except ConnectionError:
            self._replace_nursery()

    def _bury(self, number: int, status: int, blame: bool = True) -> None:
        """A runner ended. `blame`: what it was running may be why."""
        runner = self._pipes.get(number)
        if runner is None:
            return
        self._read_runner(runner)  # what it said before it died counts
        # What it may have started ends there, whoever is to blame.
        claimed = runner.cells.to_blame() if blame else (runner.cells.claimed()[1],) * 2
        report = self._deaths.report(runner, os.waitstatus_to_exitcode(status), blame)
        self._loop.forget(runner.sock.fileno())
        runner.close()
        del self._pipes[number]
        self._act(p.RunnerGone(number, claimed, report))

    def _replace_nursery(self) -> None:
        """A dead nursery means dead runners.

        Raises
        ------
        MeshStartError
            It dies again and again: something is wrong here that another start does not mend.
        """
        now = self._loop.now()
        self._nursery_deaths = [at for at in self._nursery_deaths if now - at < NURSERY_WINDOW_S] + [now]
        if len(self._nursery_deaths) > NURSERY_DEATHS:
            raise MeshStartError(
                f"the nursery, which starts the runners on {self._host}, died {len(self._nursery_deaths)} times within "
                f"{NURSERY_WINDOW_S:g} s; what it printed is above (often a module in the working directory that hides "
                f"one of Python's own or cloudpickle)"
            )
        log.error("the nursery died, and its runners with it; starting another")
        self._loop.forget(self._nursery.sock.fileno())
        self._nursery.close()
        self._nursery = NurseryProcess(self._host, self._config.sys_path, self._hidden)
        self._loop.watch(self._nursery.sock.fileno(), self._read_nursery)
        for number in list(self._pipes):
            self._bury(number, signal.SIGKILL, blame=False)

    # ---- the runners ----------------------------------------------------------------------------------------

    def _serve_runner(self, runner: RunnerPipe) -> None:
        if runner.backlog:
            runner.write()
            self._watch(runner)
        self._read_runner(runner)

    def _watch(self, runner: RunnerPipe) -> None:
        self._loop.watch(runner.sock.fileno(), lambda: self._serve_runner(runner), writable=runner.backlog)

    def _read_runner(self, runner: RunnerPipe) -> None:
        try:
            for kind, body in runner.read():
                if kind == pipe.OUTCOME:
                    self._act(p.RunnerSaid(runner.number, pipe.unpack_outcome(body)))
                elif kind == pipe.READY:
                    self._act(p.RunnerReady(runner.number))
                elif kind == pipe.STOPPED:
                    self._act(p.RunnerSaid(runner.number, pipe.unpack_stopped(body)))
                else:
                    raise PeerProtocolError(f"a frame of unknown kind {kind}")
        except PeerProtocolError as error:
            log.error("runner %d (pid %s) wrote nonsense (%s); ending it", runner.number, runner.pid, error)
            runner.kill()

    # ---- actions --------------------------------------------------------------------------------------------

    def _act(self, event: p.Event) -> None:
        """Actions run in order: what the plan is told while they do, it digests when all of them are done."""
        self._touched = True
        self._events.append(event)
        if self._acting:
            return
        self._acting = True
        try:
            while self._events:
                for action in self.plan.handle(self._events.popleft(), self._loop.now()):
                    self._perform(action)
        finally:
            self._acting = False

    def _perform(self, action: p.Action) -> None:
        if isinstance(action, p.Report):
            self._report(action.message)
        elif isinstance(action, p.Hand):
            runner = self._pipes[action.runner]
            runner.cells.set_limit(action.limit)
            self._send(runner, pipe.pack_dose(action.dose))
        elif isinstance(action, p.GiveBody):
            runner = self._pipes[action.runner]
            if action.drop is not None:
                self._send(runner, pipe.frame(pipe.DROP, action.drop))
            self._send(runner, pipe.frame(pipe.BODY, action.digest, action.data))
        elif isinstance(action, p.Start):
            self._start(action.runner)
        elif isinstance(action, p.Lower):
            self._pipes[action.runner].cells.set_limit(action.limit)
        elif isinstance(action, p.Peek):
            end = self._pipes[action.runner].cells.claimed()[1]
            self._act(p.Claimed(action.runner, end))
        else:
            self._watch_over(self._pipes[action.runner], action)

    def _watch_over(
        self, runner: RunnerPipe, action: p.Look | p.Flush | p.Interrupt | p.Sample | p.End | p.Kill
    ) -> None:
        """Look at a runner, or end what it runs, or itself."""
        number = runner.number
        if isinstance(action, p.Look):
            claimed = runner.cells.claimed()
            self._act(p.Seen(number, *claimed, (monotonic_ns() - runner.cells.since_ns()) / 1e9))
        elif isinstance(action, p.Flush):
            runner.signal(FLUSH_SIGNAL)
        elif isinstance(action, p.Interrupt):
            runner.cells.set_interrupt(action.position, action.reason)
            runner.signal(INTERRUPT_SIGNAL)
        elif isinstance(action, p.Sample):
            has = resident(runner.pid)
            runner.bytes = has or runner.bytes  # one that was killed just now has nothing left: what it had tells why
            self._act(p.Sampled(number, has, *runner.cells.to_blame()))
        elif isinstance(action, p.End):
            runner.hang_up()
        else:
            if self.plan.draining:
                log.warning("runner %d (pid %s) still runs a task: ending it", number, runner.pid)
            runner.kill()

    def _send(self, runner: RunnerPipe, buffers: pipe.Buffers) -> None:
        before = runner.backlog
        runner.send(buffers)
        if runner.backlog != before:
            self._watch(runner)

    def _start(self, number: int) -> None:
        try:
            runner = self._nursery.fork(number)
        except OSError:  # it died just now; the loop will see that and replace it
            self._act(p.RunnerGone(number, (0, 0), b""))
            return
        self._pipes[number] = runner
        self._watch(runner)

    def _report(self, message: m.LinkMessage | m.Finished) -> None:
        if isinstance(message, m.Finished):
            self._finished.append(message)
        else:
            self._flush()
            self.membership.send(message)

    def _flush(self) -> None:
        """Outcomes of one round travel together, about 128 KiB to a message."""
        if not self._finished:
            return
        send = self.membership.send
        batch: list[m.Finished] = []
        size = 0
        for entry in self._finished:
            if batch and size + len(entry.outcome.blob) > DONE_BYTES:
                send(m.Done(batch))
                batch, size = [], 0
            batch.append(entry)
            size += len(entry.outcome.blob) + 64
        send(m.Done(batch))
        self._finished.clear()

    # ---- time -----------------------------------------------------------------------------------------------

    def on_time(self, now: float) -> None:
        """Everything readable has been read: let the plan hand out work, then tell the hub."""
        self.membership.read()  # first: after a stop of this process, nothing may start before silence is noticed
        if not self._touched and not self.membership.touched and now < self._due:
            return
        self._act(p.Tick())
        self._flush()
        self.membership.on_time(now)
        self.membership.pump(now)
        self._touched = False
        self._due = min(self.plan.next_deadline(), self.membership.next_deadline(), self._see_itself_off(now))

    def next_deadline(self) -> float:
        """When `on_time` is due if nothing arrives."""
        return 0.0 if self._touched or self.membership.touched else self._due

    # ---- the end --------------------------------------------------------------------------------------------

    def drain(self, timeout_s: float = NEVER) -> None:
        """Give back what has not started, finish the rest, then leave: `left` becomes true.

        What still runs after `timeout_s` seconds is ended, and given back.
        """
        self._act(p.Drain(timeout_s))

    def close(self) -> None:
        """End every runner at once, and let go of the hub."""
        self.membership.close(linger_ms=200)
        self._loop.forget(self._nursery.sock.fileno())
        self._nursery.close()
        for runner in self._pipes.values():
            self._loop.forget(runner.sock.fileno())
            runner.close()
        self._pipes.clear()
