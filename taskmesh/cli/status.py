"""`taskmesh status`: what a hub knows of its workers, clients and tasks."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live

from .. import __version__
from ..core.messages import ControlMessage, StatusReply, StatusRequest
from ..errors import RegistrationRefused
from ..security.ticket import Ticket
from ..transport.endpoints import Address
from .asking import ask, no_hub, whom_to_ask
from .logs import printable
from .options import DAY_S, AskedHub, Insecure, TicketFile, Timeout, examples, number

PLAIN_WIDTH = 200  # columns of a table that goes to a file, where nobody knows how wide it may be
EXAMPLES = examples(
    ("taskmesh status", "The hub on this machine."),
    ("taskmesh status tcp://10.0.0.5:5555 --watch 2", "Another one, again every two seconds, until Ctrl-C."),
    ("taskmesh status --ticket ops.ticket", "The hub that this ticket is for."),
    ("taskmesh status --json | jq .waiting", "For scripts: the same document that the tables are made of."),
    ("taskmesh status --timeout 30 > /dev/null", "Wait up to half a minute until the hub answers."),
)


def status(
    hub: AskedHub = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", envvar="TASKMESH_JSON", metavar="", help="Print the hub's JSON document, not tables."),
    ] = False,
    watch: Annotated[
        float,
        typer.Option(
            parser=number(0, DAY_S),
            metavar="SECONDS",
            envvar="TASKMESH_WATCH",
            show_default=False,
            help="Show it again every so many seconds, at most 86400.",
        ),
    ] = 0.0,
    timeout: Timeout = 5.0,
    ticket: TicketFile = None,
    insecure: Insecure = False,
) -> None:
    """Show what a hub knows: its workers, its clients, what waits and how fast it goes.

    Waiting tasks are in the hub's queues. Tasks with workers are running there, or will be next. An admin's ticket
    shows everything, a client's what is its own.
    """
    address, found = whom_to_ask(hub, ticket, insecure)
    console = Console() if Console().is_terminal else Console(width=PLAIN_WIDTH)
    if not watch:
        _print(console, _document(address, found, timeout), as_json)
    elif as_json or not console.is_terminal or console.is_dumb_terminal:
        while True:
            _print(console, _document(address, found, timeout), as_json)
            time.sleep(watch)
    else:
        with Live(console=console, auto_refresh=False, screen=True) as live:
            while True:
                live.update(_tables(_document(address, found, timeout)), refresh=True)
                time.sleep(watch)


def _print(console: Console, document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(document, indent=2), flush=True)
    else:
        console.print(_tables(document))


def _tables(document: dict[str, Any]) -> Group:
    from .tables import tables

    if document.get("version") != __version__:
        raise RegistrationRefused(
            f"the hub runs taskmesh {printable(str(document.get('version')))}, this is {__version__}: "
            f"add --json to see its status as it is"
        )
    try:
        return tables(document)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise RegistrationRefused(
            f"what answers is no hub of this release: its status makes no sense ({type(error).__name__}: "
            f"{printable(str(error))})"
        ) from error


def _document(address: Address, ticket: Ticket | None, timeout: float) -> dict[str, Any]:
    """The hub's status document."""
    return document_of(ask(address, ticket, StatusRequest(), timeout), address)


def document_of(reply: ControlMessage, address: Address) -> dict[str, Any]:
    """The document in a hub's reply.

    Raises
    ------
    RegistrationRefused
        There is none: what answers at `address` is no hub.
    """
    try:
        document = json.loads(reply.document) if isinstance(reply, StatusReply) else None
    except (ValueError, RecursionError) as error:
        raise no_hub(address, str(error)) from error
    if not isinstance(document, dict):
        raise no_hub(address)
    return document
