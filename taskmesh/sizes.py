"""Sizes of memory as people write them: 2GiB, 500MB, 1048576."""

from __future__ import annotations

import re

UNITS = {"": 1, "B": 1}
UNITS.update({f"{letter}B": 1000**n for n, letter in enumerate("KMGT", 1)})
UNITS.update({f"{letter}IB": 1024**n for n, letter in enumerate("KMGT", 1)})


def parse_size(size: int | str) -> int:
    """Bytes.

    Parameters
    ----------
    size
        A whole number of bytes, or a number with a unit: kB, MB, GB, TB (1000), KiB, MiB, GiB, TiB (1024).

    Raises
    ------
    ValueError
        It is no size, or not above zero.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(size)) if not isinstance(size, bool) else None
    unit = UNITS.get(found[2].upper()) if found else None
    value = int(float(found[1]) * unit) if found and unit else 0
    if value < 1:
        raise ValueError(f"{size!r} is not a size in memory: write bytes, or a number with a unit, like 500MB or 2GiB")
    return value


def show_size(size: float) -> str:
    """For people: 1.5 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.3g} {unit}" if size < 1000 else f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.3g} TiB"
