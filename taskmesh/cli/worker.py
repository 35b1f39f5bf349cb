"""`taskmesh worker`: the daemon of one machine, its nursery and its runners."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from taskmesh_worker.forking import HIDDEN, NurseryProcess
from taskmesh_worker.plan_limits import RunnerLimits

from ..core.access import Role
from ..transport.endpoints import Address
from .exits import CommandError, ExitCode
from .guard import WORKER_RISK, warn_insecure
from .logs import plural, printable, set_up
from .options import MOST, YEAR_S, Insecure, Level, LogLevel, TicketFile, examples, number, size, whole

if TYPE_CHECKING:
    from taskmesh_worker.daemon import Daemon

    from ..transport.loop import Loop

NEVER = float("inf")
MOST_RUNNERS = 4096  # 2,000 have been tried; each takes two open files
MOST_NAME = 64  # characters; whoever shows it cuts it there
LEAST_RUNNER = 32 << 20  # bytes: half of it a runner takes before it has done anything
EXAMPLES = examples(
    ("taskmesh worker tcp://127.0.0.1:5555", "As many runners as this machine has cores for us."),
    ("taskmesh worker tcp://127.0.0.1:5555 -n 4 --name gpu-box", "Four runners, and a name to find it by."),
    ("cd ~/project && taskmesh worker HUB", "Tasks may import the modules in ~/project."),
    ("taskmesh worker --ticket gpu-box.ticket", "A hub on another machine, which made this ticket."),
)


def worker(
    hub: Annotated[
        str | None,
        typer.Argument(
            metavar="HUB",
            envvar="TASKMESH_HUB",
            show_default=False,
            help="The hub's address: tcp://HOST:PORT or ipc:///DIRECTORY. [dim]\\[default: the one in the ticket][/]",
        ),
    ] = None,
    ticket: TicketFile = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            "-n",
            parser=whole(1, MOST_RUNNERS),
            metavar="N",
            envvar="TASKMESH_WORKERS",
            help=f"How many runners: tasks that run at once, at most {MOST_RUNNERS:,}. "
            "[dim]\\[default: one per usable core][/]",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            envvar="TASKMESH_NAME",
            help="What logs and status call it, at most 64 characters. [dim]\\[default: the host name][/]",
        ),
    ] = None,
    connect_timeout: Annotated[
        float,
        typer.Option(
            parser=number(0, YEAR_S),
            metavar="SECONDS",
            envvar="TASKMESH_CONNECT_TIMEOUT",
            show_default="wait for ever",
            help="Give up when no hub answers for so long at the start.",
        ),
    ] = 0.0,
    memory_limit: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            envvar="TASKMESH_MEMORY_LIMIT",
            help="End a runner, and fail its task, above this: 2GiB, 500MB, at least 32MiB. "
            "[dim]\\[default: no limit][/]",
        ),
    ] = None,
    max_tasks_per_runner: Annotated[
        int,
        typer.Option(
            parser=whole(0, MOST),
            metavar="N",
            envvar="TASKMESH_MAX_TASKS_PER_RUNNER",
            show_default="never",
            help="Replace a runner when it has run about N tasks: what it has started with them is finished first.",
        ),
    ] = 0,
    recycle_above: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            envvar="TASKMESH_RECYCLE_ABOVE",
            help="Replace a runner that was seen above this, at least 32MiB, after its task. "
            "[dim]\\[default: never][/]",
        ),
    ] = None,
    drain_timeout: Annotated[
        float,
        typer.Option(
            parser=number(0, YEAR_S),
            metavar="SECONDS",
            envvar="TASKMESH_DRAIN_TIMEOUT",
            help="When it is told to stop: end what still runs after so long; the hub runs it elsewhere.",
        ),
    ] = 30.0,
    insecure: Insecure = False,
    log_level: Level = LogLevel.INFO,
) -> None:
    """Run tasks on this machine for a hub.

    Prints one line when it has joined. A hub that is not there yet, or goes away, is waited for. Tasks find
    modules in the working directory and on this Python's path.

    Ctrl-C, SIGTERM or SIGHUP drains: what has not started goes back to the hub, what runs is finished, within
    --drain-timeout. A second one stops at once, and what was running is started again elsewhere.
    """
    set_up(log_level)
    if name is not None and (not name.strip() or printable(name) != name):
        raise typer.BadParameter("a name needs letters that can be shown", param_hint="--name")
    if name is not None and len(name) > MOST_NAME:
        raise typer.BadParameter(f"a name has at most {MOST_NAME} characters", param_hint="--name")
    limits = RunnerLimits(
        size(memory_limit, "--memory-limit", LEAST_RUNNER),
        max_tasks_per_runner,
        size(recycle_above, "--recycle-above", LEAST_RUNNER),
    )
    setup = Setup(hub, ticket, insecure, workers, name, connect_timeout, limits, drain_timeout)
    raise typer.Exit(_serve(setup))


class Setup(NamedTuple):
    """How to run a worker. `hub`, `ticket`, `insecure`: as `joining.choose_hub` takes them; times in seconds."""

    hub: str | None
    ticket: str | None
    insecure: bool
    workers: int | None
    name: str | None
    connect_timeout: float
    limits: RunnerLimits
    drain_timeout: float


def _say_that_we_wait(address: Address) -> None:
    logging.getLogger("taskmesh.worker").warning(
        "nothing listens at %s yet, and there is no ticket for it; waiting until a hub is there", address
    )


def _module_path() -> list[str]:
    """Where runners look for modules: the working directory first, as for a script that is started there."""
    here = os.getcwd()
    return list(dict.fromkeys([here, *(path or here for path in sys.path)]))


def _serve(setup: Setup) -> int:
    path = _module_path()
    nursery = NurseryProcess(os.uname().nodename, path, HIDDEN)  # before sockets are imported: they load together
    try:
        from ..joining import await_hub

        patience = (NEVER, _say_that_we_wait) if not setup.connect_timeout else (setup.connect_timeout, None)
        address, credentials = await_hub(setup.hub, setup.ticket, setup.insecure, Role.WORKER, *patience)
        if credentials is None and address.scheme == "tcp":
            warn_insecure(address, WORKER_RISK)
        from taskmesh_worker.daemon import Daemon, DaemonConfig

        from ..mesh import default_workers
        from ..transport.loop import Loop
        from ..transport.sockets import new_context
        from ..transport.versions import host_name
        from .service import Stopper

        context, loop = new_context(), Loop()
        slots, name = setup.workers or min(default_workers(), MOST_RUNNERS), setup.name or host_name()
        config = DaemonConfig(address.control, slots, name, path, setup.limits, credentials)
        daemon = Daemon(config, context, loop, nursery)
    except BaseException:
        nursery.close()
        raise
    watcher = Watcher(address, daemon, loop, setup.connect_timeout, credentials is not None)
    watcher.ready_line = f"taskmesh worker {name} has joined {address} with {plural(slots, 'runner')}"
    stopper = Stopper(
        loop, WorkerService(daemon, setup.drain_timeout), "and what is running is started again elsewhere"
    )
    try:
        loop.run()
    finally:
        daemon.close()
        context.destroy()
    if watcher.failure is not None:
        raise watcher.failure
    return stopper.exit_code


class WorkerService:
    """A daemon, as far as stopping it goes."""

    stored = False  # what runs here is nowhere else

    def __init__(self, daemon: Daemon, timeout_s: float) -> None:
        self._daemon = daemon
        self._timeout_s = timeout_s

    def drain(self) -> None:
        """Give back what has not started."""
        self._daemon.drain(self._timeout_s)

    @property
    def drained(self) -> bool:
        """Whether it has left the hub."""
        return self._daemon.left

    def left(self) -> str:
        """How many runners are still at work."""
        busy = sum(1 for runner in self._daemon.plan.runners.values() if runner.handed)
        return f"finishing what runs on {plural(busy, 'runner')}" if busy and not self.drained else ""


class Watcher:
    """Says when the daemon has joined; ends the loop when it is refused, or the hub does not come.

    Parameters
    ----------
    address
        The hub's.
    daemon, loop
        What to watch, and what to end.
    connect_timeout
        Seconds until the first welcome; 0: for ever.
    has_ticket
        Whether it comes with keys.
    """

    def __init__(self, address: Address, daemon: Daemon, loop: Loop, connect_timeout: float, has_ticket: bool) -> None:
        self._has_ticket = has_ticket
        self._address = address
        self._daemon = daemon
        self._loop = loop
        self._timeout = connect_timeout
        self._deadline = loop.now() + connect_timeout if connect_timeout else NEVER
        self._joined = False
        self._trouble: str | None = None
        self._log = logging.getLogger("taskmesh.worker")
        self._log.setLevel(max(logging.WARNING, logging.getLogger().level))  # the ready line says that it joined
        self.ready_line = ""
        self.failure: CommandError | None = None
        loop.add_part(self)

    def on_time(self, now: float) -> None:
        """Look at the daemon."""
        if self._daemon.refused is not None:
            self._fail(ExitCode.REFUSED, f"the hub at {self._address} refused: {self._daemon.refused}")
        elif not self._joined and self._daemon.membership.registered:
            self._joined = True
            self._deadline = NEVER
            self._log.setLevel(logging.NOTSET)
            print(self.ready_line, flush=True)
        elif self._daemon.membership.trouble not in (None, self._trouble):
            self._explain(self._daemon.membership.trouble)
        elif now >= self._deadline and not self._daemon.plan.draining:
            self._give_up()

    def _give_up(self) -> None:
        """It has not joined in time."""
        from ..transport.diagnosis import diagnose

        within, why = f"within {self._timeout:g} s", self._daemon.membership.postponed
        if why is not None:
            self._fail(ExitCode.REFUSED, f"the hub at {self._address} did not take this worker in {within}: {why}")
        else:
            self._fail(ExitCode.UNREACHABLE, f"no hub answered {within}: {diagnose(self._address)}")

    def _explain(self, trouble: str | None) -> None:
        """No connection comes about. Before it has joined, what a hub says itself is final."""
        from ..transport.handshake import explained

        self._trouble = trouble
        if trouble == self._daemon.membership.postponed:
            self._log.warning("the hub at %s takes no worker in now: %s; asking again", self._address, trouble)
            return
        why, final = explained(trouble or "", self._address, self._has_ticket)
        if final and not self._joined:
            self._fail(ExitCode.REFUSED, f"no connection with the hub at {self._address}: {why}")
        else:
            self._log.warning("no connection with the hub at %s: %s", self._address, why)

    def _fail(self, code: ExitCode, text: str) -> None:
        self.failure = CommandError(code, text)
        self._loop.stopping = True

    def next_deadline(self) -> float:
        """When to give up."""
        return self._deadline
