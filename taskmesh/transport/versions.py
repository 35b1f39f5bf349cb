"""What a process tells others of itself: which Python it runs, and on which machine."""

from __future__ import annotations

import platform
import sys

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
"""As a hub and its peers compare it: pickles and code cross between them."""


def host_name() -> str:
    """What this machine is called."""
    return platform.node() or "localhost"
