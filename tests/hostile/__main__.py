"""`python -m tests.hostile`: throw every kind of hostile input at a live mesh that meanwhile has honest work to do."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from .campaign import KINDS, Campaign, chosen, groups, table
from .live import Live


def main() -> int:
    """Print a table; the exit code is 0 if nothing was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("--tasks", type=int, default=100_000, help="how many the honest client does at least")
    parser.add_argument("--kinds", default="", help=f"a,b of: {', '.join(kind.name for kind in KINDS)}")
    parser.add_argument("--seed", type=int, default=0, help="what is random is made of this")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each kind goes on at most")
    parser.add_argument("--scale", type=float, default=1.0, help="shrinks all counts")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tm-") as directory:
        os.environ["XDG_CONFIG_HOME"] = f"{directory}/config"
        os.environ["XDG_STATE_HOME"] = f"{directory}/state"
        return campaign(Path(directory), options)


def campaign(directory: Path, options: argparse.Namespace) -> int:
    """Run it."""
    kinds = chosen(options.kinds)
    live = Live(directory, options.tasks)
    try:
        run = Campaign(live, options.seed, options.seconds, options.scale)
        run.run(kinds, groups(kinds, options.seed))
        wrong = any(row.wrong for row in run.rows)
        print(table(run), flush=True)
        try:
            print("\nhonest:", live.finish(600.0))
        except AssertionError as error:
            print("\nhonest:", error)
            wrong = True
        if wrong:
            print(live.logs(), file=sys.stderr)
        return int(wrong)
    finally:
        live.end()


if __name__ == "__main__":
    sys.exit(main())
