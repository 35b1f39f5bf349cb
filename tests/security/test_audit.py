"""The audit log: a line for each event, whole lines only, and a hub that goes on without it."""

from __future__ import annotations

import json
import logging
import os
import re
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmesh.security.audit import Audit


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the log is."""
    return tmp_path / "audit.jsonl"


def entries(path: Path) -> list[dict[str, Any]]:
    text = path.read_text()
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def test_each_event_is_a_line_with_its_time(path: Path) -> None:
    audit = Audit(path)
    audit.write("registered", peer="client", name="laptop", ticket="laptop", epoch=7)
    audit.write("revoked", ticket="laptop")
    audit.close()
    first, second = entries(path)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("time"))
    assert first == {"event": "registered", "peer": "client", "name": "laptop", "ticket": "laptop", "epoch": 7}
    assert (second["event"], second["ticket"]) == ("revoked", "laptop")


def test_it_goes_on_where_the_last_hub_ended(path: Path) -> None:
    for number in range(3):
        audit = Audit(path)
        audit.write("started", number=number)
        audit.close()
        audit.close()
    assert [entry["number"] for entry in entries(path)] == [0, 1, 2]


def test_it_is_for_its_owner_alone(path: Path) -> None:
    before = os.umask(0)
    try:
        audit = Audit(path, largest=10)
        for number in range(4):
            audit.write("event", number=number)
        audit.close()
    finally:
        os.umask(before)
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}


@given(name=st.text(), value=st.one_of(st.binary(), st.floats(), st.none(), st.lists(st.integers())))
def test_what_peers_call_themselves_stays_on_its_line(
    tmp_path_factory: pytest.TempPathFactory, name: str, value: object
) -> None:
    path = tmp_path_factory.mktemp("audit") / "audit.jsonl"
    audit = Audit(path)
    audit.write("registered", name=name, value=value)
    audit.close()
    data = path.read_bytes()
    assert data.count(b"\n") == 1 and data.isascii() and not any(byte < 32 for byte in data[:-1])
    assert json.loads(data)["name"] == name


def test_a_surrogate_is_no_trouble(path: Path) -> None:
    Audit(path).write("registered", name="\ud800\x1b[2J")
    assert entries(path)[0]["name"] == "\ud800\x1b[2J"


def test_old_files_are_kept_for_a_while(path: Path) -> None:
    audit = Audit(path, largest=200, kept=3)
    for number in range(40):
        audit.write("event", number=number)
    audit.close()
    names = sorted(file.name for file in path.parent.iterdir())
    assert names == ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2", "audit.jsonl.3"]
    assert all(file.stat().st_size <= 200 for file in path.parent.iterdir())
    oldest_first = [path.with_name(name) for name in (*reversed(names[1:]), names[0])]
    numbers = [entry["number"] for file in oldest_first for entry in entries(file)]
    assert numbers == list(range(numbers[0], 40))


def test_one_line_may_be_longer_than_a_file(path: Path) -> None:
    audit = Audit(path, largest=50)
    audit.write("event", text="x" * 100)
    audit.write("event", text="y" * 100)
    audit.close()
    assert [entries(file)[0]["text"][0] for file in (path, path.with_name("audit.jsonl.1"))] == ["y", "x"]


def test_a_failing_disk_is_said_once_and_the_hub_goes_on(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "taskmesh.hub")
    audit = Audit(path)
    audit.write("before")

    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "write", full)
        audit.write("lost")
        audit.write("lost")
    assert [record.getMessage() for record in caplog.records] == [
        f"the audit log {path} cannot be written (No space left on device): going on without"
    ]
    audit.write("after")
    audit.close()
    assert [entry["event"] for entry in entries(path)] == ["before", "after"]


def test_half_a_line_is_taken_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    audit = Audit(path)
    audit.write("before")
    write = os.write
    with monkeypatch.context() as broken:
        broken.setattr(os, "write", lambda fd, data: write(fd, data[:10]))
        audit.write("lost")
    audit.write("after")
    audit.close()
    assert [entry["event"] for entry in entries(path)] == ["before", "after"]


def test_a_directory_that_is_gone_stops_nobody(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Audit(path.parent / "gone" / "audit.jsonl").write("lost")
    assert "No such file or directory" in caplog.text


def test_a_link_is_not_followed(path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    victim = tmp_path / "victim"
    victim.write_text("")
    path.symlink_to(victim)
    Audit(path).write("event")
    assert victim.read_text() == ""
    assert "cannot be written" in caplog.text
