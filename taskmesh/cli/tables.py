"""A hub's status document as tables for people. Every text in it comes from peers: shown, never obeyed.

A table never breaks a cell over lines. Where it does not fit it leaves out what matters least, and cuts names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table
from rich.text import Text

from .logs import plural, printable


def tables(document: dict[str, Any]) -> Group:
    """Hub and totals, workers, clients."""
    return Group(_head(document), _workers(document), _clients(document))


def _head(d: dict[str, Any]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column()
    release = f"taskmesh {d['version']}, Python {d['python']}"
    title = _text(f"{d['address']}   {release}, up {duration(d['uptime_s'])}")
    if d["draining"]:
        title.append("   draining: no new sessions", style="bold yellow")
    grid.add_row("hub", title)
    with_workers = sum(session["running"] for session in d["sessions"])
    rate = d["rate_per_s"]
    speed = f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"
    grid.add_row("now", f"{d['waiting']:,} waiting, {with_workers:,} with workers, {speed} tasks/s")
    grid.add_row("so far", ", ".join(f"{d[key]:,} {key}" for key in TOTALS))
    if d["full"]:
        grid.add_row("store", Text(f"takes no new tasks: {printable(d['full'])}", style="bold red"))
    odd = [f"{plural(d[key], what)} {how}" for key, (what, how) in ODDITIES.items() if d[key]]
    if odd:
        grid.add_row("odd", Text(", ".join(odd), style="yellow"))
    return grid


TOTALS = ("submitted", "done", "failed", "cancelled")
ODDITIES = {
    "refused_peers": ("peer", "refused"), "refused_connections": ("connection", "refused"),
    "refused_requests": ("request", "refused"), "dropped_frames": ("frame", "dropped"),
}  # fmt: skip


class Column(NamedTuple):
    """A column of a `FittingTable`.

    Attributes: its `heading`; when it is left out (`leaves`: 1 first, 0 never); whether its cells are `cut` rather than
    that it is left out; whether it is a column of `text`, and not of numbers.
    """

    heading: str
    leaves: int = 0
    cut: bool = False
    text: bool = False


class FittingTable:
    """A table that shows as many of its columns as there is room for."""

    SHORTEST = 16
    """Characters that a column that can be cut keeps, if it has as many, as long as others can be left out."""

    def __init__(self, title: str, columns: Sequence[Column], rows: Sequence[Sequence[Text]]) -> None:
        self._title, self._columns, self._rows = title, columns, rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = Table(
            title=f"\n{self._title}", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False,
            padding=(0, 1, 0, 0),
        )  # fmt: skip
        widths = self._widths(options.max_width)
        for i, width in widths.items():
            heading, _, _, text = self._columns[i]
            table.add_column(
                heading, justify="left" if text else "right", no_wrap=True, overflow="ellipsis", width=width
            )
        for row in self._rows:
            table.add_row(*(row[i] for i in widths))
        yield table

    def _widths(self, room: int) -> dict[int, int]:
        """The columns that there is room for, and how wide they are. Two characters are around each."""
        full = {i: max(len(column.heading), *(row[i].cell_len for row in self._rows), 0)
                for i, column in enumerate(self._columns)}  # fmt: skip
        cut = [i for i in full if self._columns[i].cut]
        widths = full | {i: min(full[i], self.SHORTEST) for i in cut}

        def left() -> int:
            return room - sum(widths.values()) - 2 * len(widths)

        for i in sorted(full, key=lambda i: self._columns[i].leaves):
            if self._columns[i].leaves and left() < 0:
                del widths[i]
        for i in cut:
            if i in widths:
                widths[i] = max(1, min(full[i], widths[i] + left()))
        return widths


WORKERS = (
    Column("name", cut=True, text=True), Column("host", 2, cut=True, text=True), Column("pid", 5), Column("runners"),
    Column("tasks", 6), Column("finished"), Column("busy"), Column("lost", 3), Column("here for", 1),
    Column("heard", 4), Column("state", text=True),
)  # fmt: skip
CLIENTS = (
    Column("name", cut=True, text=True), Column("host", 3, cut=True, text=True), Column("pid", 4),
    Column("functions", 1), Column("waiting"), Column("with workers"), Column("unfetched", 5), Column("here for", 2),
    Column("state", text=True),
)  # fmt: skip
TICKETS = (
    Column("name", cut=True, text=True), Column("role", text=True), Column("state", text=True),
    Column("created", 1, text=True), Column("expires", text=True), Column("key", 2, text=True),
)  # fmt: skip


def _workers(d: dict[str, Any]) -> FittingTable | Text:
    daemons = d["daemons"]
    if not daemons:
        return Text(f"\nNo workers. Start some: taskmesh worker {printable(d['address'])}", style="yellow")
    rows = [
        [
            _text(w["name"]), _text(w["host"]), _text(w["pid"]), _text(w["slots"]), Text(f"{w['tasks_out']:,}"),
            Text(f"{w['finished']:,}"), Text(f"{w['busy']:.0%}"), Text(f"{w['runners_lost']:,}"),
            Text(duration(w["joined_s_ago"])), Text(f"{duration(w['heard_s_ago'])} ago"), _state(w),
        ]
        for w in daemons
    ]  # fmt: skip
    return FittingTable(f"Workers: {len(daemons)}, with {plural(d['slots'], 'runner')}", WORKERS, rows)


def _state(worker: dict[str, Any]) -> Text:
    if worker["suspected"]:
        return Text("silent", style="bold red")
    return Text("ok", style="green") if worker["slots"] else Text("draining", style="yellow")


def _clients(d: dict[str, Any]) -> FittingTable | Text:
    sessions = d["sessions"]
    if not sessions:
        return Text("\nNo clients.", style="dim")
    rows = [
        [
            _text(s["name"]), _text(s["host"]), _text(s["pid"]), Text(f"{s['functions']:,}"), Text(f"{s['waiting']:,}"),
            Text(f"{s['running']:,}"), Text(f"{s['unfetched']:,}"), Text(duration(s["joined_s_ago"])), _client_state(s),
        ]
        for s in sessions
    ]  # fmt: skip
    return FittingTable(f"Clients: {len(sessions)}", CLIENTS, rows)


def _client_state(session: dict[str, Any]) -> Text:
    if not session["connected"]:
        return Text("away", style="yellow")
    return Text("held", style="yellow") if session["held"] else Text("ok", style="green")


def ticket_table(entries: list[dict[str, str]]) -> FittingTable:
    """A hub's tickets, as `Keyring` lists them."""
    rows = [
        [
            _text(entry["name"]), _text(entry["role"]),
            Text(printable(entry["state"]), style=TICKET_STYLES.get(entry["state"], "dim")),
            _text(entry["created"]), _text(entry["expires"]), _text(entry["fingerprint"]),
        ]
        for entry in entries
    ]  # fmt: skip
    return FittingTable(f"Tickets: {len(entries)}", TICKETS, rows)


TICKET_STYLES = {"good": "green", "expired": "yellow"}


def _text(value: object) -> Text:
    return Text(printable(str(value)))


def duration(seconds: float) -> str:
    """`12 s`, `3 min`, `5 h 12 min`, `3 d 4 h`."""
    whole = int(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if minutes < 60:
        return f"{minutes} min"
    return f"{hours} h {minutes % 60} min" if hours < 24 else f"{days} d {hours % 24} h"
