"""Which hub to join, and with which keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskmesh.core.access import Role
from taskmesh.errors import NoTicket, TicketError
from taskmesh.joining import choose_hub, credentials_of
from taskmesh.security import keys
from taskmesh.security.ticket import Ticket, write_ticket
from taskmesh.transport.endpoints import Address

HERE = Address("tcp", "127.0.0.1", 5555)


@pytest.fixture(autouse=True)
def nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "configuration"))
    for name in ("TASKMESH_TICKET", "TASKMESH_INSECURE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def ticket(tmp_path: Path) -> Ticket:
    hub, _ = keys.new_pair()
    public, secret = keys.new_pair()
    made = Ticket("tcp://hub.lan:7000", hub, public, secret, Role.CLIENT, "laptop")
    write_ticket(tmp_path / "laptop.ticket", made)
    return made


def test_a_ticket_names_the_hub_and_the_keys(ticket: Ticket, tmp_path: Path) -> None:
    chosen = choose_hub(None, tmp_path / "laptop.ticket", insecure=False)
    assert chosen == (Address("tcp", "hub.lan", 7000), credentials_of(ticket))


def test_an_address_counts_before_the_one_in_the_ticket(ticket: Ticket, tmp_path: Path) -> None:
    chosen = choose_hub("tcp://10.0.0.7:7000", tmp_path / "laptop.ticket", insecure=False)
    assert chosen == (Address("tcp", "10.0.0.7", 7000), credentials_of(ticket))


def test_a_ticket_and_no_keys_do_not_go_together(ticket: Ticket, tmp_path: Path) -> None:
    with pytest.raises(TicketError, match="do not go together"):
        choose_hub("tcp://hub.lan:7000", tmp_path / "laptop.ticket", insecure=True)


def test_a_ticket_that_is_given_counts_before_the_environment_that_wants_no_keys(
    ticket: Ticket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKMESH_INSECURE", "1")
    assert choose_hub(None, tmp_path / "laptop.ticket", insecure=False).credentials == credentials_of(ticket)


def test_without_keys_and_without_an_address_it_is_the_hub_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_hub(None, None, insecure=True) == (HERE, None)
    monkeypatch.setenv("TASKMESH_INSECURE", "yes")
    assert choose_hub(None, None, insecure=False) == (HERE, None)


def test_a_directory_needs_no_keys(ticket: Ticket, tmp_path: Path) -> None:
    for given in (None, tmp_path / "laptop.ticket"):
        assert choose_hub("ipc:///run/mesh", given, insecure=False) == (Address("ipc", "/run/mesh", 0), None)


def test_without_a_ticket_nobody_joins(ticket: Ticket) -> None:
    with pytest.raises(NoTicket):
        choose_hub("tcp://hub.lan:7000", None, insecure=False)
