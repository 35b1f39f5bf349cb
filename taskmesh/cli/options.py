"""Options that several verbs have, and what they mean."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated

import typer

from ..sizes import parse_size, show_size
from ..transport.endpoints import parse_address

DEFAULT_HUB = "tcp://127.0.0.1:5555"
EVERY_ADDRESS = ("0.0.0.0", "::")
DAY_S = 86_400.0
YEAR_S = 366 * DAY_S
MOST = 1_000_000_000  # of whatever is counted: what nobody means cannot overflow anything


class LogLevel(StrEnum):
    """How much to log."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


Insecure = Annotated[
    bool,
    typer.Option(
        "--insecure",
        envvar="TASKMESH_INSECURE",
        metavar="",
        help="Go without keys and tickets, on both sides. Nothing is encrypted or authenticated then, and "
        "a task is code: whoever reaches the ports can run anything. Only on a network that you trust.",
    ),
]
AskedHub = Annotated[
    str | None,
    typer.Argument(
        metavar="HUB",
        envvar="TASKMESH_HUB",
        show_default=False,
        help="The hub's address: tcp://HOST:PORT or ipc:///DIRECTORY. "
        f"[dim]\\[default: the one in the ticket, or {DEFAULT_HUB}][/]",
    ),
]
TicketFile = Annotated[
    str | None,
    typer.Option(
        "--ticket",
        metavar="FILE",
        envvar="TASKMESH_TICKET",
        help="The ticket with which to join; it also names the hub. [dim]\\[default: found, on the hub's machine][/]",
    ),
]
Level = Annotated[
    LogLevel,
    typer.Option(
        "--log-level",
        envvar="TASKMESH_LOG_LEVEL",
        metavar="LEVEL",
        case_sensitive=False,
        help="Log this and what is worse, to stderr: debug, info, warning or error.",
    ),
]


def number(least: float, most: float) -> Callable[[str | float], float]:
    """What reads an option that is a number from `least` to `most`; the `parser` of options."""

    def read(given: str | float) -> float:
        try:
            value = float(given)
        except ValueError:
            value = math.nan
        if not least <= value <= most:  # false for nan
            raise typer.BadParameter(f"{given} is not a number from {least:g} to {most:.0f}")
        return value

    return read


def whole(least: int, most: int) -> Callable[[str | int], int]:
    """What reads an option that is a whole number from `least` to `most`; the `parser` of options."""

    def read(given: str | int) -> int:
        text = str(given).strip()
        if not re.fullmatch(r"[+-]?[0-9]{1,20}", text) or not least <= int(text) <= most:
            raise typer.BadParameter(f"{given} is not a whole number from {least:,} to {most:,}")
        return int(text)

    return read


Timeout = Annotated[
    float,
    typer.Option(
        "--timeout",
        parser=number(0.1, DAY_S),
        metavar="SECONDS",
        envvar="TASKMESH_TIMEOUT",
        help="How long to wait for the hub's answer, from 0.1 to 86400.",
    ),
]


def reachable(given: str, option: str) -> str:
    """The address of a hub for its tickets, as given to an option.

    Raises
    ------
    AddressError
        It is no address.
    typer.BadParameter
        Nobody could use a ticket with it.
    """
    address = parse_address(given)
    if address.scheme == "ipc":
        raise typer.BadParameter(
            f"{given} is on the hub's machine alone, where nobody needs a ticket", param_hint=option
        )
    if address.host in EVERY_ADDRESS:
        raise typer.BadParameter(
            f"{given} is every address of the hub's machine: name the one by which to reach it", param_hint=option
        )
    return str(address)


def paragraphs(docstring: str | None) -> str:
    """A docstring as help: a line for each paragraph, because a terminal is as wide as it is."""
    return "\n\n".join(" ".join(part.split()) for part in (docstring or "").split("\n\n"))


def examples(*pairs: tuple[str, str]) -> str:
    """The epilog of a verb: example command lines, each with what it is for."""
    shown = [f"[bold cyan]{command}[/]  [dim]# {purpose}[/]" for command, purpose in pairs]
    return "\n\n".join(["[bold]Examples[/]", *shown])


def size(given: str | None, option: str, least: int = 0) -> int:
    """Bytes, as given to an option; 0 when nothing was given.

    Raises
    ------
    typer.BadParameter
        It is no size, or less than `least` bytes.
    """
    if given is None:
        return 0
    try:
        found = parse_size(given)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None
    if found < least:
        raise typer.BadParameter(f"{given} is too little: at least {show_size(least)}", param_hint=option)
    return found
