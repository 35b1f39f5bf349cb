"""Logs of a command: to stderr, coloured on a terminal, otherwise plain lines with times.

Names in log lines come from peers, so control characters are shown and not obeyed.
"""

from __future__ import annotations

import logging
import sys

from .options import LogLevel

notices = logging.getLogger("taskmesh.notice")
"""What has to be said whatever the log level is: warnings about security, and that a shutdown has begun."""


def printable(text: str) -> str:
    """`text` with everything escaped that a terminal or a log reader could take for more than text."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def plural(count: int, noun: str) -> str:
    """`1 task`, `2 tasks`."""
    return f"{count} {noun}" if count == 1 else f"{count:,} {noun}s"


class OneLine(logging.Formatter):
    """A formatter whose messages are one line, whatever is in them. A traceback follows on its own lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        return printable(super().formatMessage(record))


def set_up(level: LogLevel) -> None:
    """Send the log to stderr."""
    handler: logging.Handler
    if sys.stderr.isatty():
        from rich.console import Console  # nobody waits for it where there is no terminal
        from rich.highlighter import NullHighlighter
        from rich.logging import RichHandler

        handler = RichHandler(
            console=Console(stderr=True),
            highlighter=NullHighlighter(),  # colours in names and numbers say nothing
            show_path=False,
            log_time_format="%H:%M:%S",
            omit_repeated_times=False,
        )
        handler.setFormatter(OneLine("%(message)s"))
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(OneLine("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    notices.setLevel(logging.INFO)
