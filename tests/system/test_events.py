"""The events channel: told to admins alone, as it happens, and no longer than their tickets are good."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import zmq

from taskmesh import Mesh
from taskmesh.cli.events import Reading
from taskmesh.errors import HubUnreachable
from taskmesh.transport.endpoints import parse_address

from .guarded import Guarded
from .processes import Fleet, Started, until
from .raw import Keys, Socket, keys_of, new_keys

EVENTS = ("-m", "taskmesh", "events", "--json")


class Reader:
    """Reads events by a raw socket with these keys."""

    def __init__(self, guarded: Guarded, keys: Keys) -> None:
        self.told: list[dict[str, Any]] = []
        self._socket: Socket = guarded.raw.connect(zmq.SUB, guarded.document()["events"], keys)
        self._socket.subscribe(b"")

    def subscribe(self, topic: bytes) -> None:
        """Ask for something in particular."""
        self._socket.subscribe(topic)

    def read(self) -> list[dict[str, Any]]:
        """Everything so far."""
        with contextlib.suppress(zmq.Again):
            while True:
                self.told.append(json.loads(self._socket.recv(zmq.NOBLOCK)))
        return self.told

    def has(self, event: str, **fields: object) -> bool:
        """Whether it was told of that."""
        return any({**told, **fields} == told and told["event"] == event for told in self.read())


def listening(guarded: Guarded, *readers: Reader) -> None:
    """All of them are told what happens from now on: somebody joins until they are."""

    def all_hear() -> bool:
        guarded.joins("client")
        return all(reader.has("registered", role="client", ticket="client") for reader in readers)

    until(all_hear, "they hear")


def lines(started: Started) -> list[dict[str, Any]]:
    """What a command has printed, as far as it is whole lines of JSON."""
    return [json.loads(line) for line in started.output.split("\n")[:-1] if line.startswith("{")]


def test_an_admin_is_told_who_joins_and_leaves_and_what_is_done_with_tickets(guarded: Guarded) -> None:
    reader = Reader(guarded, keys_of(guarded.admin))
    listening(guarded, reader)
    with guarded.innocent() as innocent:
        until(lambda: reader.has("registered", pid=innocent.worker.process.pid, role="daemon"), "the worker has joined")
        until(lambda: reader.has("registered", pid=os.getpid(), role="client"), "the client has joined")
    guarded.create("laptop", "client")
    guarded.revoke("laptop")
    until(lambda: reader.has("ticket ended", name="laptop"), "it was told")
    assert reader.has("ticket created", name="laptop", by="admin")
    assert reader.has("left", how="goodbye")
    numbers = [told["number"] for told in reader.read()]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


@pytest.mark.parametrize("whose", ["client", "worker", "nobody", "its registration"])
def test_nobody_else_is_let_in(guarded: Guarded, whose: str) -> None:
    endpoint = guarded.document()["events"]
    keys = {"client": keys_of(guarded.client), "worker": keys_of(guarded.worker)}.get(whose)
    if keys is None:
        keys = guarded.joins("admin").keys if whose == "its registration" else new_keys(guarded.admin.hub_key)
    with guarded.innocent(), guarded.counts("refused_connections"):
        assert not guarded.raw.let_in(zmq.SUB, endpoint, keys)
    assert guarded.audit("connection refused")[-1]["channel"] == "events"
    assert guarded.raw.let_in(zmq.SUB, endpoint, keys_of(guarded.admin))
    assert guarded.audit("events read")[-1]["ticket"] == "admin"


def test_where_events_are_told_is_shown_to_admins_alone(guarded: Guarded) -> None:
    assert "events" in guarded.document()
    assert "events" not in guarded.document(guarded.client)
    assert "events" not in guarded.document(guarded.worker)


def test_what_a_session_is_sent_is_no_event(guarded: Guarded) -> None:
    """Outcomes travel on the session's lane: the admin hears that somebody has joined, and nothing of his work."""
    reader = Reader(guarded, keys_of(guarded.admin))
    listening(guarded, reader)
    with guarded.innocent():
        pass  # 1,500 of his tasks end
    until(lambda: reader.has("left"), "he has left")
    assert {told["event"] for told in reader.read()} <= {"registered", "left", "events read"}


def test_a_reader_whose_ticket_is_revoked_is_told_nothing_more_and_others_go_on(guarded: Guarded) -> None:
    mine, theirs = Reader(guarded, keys_of(guarded.admin)), Reader(guarded, keys_of(guarded.create("ops", "admin")))
    listening(guarded, mine, theirs)
    guarded.revoke("ops")
    until(
        lambda: any(refused["channel"] == "events" for refused in guarded.audit("connection refused")), "it came again"
    )
    heard = len(theirs.read())
    mine.told.clear()
    listening(guarded, mine)
    assert len(theirs.read()) == heard


def test_a_reader_misses_nothing_while_a_ticket_ends_by_which_nobody_reads(guarded: Guarded) -> None:
    guarded.create("ops", "admin")
    reader = Reader(guarded, keys_of(guarded.admin))
    listening(guarded, reader)
    guarded.revoke("ops")
    until(lambda: guarded.audit("ticket ended"), "it has ended")
    guarded.create("laptop", "client")
    until(lambda: reader.has("ticket created", name="laptop"), "it is told")
    assert reader.has("ticket revoked", name="ops")
    assert reader.has("ticket ended", name="ops")
    numbers = [told["number"] for told in reader.read()]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_a_reader_whose_ticket_expires_is_told_nothing_more(guarded: Guarded) -> None:
    mine = Reader(guarded, keys_of(guarded.admin))
    theirs = Reader(guarded, keys_of(guarded.create("ops", "admin", 3)))
    listening(guarded, mine, theirs)
    until(lambda: any(refused["channel"] == "events" for refused in guarded.audit("connection refused")), "it came")
    heard = len(theirs.read())
    mine.told.clear()
    listening(guarded, mine)
    assert len(theirs.read()) == heard


def test_a_long_subscription_ends_its_connection(guarded: Guarded) -> None:
    """ZeroMQ keeps a topic as a tree with a level for each byte, and walks through it recursively.

    Some 100,000 bytes end a process, which is why this test does not send so many.
    """
    reader, other = Reader(guarded, keys_of(guarded.admin)), Reader(guarded, keys_of(guarded.admin))
    listening(guarded, reader, other)
    reader.subscribe(b"s" * 8_000)
    until(lambda: len(guarded.audit("events read")) > 2, "it was cut off, and came again")
    other.told.clear()
    listening(guarded, other)


def test_a_channel_that_nobody_answers_on_is_an_error() -> None:
    reading = Reading(parse_address("tcp://127.0.0.1:5555"), "tcp://127.0.0.1:1", None)
    try:
        with pytest.raises(HubUnreachable, match=r"at tcp://127.0.0.1:1, and nobody answers there within 0\.2 s"):
            next(reading.events(0.2))
    finally:
        reading.close()


def test_the_command_ends_when_nobody_reads_what_it_prints(guarded: Guarded, tmp_path: Path) -> None:
    line = f"{sys.executable} -m taskmesh events {guarded.fleet.address} | head -1; echo ${{PIPESTATUS[0]}}"
    command = Started(["-c", f"import os; os.execvp('bash', ['bash', '-c', {line!r}])"], tmp_path)
    try:

        def ended() -> bool:
            guarded.joins("client")
            return command.process.poll() is not None

        until(ended, "it has ended")
        assert command.output.splitlines()[-1] == "141"
        assert "Traceback" not in command.output
    finally:
        command.end_now()


def test_the_command_prints_events_and_ends_when_its_ticket_does(guarded: Guarded, tmp_path: Path) -> None:
    path = guarded.file(guarded.create("ops", "admin"))
    command = Started([*EVENTS, "--ticket", str(path)], tmp_path)
    plain = Started([*EVENTS[:-1], guarded.fleet.address], tmp_path)
    try:

        def both_hear() -> bool:
            guarded.joins("worker")
            shown = "registered            role=daemon" in plain.output
            return shown and any(told["event"] == "registered" for told in lines(command))

        until(both_hear, "they print who joins")
        assert "events of tcp://127.0.0.1" in command.output
        guarded.revoke("ops")
        until(lambda: command.process.poll() is not None, "it has ended")
        assert command.process.returncode == 4
        assert "was revoked or has expired" in command.output
        guarded.create("laptop", "client")
        until(lambda: "ticket created" in plain.output, "the other goes on")
        assert plain.process.poll() is None
    finally:
        command.end_now()
        plain.end_now()


@pytest.mark.parametrize("role", ["client", "worker"])
def test_the_command_says_that_it_takes_an_admin_ticket(guarded: Guarded, tmp_path: Path, role: str) -> None:
    path = guarded.file(guarded.create("other", role))
    command = Started([*EVENTS, "--ticket", str(path)], tmp_path)
    assert command.ends() == 7
    assert f"the ticket 'other' is one for role {role}, and here one for admin is needed" in command.output


def test_without_keys_whoever_reaches_the_hub_is_told(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, options=("--insecure",))
    command = Started([*EVENTS, "--insecure", fleet.address], tmp_path)
    try:

        def hears() -> bool:
            with Mesh(fleet.address, insecure=True):
                return any(told["event"] == "left" for told in lines(command))

        until(hears, "it prints who leaves")
    finally:
        command.end_now()
        fleet.end()


def test_events_go_on_when_a_hub_is_back(lasting: Guarded, tmp_path: Path) -> None:
    command = Started([*EVENTS, lasting.fleet.address], tmp_path)
    try:

        def hears() -> bool:
            lasting.joins("client")
            return any(told["event"] == "registered" for told in lines(command)[before:])

        before = 0
        until(hears, "it prints who joins")
        lasting.fleet.kill_hub()
        command.says("cut off from the hub; trying again")
        assert "taskmesh: " not in command.output  # that begins an error
        before = len(lines(command))
        until(hears, "it does again", 30)
    finally:
        command.end_now()
