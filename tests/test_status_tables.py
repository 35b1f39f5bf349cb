"""Tables for people at every width: whole words and numbers, or no column at all."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console, RenderableType

from taskmesh.cli.tables import tables, ticket_table

WORKER = {
    "name": "gpu-box.example.org", "host": "gpu-box.example.org", "pid": 2431814, "slots": 16, "tasks_out": 24,
    "finished": 1_001_288, "busy": 0.98, "runners_lost": 1, "joined_s_ago": 66_000, "heard_s_ago": 0.9,
    "suspected": False,
}  # fmt: skip
CLIENT = {
    "name": "a_script_with_a_long_name_of_its_own.py", "host": "laptop", "pid": 3312345, "connected": False,
    "functions": 12, "waiting": 1_200_000, "running": 8, "unfetched": 123_456, "held": False, "joined_s_ago": 120_000,
}  # fmt: skip
DOCUMENT: dict[str, Any] = {
    "address": "tcp://127.0.0.1:5555", "version": "0.1.0", "python": "3.11", "uptime_s": 700, "draining": False,
    "waiting": 120, "submitted": 2_000_128, "done": 1_999_999, "failed": 1, "cancelled": 0, "rate_per_s": 3912.0,
    "slots": 16, "refused_peers": 0, "refused_connections": 0, "refused_requests": 0, "dropped_frames": 0,
    "full": None, "daemons": [WORKER], "sessions": [CLIENT],
}  # fmt: skip
TICKET = {
    "name": "x" * 60, "role": "client", "state": "expired", "created": "2026-11-25T13:46:39Z",
    "expires": "2026-12-25T13:46:39Z", "fingerprint": "0123456789abcdef",
}  # fmt: skip


def shown(table: RenderableType, width: int) -> list[str]:
    """The lines of a table on a terminal of that many columns."""
    file = io.StringIO()
    Console(file=file, width=width, force_terminal=True, color_system=None).print(table)
    return [line.rstrip() for line in file.getvalue().splitlines()]


def row_of(lines: list[str], start: str) -> str:
    """The only line that begins so, and the one behind it, which has to be empty: nothing is broken over lines."""
    [i] = [i for i, line in enumerate(lines) if line.lstrip().startswith(start)]
    assert not lines[i + 1 : i + 2] or not lines[i + 1]
    return lines[i]


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_what_matters_is_shown_whole_at_every_width(width: int) -> None:
    lines = shown(tables(DOCUMENT), width)
    assert max(map(len, lines)) <= width
    worker, client = row_of(lines, "gpu-box.exam"), row_of(lines, "a_script_wit")
    for text in ("1,001,288", "98%", "16", "ok"):
        assert text in worker.split()
    for text in ("1,200,000", "8", "away"):
        assert text in client.split()


def test_eighty_columns_have_room_for_pids_and_signs_of_life() -> None:
    lines = shown(tables(DOCUMENT), 80)
    assert "2431814" in row_of(lines, "gpu-box.exam").split()
    assert "0.9 s ago" in row_of(lines, "gpu-box.exam")
    assert {"3312345", "123,456"} <= set(row_of(lines, "a_script_wit").split())


def test_nothing_is_left_out_where_there_is_room() -> None:
    lines = shown(tables(DOCUMENT), 200)
    assert " ".join(row_of(lines, "gpu-box").split()) == (
        "gpu-box.example.org gpu-box.example.org 2431814 16 24 1,001,288 98% 1 18 h 20 min 0.9 s ago ok"
    )
    assert " ".join(row_of(lines, "a_script").split()) == (
        "a_script_with_a_long_name_of_its_own.py laptop 3312345 12 1,200,000 8 123,456 1 d 9 h away"
    )


@pytest.mark.parametrize("width", [60, 80, 120])
def test_tickets_are_one_line_each(width: int) -> None:
    row = row_of(shown(ticket_table([TICKET]), width), "xxx")
    assert len(row) <= width
    assert {"client", "expired", "2026-12-25T13:46:39Z"} <= set(row.split())
    assert TICKET["fingerprint"] in row_of(shown(ticket_table([TICKET]), 80), "xxx")


def test_a_tiny_terminal_breaks_nothing() -> None:
    assert max(map(len, shown(tables(DOCUMENT), 10))) <= 10
