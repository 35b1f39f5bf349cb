"""`taskmesh ticket`: who may join a hub. It asks the hub if one runs, and changes the hub's files if none does.

The lock on the keys directory says which. A ticket's key pair is made here; a hub is sent the public half alone.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..core import messages as m
from ..core.access import NEVER, Role
from ..security import keys as curve
from ..security.ticket import Ticket, iso, name_fault, parse_validity, ticket_text, write_ticket
from ..transport.endpoints import parse_address
from .exits import CommandError, ExitCode
from .logs import printable
from .options import Timeout, examples, paragraphs, reachable
from .register import Where, register_of
from .tables import ticket_table

PLAIN_WIDTH = 200  # columns of a table that goes to a file

HELP = """Make, list and revoke tickets: the files that let clients and workers join a hub.

A hub makes three on its first start, for processes of the same user on its machine, which find them by themselves.
Everybody else needs one of these. A running hub is asked, with an admin ticket, and acts at once, without a restart;
if none runs, its files are changed, and the next one knows.
"""
EXAMPLES = examples(
    ("taskmesh ticket create --role client --name laptop --expires 30d", "Writes laptop.ticket."),
    ("taskmesh ticket create --role worker --name farm --address tcp://10.0.0.5:5555", "For other machines."),
    ("taskmesh ticket list", "Who may join, and until when."),
    ("taskmesh ticket revoke laptop", "Not any more, from this moment on."),
)
CREATE_EXAMPLES = examples(
    ("taskmesh ticket create --role client --name laptop --expires 30d", "Writes laptop.ticket; bring it there."),
    ("taskmesh ticket create --role worker --name farm --address tcp://10.0.0.5:5555", "The hub as others see it."),
    ("taskmesh ticket create --role client --name ci --out - | ssh ci 'umask 77; cat > ci.ticket'", "No file here."),
    ("taskmesh ticket create --role admin --name me --ticket admin.ticket", "At the hub that this ticket is for."),
)
LIST_EXAMPLES = examples(
    ("taskmesh ticket list", "Of the hub on this machine."),
    ("taskmesh ticket list --json | jq -r '.[] | select(.state == \"good\") | .name'", "For scripts."),
)
REVOKE_EXAMPLES = examples(
    (
        "taskmesh ticket revoke laptop",
        "Its connections are closed, and the work that was submitted with it is dropped.",
    ),
    ("taskmesh ticket revoke farm --ticket admin.ticket", "At the hub that this ticket is for."),
)

app = typer.Typer(rich_markup_mode="rich")

Keys = Annotated[
    str | None,
    typer.Option(
        "--keys",
        metavar="DIR",
        envvar="TASKMESH_KEYS",
        help="The hub's keys directory, as given to the hub. [dim]\\[default: ~/.config/taskmesh/hub-PORT][/]",
    ),
]
Hub = Annotated[
    str | None,
    typer.Option(
        "--hub",
        metavar="ADDRESS",
        envvar="TASKMESH_HUB",
        help="The hub's address. [dim]\\[default: that in the admin ticket][/]",
    ),
]
AdminTicket = Annotated[
    str | None,
    typer.Option(
        "--ticket",
        metavar="FILE",
        envvar="TASKMESH_TICKET",
        help="An admin ticket to ask the hub with. [dim]\\[default: the one of the hub on this machine][/]",
    ),
]


@app.callback(invoke_without_command=True, help=paragraphs(HELP), epilog=EXAMPLES)
def ticket(context: typer.Context) -> None:
    """What the three verbs have in common."""
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(ExitCode.USAGE)


def create(
    role: Annotated[Role, typer.Option(metavar="ROLE", help="What it allows: admin, client or worker.")],
    name: Annotated[str, typer.Option(metavar="NAME", help="What lists and logs call it; used only once.")],
    expires: Annotated[str, typer.Option(metavar="TIME", help="How long it is good: 90m, 12h, 30d, never.")] = "never",
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Where to write it; - is standard output. [dim]\\[default: NAME.ticket, here][/]"
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="The hub, as the holder reaches it. [dim]\\[default: that in the admin ticket][/]"
        ),
    ] = None,
    keys: Keys = None,
    hub: Hub = None,
    ticket: AdminTicket = None,
    timeout: Timeout = 5.0,
) -> None:
    """Make a ticket: a small text file that lets its holder join the hub.

    A client submits tasks, and sees its own. A worker runs them; many workers may share a ticket. An admin does what
    a client does, makes and revokes tickets, and sees everything.

    The key pair is made here, and the hub learns its public half alone.
    """
    fault = name_fault(name) or ('begins with "-", as options do' if name.startswith("-") else None)
    if fault is not None:
        raise CommandError(ExitCode.USAGE, f"--name: the name of a ticket {fault}")
    try:
        valid_s = parse_validity(expires)
    except ValueError as error:
        raise CommandError(ExitCode.USAGE, f"--expires: {error}") from None
    said = reachable(address, "--address") if address else None
    path = None if out == "-" else Path(out or f"{name}.ticket")
    public, secret = curve.new_pair()
    now = time.time()
    with register_of(Where(keys, hub, ticket, timeout)) as register:
        at, hub_key = register.advertised()
        made = Ticket(said or at, hub_key, public, secret, role, name, now + valid_s if valid_s else NEVER)
        if path is not None:
            write_ticket(path, made, replace=False)  # first: a ticket that is good and nowhere is of no use
        try:
            register.change(
                m.CreateTicket(name, role.value, curve.raw(public), valid_s),
                lambda keyring: keyring.create(name, role, curve.raw(public), now, made.expires_at),
            )
        except BaseException:
            if path is not None:
                path.unlink(missing_ok=True)
            raise
    if path is None:
        print(ticket_text(made), end="")
    else:
        _say_created(made, path, only_here=not said and parse_address(at).is_local)


def _say_created(made: Ticket, path: Path, only_here: bool) -> None:
    until = "for ever" if made.expires_at == NEVER else f"until {iso(made.expires_at)}"
    print(f"{printable(str(path))}: a ticket for role {made.role} at the hub {made.hub}, good {until}")
    use = {
        Role.ADMIN: "taskmesh ticket list --ticket FILE",
        Role.CLIENT: "Mesh(ticket=FILE), or set TASKMESH_TICKET=FILE for the script",
        Role.WORKER: "taskmesh worker --ticket FILE",
    }[made.role]
    print(f"Bring it there by a way that nobody reads (scp), keep it like an ssh key, and use it: {use}")
    if only_here:
        print(
            f"note: {made.hub} is this machine alone. For another machine say how it reaches the hub: "
            f"--address tcp://HOST:PORT",
            file=sys.stderr,
        )


def list_(
    as_json: Annotated[
        bool, typer.Option("--json", envvar="TASKMESH_JSON", metavar="", help="Print a JSON list, and no table.")
    ] = False,
    keys: Keys = None,
    hub: Hub = None,
    ticket: AdminTicket = None,
    timeout: Timeout = 5.0,
) -> None:
    """List every ticket that was ever made for a hub.

    The last column is the fingerprint of its key.
    """
    with register_of(Where(keys, hub, ticket, timeout)) as register:
        entries = register.change(m.ListTickets(), lambda keyring: None)
    if as_json:
        print(json.dumps(entries, indent=2))
        return
    console = Console() if Console().is_terminal else Console(width=PLAIN_WIDTH)
    console.print(ticket_table(entries))


def revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The ticket's name: see taskmesh ticket list.")],
    keys: Keys = None,
    hub: Hub = None,
    ticket: AdminTicket = None,
    timeout: Timeout = 5.0,
) -> None:
    """Revoke a ticket: whoever came with it is put out, and nobody gets in with it again.

    What its clients have submitted is dropped; what its workers were running is run by others. It cannot be undone:
    make a new ticket instead, of another name.
    """
    with register_of(Where(keys, hub, ticket, timeout)) as register:
        register.change(m.RevokeTicket(name), lambda keyring: keyring.revoke(name, time.time()))
        effect = "the hub has put out whoever came with it" if register.running else "the next hub here will know"
    print(f"the ticket {printable(name)!r} is revoked; {effect}")


app.command("create", help=paragraphs(create.__doc__), epilog=CREATE_EXAMPLES)(create)
app.command("list", help=paragraphs(list_.__doc__), epilog=LIST_EXAMPLES)(list_)
app.command("revoke", help=paragraphs(revoke.__doc__), epilog=REVOKE_EXAMPLES)(revoke)
