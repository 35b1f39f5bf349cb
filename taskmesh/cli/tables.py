"""A hub's status document as tables for people. Every text in it comes from peers: shown, never obeyed."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Group
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
    odd = [f"{d[key]:,} {words}" for key, words in ODDITIES.items() if d[key]]
    if odd:
        grid.add_row("odd", Text(", ".join(odd), style="yellow"))
    return grid


TOTALS = ("submitted", "done", "failed", "cancelled")
ODDITIES = {
    "refused_peers": "peers refused", "refused_connections": "connections refused",
    "refused_requests": "requests refused", "dropped_frames": "frames dropped",
}  # fmt: skip


def _workers(d: dict[str, Any]) -> Table | Text:
    daemons = d["daemons"]
    if not daemons:
        return Text(f"\nNo workers. Start some: taskmesh worker {printable(d['address'])}", style="yellow")
    table = _table(f"Workers: {len(daemons)}, with {plural(d['slots'], 'runner')}", "name", "host", "pid")
    for heading in ("runners", "tasks", "finished", "busy", "runners lost", "joined", "heard"):
        table.add_column(heading, justify="right")
    table.add_column("state")
    for w in daemons:
        table.add_row(
            _text(w["name"]), _text(w["host"]), str(w["pid"]), str(w["slots"]), f"{w['tasks_out']:,}",
            f"{w['finished']:,}", f"{w['busy']:.0%}", f"{w['runners_lost']:,}", _ago(w["joined_s_ago"]),
            _ago(w["heard_s_ago"]), _state(w),
        )  # fmt: skip
    return table


def _state(worker: dict[str, Any]) -> Text:
    if worker["suspected"]:
        return Text("silent", style="bold red")
    return Text("ok", style="green") if worker["slots"] else Text("draining", style="yellow")


def _clients(d: dict[str, Any]) -> Table | Text:
    sessions = d["sessions"]
    if not sessions:
        return Text("\nNo clients.", style="dim")
    table = _table(f"Clients: {len(sessions)}", "name", "host", "pid")
    for heading in ("functions", "waiting", "with workers", "unfetched", "joined"):
        table.add_column(heading, justify="right")
    table.add_column("state")
    for s in sessions:
        table.add_row(
            _text(s["name"]), _text(s["host"]), str(s["pid"]), f"{s['functions']:,}", f"{s['waiting']:,}",
            f"{s['running']:,}", f"{s['unfetched']:,}", _ago(s["joined_s_ago"]),
            _client_state(s),
        )  # fmt: skip
    return table


def _client_state(session: dict[str, Any]) -> Text:
    if not session["connected"]:
        return Text("away", style="yellow")
    return Text("held", style="yellow") if session["held"] else Text("ok", style="green")


def ticket_table(entries: list[dict[str, str]]) -> Table:
    """A hub's tickets, as `Keyring` lists them."""
    table = _table(f"Tickets: {len(entries)}", "name", "role", "state", "created", "expires", "key")
    for entry in entries:
        state = entry["state"]
        table.add_row(
            _text(entry["name"]), _text(entry["role"]), Text(printable(state), style=TICKET_STYLES.get(state, "dim")),
            _text(entry["created"]), _text(entry["expires"]), _text(entry["fingerprint"]),
        )  # fmt: skip
    return table


TICKET_STYLES = {"good": "green", "expired": "yellow"}


def _table(title: str, *columns: str) -> Table:
    table = Table(title=f"\n{title}", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name == "pid" else "left", overflow="fold")
    return table


def _text(value: object) -> Text:
    return Text(printable(str(value)))


def _ago(seconds: float) -> str:
    return f"{duration(seconds)} ago"


def duration(seconds: float) -> str:
    """`12 s`, `3 min`, `5 h 12 min`, `3 d 4 h`."""
    whole = int(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if minutes < 60:
        return f"{minutes} min"
    return f"{hours} h {minutes % 60} min" if hours < 24 else f"{days} d {hours % 24} h"
