"""How a command ends: exit codes that scripts and service managers can act on, and the error with one."""

from __future__ import annotations

from enum import IntEnum

from ..errors import (
    AddressError,
    HubUnreachable,
    KeysError,
    RegistrationRefused,
    StoreError,
    TaskmeshError,
    TicketError,
)

BY_SIGNAL = 128  # plus the number of the signal: 130 for Ctrl-C, 143 for SIGTERM


class ExitCode(IntEnum):
    """What the command line's exit codes mean. Documented in docs/cli.md."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    REFUSED = 4
    ADDRESS = 5
    STORE = 6
    KEYS = 7


class CommandError(Exception):
    """A command ends with `code`, and one line that says why."""

    def __init__(self, code: ExitCode, text: str) -> None:
        super().__init__(text)
        self.code = code


def code_of(error: TaskmeshError) -> ExitCode:
    """The exit code that an error of the library means."""
    if isinstance(error, RegistrationRefused):
        return ExitCode.REFUSED
    if isinstance(error, HubUnreachable):
        return ExitCode.UNREACHABLE
    if isinstance(error, AddressError):
        return ExitCode.USAGE
    if isinstance(error, StoreError):
        return ExitCode.STORE
    if isinstance(error, KeysError | TicketError):
        return ExitCode.KEYS
    return ExitCode.FAILED
