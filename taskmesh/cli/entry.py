"""Where the command `taskmesh` begins. Importing its parts takes a moment, in which Ctrl-C is no traceback either."""

from __future__ import annotations

import signal
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line; never returns."""
    try:
        from .main import main as run
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    run()
