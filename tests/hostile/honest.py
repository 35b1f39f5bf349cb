"""The honest client: submits calls and maps in turn, checks every result, and says how far it is.

`python -m tests.hostile.honest TICKET TASKS`: goes on until so many tasks have ended and its standard input has, too.
"""

from __future__ import annotations

import select
import sys
import time
from collections import Counter
from pathlib import Path

from taskmesh import Future, Mesh

CALLS, ITEMS = 100, 400
SAY_EVERY_S = 0.1
RESULT_S = 120.0


def square(n: int) -> int:
    """What is asked for."""
    return n * n


def main(ticket: str, tasks: int) -> None:
    """Each result is checked, and counted once."""
    ended: Counter[int] = Counter()
    first, said_at = 0, 0.0
    with Mesh(ticket=Path(ticket)) as mesh:
        while first < tasks or not select.select([sys.stdin], [], [], 0)[0]:
            futures: list[Future[int]] = [mesh.submit(square, n) for n in range(first, first + CALLS)]
            for n, future in enumerate(futures, first):
                future.add_done_callback(lambda _, n=n: ended.update([n]))  # type: ignore[misc]
            items = range(first + CALLS, first + CALLS + ITEMS)
            assert list(mesh.map(square, items, timeout=RESULT_S)) == [n * n for n in items]
            assert [f.result(RESULT_S) for f in futures] == [n * n for n in range(first, first + CALLS)]
            first += CALLS + ITEMS
            if time.monotonic() - said_at > SAY_EVERY_S:
                said_at = time.monotonic()
                print(first, flush=True)
    calls = first // (CALLS + ITEMS) * CALLS
    assert len(ended) == calls, f"{len(ended)} callbacks of {calls} calls"
    assert set(ended.values()) == {1}, "a future was settled twice"
    print(first, "all correct, each once", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
