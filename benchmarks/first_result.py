"""The script that W7 starts: make a pool, run one no-op, print, wait, stop.

It is what a user's short script does. Nothing but the peer and the no-op is imported, and the adapter
directly, since whatever the harness imported would count as start-up time.
"""

import importlib
import sys

from benchmarks.tasks import nothing

SENTINEL = "the first result is there"


def main(module: str, workers: int) -> None:
    """Hold the pool until standard input ends, so that whoever started this can look at it."""
    peer = importlib.import_module(module).Adapter()
    try:
        peer.start(workers)
        peer.result(peer.submit(nothing))
        print(SENTINEL, flush=True)
        sys.stdin.read()
    finally:
        peer.stop()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
