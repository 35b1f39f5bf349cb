"""Which Python this is, as a hub and its peers compare it: pickles and code cross between them."""

from __future__ import annotations

import sys

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
