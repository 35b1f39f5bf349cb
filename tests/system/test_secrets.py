"""Keys and secrets are where they belong and nowhere else: not in logs, nor in process lists, nor with tasks."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from zmq.utils import z85

from taskmesh import Mesh
from taskmesh.core import messages as m
from taskmesh.security.ticket import read_ticket

from .guarded import Guarded
from .processes import Fleet, ours, until
from .raw import Raw, keys_of, new_keys
from .tasks import double, environment, hold, pid

BLOCK, OVERLAP = 1 << 22, 64  # bytes of memory that are looked at together


@pytest.fixture
def verbose(tmp_path: Path) -> Iterator[Guarded]:
    """A hub that says all that it can say."""
    fleet = Fleet(tmp_path, options=["--log-level", "debug"])
    try:
        with Raw(fleet.address) as raw:
            yield Guarded(fleet, raw, tmp_path)
    finally:
        fleet.end()


def hub_secret(guarded: Guarded) -> bytes:
    """The hub's secret key, as text."""
    found = re.search(r'^secret_key = "(.*)"$', (guarded.keys_directory / "hub.key").read_text(), re.M)
    assert found is not None
    return json.loads(f'"{found[1]}"').encode()  # type: ignore[no-any-return]


def forms(secret: bytes) -> list[bytes]:
    """How 32 bytes, or 16, could be written down."""
    return [secret, secret.hex().encode(), base64.b64encode(secret), repr(secret)[2:-1].encode()] + (
        [z85.encode(secret)] if len(secret) % 4 == 0 else []
    )


def secrets_of(guarded: Guarded, mesh: Mesh) -> list[bytes]:
    """Every secret that there is, in every form: of the hub, of tickets, of a session and of its registration."""
    membership = mesh._client.membership
    assert membership._own is not None
    tickets = [read_ticket(path) for path in guarded.keys_directory.glob("*.ticket")]
    texts = [hub_secret(guarded), membership._own.secret_key.encode(), *(t.secret_key.encode() for t in tickets)]
    return [form for secret in [membership._request.secret, *map(z85.decode, texts)] for form in forms(secret)]


def found_in(secrets: list[bytes], data: bytes) -> list[bytes]:
    """Which of them are there. In JSON and in logs, quotation marks and backslashes are written as two characters."""
    return [
        secret for secret in secrets if secret in data or secret in data.replace(b"\\\\", b"\\").replace(b'\\"', b'"')
    ]


def test_what_happens_is_written_down_without_a_secret(verbose: Guarded, tmp_path: Path) -> None:
    farm = verbose.create("farm", "worker")
    worker = verbose.fleet.worker_with(verbose.file(farm), "--log-level", "debug")
    with Mesh(verbose.fleet.address) as mesh:
        assert mesh.submit(double, 21).result(20) == 42
        stranger, thief = new_keys(verbose.admin.hub_key), verbose.raw.request("daemon", 77, bytes(32), bytes(16))
        assert not verbose.raw.let_in(3, verbose.raw.address.control, stranger)
        assert "its ticket is for a client" in verbose.refused(thief, keys_of(verbose.client))
        assert "an admin ticket" in verbose.refused(m.ListTickets(), keys_of(verbose.worker))
        verbose.joins("worker").says(b"nonsense" * 10)
        secrets = [
            *secrets_of(verbose, mesh),
            *forms(keys_of(farm).secret.encode()),
            *forms(z85.decode(farm.secret_key)),
        ]
        lines = [" ".join(process.cmdline()) for process in ours()]
    verbose.revoke("farm")
    assert worker.ends(20) == 4
    until(lambda: verbose.audit("ticket ended"), "it is written down")
    assert {entry["event"] for entry in verbose.audit()} >= {
        "registered", "registration refused", "connection refused", "command refused",
        "ticket created", "ticket revoked", "ticket ended",
    }  # fmt: skip
    assert all(entry["time"].endswith("Z") for entry in verbose.audit())
    written = [path for path in verbose.keys_directory.iterdir() if path.suffix != ".ticket" and path.name != "hub.key"]
    assert {"audit.jsonl", "grants.json"} <= {path.name for path in written}
    for path in (*written, verbose.fleet.hub.output_path, worker.output_path):
        assert not found_in(secrets, path.read_bytes()), path
    assert any("taskmesh hub" in line for line in lines)
    assert not found_in(secrets, "\n".join(lines).encode())
    assert found_in(secrets, (verbose.keys_directory / "hub.key").read_bytes()), "so it would be seen"


def test_a_task_sees_no_key_and_no_ticket_in_its_environment(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    path = guarded.file(guarded.create("farm", "worker"))
    monkeypatch.setenv("TASKMESH_TICKET", str(path))
    monkeypatch.setenv("SOMETHING_ELSE", "stays")
    guarded.fleet.worker_by_environment()
    monkeypatch.delenv("TASKMESH_TICKET")
    with Mesh(guarded.fleet.address) as mesh:
        seen = mesh.submit(environment).result(20)
        secrets = secrets_of(guarded, mesh)
        first = mesh.submit(pid).result(20)
        psutil.Process(first).parent().kill()  # type: ignore[union-attr]  # the nursery
        until(lambda: mesh.submit(pid).result(20) != first, "runners of another nursery")
        again = mesh.submit(environment).result(20)
    for variables in (seen, again):
        assert variables["SOMETHING_ELSE"] == "stays"
        assert "TASKMESH_TICKET" not in variables
        assert not found_in(secrets, repr(variables).encode())
        assert not [value for value in variables.values() if str(path) in value]


@pytest.mark.skipif(os.geteuid() != 0, reason="reading the memory of other processes takes root")
def test_no_secret_is_in_the_memory_of_a_runner(guarded: Guarded) -> None:
    worker = guarded.fleet.worker()
    with Mesh(guarded.fleet.address) as mesh:
        held = mesh.submit(hold, str(guarded.directory), "held")
        until((guarded.directory / "held.started").exists, "it runs")
        runner = int((guarded.directory / "held.started").read_text())
        hub, ticket = hub_secret(guarded), guarded.worker.secret_key.encode()
        wanted = [hub, z85.decode(hub), ticket, z85.decode(ticket)]
        processes = (guarded.fleet.hub.process.pid, worker.process.pid, runner)
        at_hub, at_worker, at_runner = (in_memory(process, wanted) for process in processes)
        (guarded.directory / "held.go").touch()
        assert held.result(20) == "held"
    assert any(at_hub[:2]), "it would be seen"
    assert any(at_worker[2:]), "it would be seen"
    assert not any(at_worker[:2])
    assert not any(at_runner)


def in_memory(process: int, wanted: list[bytes]) -> list[bool]:
    """Which of these are anywhere in the memory of a process."""
    there = [False] * len(wanted)
    with open(f"/proc/{process}/mem", "rb", buffering=0) as file:
        for line in Path(f"/proc/{process}/maps").read_text().splitlines():
            first, last = (int(part, 16) for part in line.split()[0].split("-"))
            if line.split()[1].startswith("r"):
                for block in _blocks(file.fileno(), first, last):
                    there = [seen or secret in block for seen, secret in zip(there, wanted, strict=True)]
    return there


def _blocks(fd: int, first: int, last: int) -> Iterator[bytes]:
    """That range of memory in blocks that overlap."""
    with contextlib.suppress(OSError, OverflowError):  # what the kernel shows to nobody
        for at in range(first, last, BLOCK):
            yield os.pread(fd, min(BLOCK + OVERLAP, last - at), at)
