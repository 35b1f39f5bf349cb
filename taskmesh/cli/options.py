"""Options that several verbs have, and what they mean."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Annotated

import typer

from ..sizes import parse_size, show_size

DEFAULT_HUB = "tcp://127.0.0.1:5555"


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
        help="Log this and what is worse, to stderr: debug, info, warning or error.",
    ),
]


def finite(value: float) -> float:
    """A number of seconds, or so many per second; the callback of options.

    Raises
    ------
    typer.BadParameter
        It is infinite, or none.
    """
    if not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value


Timeout = Annotated[
    float,
    typer.Option(
        "--timeout",
        min=0.1,
        callback=finite,
        metavar="SECONDS",
        envvar="TASKMESH_TIMEOUT",
        help="How long to wait for the hub's answer.",
    ),
]


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
