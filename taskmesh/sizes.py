"""Sizes of memory as people write them: 2GiB, 2G, 500MB, 1048576."""

from __future__ import annotations

import re

UNITS = {"": 1, "B": 1}
UNITS.update({f"{letter}B": 1000**n for n, letter in enumerate("KMGT", 1)})
UNITS.update({letter: 1024**n for n, letter in enumerate("KMGT", 1)})  # as systemd and Java mean it
UNITS.update({f"{letter}IB": 1024**n for n, letter in enumerate("KMGT", 1)})
MOST = 1 << 60  # bytes: whatever counts them has room for that
LONGEST = 30  # characters of a number


def parse_size(size: int | str) -> int:
    """Bytes.

    Parameters
    ----------
    size
        A whole number of bytes, or a number with a unit: kB, MB, GB, TB (1000),
        KiB, MiB, GiB, TiB or K, M, G, T (1024).

    Raises
    ------
    ValueError
        It is no size, not above zero, or far more than there is.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(size)) if not isinstance(size, bool) else None
    unit = UNITS.get(found[2].upper()) if found else None
    if not found or not unit:
        raise ValueError(f"{size!r} is not a size in memory: write bytes, or a number with a unit, like 500MB or 2GiB")
    value = int(float(found[1]) * unit) if len(found[1]) <= LONGEST else 0
    if not 0 < value < MOST:
        raise ValueError(f"{size!r} is not a size in memory: it has to be more than 0, and less than 1 EiB")
    return value


def show_size(size: float) -> str:
    """For people: 1.5 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.3g} {unit}" if size < 1000 else f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.3g} TiB"
