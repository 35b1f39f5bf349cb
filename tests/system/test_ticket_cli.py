"""`taskmesh ticket`, as people use it: with no hub running, and when it is used wrongly."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
from pathlib import Path
from typing import Any

import pytest

from taskmesh import HubUnreachable, Mesh, RegistrationRefused
from taskmesh.cli.asking import ask
from taskmesh.core.access import Role
from taskmesh.core.messages import CreateTicket, ListTickets, RevokeTicket
from taskmesh.security.keyring import Keyring
from taskmesh.security.ticket import read_ticket
from taskmesh.transport.endpoints import parse_address

from .processes import Fleet, Started, until
from .test_cli import one_line, taskmesh

ADDRESS = "tcp://127.0.0.1:5555"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configuration directory; and the current one is an empty one beside it."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "config" / "taskmesh"


@pytest.fixture
def keys(home: Path) -> Path:
    """The keys of a hub that was started here once, and does not run."""
    keyring = Keyring.open(home / "hub-5555")
    keyring.first_tickets(ADDRESS)
    keyring.close()
    return keyring.directory


def listed(*options: str) -> list[dict[str, Any]]:
    finished = taskmesh("ticket", "list", "--json", *options)
    assert (finished.returncode, finished.stderr) == (0, "")
    entries: list[dict[str, Any]] = json.loads(finished.stdout)
    return entries


# ---- without a hub --------------------------------------------------------------------------------------------------


def test_a_ticket_is_made_listed_and_revoked(keys: Path) -> None:
    made = taskmesh("ticket", "create", "--role", "client", "--name", "laptop", "--expires", "30d")
    assert made.returncode == 0
    assert made.stdout.startswith(f"laptop.ticket: a ticket for role client at the hub {ADDRESS}, good until 20")
    assert "Mesh(ticket=FILE)" in made.stdout
    assert "this machine alone" in made.stderr  # the address would be of no use elsewhere
    path = Path("laptop.ticket")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    ticket = read_ticket(path)
    assert (ticket.hub, ticket.role, ticket.name) == (ADDRESS, Role.CLIENT, "laptop")
    assert ticket.hub_key == read_ticket(keys / "admin.ticket").hub_key
    entry = listed()[3]
    assert (entry["name"], entry["role"], entry["state"]) == ("laptop", "client", "good")
    assert entry["expires"] in path.read_text()
    revoked = taskmesh("ticket", "revoke", "laptop")
    assert (revoked.returncode, revoked.stderr) == (0, "")
    assert revoked.stdout == "the ticket 'laptop' is revoked; the next hub here will know\n"
    assert listed()[3]["state"] == "revoked"
    audit = [json.loads(line) for line in (keys / "audit.jsonl").read_text().splitlines()]
    assert [(e["event"], e["name"], e["by"]) for e in audit] == [
        ("ticket created", "laptop", None),
        ("ticket revoked", "laptop", None),
    ]


def test_the_hub_learns_the_public_half_alone(keys: Path) -> None:
    assert taskmesh("ticket", "create", "--role", "worker", "--name", "farm").returncode == 0
    ticket = read_ticket("farm.ticket")
    contents = {path.name: path.read_text() for path in keys.iterdir()}
    assert ticket.public_key in contents["grants.json"]
    assert not any(ticket.secret_key in text for text in contents.values())


def test_a_ticket_for_other_machines_says_their_address(keys: Path) -> None:
    made = taskmesh(
        "ticket", "create", "--role", "worker", "--name", "farm", "--address", "10.0.0.5", "--out", "w.ticket"
    )
    assert (made.returncode, made.stderr) == (0, "")
    assert "good for ever" in made.stdout
    assert read_ticket("w.ticket").hub == "tcp://10.0.0.5:5555"
    assert not Path("farm.ticket").exists()


def test_a_ticket_can_go_to_standard_output(keys: Path) -> None:
    made = taskmesh("ticket", "create", "--role", "client", "--name", "ci", "--out", "-")
    assert (made.returncode, made.stderr) == (0, "")
    assert os.listdir() == []
    Path("ci.ticket").touch(0o600)
    Path("ci.ticket").write_text(made.stdout)
    assert read_ticket("ci.ticket").name == "ci"
    assert listed()[3]["name"] == "ci"


def test_a_file_is_never_overwritten_and_nothing_is_registered_then(keys: Path) -> None:
    Path("laptop.ticket").write_text("mine")
    made = taskmesh("ticket", "create", "--role", "client", "--name", "laptop")
    assert made.returncode == 7
    assert "laptop.ticket: this file exists, and is not overwritten; choose another with --out" in one_line(made)
    assert Path("laptop.ticket").read_text() == "mine"
    assert len(listed()) == 3


def test_what_cannot_be_registered_leaves_no_file(keys: Path) -> None:
    made = taskmesh("ticket", "create", "--role", "client", "--name", "admin", "--out", "x.ticket")
    assert made.returncode == 7
    assert "there is a ticket 'admin'; choose another name" in one_line(made)
    assert os.listdir() == []


def test_the_last_admin_ticket_is_not_revoked(keys: Path) -> None:
    revoked = taskmesh("ticket", "revoke", "admin")
    assert revoked.returncode == 7
    assert "Create another first" in one_line(revoked)
    assert taskmesh("ticket", "create", "--role", "admin", "--name", "me").returncode == 0
    assert taskmesh("ticket", "revoke", "admin").returncode == 0
    assert not (keys / "admin.ticket").exists()
    assert taskmesh("ticket", "list").returncode == 0  # the directory is found without it


def test_the_list_is_a_table_for_people(keys: Path) -> None:
    finished = taskmesh("ticket", "list")
    assert (finished.returncode, finished.stderr) == (0, "")
    assert "Tickets: 3" in finished.stdout
    assert re.search(r"^ ?client +client +good +\S+Z +never +[0-9a-f]{16}", finished.stdout, re.M)


def test_keys_can_be_anywhere(home: Path, tmp_path: Path) -> None:
    keyring = Keyring.open(tmp_path / "elsewhere")
    keyring.first_tickets("tcp://127.0.0.1:7000")
    keyring.close()
    assert len(listed("--keys", str(tmp_path / "elsewhere"))) == 3
    assert len(listed("--ticket", str(tmp_path / "elsewhere" / "admin.ticket"))) == 3  # it lies beside the keys
    finished = taskmesh("ticket", "list", TASKMESH_KEYS=str(tmp_path / "elsewhere"))
    assert finished.returncode == 0
    assert not home.exists()


def test_the_only_hub_here_needs_no_name(home: Path) -> None:
    keyring = Keyring.open(home / "hub-7000")
    keyring.first_tickets("tcp://127.0.0.1:7000")
    keyring.close()
    assert len(listed()) == 3
    assert len(listed("--hub", "tcp://127.0.0.1:7000")) == 3


# ---- with a hub that runs -------------------------------------------------------------------------------------------


def made(name: str, role: str = "client", *options: str) -> Path:
    """A new ticket of the hub that runs."""
    finished = taskmesh("ticket", "create", "--role", role, "--name", name, *options)
    assert finished.returncode == 0, finished.stderr
    return Path(f"{name}.ticket").absolute()


def refused(ticket: Path) -> str:
    """Why nobody gets in with a ticket."""
    with pytest.raises(RegistrationRefused) as caught:
        Mesh(ticket=ticket, connect_timeout=10)
    return str(caught.value)


def test_a_new_ticket_is_good_at_once(home: Path, fleet: Fleet) -> None:
    fleet.worker()
    laptop = made("laptop", "client", "--expires", "1d")
    assert read_ticket(laptop).hub == fleet.address
    assert [entry["name"] for entry in listed()] == ["admin", "client", "worker", "laptop"]
    with Mesh(ticket=laptop) as mesh:
        assert mesh.submit(abs, -3).result(10) == 3
    farm = made("farm", "worker")
    worker = fleet.worker_with(farm)
    assert worker.process.poll() is None
    [keys] = home.glob("free-*")
    audit = [json.loads(line) for line in (keys / "audit.jsonl").read_text().splitlines()]
    assert [(e["name"], e["by"]) for e in audit if e["event"] == "ticket created"] == [
        ("laptop", "admin"),
        ("farm", "admin"),
    ]


def test_revoking_takes_effect_at_once_without_a_restart(home: Path, fleet: Fleet) -> None:
    fleet.worker()
    laptop, other = made("laptop"), made("other")
    with Mesh(ticket=other) as stays, Mesh(ticket=laptop) as goes:
        held = goes.submit(signal.pause)
        until(lambda: "1 with workers" in taskmesh("status").stdout, "it runs")
        revoked = taskmesh("ticket", "revoke", "laptop")
        assert (revoked.returncode, revoked.stderr) == (0, "")
        assert revoked.stdout == "the ticket 'laptop' is revoked; the hub has put out whoever came with it\n"
        with pytest.raises(HubUnreachable, match="the ticket 'laptop' was revoked"):
            held.result(10)  # a live connection is ended, too
        assert stays.submit(abs, -2).result(10) == 2
        goes.shutdown(wait=False, cancel_futures=True)
    assert "does not know the ticket 'laptop', or it was revoked" in refused(laptop)
    assert listed()[3]["state"] == "revoked"


def test_a_worker_whose_ticket_is_revoked_is_put_out(home: Path, fleet: Fleet) -> None:
    farm = made("farm", "worker")
    worker = fleet.worker_with(farm)
    assert taskmesh("ticket", "revoke", "farm").returncode == 0
    assert worker.ends(20) == 4, worker.output
    assert "revoked" in worker.output
    document = json.loads(taskmesh("status", "--json").stdout)
    assert document["daemons"] == []


def test_a_ticket_ends_by_itself_at_a_hub_that_runs(home: Path, fleet: Fleet) -> None:
    brief = made("brief", "client", "--expires", "2s")
    text = brief.read_text()
    until(lambda: listed()[3]["state"] == "expired", "it has expired")
    finished = taskmesh("status", "--ticket", str(brief))
    assert finished.returncode == 7
    assert "the ticket 'brief' has expired on" in one_line(finished)
    brief.write_text(re.sub('expires = ".*"', 'expires = "never"', text))  # the hub knows better
    assert "has expired" in refused(brief)


def test_what_a_hub_refuses_is_one_clear_line_and_leaves_no_file(home: Path, fleet: Fleet) -> None:
    for arguments, says in (
        (
            ["create", "--role", "client", "--name", "admin", "--out", "x"],
            "there is a ticket 'admin'; choose another name",
        ),
        (["revoke", "admin"], "'admin' is the last admin ticket"),
        (["revoke", "nobody"], "there is no ticket 'nobody'"),
    ):
        finished = taskmesh("ticket", *arguments)
        assert finished.returncode == 4
        assert says in one_line(finished)
    assert os.listdir() == []
    assert len(listed()) == 3


def test_only_an_admin_may_ask_for_tickets(home: Path, fleet: Fleet) -> None:
    [keys] = home.glob("free-*")
    address = parse_address(fleet.address)
    for role in ("client", "worker"):
        ticket = read_ticket(keys / f"{role}.ticket")
        for message in (ListTickets(), RevokeTicket("admin"), CreateTicket("mine", "admin", b"k" * 32, 0)):
            with pytest.raises(RegistrationRefused, match="that takes an admin ticket"):
                ask(address, ticket, message, 10)
    assert len(listed()) == 3


def test_a_ticket_of_another_hub(home: Path, fleet: Fleet, tmp_path: Path) -> None:
    other = Keyring.open(tmp_path / "other")
    other.first_tickets(fleet.address)
    other.close()
    finished = taskmesh("status", "--ticket", str(tmp_path / "other" / "client.ticket"))
    assert finished.returncode == 4
    assert "does not have the key of the hub that this ticket is for" in one_line(finished)


def test_status_asks_with_a_ticket_that_was_given(home: Path, fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    ops = made("ops", "admin")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home.parent / "elsewhere"))
    finished = taskmesh("status", fleet.address)
    assert finished.returncode == 7
    assert f"there is no client ticket for the hub at {fleet.address} on this machine" in one_line(finished)
    for finished in (taskmesh("status", "--ticket", str(ops)), taskmesh("status", TASKMESH_TICKET=str(ops))):
        assert finished.returncode == 0
        assert fleet.address in finished.stdout
    finished = taskmesh("status", fleet.address, "--insecure")
    assert finished.returncode == 4
    assert "the hub asks for a ticket, and none was given" in one_line(finished)


def test_a_hub_without_keys_has_no_tickets_and_takes_none(home: Path, tmp_path: Path, keys: Path) -> None:
    fleet = Fleet(tmp_path, options=["--insecure"])
    try:
        assert taskmesh("status", fleet.address, "--insecure").returncode == 0
        ticket = read_ticket(keys / "admin.ticket")
        finished = taskmesh("status", fleet.address, "--ticket", str(keys / "admin.ticket"))
        assert finished.returncode == 4
        assert "the hub runs without keys (--insecure)" in one_line(finished)
        with pytest.raises(RegistrationRefused, match="has no keys, so it has no tickets"):
            ask(parse_address(fleet.address), None, ListTickets(), 10)
        with pytest.raises(RegistrationRefused, match="the hub runs without keys"):
            ask(parse_address(fleet.address), ticket, ListTickets(), 10)
    finally:
        fleet.end()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_root_asks_the_hub_of_another_user_and_never_touches_its_files(keys: Path) -> None:
    text = (keys / "admin.ticket").read_text()
    (keys / "admin.ticket").write_text(text.replace(ADDRESS, "tcp://127.0.0.1:1"))
    for path in (keys, *keys.iterdir()):
        os.chown(path, 12_345, -1)
    for options in (["--keys", str(keys)], ["--ticket", str(keys / "admin.ticket")]):
        finished = taskmesh("ticket", "create", "--role", "client", "--name", "x", *options, "--timeout", "0.3")
        assert finished.returncode == 3
        assert "no hub answered at tcp://127.0.0.1:1" in one_line(finished)
        assert ("If it is stopped, run this as the user" in finished.stderr) == (options[0] == "--keys")
    assert {path.stat().st_uid for path in (keys, *keys.iterdir())} == {12_345}
    assert os.listdir() == []


# ---- used wrongly ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["create"], "Missing option"),
        (["create", "--role", "client"], "Missing option"),
        (["create", "--role", "boss", "--name", "x"], "'boss' is not one of"),
        (["create", "--role", "client", "--name", "a/b"], "--name: the name of a ticket has a path separator"),
        (["create", "--role", "client", "--name", ""], "--name: the name of a ticket is empty"),
        (["create", "--role", "client", "--name", "x" * 61], "longer than 60 characters"),
        (["create", "--role", "client", "--name", "x", "--expires", "soon"], "--expires: 'soon' is no time"),
        (["create", "--role", "client", "--name", "x", "--address", "redis://x"], "unknown scheme 'redis'"),
        (["create", "--role", "client", "--name", "x", "--address", "*"], "name the one by which to reach it"),
        (
            ["create", "--role", "client", "--name", "x", "--address", "0.0.0.0"],
            "0.0.0.0 is every address of the hub's machine",
        ),
        (["create", "--role", "client", "--name", "x", "--address", "[::]:5555"], "name the one by which"),
        (["create", "--role", "client", "--name", "x", "--address", "ipc:///tmp/x"], "where nobody needs a ticket"),
        (["create", "--role", "client", "--name", "-x"], "--name: the name of a ticket begins with"),
        (["revoke"], "Missing argument 'NAME'"),
        (["lst"], "No such command 'lst'"),
        (["list", "--hub", "ipc:///tmp/x"], "has no tickets: whoever may enter its directory may join"),
        (["list", "--hub", "nothing:x"], "not a port"),
    ],
)
def test_a_mistake_in_the_command_is_one_clear_line(keys: Path, arguments: list[str], says: str) -> None:
    before = {path.name: path.read_bytes() for path in keys.iterdir()}
    finished = taskmesh("ticket", *arguments)
    assert finished.returncode == 2
    assert says in one_line(finished)
    assert {path.name: path.read_bytes() for path in keys.iterdir()} == before
    assert os.listdir() == []


def test_where_no_hub_was_ever_started(home: Path, tmp_path: Path) -> None:
    finished = taskmesh("ticket", "list")
    assert finished.returncode == 7
    assert "no hub was started here yet: taskmesh hub (or say where" in one_line(finished)
    finished = taskmesh("ticket", "create", "--role", "admin", "--name", "me", "--hub", "localhost:7000")
    assert finished.returncode == 7
    assert "no hub was started here yet: taskmesh hub --listen tcp://localhost:7000" in one_line(finished)
    assert "no hub was started here yet" in one_line(taskmesh("ticket", "revoke", "me"))
    finished = taskmesh("ticket", "list", "--keys", str(tmp_path / "none"))
    assert finished.returncode == 7
    assert "none is no keys directory of a hub: there is no hub.key in it" in one_line(finished)
    assert not home.exists() and not (tmp_path / "none").exists()  # and none is made


def test_a_ticket_that_is_none_an_admins(keys: Path, tmp_path: Path) -> None:
    for ticket, says in (
        (keys / "client.ticket", "for role client, and here one for admin"),
        (tmp_path / "x", "no such"),
    ):
        finished = taskmesh("ticket", "list", "--ticket", str(ticket))
        assert finished.returncode == 7
        assert says in one_line(finished)


def test_keys_that_others_can_read_are_refused_with_the_remedy(keys: Path) -> None:
    (keys / "hub.key").chmod(0o644)
    finished = taskmesh("ticket", "list")
    assert finished.returncode == 7
    assert one_line(finished).endswith(
        f"others can read this file, and could let anybody in; chmod 600 {keys / 'hub.key'}"
    )


def test_a_damaged_ticket_of_the_hub_has_a_remedy_that_works(keys: Path) -> None:
    """Which is to do what the message says."""
    for role in ("worker", "admin"):
        path = keys / f"{role}.ticket"
        path.write_text(path.read_text().replace("public_key", "pubic_key"))
        options = ["--ticket", str(path)] if role == "admin" else []
        finished = taskmesh("ticket", "list", *options) if role == "admin" else taskmesh("worker", ADDRESS)
        assert finished.returncode == 7
        says = one_line(finished)
        assert f"{path}: this is not a ticket that can be used: public_key is missing; " in says
        assert ("stop the hub, remove it" in says) == (role == "admin")
        path.unlink()
        command = says.partition("taskmesh ticket ")[2].replace("NAME", f"{role}-2").split()
        assert taskmesh("ticket", *command).returncode == 0
        assert read_ticket(path).name == f"{role}-2"
    assert [entry["name"] for entry in listed()] == ["admin", "client", "worker", "worker-2", "admin-2"]


@pytest.mark.parametrize("verb", ["status", "worker"])
def test_a_file_that_is_no_ticket_gets_no_advice_for_one(home: Path, tmp_path: Path, verb: str) -> None:
    (tmp_path / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (tmp_path / "passwd").chmod(0o644)
    finished = taskmesh(verb, "--ticket", str(tmp_path / "passwd"))
    assert finished.returncode == 7
    assert one_line(finished).endswith("passwd: this is no ticket")


def test_a_directory_of_others_is_no_place_for_keys(home: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o755)
    (tmp_path / "theirs" / "something").touch()
    finished = taskmesh("hub", "--listen", "tcp://127.0.0.1:0", TASKMESH_KEYS=str(tmp_path / "theirs"))
    assert finished.returncode == 7
    assert one_line(finished).endswith("could let anybody in; choose a directory of your own")


def test_a_register_that_is_gone_is_not_replaced_in_silence(home: Path, fleet: Fleet, tmp_path: Path) -> None:
    where = tmp_path / "kept"
    again = ("hub", "--listen", "tcp://127.0.0.1:0", "--keys", str(where))
    first = Started(["-m", "taskmesh", *again], tmp_path)
    try:
        first.says("ready at")
    finally:
        first.signal(signal.SIGTERM)
        first.ends()
    (where / "grants.json").unlink()
    finished = taskmesh(*again)
    assert finished.returncode == 7
    assert f"{where / 'grants.json'} is missing, and says which tickets are good" in one_line(finished)
    assert not (where / "grants.json").exists()


def test_a_hub_that_runs_without_its_admin_ticket(home: Path, fleet: Fleet) -> None:
    [keys] = home.glob("free-*")
    (keys / "admin.ticket").unlink()
    finished = taskmesh("ticket", "list", "--keys", str(keys))
    assert finished.returncode == 7
    assert "there is no admin.ticket in" in one_line(finished)
    assert one_line(finished).endswith("stop the hub: who may change its files needs no ticket")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_root_is_told_to_be_the_user_of_the_hub(keys: Path) -> None:
    (keys / "admin.ticket").unlink()
    for path in (keys, *keys.iterdir()):
        os.chown(path, 12_345, -1)
    finished = taskmesh("ticket", "create", "--role", "admin", "--name", "me", "--keys", str(keys))
    assert finished.returncode == 7
    assert "stop the hub, and run this as the user to whom its files belong (uid 12345)" in one_line(finished)


def test_a_hub_that_does_not_answer(keys: Path, tmp_path: Path) -> None:
    ticket = tmp_path / "mine.ticket"
    ticket.touch(0o600)
    ticket.write_text((keys / "admin.ticket").read_text().replace(ADDRESS, "tcp://127.0.0.1:1"))
    finished = taskmesh(
        "ticket", "create", "--role", "client", "--name", "x", "--ticket", str(ticket), "--timeout", "0.3"
    )
    assert finished.returncode == 3
    assert "no hub answered at tcp://127.0.0.1:1 within 0.3 s: nothing listens" in one_line(finished)
    assert os.listdir() == []


# ---- help -----------------------------------------------------------------------------------------------------------


def test_without_a_verb_help_is_shown_and_it_is_a_mistake() -> None:
    finished = taskmesh("ticket")
    assert (finished.returncode, finished.stderr) == (2, "")
    assert "Examples" in finished.stdout and "revoke" in finished.stdout


@pytest.mark.parametrize("verb", ["create", "list", "revoke"])
def test_help_shows_examples_and_every_option_is_documented(verb: str) -> None:
    finished = taskmesh("ticket", verb, "--help")
    assert finished.returncode == 0
    assert "Examples" in finished.stdout
    documented = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    names = re.findall(r"^│[ *]+(--[\w-]+)", finished.stdout, re.M) + re.findall(r"TASKMESH_[A-Z]+", finished.stdout)
    assert len(names) >= 8
    for name in {*names} - {"--help"}:
        assert f"`{name}" in documented, name
