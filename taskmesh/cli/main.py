"""`taskmesh`: its verbs, and how each ends: with one clear line and an exit code that means something."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterable
from importlib import import_module
from typing import Annotated, NoReturn

import typer

from .. import __version__
from ..errors import TaskmeshError
from ..transport.versions import PYTHON
from .exits import BY_SIGNAL, CommandError, ExitCode, code_of
from .options import examples, paragraphs

# The base of click's errors. Older releases of typer import click, newer ones carry a copy of it.
USAGE_ERROR: type[Exception] = next(cls for cls in typer.BadParameter.__mro__ if cls.__name__ == "ClickException")
EPILOG = "\n\n".join(
    [
        examples(
            ("taskmesh hub", "In one terminal: the hub."),
            ("taskmesh worker tcp://127.0.0.1:5555", "In another: a worker for each core."),
            ("TASKMESH_HUB=tcp://127.0.0.1:5555 python script.py", "A script that calls f.submit and names no mesh."),
            ("taskmesh status", "What is going on."),
            ("taskmesh events", "Who joins, leaves and is refused, as it happens."),
            ("taskmesh ticket create --role client --name laptop", "Let somebody else in."),
        ),
        " ",
        "Options can be set by the environment variables that are shown beside them.",
        "[bold]Exit codes[/]: 0 done; 1 failed; 2 wrong usage or address; 3 no hub answers; "
        "4 the hub refused; 5 cannot listen there; 6 the store cannot be used; 7 keys or a ticket cannot be used; "
        "130, 143 stopped at once by a second Ctrl-C or SIGTERM.",
    ]
)

app = typer.Typer(
    name="taskmesh",
    epilog=EPILOG,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
VERBS = ("hub", "worker", "status", "events", "ticket")


def _add_verbs(names: Iterable[str]) -> None:
    """Only what is asked for is imported: a worker starts sooner without the hub's half of taskmesh."""
    for name in names:
        verb = import_module(f"{__package__}.{name}")
        if name == "ticket":
            app.add_typer(verb.app, name=name)
        else:
            run = getattr(verb, name)
            app.command(name, help=paragraphs(run.__doc__), epilog=verb.EXAMPLES)(run)


def _version(asked: bool) -> None:
    if asked:
        print(f"taskmesh {__version__} (Python {PYTHON})")
        raise typer.Exit


HELP = """A distributed task queue on ZeroMQ, without a broker to run.

A hub knows what is to be done; workers, one on each machine, do it. A script that needs only this machine
needs neither: Mesh() starts everything itself.
"""


@app.callback(invoke_without_command=True, help=paragraphs(HELP))
def taskmesh(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """What all verbs have in common."""
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(ExitCode.USAGE)


def main() -> NoReturn:
    """Run the command line; never returns."""
    verb = _asked()
    _add_verbs([verb] if verb in VERBS else VERBS)
    code = _run()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_stdout()
    sys.exit(code)


def _asked() -> str:
    """The verb that is asked for, or what stands in its place; nothing if nothing does."""
    return sys.argv[1] if len(sys.argv) > 1 else ""


def _run() -> int:
    try:
        return int(app(prog_name="taskmesh", standalone_mode=False) or ExitCode.OK)
    except CommandError as error:
        return _complain(error.code, str(error))
    except TaskmeshError as error:
        return _complain(code_of(error), str(error))
    except USAGE_ERROR as error:
        return _complain(ExitCode.USAGE, _usage(error))
    except (KeyboardInterrupt, typer.Abort):
        return BY_SIGNAL + signal.SIGINT
    except BrokenPipeError:  # whoever read our output has had enough
        _forget_stdout()
        return BY_SIGNAL + signal.SIGPIPE
    except OSError as error:
        logging.getLogger("taskmesh").debug("where it failed:", exc_info=True)
        return _complain(ExitCode.FAILED, str(error))


def _usage(error: BaseException) -> str:
    context, verb = getattr(error, "ctx", None), _asked()  # the parser's own errors have no context
    command = context.command_path if context else f"taskmesh {verb}" if verb in VERBS else "taskmesh"
    text = str(error.format_message())  # type: ignore[attr-defined]
    text += "" if text.endswith((".", "?")) else "."
    return f"{text} Try: {command} --help"


def _complain(code: ExitCode, text: str) -> ExitCode:
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(Text.assemble(("taskmesh: ", "bold red"), " ".join(text.split())))
    return code


def _forget_stdout() -> None:
    """So that the interpreter does not fail on it once more when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
