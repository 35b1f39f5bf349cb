"""A hub's keys directory: made once, used by one, changed as a whole or not at all, refused if others can reach it."""

from __future__ import annotations

import contextlib
import errno
import json
import multiprocessing
import multiprocessing.synchronize
import os
import re
import resource
import shutil
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskmesh.core.access import NEVER, Access, Grant, Role
from taskmesh.errors import KeysError
from taskmesh.security import keys
from taskmesh.security.grants import document, fingerprint
from taskmesh.security.keyring import Keyring, KeysInUse
from taskmesh.security.places import default_keys_directory, ephemeral_directory, sweep_ephemeral
from taskmesh.security.ticket import read_ticket
from taskmesh.transport.endpoints import parse_address

ADDRESS = "tcp://127.0.0.1:5555"
NOW = 1_800_000_000.0


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where the keys are to be."""
    return tmp_path / "keys"


@pytest.fixture
def keyring(directory: Path) -> Iterator[Keyring]:
    """A hub's keys, with its three tickets."""
    keyring = Keyring.open(directory)
    keyring.first_tickets(ADDRESS)
    yield keyring
    keyring.close()


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def create(keyring: Keyring, name: str, role: Role = Role.CLIENT, number: int = 1) -> Grant:
    return keyring.create(name, role, key(number), NOW, NEVER)


def reopened(keyring: Keyring) -> Keyring:
    """The same directory, as another process finds it."""
    keyring.close()
    return Keyring.open(keyring.directory)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# ---- the first start ------------------------------------------------------------------------------------------------


def test_everything_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        keyring = Keyring.open(tmp_path / "a" / "b" / "keys")
        keyring.first_tickets(ADDRESS)
        keyring.close()
    finally:
        os.umask(before)
    assert [mode(tmp_path / p) for p in ("a", "a/b", "a/b/keys")] == [0o700] * 3
    files = {path.name: mode(path) for path in keyring.directory.iterdir()}
    assert set(files) == {"hub.key", "grants.json", "lock", "admin.ticket", "client.ticket", "worker.ticket"}
    assert set(files.values()) == {0o600}


def test_keys_and_tickets_are_made_once(keyring: Keyring) -> None:
    first, grants = (keyring.public_key, keyring.secret_key), keyring.grants
    tickets = [read_ticket(keyring.ticket_path(role)) for role in Role]
    again = reopened(keyring)
    again.first_tickets(ADDRESS)
    assert (again.public_key, again.secret_key) == first
    assert again.grants == grants
    assert [read_ticket(again.ticket_path(role)) for role in Role] == tickets
    again.close()


def test_the_first_tickets_fit_the_register(keyring: Keyring) -> None:
    access = Access(keyring.grants)
    for role in Role:
        ticket = read_ticket(keyring.ticket_path(role))
        grant = access.holder(keys.raw(ticket.public_key))
        assert grant is not None and grant.objection(NOW) is None
        assert (grant.name, grant.role, grant.expires_at) == (role.value, role, NEVER)
        assert (ticket.hub, ticket.hub_key, ticket.role, ticket.name) == (ADDRESS, keyring.public_key, role, role.value)


def test_no_secret_is_in_the_register_or_in_a_repr(keyring: Keyring) -> None:
    secrets = [keyring.secret_key, *(read_ticket(keyring.ticket_path(role)).secret_key for role in Role)]
    shown = (keyring.directory / "grants.json").read_text() + repr(keyring) + repr(keyring.grants)
    assert not any(secret in shown for secret in secrets)


def test_a_hub_that_moved_says_so_in_its_tickets(keyring: Keyring) -> None:
    before = read_ticket(keyring.ticket_path("client"))
    keyring.ticket_path("worker").unlink()  # kept elsewhere: not made again
    keyring.first_tickets("tcp://10.0.0.5:5555")
    after = read_ticket(keyring.ticket_path("client"))
    assert (after.hub, after.secret_key) == ("tcp://10.0.0.5:5555", before.secret_key)
    assert not keyring.ticket_path("worker").exists()
    assert len(keyring.grants) == 3


def test_a_ticket_of_another_hub_in_the_directory_is_left_alone(keyring: Keyring, tmp_path: Path) -> None:
    other = Keyring.open(tmp_path / "other")
    other.first_tickets("tcp://127.0.0.1:7777")
    other.close()
    shutil.copy(other.ticket_path("client"), keyring.ticket_path("client"))
    keyring.first_tickets("tcp://10.0.0.5:5555")
    assert read_ticket(keyring.ticket_path("client")).hub == "tcp://127.0.0.1:7777"


def test_a_start_that_was_cut_off_is_finished_by_the_next(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tickets were there already, and the register of them was not."""
    keyring = Keyring.open(directory)
    with monkeypatch.context() as broken:
        broken.setattr(os, "replace", _register_is_full)
        with pytest.raises(KeysError, match="No space left"):
            keyring.first_tickets(ADDRESS)
    assert keyring.grants == []
    lost = read_ticket(keyring.ticket_path("admin"))
    assert sorted(path.name for path in directory.iterdir() if path.name.startswith(".")) == []
    again = reopened(keyring)
    again.first_tickets(ADDRESS)
    known = Access(again.grants)
    assert known.holder(keys.raw(lost.public_key)) is None
    assert known.holder(keys.raw(read_ticket(again.ticket_path("admin")).public_key)) is not None
    again.close()


def _register_is_full(source: Path, target: Path, move: Callable[..., None] = os.replace) -> None:
    if target.name == "grants.json":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    move(source, target)


# ---- tickets --------------------------------------------------------------------------------------------------------


def test_what_was_changed_is_there_after_a_restart(keyring: Keyring) -> None:
    create(keyring, "laptop")
    keyring.create("ci", Role.WORKER, key(2), NOW, NOW + 60)
    revoked = keyring.revoke("laptop", NOW + 1)
    assert revoked.objection(NOW + 1) == "the ticket 'laptop' was revoked"
    grants = keyring.grants
    again = reopened(keyring)
    assert again.grants == grants
    assert [g.name for g in again.grants if g.objection(NOW + 61) is None] == ["admin", "client", "worker"]
    again.close()


@given(
    entries=st.lists(
        st.tuples(
            st.text(st.characters(categories=["L", "N", "P", "S"], exclude_characters="/\\."), min_size=1, max_size=60),
            st.sampled_from(Role),
            st.one_of(st.just(NEVER), st.floats(0, 1e12)),
        ),
        max_size=8,
        unique_by=lambda entry: entry[0],
    )
)
@settings(max_examples=40)
def test_any_register_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[str, Role, float]]
) -> None:
    directory = tmp_path_factory.mktemp("register")
    keyring = Keyring.open(directory)
    for number, (name, role, expires_at) in enumerate(entries):
        keyring.create(name, role, key(number), NOW, expires_at)
    grants = keyring.grants
    again = reopened(keyring)
    assert again.grants == grants
    again.close()


@pytest.mark.parametrize("name", ["", " ", "..", "x" * 61, "a/b", "a\\b", "a\nb", "\x1b[2J"])
def test_a_name_that_cannot_be_used(keyring: Keyring, name: str) -> None:
    with pytest.raises(KeysError, match="the name of a ticket"):
        create(keyring, name)
    assert len(keyring.grants) == 3


def test_a_name_or_a_key_is_used_once(keyring: Keyring) -> None:
    create(keyring, "laptop", number=1)
    with pytest.raises(KeysError, match="there is a ticket 'laptop'; choose another name"):
        create(keyring, "laptop", number=2)
    with pytest.raises(KeysError, match="the ticket 'laptop' has this key"):
        create(keyring, "other", number=1)
    with pytest.raises(KeysError, match="the hub's own key"):
        keyring.create("other", Role.CLIENT, keys.raw(keyring.public_key), NOW, NEVER)
    with pytest.raises(KeysError, match="32 bytes"):
        keyring.create("other", Role.CLIENT, b"short", NOW, NEVER)
    keyring.revoke("laptop", NOW)
    with pytest.raises(KeysError, match="was revoked, and its name is not used twice"):
        create(keyring, "laptop", number=3)
    assert len(keyring.grants) == 4


def test_what_cannot_be_revoked(keyring: Keyring) -> None:
    with pytest.raises(KeysError, match="there is no ticket 'nobody'"):
        keyring.revoke("nobody", NOW)
    keyring.revoke("client", NOW)
    with pytest.raises(KeysError, match="was revoked on 2027-01-15T08:00:00Z"):
        keyring.revoke("client", NOW + 5)


def test_the_last_admin_ticket_stays(keyring: Keyring) -> None:
    keyring.create("brief", Role.ADMIN, key(1), NOW, NOW + 60)
    with pytest.raises(KeysError, match="'admin' is the last admin ticket"):
        keyring.revoke("admin", NOW + 61)  # the other one has expired
    keyring.revoke("brief", NOW + 61)
    with pytest.raises(KeysError, match="Create another first"):
        keyring.revoke("admin", NOW + 62)
    create(keyring, "me", Role.ADMIN, 2)
    assert keyring.revoke("admin", NOW + 63).revoked_at == NOW + 63


def test_a_revoked_ticket_is_not_found_any_more(keyring: Keyring, tmp_path: Path) -> None:
    keyring.revoke("client", NOW)
    assert not keyring.ticket_path("client").exists()
    other = tmp_path / "kept"
    shutil.copy(keyring.ticket_path("admin"), other)
    shutil.copy(other, keyring.ticket_path("worker"))  # another ticket under its name
    keyring.revoke("worker", NOW)
    assert keyring.ticket_path("worker").exists()


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
@pytest.mark.parametrize(
    "change", [lambda k: create(k, "new"), lambda k: k.revoke("client", NOW)], ids=["create", "revoke"]
)
def test_nothing_is_half_done_when_the_disk_fails(
    keyring: Keyring, monkeypatch: pytest.MonkeyPatch, call: str, change: Callable[[Keyring], Grant]
) -> None:
    grants, files = keyring.grants, _contents(keyring.directory)

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, call, full)
        with pytest.raises(KeysError, match=r"grants\.json cannot be written \(No space left on device\)"):
            change(keyring)
    assert keyring.grants == grants
    assert _contents(keyring.directory) == files
    change(keyring)  # and it can be done again


def test_nothing_is_half_done_on_a_disk_that_is_full(keyring: Keyring) -> None:
    for number in range(50):
        create(keyring, f"ticket {number}", number=number)
    grants, files = keyring.grants, _contents(keyring.directory)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))  # the kernel writes half of it, then fails
    try:
        with pytest.raises(KeysError, match=r"cannot be written \(File too large\); nothing has changed"):
            create(keyring, "one more", number=99)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert keyring.grants == grants
    assert _contents(keyring.directory) == files


def _contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_what_is_closed_is_not_changed(keyring: Keyring) -> None:
    keyring.close()
    keyring.close()
    with pytest.raises(KeysError, match="are closed"):
        create(keyring, "late")


def test_the_list_for_people_holds_no_key(keyring: Keyring) -> None:
    create(keyring, "laptop")
    keyring.create("brief", Role.WORKER, key(2), NOW, NOW + 60)
    keyring.revoke("laptop", NOW + 1)
    listed = document(keyring.grants, NOW + 61)
    assert [(e["name"], e["state"]) for e in listed] == [
        ("admin", "good"), ("client", "good"), ("worker", "good"), ("laptop", "revoked"), ("brief", "expired"),
    ]  # fmt: skip
    assert listed[4] == {
        "name": "brief", "role": "worker", "created": "2027-01-15T08:00:00Z", "expires": "2027-01-15T08:01:00Z",
        "state": "expired", "fingerprint": fingerprint(key(2)),
    }  # fmt: skip
    assert re.fullmatch("[0-9a-f]{16}", listed[0]["fingerprint"])
    assert not any(keys.text(grant.key) in json.dumps(listed) for grant in keyring.grants)


# ---- one user at a time ---------------------------------------------------------------------------------------------


def test_a_directory_has_one_user_at_a_time(keyring: Keyring) -> None:
    with pytest.raises(KeysInUse, match=r"in use by another hub \(or a `taskmesh ticket` that runs just now\)"):
        Keyring.open(keyring.directory)
    reopened(keyring).close()


@pytest.mark.parametrize("broken", ["make_private", "flock"])
def test_a_directory_that_is_lost_while_its_lock_is_waited_for(
    directory: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    Keyring.open(directory).close()

    def locked(fd: int, how: int) -> None:
        """Another process has the lock, and then the file system is gone."""
        monkeypatch.setattr("taskmesh.security.keyring.make_private", gone)
        if broken == "flock":
            gone(directory)
        raise BlockingIOError

    def gone(path: Path) -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr("fcntl.flock", locked)
    with pytest.raises(KeysError, match=f"cannot keep keys in {directory}: Stale file handle"):
        Keyring.open(directory)


def _hold(directory: str, held: multiprocessing.synchronize.Event) -> None:
    keyring = Keyring.open(Path(directory))
    held.set()
    signal.pause()
    keyring.close()


def test_a_killed_hub_leaves_its_keys_to_the_next(directory: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    process = context.Process(target=_hold, args=(str(directory), held))
    process.start()
    try:
        assert held.wait(30)
        with pytest.raises(KeysInUse):
            Keyring.open(directory)
    finally:
        process.kill()
        process.join()
    Keyring.open(directory).close()


# ---- what is refused ------------------------------------------------------------------------------------------------


def refusal(directory: Path) -> str:
    """Why a directory is refused, in one line without a key."""
    with pytest.raises(KeysError) as caught:
        Keyring.open(directory)
    says = str(caught.value)
    assert str(directory) in says and "\n" not in says
    assert not re.search(r"[0-9a-zA-Z.:+=^!/*?&<>()\[\]{}@%$#-]{40}", says.replace(str(directory), ""))
    return says


@pytest.mark.parametrize("wrong", [0o750, 0o705, 0o770, 0o701, 0o720])
def test_a_directory_that_others_may_enter(directory: Path, wrong: int) -> None:
    directory.mkdir()
    directory.chmod(wrong)
    says = refusal(directory)
    assert says.endswith(f"others can enter this directory, and could let anybody in; chmod 700 {directory}")
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize("name", ["hub.key", "grants.json"])
@pytest.mark.parametrize("wrong", [0o640, 0o604, 0o620])
def test_a_file_that_others_can_read_or_change(keyring: Keyring, name: str, wrong: int) -> None:
    path = keyring.directory / name
    keyring.close()
    path.chmod(wrong)
    assert re.search(
        rf"others can (read|change) this file, and could let anybody in; chmod 600 {path}$", refusal(path.parent)
    )


def test_a_directory_of_another_user(keyring: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    keyring.close()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert f"belongs to another user (uid {os.getuid()})" in refusal(keyring.directory)


def test_a_file_where_the_directory_should_be(directory: Path) -> None:
    directory.write_text("")
    assert "cannot keep keys in" in refusal(directory)
    directory.unlink()
    directory.symlink_to("nowhere")
    assert "Not a directory" in refusal(directory)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("hub.key", ""), ("hub.key", "\0"), ("hub.key", "hub = 1"), ("hub.key", 'public_key = "x"\nsecret_key = "y"'),
        ("grants.json", ""), ("grants.json", "{"), ("grants.json", "[]"), ("grants.json", '{"grants": 3}'),
        ("grants.json", '{"version": 1, "grants": [{}]}'), ("grants.json", "[" * 20_000),
    ],
)  # fmt: skip
def test_a_damaged_file_is_named_with_what_to_do(keyring: Keyring, name: str, content: str) -> None:
    keyring.close()
    (keyring.directory / name).write_text(content)
    says = refusal(keyring.directory)
    assert f"{keyring.directory / name} is damaged" in says
    assert "put it back from a copy" in says


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""}, {"name": 3}, {"name": "a/b"}, {"role": "boss"}, {"key": "short"}, {"key": None},
        {"created_at": "now"}, {"created_at": True}, {"expires_at": "never"}, {"revoked_at": []}, {"name": "client"},
    ],
)  # fmt: skip
def test_a_register_with_an_entry_that_makes_no_sense(keyring: Keyring, change: dict[str, object]) -> None:
    path = keyring.directory / "grants.json"
    keyring.close()
    content = json.loads(path.read_text())
    content["grants"][0].update(change)
    path.write_text(json.dumps(content))
    assert "is damaged" in refusal(keyring.directory)


def test_keys_that_do_not_belong_together(keyring: Keyring) -> None:
    path = keyring.directory / "hub.key"
    keyring.close()
    path.write_text(path.read_text().replace(keyring.public_key, keys.new_pair()[0]))
    assert "its keys do not belong together" in refusal(keyring.directory)


def test_files_of_a_newer_release(keyring: Keyring) -> None:
    keyring.close()
    register, pair = keyring.directory / "grants.json", keyring.directory / "hub.key"
    register.write_text(register.read_text().replace('"version": 1', '"version": 2'))
    assert "of a newer release" in refusal(keyring.directory)
    pair.write_text(pair.read_text().replace("hub = 1", "hub = 2"))
    assert f"{pair} is of a newer release" in refusal(keyring.directory)


def test_a_key_that_is_missing_is_not_replaced_in_silence(keyring: Keyring) -> None:
    keyring.close()
    (keyring.directory / "hub.key").unlink()
    assert "hub.key is missing, and every ticket depends on it" in refusal(keyring.directory)


def test_a_refused_directory_is_free_again(keyring: Keyring) -> None:
    path = keyring.directory / "hub.key"
    keyring.close()
    path.chmod(0o644)
    refusal(keyring.directory)
    path.chmod(0o600)
    Keyring.open(keyring.directory).close()


def test_a_ticket_beside_them_that_others_can_read(keyring: Keyring) -> None:
    keyring.ticket_path("client").chmod(0o644)
    with pytest.raises(KeysError, match="others can read this ticket"):
        keyring.first_tickets(ADDRESS)


# ---- places ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configuration directory."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path / "taskmesh"


def test_each_port_has_its_keys(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_keys_directory(parse_address("tcp://10.0.0.5:7000")) == home / "hub-7000"
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")  # to be ignored, says the XDG specification
    monkeypatch.setenv("HOME", "/home/me")
    assert default_keys_directory(parse_address("localhost")) == Path("/home/me/.config/taskmesh/hub-5555")


def test_keys_of_free_ports_go_with_their_hub(home: Path) -> None:
    kept = Keyring.open(default_keys_directory(parse_address("localhost")))
    live, ended = (Keyring.open(ephemeral_directory(port)) for port in (40_001, 40_002))
    ended.remove()
    assert not ended.directory.exists()
    killed = Keyring.open(ephemeral_directory(40_003))
    killed.close()
    sweep_ephemeral()
    assert sorted(path.name for path in home.iterdir()) == ["free-40001", "hub-5555"]
    live.remove()
    live.remove()
    kept.close()


def test_what_a_killed_hub_left_on_a_free_port_is_not_used_again(home: Path) -> None:
    killed = Keyring.open(ephemeral_directory(40_001))
    killed.close()
    next_one = Keyring.open(ephemeral_directory(40_001))
    assert next_one.public_key != killed.public_key
    with contextlib.closing(next_one):
        assert ephemeral_directory(40_001) == home / "free-40001"
        assert (home / "free-40001" / "hub.key").exists()  # in use: left alone


def test_a_sweep_finds_nothing_where_nothing_is(home: Path) -> None:
    sweep_ephemeral()
    assert not home.exists()
