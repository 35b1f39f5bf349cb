"""`taskmesh events`: what happens at a hub, as it happens."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from ..core.access import Role
from ..core.messages import StatusRequest
from ..errors import RegistrationRefused
from ..security.ticket import Ticket
from ..transport.endpoints import Address, reached
from .asking import ask, no_hub, whom_to_ask
from .logs import printable
from .options import AskedHub, Insecure, TicketFile, examples
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
    timeout: Annotated[
        float,
        typer.Option(min=0.1, metavar="SECONDS", envvar="TASKMESH_TIMEOUT", help="How long to wait for the hub."),
    ] = 5.0,
    ticket: TicketFile = None,
    insecure: Insecure = False,
) -> None:
    """Show what happens at a hub, as it happens: who joins, leaves or is refused, and what is done with tickets.

    That takes an admin's ticket. Lines are numbered: where a number is left out, an event was missed. If the hub goes
    away they go on when it is back.
    """
    address, found = whom_to_ask(hub, ticket, insecure, Role.ADMIN)
    document = document_of(ask(address, found, StatusRequest(), timeout), address)
    endpoint = document.get("events")
    if not isinstance(endpoint, str):
        raise RegistrationRefused(f"the hub at {address} tells no events to this ticket, or to nobody")
    print(f"taskmesh events of {address}; Ctrl-C ends", file=sys.stderr, flush=True)
    for event in _told(reached(endpoint, str(address)), address, found):
        print(json.dumps(event) if as_json else _line(event), flush=True)


def _told(endpoint: str, address: Address, ticket: Ticket | None) -> Iterator[dict[str, Any]]:
    """What the hub tells, for ever.

    Raises
    ------
    RegistrationRefused
        The ticket is good no more, or what comes are no events.
    """
    import zmq

    from ..joining import credentials_of
    from ..transport.curve import present
    from ..transport.handshake import LASTING, HandshakeWatch
    from ..transport.sockets import connect, make

    context = zmq.Context()
    try:
        sock = make(context, zmq.SUB)
        watch = HandshakeWatch(sock, ticket is not None)
        present(sock, credentials_of(ticket) if ticket is not None else None)
        sock.setsockopt(zmq.SUBSCRIBE, b"")
        connect(sock, endpoint)
        poller = zmq.Poller()
        poller.register(sock, zmq.POLLIN)
        poller.register(watch.monitor, zmq.POLLIN)
        while True:
            ready = dict(poller.poll())
            if sock in ready:
                yield _event(sock.recv(), address)
            why = watch.failure()
            if why in LASTING:
                raise RegistrationRefused(f"no more events of the hub at {address}: {why}")
    finally:
        context.destroy(linger=0)


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
