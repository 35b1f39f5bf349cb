"""What only a store in a file can do wrong: locks, damage, disks that are full or read-only, growth."""

from __future__ import annotations

import json
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from taskmesh.core.records import DropOutcome, PutBody, PutChunk, PutLeft, PutOutcome, PutSession, PutSpec, Record
from taskmesh.errors import StoreError
from taskmesh.store import changes, schema
from taskmesh.store.sqlite import SqliteStore

from .churn import Churn, batches, last_batch
from .model import Bell, Model, chunk, commit, crashed, outcome, spec, stored

SESSION: list[Record] = [PutSession(1, "script", "host"), PutSpec(1, spec())]
ROOT = Path(__file__).parents[2]


@contextmanager
def opened(path: Path) -> Iterator[tuple[SqliteStore, Bell]]:
    bell = Bell()
    store = SqliteStore(path, bell)
    store.load()
    try:
        yield store, bell
    finally:
        store.close()


def refused(path: Path) -> str:
    """The one-line error with which a file is refused."""
    with pytest.raises(StoreError) as caught:
        SqliteStore(path, lambda: None).close()
    text = str(caught.value)
    assert "\n" not in text
    return text


def mounted(directory: Path, options: str) -> Callable[[], None]:
    """A small file system in memory, and how to take it away again; skips where that is not permitted."""
    directory.mkdir(exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"mounting a file system is not permitted here: {done.stderr.strip()}")

    def unmount() -> None:
        subprocess.run(["umount", str(directory)], check=True, timeout=10)

    return unmount


# ---- opening ------------------------------------------------------------------------------------------------------


def test_two_hubs_cannot_use_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "BUSY_S", 0.0)
    path = tmp_path / "hub.db"
    code = f"from taskmesh.store import opener; opener('sqlite://{path}')(int)"
    with opened(path):
        assert f"{path} is in use by another hub: stop that one, or choose another file" in refused(path)
        other = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
        assert f"{path} is in use by another hub" in other.stderr
    stored(path)


def test_a_file_of_a_newer_schema_is_refused_and_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    SqliteStore(path, lambda: None).close()
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 99")
    database.close()
    before = path.read_bytes()
    assert "written by a newer taskmesh (schema 99; this one knows 2): start the newer one" in refused(path)
    assert path.read_bytes() == before


def test_a_file_of_the_first_schema_is_brought_to_today_and_keeps_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    database = sqlite3.connect(path)
    database.executescript(schema.MIGRATIONS[0].read_text())
    database.execute("INSERT INTO session (session, name, host) VALUES (7, 'script', 'laptop')")
    database.commit()
    database.close()
    path.chmod(0o600)
    with opened(path) as (store, _):
        (session,) = store.load().sessions
    assert (session.session, session.name, session.host, session.proof, session.ticket) == (
        7, "script", "laptop", b"", "",
    )  # fmt: skip


def test_what_is_no_store_is_refused_and_not_touched(tmp_path: Path) -> None:
    text, other = tmp_path / "notes.txt", tmp_path / "places.sqlite"
    text.write_text("milk, bread, " * 500)
    text.chmod(0o600)
    database = sqlite3.connect(other)
    database.execute("CREATE TABLE places (name)")
    database.close()
    other.chmod(0o600)
    before = text.read_bytes(), other.read_bytes()
    assert f"{text} is no SQLite file, or its beginning is damaged: choose another" in refused(text)
    assert f"{other} is a database of another program: choose another file with --store" in refused(other)
    assert f"{tmp_path} is a directory" in refused(tmp_path)
    assert f"{text}/hub.db cannot be opened or created: Not a directory" in refused(text / "hub.db")
    assert (text.read_bytes(), other.read_bytes()) == before


def test_a_damaged_file_is_refused_with_a_way_out(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    with opened(path) as (store, bell):
        commit(store, bell, *SESSION, *(PutChunk(1, 0, chunk(n * 9, 9, 500), [(0, 9)]) for n in range(40)))
    data = bytearray(path.read_bytes())
    for page in range(2, len(data) // 4096):
        data[page * 4096 : page * 4096 + 200] = b"\xa5" * 200
    path.write_bytes(data)
    assert f"{path} is damaged" in refused(path)
    assert f"{path.name}-wal and start again without what it holds" in refused(path)
    path.write_bytes(data[: 4096 * 3 + 100])
    assert f"{path} is damaged" in refused(path)


def test_a_row_that_makes_no_sense_is_damage_too(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    with opened(path) as (store, bell):
        commit(store, bell, *SESSION, PutChunk(1, 0, chunk(), [(0, 4)]))
    database = sqlite3.connect(path)
    database.execute("UPDATE chunk SET remaining = '[[0, '")
    database.commit()
    database.close()
    store = SqliteStore(path, lambda: None)
    with pytest.raises(StoreError, match="is damaged"):
        store.load()
    store.close()


def test_a_file_that_others_may_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    SqliteStore(path, lambda: None).close()
    path.chmod(0o660)
    assert refused(path).endswith(f"chmod 600 {path}")


def test_a_read_only_disk_is_refused_with_a_way_out(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    unmount = mounted(disk, "size=1m")
    try:
        SqliteStore(disk / "hub.db", lambda: None).close()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True, timeout=10)
        remedy = "make the file, its directory and its disk writable, or choose another file with --store"
        assert f"{disk}/hub.db cannot be read and written: {remedy}" in refused(disk / "hub.db")
        assert "Read-only file system. To go on, choose another file with --store" in refused(disk / "new" / "hub.db")
    finally:
        unmount()


def test_a_file_that_may_not_be_read_or_written_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    SqliteStore(path, lambda: None).close()
    path.chmod(0o400)
    try:
        open(path, "r+").close()
    except PermissionError:
        assert f"{path} cannot be read and written: make the file, its" in refused(path)
    else:
        pytest.skip("this user may write to every file")


# ---- crashes ------------------------------------------------------------------------------------------------------


def test_a_log_that_is_cut_anywhere_holds_what_was_committed_before_the_cut(tmp_path: Path) -> None:
    path, wal = tmp_path / "hub.db", tmp_path / "hub.db-wal"
    model, made = Model(), [Model().plain()]
    sizes = []
    with opened(path) as (store, bell):
        for batch, _ in zip(batches(seed=3), range(25), strict=False):
            commit(store, bell, *batch)
            for record in batch:
                model.apply(record)
            made.append(model.plain())
            sizes.append(wal.stat().st_size)
        assert sizes == sorted(sizes), "the log was moved into the file meanwhile; there is nothing to cut"
        cuts = sorted(
            {
                0,
                1,
                31,
                32,
                *(size + d for size in sizes for d in (-4097, -1, 0, 1, 24, 2000)),
                *range(0, sizes[-1], 9973),
            }
        )
        cuts = [cut for cut in cuts if 0 <= cut <= sizes[-1]]
        for number, cut in enumerate(cuts):
            held = stored(crashed(path, tmp_path / str(number), cut))
            ticket = last_batch(held[1])
            assert ticket >= sum(size <= cut for size in sizes)
            assert held == made[ticket] or (ticket == 0 and held == ([], {})), f"cut at {cut}"


def test_a_hub_that_is_killed_at_any_moment_loses_nothing_that_was_committed(tmp_path: Path) -> None:
    path, have = tmp_path / "hub.db", 0
    for round_ in range(12):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.store.churn", str(path), "5", str(have)],
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        said = have
        try:
            for _ in range(1 + 7 * round_ % 40):
                said = int(process.stdout.readline())
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        rest = process.stdout.read().split("\n")[:-1]  # whole lines only
        process.stdout.close()
        said = int(rest[-1]) if rest else said
        held = stored(path)
        have = last_batch(held[1])
        assert have >= said > 0
        model = Model(record for batch, _ in zip(batches(seed=5), range(have), strict=False) for record in batch)
        assert held == model.plain(), f"round {round_}, batch {have}"


# ---- disks --------------------------------------------------------------------------------------------------------


def load_until_it_fails(store: SqliteStore, bell: Bell, body: int = 100_000) -> list[Record]:
    """Records that were written until the store had an error. The last is not committed."""
    made: list[Record] = list(SESSION)
    commit(store, bell, *made)
    for number in range(200):
        made.append(PutBody(number.to_bytes(16, "big"), bytes([number]) * body))
        store.append(made[-1])
        ticket = store.flush()
        bell.until(lambda ticket=ticket: store.committed >= ticket or store.error is not None, "commit or error")  # type: ignore[misc]
        if store.error is not None:
            return made
    raise AssertionError("the disk did not become full")


def recovers(store: SqliteStore, bell: Bell, made: list[Record], make_room: Callable[[], object], why: str) -> None:
    """A failing store says why, keeps what was committed, and commits the rest when it can."""
    assert store.error is not None and why in store.error and str(store.path) in store.error
    committed = store.committed
    assert committed == len(made) - len(SESSION)  # a batch for the session, one for each body, and the last has failed
    assert stored(crashed(store.path, store.path.parent.parent / "copy")) == Model(made[:-1]).plain()
    made.append(PutOutcome(1, outcome()))
    store.append(made[-1])
    ticket = store.flush()
    assert store.committed == committed < ticket
    make_room()
    bell.until(lambda: store.committed == ticket and store.error is None, "it works again")


def test_a_full_disk_is_said_and_survived(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    unmount = mounted(disk, "size=3m,mode=700")
    try:
        (disk / "film").write_bytes(bytes(1 << 20))
        with opened(disk / "hub.db") as (store, bell):
            made = load_until_it_fails(store, bell)
            recovers(store, bell, made, (disk / "film").unlink, "the disk is full")
        assert stored(disk / "hub.db") == Model(made).plain()
    finally:
        unmount()


def test_a_file_that_may_not_grow_is_a_full_disk(tmp_path: Path) -> None:
    path = tmp_path / "disk" / "hub.db"
    with opened(path) as (store, bell):
        store._database.execute("PRAGMA max_page_count = 150")  # the writer is idle
        made = load_until_it_fails(store, bell)
        recovers(store, bell, made, lambda: store._database.execute("PRAGMA max_page_count = 9999"), "the disk is full")
    assert stored(path) == Model(made).plain()


def test_a_disk_that_fails_is_said_and_survived(tmp_path: Path) -> None:
    """Python ignores SIGXFSZ, so a limit on the size of files makes writes fail as a broken disk does."""
    path = tmp_path / "disk" / "hub.db"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def repair() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    with opened(path) as (store, bell):
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
            made = load_until_it_fails(store, bell)
            recovers(store, bell, made, repair, "the disk fails")
        finally:
            repair()
    assert stored(path) == Model(made).plain()


def test_closing_on_a_full_disk_says_what_is_lost_and_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    bell = Bell()
    store = SqliteStore(path, bell)
    store._database.execute("PRAGMA max_page_count = 150")
    made = load_until_it_fails(store, bell)
    with pytest.raises(StoreError, match=r"not everything could be stored in .*: the disk is full"):
        store.close()
    store.close()
    assert stored(path) == Model(made[:-1]).plain()


def test_a_writer_that_meets_a_bug_says_so(tmp_path: Path) -> None:
    bell = Bell()
    store = SqliteStore(tmp_path / "hub.db", bell)
    store.append("no record")  # type: ignore[arg-type]
    store.flush()
    bell.until(lambda: store.error is not None, "an error")
    assert store.error is not None and "is not written any more: KeyError" in store.error
    with pytest.raises(StoreError, match="KeyError"):
        store.close()


# ---- cost ---------------------------------------------------------------------------------------------------------


def test_what_is_undone_before_the_commit_is_never_written() -> None:
    from itertools import count

    effect = changes.Changes(count(1))
    effect.apply([PutChunk(1, 0, chunk(0, 512), [(0, 512)]), PutOutcome(1, outcome()), PutLeft(1, 0, 0, [])])
    effect.apply([DropOutcome(1, 0, 0, 0, 1)])
    written = dict(effect.statements())
    assert not [name for name in written if name.startswith("put")]
    assert written["raise_submitted"] == [(512, 1, 0)]


def test_a_commit_waits_for_the_disk(tmp_path: Path) -> None:
    with opened(tmp_path / "hub.db") as (store, _):
        settings = [store._database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("synchronous", "journal_mode")]
    assert settings == [2, "wal"]  # 2: FULL


def test_every_statement_has_a_place_in_the_order() -> None:
    assert set(changes.ORDER) == set(schema.STATEMENTS)
    assert len(changes.ORDER) == len(schema.STATEMENTS)


def test_the_file_is_bounded_while_much_goes_through_it(tmp_path: Path) -> None:
    """30,000 chunks, 15 MB, at most 100 at a time."""
    path, most = tmp_path / "hub.db", 0
    total, outstanding = 30_000, 100
    with opened(path) as (store, bell):
        commit(store, bell, *SESSION)
        for n in range(0, total, outstanding):
            for k in range(n, n + outstanding):
                store.append(PutChunk(1, 0, chunk(k * 2, 2, 500), [(0, 2)]))
            ticket = store.flush()
            bell.until(lambda ticket=ticket: store.committed >= ticket, "commit")  # type: ignore[misc]
            for k in range(n, n + outstanding):
                store.append(PutLeft(1, 0, k * 2, []))
            store.flush()
            if n % 1000 == 0:
                most = max(most, sum(file.stat().st_size for file in tmp_path.iterdir()))
    assert most < 10 << 20
    assert stored(path)[0][0][3][0][1] == 2 * total


def test_a_file_that_was_large_becomes_small_again(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    with opened(path) as (store, bell):
        commit(store, bell, *SESSION)
        for n in range(400):
            store.append(PutChunk(1, 0, chunk(n, 1, 64_000), [(0, 1)]))
        commit(store, bell)
        commit(store, bell, PutLeft(1, 0, 0, []))
        assert path.stat().st_size > 20 << 20
        for n in range(1, 400):
            store.append(PutLeft(1, 0, n, []))
        commit(store, bell)
        bell.until(lambda: path.stat().st_size < 12 << 20, "unused pages are given back")


def test_a_store_that_is_closed_does_not_make_its_file_small_first(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    with opened(path) as (store, bell):
        commit(store, bell, *SESSION)
        for n in range(400):
            store.append(PutChunk(1, 0, chunk(n, 1, 64_000), [(0, 1)]))
        commit(store, bell)
        for n in range(400):
            store.append(PutLeft(1, 0, n, []))
    assert path.stat().st_size > 20 << 20
    assert stored(path)[0][0][3][0][2] == [], "what was committed last is there all the same"


def test_the_writer_alone_wakes_the_hub_and_an_idle_store_does_not(tmp_path: Path) -> None:
    with opened(tmp_path / "hub.db") as (store, bell):
        assert bell.count == 0
        commit(store, bell, *SESSION)
        store.flush()
    assert bell.threads == {"taskmesh-store"}
    assert bell.count == 1


def test_random_batches_come_to_the_same_whatever_is_committed_together(tmp_path: Path) -> None:
    from random import Random

    for seed in range(15):
        churn, path = Churn(Random(seed)), tmp_path / f"{seed}.db"
        with opened(path) as (store, bell):
            for n in range(60):
                for record in churn.batch():
                    store.append(record)
                store.flush()
                if n % 17 == seed:
                    commit(store, bell)
        assert stored(path) == churn.model.plain()


def test_what_is_left_of_a_chunk_can_be_read_with_any_tool(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    with opened(path) as (store, bell):
        commit(store, bell, *SESSION, PutChunk(1, 0, chunk(), [(0, 1), (2, 4)]))
    database = sqlite3.connect(path)
    ((text,),) = database.execute("SELECT remaining FROM chunk").fetchall()
    database.close()
    assert json.loads(text) == [[0, 1], [2, 4]]


def test_the_page_on_the_store_names_the_schema_of_today() -> None:
    page = " ".join((ROOT / "docs" / "store.md").read_text().split())
    assert f"`user_version` the schema: {schema.SCHEMA}." in page
    for (name,) in memory().execute("SELECT name FROM pragma_table_info('session')"):
        assert name in page.partition("| `session` | ")[2].partition(" | ")[0]


def memory() -> sqlite3.Connection:
    """A database in memory with the tables of today."""
    database = sqlite3.connect(":memory:")
    for migration in schema.MIGRATIONS:
        database.executescript(migration.read_text())
    return database
