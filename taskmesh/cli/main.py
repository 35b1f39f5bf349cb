"""`taskmesh`: its verbs, and how each ends: with one clear line and an exit code that means something."""

from __future__ import annotations

import contextlib
import errno
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
from .logs import printable
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
        "130, 143, 129 stopped at once by Ctrl-C, SIGTERM or SIGHUP, hub and worker by a second one; "
        "141 whoever read the output has closed it.",
    ]
)

app = typer.Typer(
    name="taskmesh",
    epilog=EPILOG,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
MEANT = {
    "--port": "An address has the port in it: --listen tcp://127.0.0.1:PORT",
    "--host": "An address has the host in it: --listen tcp://HOST:5555",
    "--bind": "It is called --listen: --listen tcp://HOST:5555",
}
NOT_WRITTEN = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""What is said of standard output, which has no name. Whoever writes a file says which."""
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
        bool, typer.Option("--version", "-V", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """What all verbs have in common."""
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(ExitCode.USAGE)


def main() -> NoReturn:
    """Run the command line; never returns."""
    _open_standard_streams()
    code = _run()
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read our output has had enough
        _forget_stdout()
        code = BY_SIGNAL + signal.SIGPIPE
    except OSError as error:
        code = _output_failed(error)
    sys.exit(code)


def _open_standard_streams() -> None:
    """Those that were closed lead nowhere: else the next file or socket that is opened would take their place."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest number that is free
    if sys.stdout is None:
        sys.stdout = open(1, "w")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w")  # noqa: SIM115


def _asked() -> str:
    """The verb that is asked for, or what stands in its place; nothing if nothing does."""
    return sys.argv[1] if len(sys.argv) > 1 else ""


def _run() -> int:
    try:
        verb = _asked()
        _add_verbs([verb] if verb in VERBS else VERBS)
        return int(app(prog_name="taskmesh", standalone_mode=False) or ExitCode.OK)
    except CommandError as error:
        return _complain(error.code, str(error))
    except TaskmeshError as error:
        return _complain(code_of(error), str(error))
    except USAGE_ERROR as error:
        return _complain(ExitCode.USAGE, _usage(error))
    except (KeyboardInterrupt, typer.Abort):
        return BY_SIGNAL + signal.SIGINT
    except BrokenPipeError:
        _forget_stdout()
        return BY_SIGNAL + signal.SIGPIPE
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # rich has met it, and means to end the process
            return BY_SIGNAL + signal.SIGPIPE
        raise
    except OSError as error:
        logging.getLogger("taskmesh").debug("where it failed:", exc_info=True)
        return _failed(error)


def _failed(error: OSError) -> ExitCode:
    """The system has refused something that nobody expected it to; say what, as far as it can be told."""
    if error.filename is None and error.errno in NOT_WRITTEN:
        return _output_failed(error)
    why = error.strerror or str(error)
    if error.filename is not None:
        return _complain(ExitCode.FAILED, f"{printable(os.fsdecode(error.filename))}: {why}")
    try:
        os.getcwd()
    except OSError:
        return _complain(ExitCode.FAILED, "the working directory is gone: cd to another one, and start again")
    return _complain(ExitCode.FAILED, f"{_asked()} failed: {why}. --log-level debug of hub and worker says where")


def _output_failed(error: OSError) -> ExitCode:
    _forget_stdout()
    return _complain(ExitCode.FAILED, f"standard output cannot be written: {error.strerror}")


def _usage(error: BaseException) -> str:
    context, verb = getattr(error, "ctx", None), _asked()  # the parser's own errors have no context
    command = context.command_path if context else f"taskmesh {verb}" if verb in VERBS else "taskmesh"
    text = str(error.format_message())  # type: ignore[attr-defined]
    wrong = str(getattr(error, "option_name", ""))
    if wrong in MEANT:
        return f"No such option: {wrong}. {MEANT[wrong]}"
    if verb == "version" and context is not None and context.parent is None:
        command = "taskmesh --version, or taskmesh"
    text += "" if text.endswith((".", "?")) else "."
    return f"{text} Try: {command} --help"


def _complain(code: ExitCode, text: str) -> ExitCode:
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, soft_wrap=True, highlight=False)
    with contextlib.suppress(OSError, SystemExit):  # nobody can be told; the code says it all the same
        console.print(Text.assemble(("taskmesh: ", "bold red"), " ".join(text.split())))
    return code


def _forget_stdout() -> None:
    """So that the interpreter does not fail on it once more when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
