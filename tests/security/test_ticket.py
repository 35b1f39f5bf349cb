"""Tickets as files: what is written is read again, and what cannot be trusted is refused with the remedy."""

from __future__ import annotations

import os
import re
import stat
import time
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmesh.core.access import NEVER, Role
from taskmesh.errors import TicketError
from taskmesh.security import keys, toml
from taskmesh.security.ticket import (
    LAST_S,
    NAME_CHARACTERS,
    Ticket,
    iso,
    load_ticket,
    name_fault,
    parse_validity,
    read_ticket,
    ticket_text,
    write_ticket,
)

HUB, PEER, OTHER = keys.new_pair(), keys.new_pair(), keys.new_pair()
TICKET = Ticket("tcp://127.0.0.1:5555", HUB[0], *PEER, Role.CLIENT, "laptop")
DAY = 86_400
names = st.text(min_size=1, max_size=NAME_CHARACTERS).filter(lambda name: name_fault(name) is None)
HOSTILE = ['"', "'''", '"""', "#", "a = 1", "[table]", "\\", "${HOME}", "%s", "-rf", "naïve", "тикет", "👾", ".hidden"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a good ticket is."""
    path = tmp_path / "laptop.ticket"
    write_ticket(path, TICKET)
    return path


def without(path: Path, field: str) -> None:
    path.write_text(re.sub(rf"^{field} = .*\n", "", path.read_text(), flags=re.M))


def change(path: Path, field: str, value: str) -> None:
    """Give a field of a ticket's file another value, as it stands in TOML."""
    text, count = re.subn(rf"^{field} = .*$", lambda _: f"{field} = {value}", path.read_text(), flags=re.M)
    assert count == 1
    path.write_text(text)


# ---- what is written is read again ----------------------------------------------------------------------------------


@given(
    name=names,
    role=st.sampled_from(Role),
    expires_at=st.one_of(st.just(NEVER), st.integers(0, int(LAST_S) - 1).map(float)),
    hub=st.sampled_from(["tcp://127.0.0.1:5555", "tcp://[::1]:1", "tcp://hub.example:65535"]),
)
def test_a_ticket_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, name: str, role: Role, expires_at: float, hub: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.ticket"
    ticket = replace(TICKET, name=name, role=role, expires_at=expires_at, hub=hub)
    write_ticket(path, ticket)
    assert load_ticket(path) == ticket


@pytest.mark.parametrize("name", [name for name in HOSTILE if name_fault(name) is None])
def test_a_name_cannot_break_out_of_its_line(path: Path, name: str) -> None:
    write_ticket(path, replace(TICKET, name=name))
    assert load_ticket(path).name == name
    assert len(tomllib.loads(path.read_text())) == 8


@given(st.text(st.characters(codec="utf-8")))
def test_every_text_survives_as_a_string_in_toml(text: str) -> None:
    assert tomllib.loads(toml.document(["a comment"], {"x": text, "y": 3})) == {"x": text, "y": 3}


def test_the_file_says_what_it_is_and_is_for_its_owner_alone(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("# A taskmesh ticket: whoever can read this file can use it.")
    assert "Role client." in text and "submits tasks" in text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o277])
def test_the_mode_does_not_depend_on_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_ticket(tmp_path / "t", TICKET)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "t").stat().st_mode) == 0o600
    assert read_ticket(tmp_path / "t") == TICKET


def test_no_file_is_readable_for_others_even_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    write = os.write

    def look(fd: int, data: memoryview) -> int:
        seen.extend(stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir())
        return write(fd, data)

    before = os.umask(0)
    monkeypatch.setattr(os, "write", look)
    try:
        write_ticket(tmp_path / "a", TICKET)
        write_ticket(tmp_path / "b", TICKET, replace=False)
    finally:
        os.umask(before)
    assert seen and set(seen) == {0o600}


def test_the_secret_is_not_in_its_repr() -> None:
    assert PEER[1] not in repr(TICKET)
    assert "laptop" in repr(TICKET)


def test_a_ticket_ends_at_its_time() -> None:
    ticket = replace(TICKET, expires_at=1000.0)
    assert ticket.objection(999.9) is None
    assert ticket.objection(1000.0) == "the ticket 'laptop' has expired on 1970-01-01T00:16:40Z"
    assert TICKET.objection(1e15) is None


# ---- what is refused ------------------------------------------------------------------------------------------------


def refusal(path: Path | str) -> str:
    """Why a ticket is refused: one line that names the file and holds no key."""
    with pytest.raises(TicketError) as caught:
        read_ticket(path)
    says = str(caught.value)
    assert says.startswith(f"{path}: ")
    assert "\n" not in says
    assert not any(key in says for key in (*HUB, *PEER, *OTHER))
    return says


def test_a_missing_ticket(tmp_path: Path) -> None:
    assert "there is no such ticket" in refusal(tmp_path / "none")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o610, 0o601, 0o777])
def test_a_ticket_that_others_can_read_or_change(path: Path, mode: int) -> None:
    path.chmod(mode)
    assert re.search(rf"others can (read|change) this ticket, and could act as you; chmod 600 {path}", refusal(path))
    path.chmod(0o400)
    assert read_ticket(path) == TICKET


def test_the_remedy_can_be_pasted_into_a_shell(tmp_path: Path) -> None:
    path = tmp_path / "my ticket; rm -rf"
    write_ticket(path, TICKET)
    path.chmod(0o644)
    assert refusal(path).endswith(f"chmod 600 '{path}'")


def test_a_ticket_of_another_user(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    if owner == 0:
        assert read_ticket(path) == TICKET  # root's is nobody's trap
        return
    assert f"belongs to another user (uid {owner}), who could act as you" in refusal(path)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert read_ticket(path) == TICKET  # root may read everybody's


def test_root_may_let_a_group_read_a_ticket(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = os.fstat

    def of_root(fd: int) -> os.stat_result:
        fields = list(found(fd))
        fields[4] = 0
        return os.stat_result(fields)

    monkeypatch.setattr(os, "fstat", of_root)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    path.chmod(0o440)
    assert read_ticket(path) == TICKET
    for mode in (0o444, 0o460):
        path.chmod(mode)
        assert "others can" in refusal(path)


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert "not a regular file" in refusal(tmp_path / "pipe")  # and nobody waits for a writer
    assert "directory" in refusal(tmp_path).lower() or "not a regular file" in refusal(tmp_path)


def test_a_path_that_no_file_can_have() -> None:
    assert "no file can have this name" in refusal("a\0b")
    with pytest.raises(TicketError, match="no file can have this name"):
        write_ticket("a\0b", TICKET)


def test_a_link_is_followed_and_its_end_is_judged(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(path)
    assert read_ticket(link) == TICKET
    path.chmod(0o644)
    assert "others can read this ticket" in refusal(link)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\0", b"\xff\xfe", b"ssh-ed25519 AAAA", b"ticket", b"ticket = true", b'ticket = "1"', b"[ticket]",
        b"-----BEGIN OPENSSH PRIVATE KEY-----", b"{}", b"x = " + b"[" * 5000, b"ticket = 1",
    ],
)  # fmt: skip
def test_what_is_no_ticket(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert "this is not a ticket that can be used" in refusal(path)


@given(content=st.binary(max_size=300))
def test_bytes_are_a_ticket_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.ticket"
    write_ticket(path, TICKET)
    path.write_bytes(content)
    refusal(path)


def test_an_error_does_not_quote_the_file(path: Path) -> None:
    path.write_text("password = hunter2")
    assert "hunter2" not in refusal(path)
    change_me = ticket_text(TICKET).replace(PEER[1], "hunter2")
    path.write_text(change_me)
    assert "hunter2" not in refusal(path)


def test_a_file_that_is_far_too_long(path: Path) -> None:
    with open(path, "a") as file:
        file.write("#" * 70_000)
    assert "more than 65536 bytes" in refusal(path)


@pytest.mark.parametrize("field", ["hub", "hub_key", "role", "name", "expires", "public_key", "secret_key"])
def test_a_field_that_is_missing_or_no_text(path: Path, field: str) -> None:
    change(path, field, "7")
    assert f"{field} is no text" in refusal(path)
    without(path, field)
    assert f"{field} is missing" in refusal(path)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("ticket", "2", "of another release"),
        ("role", '"boss"', "role is none of admin, client, worker"),
        ("hub", '"redis://x"', "hub is no address"),
        ("hub", '"tcp://:0"', "hub is no address"),
        ("hub_key", '"short"', "hub_key is no key"),
        ("hub_key", f'"{"~" * 40}"', "hub_key is no key"),
        ("hub_key", f'"{"#" * 40}"', "hub_key is no key"),  # Z85 of a number that is too large
        ("secret_key", f'"{"é" * 40}"', "secret_key is no key"),
        pytest.param("secret_key", f'"{OTHER[1]}"', "secret_key does not belong to public_key", id="another's"),
        ("name", '""', "name is empty"),
        ("name", '"a\\u001b[2Jb"', "name has characters that do not print"),
        ("expires", '"tomorrow"', "expires is no time"),
        ("expires", '"2026-12-24T18:00:00"', "time zone"),
        ("expires", '"2020-01-01T00:00:00Z"', "has expired on 2020-01-01T00:00:00Z; get a new one"),
    ],
)
def test_a_field_that_makes_no_sense(path: Path, field: str, value: str, says: str) -> None:
    change(path, field, value)
    assert says in refusal(path)


def test_an_expired_ticket_can_be_looked_at(path: Path) -> None:
    write_ticket(path, replace(TICKET, expires_at=float(int(time.time()) - DAY)))
    assert "has expired" in refusal(path)
    assert load_ticket(path).name == "laptop"


@pytest.mark.parametrize(
    "name", ["", " ", "a ", " a", ".", "..", "x" * 61, "a/b", "a\\b", "a\nb", "\x1b", "\u202e", "\ud800"]
)
def test_names_that_could_be_taken_for_something_else(tmp_path: Path, name: str) -> None:
    assert name_fault(name) is not None
    with pytest.raises(TicketError, match="this is not a ticket that could be used: name"):
        write_ticket(tmp_path / "t", replace(TICKET, name=name))
    assert list(tmp_path.iterdir()) == []


# ---- writing --------------------------------------------------------------------------------------------------------


def test_a_file_that_is_there_can_be_kept(path: Path) -> None:
    before = path.read_text()
    with pytest.raises(TicketError, match="this file exists, and is not overwritten"):
        write_ticket(path, replace(TICKET, name="other"), replace=False)
    assert path.read_text() == before
    write_ticket(path, replace(TICKET, name="other"))
    assert read_ticket(path).name == "other"


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
@pytest.mark.parametrize("over", [True, False])
def test_a_failing_disk_leaves_what_was_there_and_no_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, over: bool
) -> None:
    path = tmp_path / "t"
    if over:
        write_ticket(path, TICKET)

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, call, full)
        with pytest.raises(TicketError, match=r"cannot be written \(No space left on device\)"):
            write_ticket(path, replace(TICKET, name="other"), replace=over)
    assert [p.name for p in tmp_path.iterdir()] == (["t"] if over else [])
    if over:
        assert read_ticket(path) == TICKET


def test_a_directory_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(TicketError, match="No such file or directory"):
        write_ticket(tmp_path / "no" / "t", TICKET)


# ---- times ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30d", 30 * DAY), ("12h", 43_200), ("90m", 5400), ("45s", 45), ("8w", 56 * DAY), ("never", 0), (" 1d ", DAY)],
)
def test_how_long_a_ticket_is_good(text: str, seconds: int) -> None:
    assert parse_validity(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "d", "30", "0d", "-1d", "1.5h", "1 d", "1y", "forever", "٣d", "9" * 11 + "s", "36601d", "1dd"]
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(text))):
        parse_validity(text)


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (0.0, "1970-01-01T00:00:00Z"),
        (1e9, "2001-09-09T01:46:40Z"),
        (NEVER, "never"),
        (1e300, "never"),
        (LAST_S, "never"),
    ],
)
def test_times_as_text(at: float, text: str) -> None:
    assert iso(at) == text
