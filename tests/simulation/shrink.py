"""A failing schedule made short: fewer kinds of faults, fewer items, then one by one, as long as it still fails."""

from __future__ import annotations

from .script import Script
from .simulator import simulate

RUNS_MOST = 400


def shrink(script: Script) -> Script:
    """The smallest schedule that was found to fail in the same way, by the first words of its error."""
    wanted = _manner(script)
    runs = 0

    def fails(candidate: Script) -> bool:
        nonlocal runs
        runs += 1
        return runs <= RUNS_MOST and _manner(candidate) == wanted

    for kind in sorted({item.kind for item in script.items}):
        candidate = script.without({n for n, item in enumerate(script.items) if item.kind == kind})
        if fails(candidate):
            script = candidate
    size = len(script.items) // 2
    while size >= 1:
        start = 0
        while start < len(script.items):
            candidate = script.without(set(range(start, start + size)))
            if fails(candidate):
                script = candidate
            else:
                start += size
        size //= 2
    return script


def _manner(script: Script) -> str:
    """How a schedule fails, without its numbers; empty if it does not."""
    error = simulate(script).error or ""
    return "".join(letter for letter in error if not letter.isdigit())[:40]
