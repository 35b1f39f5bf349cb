"""`taskmesh hub`: the process that clients and workers join."""

from __future__ import annotations

import errno
import fcntl
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from ..core.quota import DEFAULT, Quotas
from ..core.sessions import SESSION_GRACE_S
from ..core.timing import Timing
from ..errors import AddressError, KeysError, StoreError
from ..sizes import show_size
from ..store import default_store_url, opener, store_path
from ..transport.endpoints import CHANNELS, LANE_PORTS, Address, is_socket_name, parse_address, parse_ports
from .exits import CommandError, ExitCode, code_of
from .guard import HUB_RISK, private_directory, warn_insecure
from .keys import address_in_tickets, keyring, publish
from .logs import plural, set_up
from .options import (
    DEFAULT_HUB,
    EVERY_ADDRESS,
    MOST,
    YEAR_S,
    Insecure,
    Level,
    LogLevel,
    examples,
    number,
    reachable,
    size,
    whole,
)

if TYPE_CHECKING:
    from ..hub import Hub
    from ..security.keyring import Keyring
    from ..transport.loop import Loop

LEAST_MESSAGE = 1 << 20  # bytes: chunks of small calls and items have an eighth of that
EXAMPLES = examples(
    ("taskmesh hub", "On this machine, port 5555."),
    ("taskmesh hub --listen tcp://127.0.0.1:0", "On free ports; the first line of output names the address."),
    ("taskmesh hub --listen ipc:///run/user/1000/taskmesh", "No ports: sockets in a directory of your own."),
    (
        "taskmesh hub --listen tcp://10.0.0.5:5555 --lanes 5600-5699",
        "For other machines, which need a ticket each. The firewall lets in 5555-5558 and 5600-5699.",
    ),
    ("taskmesh ticket create --role worker --name gpu-box", "The ticket for one: bring the file there."),
)


def hub(
    listen: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            envvar="TASKMESH_LISTEN",
            help="Where to listen: tcp://HOST:PORT or ipc:///DIRECTORY. The three ports after PORT "
            "are taken too. Port 0 picks free ones.",
        ),
    ] = DEFAULT_HUB,
    lanes: Annotated[
        str | None,
        typer.Option(
            metavar="FIRST-LAST",
            envvar="TASKMESH_LANES",
            help="Ports for the lanes, one for each client and worker. "
            f"[dim]\\[default: {LANE_PORTS[0]}-{LANE_PORTS[1]}; any free ones with port 0][/]",
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar="TASKMESH_STORE",
            help="Where to keep accepted work, so that a hub that was killed goes on where it was: "
            "sqlite:///ABSOLUTE/PATH, or memory for nowhere. "
            "[dim]\\[default: a file for each port in ~/.local/state/taskmesh; memory with port 0][/]",
        ),
    ] = None,
    session_grace: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            envvar="TASKMESH_SESSION_GRACE",
            parser=number(0, YEAR_S),
            help="How long a client that was cut off may stay away before its work is cancelled.",
        ),
    ] = SESSION_GRACE_S,
    keys: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            envvar="TASKMESH_KEYS",
            help="Where this hub's keys and tickets are; made at the first start. "
            "[dim]\\[default: ~/.config/taskmesh/hub-PORT; with port 0 they go with the hub][/]",
        ),
    ] = None,
    advertise: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            envvar="TASKMESH_ADVERTISE",
            help="The address by which others reach this hub, for its tickets. "
            "[dim]\\[default: that of --listen; this machine's name if that is every address][/]",
        ),
    ] = None,
    max_peers: Annotated[
        int,
        typer.Option(
            parser=whole(1, MOST),
            metavar="N",
            envvar="TASKMESH_MAX_PEERS",
            help="How many clients and workers may be there at a time.",
        ),
    ] = int(DEFAULT.peers),
    max_registrations: Annotated[
        float,
        typer.Option(
            parser=number(0.1, MOST),
            metavar="N",
            envvar="TASKMESH_MAX_REGISTRATIONS",
            help="How many may join per second with one ticket; five times as many at once.",
        ),
    ] = DEFAULT.registrations_per_s,
    max_queued: Annotated[
        str,
        typer.Option(
            metavar="SIZE",
            envvar="TASKMESH_MAX_QUEUED",
            help="What one client may have here, in calls that have not ended and results that it has not fetched.",
        ),
    ] = show_size(DEFAULT.queued_bytes).replace(" ", ""),
    max_message: Annotated[
        str,
        typer.Option(
            metavar="SIZE",
            envvar="TASKMESH_MAX_MESSAGE",
            help="How large the arguments of a call, or its result, may be: at least 1MiB.",
        ),
    ] = show_size(DEFAULT.message_bytes).replace(" ", ""),
    insecure: Insecure = False,
    log_level: Level = LogLevel.INFO,
) -> None:
    """Run a hub: clients submit tasks to it, workers fetch tasks from it.

    Prints one line with its address when it can be joined. Everything is encrypted, and whoever joins needs a ticket:
    processes of this user on this machine find theirs by themselves, for others see: taskmesh ticket.

    Ctrl-C drains: new sessions are refused, what was submitted is finished. A second one stops at once. SIGTERM and
    SIGHUP stop at once when the work is stored: the next hub there goes on with it, and clients and workers wait for
    that. Without a store they drain as well.
    """
    set_up(log_level)
    address = resolve(parse_address(listen, port_zero=True))
    ports = _lanes(address, lanes)
    quotas = Quotas(
        max_peers, max_registrations, size(max_queued, "--max-queued"),
        size(max_message, "--max-message", LEAST_MESSAGE),
    )  # fmt: skip
    reached_by = reachable(advertise, "--advertise") if advertise is not None else None
    _expect_free(address)
    with _alone(address), keyring(address, keys, insecure, reached_by) as ring:
        if insecure and address.scheme == "tcp":
            warn_insecure(address, HUB_RISK)
        setup = Setup(address, ports, store or _default_store(address), session_grace, quotas, reached_by)
        raise typer.Exit(_serve(setup, ring))


class Setup(NamedTuple):
    """How to run a hub: its address, its lanes' ports, its store's URL, and how others reach it."""

    address: Address
    lanes: tuple[int, int] | None
    store: str
    session_grace: float
    quotas: Quotas
    reached_by: str | None


def _default_store(address: Address) -> str:
    if address.scheme == "tcp" and not address.port:
        return "memory"  # nobody would find a hub on another port again
    return default_store_url(address.host if address.scheme == "ipc" else address.port)


def _lanes(address: Address, text: str | None) -> tuple[int, int] | None:
    if address.scheme == "tcp" and address.port > 65535 - len(CHANNELS) + 1:
        raise AddressError(f"port {address.port} is too high: the three ports after it are needed too")
    if text is None:
        return LANE_PORTS if address.port else None
    low, high = parse_ports(text)
    last = address.port + len(CHANNELS) - 1
    if address.port and low <= last and address.port <= high:
        raise AddressError(f"--lanes {text} has ports of the hub itself in it ({address.port}-{last}): choose others")
    return low, high


def resolve(address: Address) -> Address:
    """`address` with a number instead of a name, because a socket is bound to a number.

    Raises
    ------
    CommandError
        The name is not known; it may be later, when the network is up.
    """
    if address.scheme != "tcp":
        return address
    if address.host == "*":
        return address._replace(host="0.0.0.0")
    try:
        found = socket.getaddrinfo(address.host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise CommandError(
            ExitCode.ADDRESS, f"cannot listen on {address}: the name {address.host!r} is not known"
        ) from None
    families = {family: str(where[0]) for family, _, _, _, where in reversed(found)}
    return address._replace(host=families.get(socket.AF_INET) or families[socket.AF_INET6])


def _expect_free(address: Address) -> None:
    """Another hub there has the keys and the store as well: say first what matters.

    Raises
    ------
    CommandError
        A port is in use.
    """
    if address.scheme != "tcp" or not address.port:
        return
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    for port in range(address.port, address.port + len(CHANNELS)):
        try:
            with socket.socket(family) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as ZeroMQ does
                probe.bind((address.host, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                return  # whoever binds in earnest says it
            what = "it is" if port == address.port else f"port {port}, which it takes too, is"
            raise CommandError(
                ExitCode.ADDRESS,
                f"cannot listen on {address}: {what} in use, probably by another hub: "
                f"stop that one, or choose another address with --listen",
            ) from None


@contextmanager
def _alone(address: Address) -> Iterator[None]:
    """The only hub in its ipc directory: a second would take the sockets away from the first, silently."""
    if address.scheme != "ipc":
        yield
        return
    try:
        directory = private_directory(address.host)
    except AddressError as error:
        raise CommandError(ExitCode.ADDRESS, str(error)) from None
    with open(directory / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CommandError(
                ExitCode.ADDRESS,
                f"cannot listen on {address}: it is in use by another hub. Choose another with --listen",
            ) from None
        _sweep(directory)
        try:
            yield
        finally:
            _sweep(directory)


def _sweep(directory: Path) -> None:
    """Remove the sockets of a hub that has ended: control, submit, sink, events and lanes."""
    for path in directory.iterdir():
        if path.is_socket() and is_socket_name(path.name):
            path.unlink(missing_ok=True)


class HubService:
    """A hub, as far as stopping it goes."""

    def __init__(self, hub: Hub, loop: Loop, stored: bool) -> None:
        self._hub = hub
        self._loop = loop
        self.stored = stored

    def drain(self) -> None:
        """Take no new sessions."""
        self._hub.drain()

    @property
    def drained(self) -> bool:
        """Whether every task has ended and every outcome was received."""
        return self._hub.drained

    def left(self) -> str:
        """How many tasks are left, and whether anybody is there to run them."""
        known = self._hub.scheduler.statistics(self._loop.now())
        tasks = sum(session.waiting + session.running for session in known.sessions)
        if not tasks:
            return "" if self.drained else "the last outcomes are on their way to their clients"
        if not known.daemons:
            return f"{plural(tasks, 'task')} left, but no worker to run them"
        where = f"{known.waiting:,} waiting, {tasks - known.waiting:,} with workers"
        return f"{plural(tasks, 'task')} left: {where}"


def _serve(setup: Setup, ring: Keyring | None) -> int:
    from ..hub import Hub, HubConfig
    from ..transport.loop import Loop
    from ..transport.sockets import new_context
    from .service import Stopper

    context, loop = new_context(), Loop()
    open_store = opener(setup.store)
    stored = open_store is not None
    config = HubConfig(
        setup.address,
        setup.lanes,
        Timing(grace_s=setup.session_grace),
        store=open_store,
        quotas=setup.quotas,
        keyring=ring,
        events=True,
    )
    try:
        hub = Hub(config, context, loop)
        if ring is not None:
            publish(hub, ring, setup.reached_by)
    except (AddressError, KeysError, StoreError) as error:
        context.destroy(linger=0)
        code = ExitCode.ADDRESS if isinstance(error, AddressError) else code_of(error)
        raise CommandError(code, str(error)) from None
    cost = "and what is left runs when a hub is started here again" if stored else "and what is left is not run"
    stopper = Stopper(loop, HubService(hub, loop, stored), cost)
    print(f"taskmesh hub is ready at {hub.address}{_remarks(setup, ring, hub.address)}", flush=True)
    loop.run()
    unfinished = stored and not hub.drained
    try:
        hub.close("the hub was stopped" if unfinished or stopper.exit_code else "the hub was shut down", unfinished)
    except StoreError as error:
        raise CommandError(ExitCode.STORE, str(error)) from None
    finally:
        context.destroy()
    return stopper.exit_code


def _remarks(setup: Setup, ring: Keyring | None, at: Address) -> str:
    address, lanes, store = setup.address, setup.lanes, setup.store
    remarks = [f"lanes {lanes[0]}-{lanes[1]}"] if lanes and address.scheme == "tcp" else []
    remarks.append("work is kept in memory only" if store == "memory" else f"work is kept in {store_path(store)}")
    if ring is not None and (told := address_in_tickets(at, setup.reached_by)) != str(at):
        remarks.insert(0, f"its tickets say {told}")
    if address.host in EVERY_ADDRESS:
        remarks.insert(0, "every address of this machine")
    if ring is not None:
        remarks.append(f"keys and tickets are in {ring.directory}")
    return f" ({'; '.join(remarks)})" if remarks else ""
