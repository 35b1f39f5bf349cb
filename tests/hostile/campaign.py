"""A campaign: every kind in turn, some together, and the verdict: a table, and what was wrong."""

from __future__ import annotations

import random
import threading
import time
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import zmq

from taskmesh.transport.sockets import new_context

from . import client_side, outside, worker_side
from .live import LARGEST, Live
from .target import Kind, Target

KINDS = [*outside.KINDS, *client_side.KINDS, *worker_side.KINDS, *client_side.LAST_KINDS]
MOST_BYTES = 150 << 20  # more than at the beginning, of each process
LOG_BYTES = 64 * 1024  # that may be written while one kind is thrown, the audit log included
AUDITED = {"registrations", "registered again"}  # each is a line of the audit log, and it is meant to be
PROGRESS_S = 60.0
BEFORE_S = 3.0
STATUS_S = 0.15  # within a tenth of a second the hub shows the same status again


@dataclass
class Row:
    """What one kind did."""

    kind: str
    thrown: int = 0
    seconds: float = 0.0
    rate: float = 0.0
    more: dict[str, int] = field(default_factory=dict)
    counted: dict[str, int] = field(default_factory=dict)
    log: int = 0
    wrong: list[str] = field(default_factory=list)


@dataclass
class Campaign:
    """Kinds against a live mesh. `seconds`: how long each goes on at most; `scale`: of the counts."""

    live: Live
    seed: int = 0
    seconds: float = 5.0
    scale: float = 1.0
    rows: list[Row] = field(default_factory=list)
    before: float = 0.0

    def run(self, kinds: Sequence[Kind], together: Iterable[Sequence[Kind]] = ()) -> list[Row]:
        """In turn; then those of each group together."""
        self._quiet()
        for kind in kinds:
            self._round(kind.name, [kind])
        for group in together:
            self._round(f"{len(group)} kinds together", list(group))
        return self.rows

    def _quiet(self) -> None:
        """How fast the honest client is when nothing happens."""
        began, first = time.monotonic(), self.live.done
        threading.Event().wait(BEFORE_S * min(1.0, self.scale))
        self.before = (self.live.done - first) / (time.monotonic() - began)

    def _round(self, name: str, kinds: list[Kind]) -> None:
        live, row = self.live, Row(name)
        counted, log, first = live.status(), live.log_bytes(), live.done
        live.peaks()
        began = time.monotonic()
        threads = [threading.Thread(target=self._throw, args=(kind, row), name=kind.name) for kind in kinds]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(self.seconds + PROGRESS_S)
            if thread.is_alive():
                row.wrong.append(f"{thread.name} hangs")
        row.seconds = time.monotonic() - began
        row.rate = (live.done - first) / row.seconds
        self._goes_on(row)
        row.more = live.peaks()
        threading.Event().wait(STATUS_S)
        try:
            after = live.status()
            row.counted = {key: after[key] - counted[key] for key in after}
        except Exception as error:  # of whatever kind: the hub should have answered
            row.wrong.append(f"no status: {error}")
        row.log = live.log_bytes() - log
        self._judge(row, kinds)
        self.rows.append(row)

    def _throw(self, kind: Kind, row: Row) -> None:
        live = self.live
        seed = self.seed + zlib.crc32(kind.name.encode())
        context = new_context()
        target = Target(
            live.hub, live.address, live.tickets, context, random.Random(seed), self.seconds, self.scale, LARGEST
        )  # fmt: skip
        target.began()
        try:
            row.thrown += kind.throw(target)
        except (AssertionError, OSError, zmq.ZMQError) as error:
            row.wrong.append(f"{kind.name}: {type(error).__name__}: {error}")
        finally:
            context.destroy(linger=0)

    def _goes_on(self, row: Row) -> None:
        """Honest tasks still end."""
        live = self.live
        first, end = live.done, time.monotonic() + PROGRESS_S
        while live.done == first and time.monotonic() < end and not live.dead():
            threading.Event().wait(0.02)
        if live.dead():
            row.wrong.append(f"ended: {', '.join(live.dead())}")
        elif live.done == first:
            row.wrong.append(f"no honest task has ended for {PROGRESS_S:g} s")

    def _judge(self, row: Row, kinds: list[Kind]) -> None:
        row.wrong += [f"{who} took {more >> 20} MiB more" for who, more in row.more.items() if more > MOST_BYTES]
        allowed = LOG_BYTES * len(kinds)
        if row.log > allowed and not AUDITED & {kind.name for kind in kinds}:
            row.wrong.append(f"{row.log:,} bytes of log")


def chosen(names: str) -> list[Kind]:
    """Kinds by name, or all."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    known = {kind.name: kind for kind in KINDS}
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise SystemExit(f"no kind is called {', '.join(unknown)}; there are: {', '.join(known)}")
    return [known[name] for name in wanted] or list(KINDS)


def groups(kinds: Sequence[Kind], seed: int, size: int = 6, count: int = 3) -> list[list[Kind]]:
    """Some that are thrown together."""
    if len(kinds) < size:
        return []
    chooser = random.Random(seed)
    some = [kind for kind in kinds if kind not in client_side.LAST_KINDS]
    return [chooser.sample(some, size) for _ in range(count)]


def table(campaign: Campaign) -> str:
    """For people."""
    lines = [
        f"honest tasks/s before: {campaign.before:,.0f}; MiB: the most that each process had more than at first",
        "",
    ]
    who = list(campaign.live.processes)
    lines.append(
        f"{'kind':25} {'thrown':>9} {'s':>5} {'honest/s':>8} "
        + " ".join(f"{name:>9}" for name in who)
        + f" {'frames':>8} {'requests':>8} {'connects':>8} {'peers':>6} {'log KiB':>7}"
    )
    for row in campaign.rows:
        lines.append(
            f"{row.kind:25} {row.thrown:9,} {row.seconds:5.1f} {row.rate:8,.0f} "
            + " ".join(f"{row.more.get(name, 0) / 2**20:9.1f}" for name in who)
            + " "
            + " ".join(
                f"{row.counted.get(key, 0):{width},}"
                for key, width in zip(
                    ("dropped_frames", "refused_requests", "refused_connections", "refused_peers"),
                    (8, 8, 8, 6),
                    strict=True,
                )
            )
            + f" {row.log / 1024:7.1f}"
            + (f"   WRONG: {'; '.join(row.wrong)}" if row.wrong else "")
        )
    return "\n".join(lines)
