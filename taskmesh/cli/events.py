"""`taskmesh events`: what happens at a hub, as it happens."""

from __future__ import annotations

import json
import math
import signal
import sys
import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from ..core.access import Role
from ..core.messages import StatusRequest
from ..errors import HubUnreachable, RegistrationRefused
from ..security.ticket import Ticket
from ..transport.endpoints import Address, reached
from .asking import ask, no_hub, whom_to_ask
from .exits import BY_SIGNAL
from .logs import printable
from .options import AskedHub, Insecure, TicketFile, Timeout, examples
from .status import document_of

EXAMPLES = examples(
    ("taskmesh events", "The hub on this machine, until Ctrl-C."),
    ("taskmesh events tcp://10.0.0.5:5555 --ticket ops.ticket", "Another one, with an admin's ticket."),
    ("taskmesh events --json | jq 'select(.event == \"left\")'", "For scripts: one JSON document a line."),
)


def events(
    hub: AskedHub = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", envvar="TASKMESH_JSON", metavar="", help="Print JSON lines, as the hub sends them."),
    ] = False,
    timeout: Timeout = 5.0,
    ticket: TicketFile = None,
    insecure: Insecure = False,
) -> None:
    """Show what happens at a hub, as it happens: who joins, leaves or is refused, and what is done with tickets.

    That takes an admin's ticket. Lines are numbered, from 1 on at each start of the hub: where a number is left out, an
    event was missed. If the hub goes away they go on when it is back.
    """
    address, found = whom_to_ask(hub, ticket, insecure, Role.ADMIN)
    document = document_of(ask(address, found, StatusRequest(), timeout), address)
    endpoint = document.get("events")
    if not isinstance(endpoint, str):
        raise RegistrationRefused(f"the hub at {address} tells no events to this ticket, or to nobody")
    reading = Reading(address, reached(endpoint, str(address)), found)
    try:
        for event in reading.events(timeout):
            print(json.dumps(event) if as_json else _line(event), flush=True)
    except BrokenPipeError:  # whoever read our output has had enough
        raise typer.Exit(BY_SIGNAL + signal.SIGPIPE) from None
    finally:
        reading.close()


class Reading:
    """A subscription to a hub's events.

    Parameters
    ----------
    address
        The hub's, for people.
    endpoint
        Of its events channel.
    ticket
        Who reads; None where there are no keys.
    """

    def __init__(self, address: Address, endpoint: str, ticket: Ticket | None) -> None:
        import zmq

        from ..joining import credentials_of
        from ..transport.curve import present
        from ..transport.handshake import HandshakeWatch
        from ..transport.sockets import connect, make

        self._address, self._endpoint = address, endpoint
        self._was_connected = False
        self._context = zmq.Context()
        self._sock = make(self._context, zmq.SUB)
        self._watch = HandshakeWatch(self._sock, ticket is not None, ends=True)
        present(self._sock, credentials_of(ticket) if ticket is not None else None)
        self._sock.setsockopt(zmq.SUBSCRIBE, b"")
        connect(self._sock, endpoint)

    def events(self, timeout: float) -> Iterator[dict[str, Any]]:
        """What the hub tells, for ever. It is waited for, if it goes away.

        Parameters
        ----------
        timeout
            How long the first connection may take, in seconds.

        Raises
        ------
        HubUnreachable
            It took longer.
        RegistrationRefused
            The ticket is good no more, or what comes are no events.
        """
        import zmq

        poller = zmq.Poller()
        poller.register(self._sock, zmq.POLLIN)
        poller.register(self._watch.monitor, zmq.POLLIN)
        end = time.monotonic() + timeout
        met = False
        while True:
            left = None if met else max(0.0, end - time.monotonic())
            ready = dict(poller.poll(None if left is None else math.ceil(left * 1000)))
            if self._sock in ready:
                yield _event(self._sock.recv(), self._address)
            self._look()
            met = met or self._watch.connected
            if not met and left == 0.0:
                raise HubUnreachable(
                    f"the hub at {self._address} tells its events at {self._endpoint}, and nobody answers there within "
                    f"{timeout:g} s: does a firewall let in that port?"
                )

    def _look(self) -> None:
        """Say whether the hub is there, when that has changed."""
        from ..transport.handshake import LASTING

        why = self._watch.failure()
        if why in LASTING:
            raise RegistrationRefused(f"no more events of the hub at {self._address}: {why}")
        if self._watch.connected != self._was_connected:
            self._was_connected = self._watch.connected
            news = "cut off from the hub; trying again"
            if self._was_connected:
                news = f"events of {self._address}; Ctrl-C ends"
            print(news, file=sys.stderr, flush=True)  # an error begins with "taskmesh:"

    def close(self) -> None:
        """Let go of the hub."""
        self._context.destroy(linger=0)


def _event(data: bytes, address: Address) -> dict[str, Any]:
    try:
        event = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise no_hub(address, str(error)) from error
    if not isinstance(event, dict):
        raise no_hub(address)
    return event


def _line(event: dict[str, Any]) -> str:
    """An event for people; texts in it come from peers."""
    known = ("number", "time", "event")
    number, time, what = (printable(str(event.get(name, "?"))) for name in known)
    rest = "  ".join(f"{name}={value}" for name, value in event.items() if name not in known and value is not None)
    return f"{number:>6}  {time}  {what:20}  {printable(rest)}".rstrip()
