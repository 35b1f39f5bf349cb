"""Which ticket is used at which hub, when nobody says it, when somebody does, and when there is none."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from taskmesh.core.access import Role
from taskmesh.errors import NoTicket, TicketError
from taskmesh.security import keys
from taskmesh.security.finding import find, find_ticket
from taskmesh.security.ticket import Ticket, write_ticket
from taskmesh.transport.endpoints import Address, parse_address

HUB = keys.new_pair()[0]
PAIR = keys.new_pair()
LOCAL = parse_address("tcp://127.0.0.1:5555")
REMOTE = parse_address("tcp://10.0.0.5:5555")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configuration directory, empty."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("TASKMESH_TICKET", raising=False)
    return tmp_path / "taskmesh"


def put(path: Path, role: Role, hub: str = "tcp://127.0.0.1:5555", expires_at: float = float("inf")) -> Path:
    """A ticket in a file; its name is that of the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = f"{path.parent.name}-{path.stem}"
    write_ticket(path, Ticket(hub, HUB, *PAIR, role, name, expires_at))
    return path


def own(home: Path, directory: str = "hub-5555", hub: str = "tcp://127.0.0.1:5555") -> None:
    """The three tickets of a hub of this user."""
    for role in Role:
        put(home / directory / f"{role}.ticket", role, hub)


def found(address: Address | None, role: Role, explicit: str | None = None) -> str:
    return find_ticket(address, role, explicit).name


def refusal(address: Address | None, role: Role, explicit: str | None = None) -> str:
    with pytest.raises(TicketError) as caught:
        find_ticket(address, role, explicit)
    return str(caught.value)


# ---- on the hub's machine -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("address", [None, "localhost", "127.0.0.1", "127.0.0.2:5555", "[::1]:5555"])
def test_processes_of_the_hubs_user_find_their_ticket(home: Path, role: Role, address: str | None) -> None:
    own(home)
    assert found(parse_address(address) if address else None, role) == f"hub-5555-{role}"


def test_each_port_has_its_own(home: Path) -> None:
    own(home)
    own(home, "hub-7000", "tcp://127.0.0.1:7000")
    own(home, "free-40001", "tcp://127.0.0.1:40001")
    for port, name in ((5555, "hub-5555"), (7000, "hub-7000"), (40001, "free-40001")):
        assert found(LOCAL._replace(port=port), Role.WORKER) == f"{name}-worker"
    assert found(None, Role.WORKER) == "hub-5555-worker"


def test_a_hub_that_others_reach_is_found_by_its_name_and_from_this_machine(home: Path) -> None:
    own(home, hub="tcp://hub.example:5555")
    assert found(parse_address("HUB.example"), Role.CLIENT) == "hub-5555-client"
    assert found(LOCAL, Role.CLIENT) == "hub-5555-client"
    says = refusal(REMOTE, Role.CLIENT)
    assert "no client ticket for the hub at tcp://10.0.0.5:5555" in says
    assert (
        f"{home}/hub-5555/client.ticket is for tcp://hub.example:5555: if that is the same hub, give this one" in says
    )


def test_the_only_hub_needs_no_address(home: Path) -> None:
    own(home, "free-40001", "tcp://127.0.0.1:40001")
    assert find_ticket(None, Role.CLIENT, None).hub == "tcp://127.0.0.1:40001"


def test_of_several_hubs_one_has_to_be_named(home: Path) -> None:
    own(home, "hub-7000", "tcp://127.0.0.1:7000")
    put(home / "tickets" / "farm.ticket", Role.CLIENT, "tcp://10.0.0.5:6000")
    says = refusal(None, Role.CLIENT)
    assert "name one" in says
    assert f"tcp://10.0.0.5:6000 ({home}/tickets/farm.ticket)" in says
    assert f"tcp://127.0.0.1:7000 ({home}/hub-7000/client.ticket)" in says


def test_with_two_hubs_on_the_usual_port_this_machines_is_meant(home: Path) -> None:
    put(home / "tickets" / "farm.ticket", Role.CLIENT, "tcp://10.0.0.5:5555")
    assert found(None, Role.CLIENT) == "tickets-farm"
    own(home)
    assert found(None, Role.CLIENT) == "hub-5555-client"
    assert found(REMOTE, Role.CLIENT) == "tickets-farm"


# ---- tickets that were given ----------------------------------------------------------------------------------------


def test_a_ticket_that_was_put_among_the_tickets_is_found_by_its_hub(home: Path) -> None:
    path = put(home / "tickets" / "farm.ticket", Role.WORKER, "tcp://10.0.0.5:5555")
    put(home / "tickets" / "other.ticket", Role.WORKER, "tcp://10.0.0.6:5555")
    put(home / "tickets" / "port.ticket", Role.WORKER, "tcp://10.0.0.5:7000")
    put(home / "tickets" / "notes.txt", Role.WORKER, "tcp://10.0.0.5:5555")
    assert find(REMOTE, Role.WORKER, None).path == path


def test_a_given_ticket_is_for_its_own_hub_and_not_for_what_is_here(home: Path) -> None:
    put(home / "tickets" / "farm.ticket", Role.CLIENT, "tcp://10.0.0.5:5555")
    assert "no client ticket for the hub at tcp://127.0.0.1:5555" in refusal(LOCAL, Role.CLIENT)


def test_of_several_the_newest_is_taken(home: Path) -> None:
    for age, name in enumerate(("a", "c", "b")):
        path = put(home / "tickets" / f"{name}.ticket", Role.CLIENT, "tcp://10.0.0.5:5555")
        os.utime(path, (1e9 + age, 1e9 + age))
    assert found(REMOTE, Role.CLIENT) == "tickets-b"


def test_an_expired_ticket_is_passed_over_if_there_is_a_good_one(home: Path) -> None:
    old = put(home / "tickets" / "old.ticket", Role.CLIENT, "tcp://10.0.0.5:5555", expires_at=1e9)
    assert "the ticket 'tickets-old' has expired on 2001-09-09" in refusal(REMOTE, Role.CLIENT)
    new = put(home / "tickets" / "new.ticket", Role.CLIENT, "tcp://10.0.0.5:5555")
    os.utime(new, (1e9, 1e9))
    assert old.stat().st_mtime > 1e9
    assert found(REMOTE, Role.CLIENT) == "tickets-new"


# ---- roles ----------------------------------------------------------------------------------------------------------


def test_an_admins_ticket_does_for_a_client_if_there_is_none(home: Path) -> None:
    put(home / "hub-5555" / "admin.ticket", Role.ADMIN)
    assert found(LOCAL, Role.CLIENT) == "hub-5555-admin"
    put(home / "tickets" / "mine.ticket", Role.CLIENT)
    assert found(LOCAL, Role.CLIENT) == "tickets-mine"
    assert found(LOCAL, Role.ADMIN) == "hub-5555-admin"
    assert "no worker ticket" in refusal(LOCAL, Role.WORKER)


@pytest.mark.parametrize(
    ("given", "wanted"), [("worker", "client"), ("client", "worker"), ("admin", "worker"), ("client", "admin")]
)
def test_a_ticket_of_another_role_is_refused_by_name(home: Path, given: str, wanted: str) -> None:
    path = put(home / "x" / "farm.ticket", Role(given))
    says = refusal(LOCAL, Role(wanted), str(path))
    assert says.startswith(f"{path}: the ticket 'x-farm' is one for role {given}, and here one for {wanted} is needed")


# ---- order ----------------------------------------------------------------------------------------------------------


def test_what_is_said_comes_before_what_is_found(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own(home)
    said = put(home / "x" / "said.ticket", Role.CLIENT, "tcp://10.0.0.9:1")
    environment = put(home / "x" / "environment.ticket", Role.CLIENT)
    monkeypatch.setenv("TASKMESH_TICKET", str(environment))
    assert found(LOCAL, Role.CLIENT, str(said)) == "x-said"  # whatever its address: there may be a tunnel
    assert found(LOCAL, Role.CLIENT) == "x-environment"
    monkeypatch.setenv("TASKMESH_TICKET", "")
    assert found(LOCAL, Role.CLIENT) == "hub-5555-client"


def test_a_tilde_is_the_home_directory(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(home / "x.ticket", Role.CLIENT)
    monkeypatch.setenv("HOME", str(home))
    assert found(None, Role.CLIENT, "~/x.ticket") == "taskmesh-x"


def test_what_was_said_and_is_not_there_is_not_replaced_by_another(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own(home)
    monkeypatch.setenv("TASKMESH_TICKET", str(home / "gone"))
    assert refusal(LOCAL, Role.CLIENT).startswith(f"{home}/gone: there is no such ticket")


# ---- what cannot be used --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["hub-5555/client.ticket", "tickets/a.ticket"])
def test_a_found_ticket_that_others_can_read_is_an_error(home: Path, place: str) -> None:
    path = put(home / place, Role.CLIENT)
    put(home / "tickets" / "good.ticket", Role.CLIENT)
    path.chmod(0o644)
    assert refusal(LOCAL, Role.CLIENT).startswith(f"{path}: others can read this ticket")


def test_a_directory_that_cannot_be_entered_is_an_error(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own(home)

    stat = Path.stat

    def denied(path: Path, *arguments: Any, **options: Any) -> Any:
        if str(path).endswith(".ticket"):
            raise PermissionError(13, "Permission denied")
        return stat(path, *arguments, **options)

    monkeypatch.setattr(Path, "stat", denied)  # as where root started a hub with this user's home directory
    monkeypatch.setattr(os, "open", denied)
    assert refusal(LOCAL, Role.CLIENT) == (
        f"{home}/hub-5555/client.ticket: the ticket cannot be read (Permission denied)"
    )


def test_what_is_wrong_with_another_hubs_keys_is_of_no_concern(home: Path) -> None:
    own(home)
    path = put(home / "hub-7000" / "client.ticket", Role.CLIENT, "tcp://127.0.0.1:7000")
    path.chmod(0o644)
    assert found(LOCAL, Role.CLIENT) == "hub-5555-client"


def test_nothing_found_says_how_to_get_one() -> None:
    says = refusal(REMOTE, Role.CLIENT)
    for part in (
        "no client ticket for the hub at tcp://10.0.0.5:5555",
        "taskmesh ticket create --role client --name NAME",
        "--ticket, ticket= or $TASKMESH_TICKET",
        "--insecure, insecure=True",
    ):
        assert part in says
    with pytest.raises(NoTicket, match="for any hub on this machine"):
        find_ticket(None, Role.CLIENT, None)


def test_the_ticket_comes_as_it_was_written(home: Path) -> None:
    path = put(home / "hub-5555" / "worker.ticket", Role.WORKER)
    ticket = find_ticket(LOCAL, Role.WORKER, None)
    assert ticket == replace(ticket, secret_key=PAIR[1], public_key=PAIR[0], hub_key=HUB)
    assert find(LOCAL, Role.WORKER, None).path == path
