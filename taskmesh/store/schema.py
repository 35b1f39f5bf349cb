"""Opening a store's file: its place, its owner, its schema; and what SQLite's errors mean, in words for people."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import StoreError

SQL = Path(__file__).parent / "sql"
MIGRATIONS = sorted(SQL.glob("[0-9]*.sql"))  # the n-th brings a file from schema n-1 to schema n
SCHEMA = len(MIGRATIONS)
APPLICATION_ID = 0x746D7368
BUSY_S = 1.0  # a hub that was just killed may take a moment to disappear
CHECKPOINT_PAGES = 1000  # of 4 KiB: the log is moved into the file when it has as many
ELSEWHERE = "choose another file with --store sqlite:///PATH, or keep nothing with --store memory"


def _named(text: str) -> dict[str, str]:
    """The statements of an SQL file, by the names in the comments above them."""
    _, *parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)
    return {name: re.sub(r"--.*", "", body).strip() for name, body in zip(parts[::2], parts[1::2], strict=True)}


STATEMENTS = _named((SQL / "statements.sql").read_text())


def open_database(path: Path) -> sqlite3.Connection:
    """The store's file, locked, checked, and with the tables of today.

    Raises
    ------
    StoreError
        It cannot be used.
    """
    try:
        _create(path)
        database = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(describe(error, path)) from error
    try:
        _prepare(database, path)
    except BaseException as error:
        database.close()
        if isinstance(error, sqlite3.Error):
            raise StoreError(describe(error, path)) from error
        raise
    return database


def _create(path: Path) -> None:
    """The file and its directories, for their owner alone. Tasks are code: nobody else may write there."""
    for directory in reversed(path.parents):
        with suppress(FileExistsError):
            if not directory.exists():
                directory.mkdir(mode=0o700)
    with suppress(FileExistsError):
        # only if it is new: closing a file gives up all locks that this process has on it
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    if path.is_dir():
        raise StoreError(f"{path} is a directory, not a store: {ELSEWHERE}")
    if not os.access(path, os.R_OK | os.W_OK):
        raise StoreError(_MEANINGS["SQLITE_READONLY"].format(path=path, elsewhere=ELSEWHERE))
    if path.stat().st_mode & 0o022:
        raise StoreError(f"others may write to {path}, and so could run anything on the workers: chmod 600 {path}")


def _prepare(database: sqlite3.Connection, path: Path) -> None:
    """Lock, look, migrate. The lock is SQLite's own: it goes with the process, however that ends."""
    database.execute("PRAGMA locking_mode = EXCLUSIVE")
    found = _identify(database, path)
    (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise StoreError(_damaged(path, verdict))
    if not found:
        database.execute("PRAGMA auto_vacuum = INCREMENTAL")  # only possible now; it costs a page in a thousand
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    database.execute(f"PRAGMA journal_size_limit = {CHECKPOINT_PAGES * 4096}")
    for migration in MIGRATIONS[found:]:
        with _undone(database):
            database.executescript(migration.read_text())
    try:
        with _undone(database):  # a file that cannot be written is refused here, and not at the first task
            database.execute("BEGIN IMMEDIATE")
            database.execute(f"PRAGMA user_version = {SCHEMA}")
            database.execute("COMMIT")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname != "SQLITE_FULL":  # what is there can be delivered all the same, and makes room
            raise


@contextmanager
def _undone(database: sqlite3.Connection) -> Iterator[None]:
    """A transaction that fails leaves nothing behind."""
    try:
        yield
    except BaseException:
        roll_back(database)
        raise


def roll_back(database: sqlite3.Connection) -> None:
    """End the transaction, unless SQLite has done so itself, as it does for some errors."""
    if database.in_transaction:
        database.execute("ROLLBACK")


def _identify(database: sqlite3.Connection, path: Path) -> int:
    """The schema of the file, 0 for a new one."""
    (application,) = database.execute("PRAGMA application_id").fetchone()
    (schema,) = database.execute("PRAGMA user_version").fetchone()
    (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != APPLICATION_ID and (application or schema or tables):
        raise StoreError(f"{path} is a database of another program: {ELSEWHERE}")
    if schema > SCHEMA:
        raise StoreError(
            f"{path} was written by a newer taskmesh (schema {schema}; this one knows {SCHEMA}): "
            f"start the newer one, or {ELSEWHERE}"
        )
    return int(schema)


def _damaged(path: Path, detail: object) -> str:
    return (
        f"{path} is damaged ({' '.join(str(detail).split())}): move it away together with {path.name}-wal and start "
        f"again without what it holds, or try to save that with `sqlite3 {path} .recover`"
    )


def describe(error: Exception, path: Path) -> str:
    """What went wrong with a store's file, and what to do about it."""
    if isinstance(error, OSError):
        return f"{error.filename or path} cannot be opened or created: {error.strerror}. To go on, {ELSEWHERE}"
    code = getattr(error, "sqlite_errorname", "")
    for prefix, text in _MEANINGS.items():
        if code.startswith(prefix):
            return text.format(path=path, elsewhere=ELSEWHERE, code=code)
    if code.startswith("SQLITE_CORRUPT") or isinstance(error, ValueError):
        return _damaged(path, error)
    return f"{path} cannot be used: {type(error).__name__}: {error}"


_MEANINGS = {
    "SQLITE_BUSY": "{path} is in use by another hub: stop that one, or {elsewhere}",
    "SQLITE_NOTADB": "{path} is no SQLite file, or its beginning is damaged: {elsewhere}",
    "SQLITE_FULL": "the disk is full: {path} cannot grow. Make room there",
    "SQLITE_READONLY": "{path} cannot be read and written: make the file, its directory and its disk writable, "
    "or {elsewhere}",
    "SQLITE_CANTOPEN": "{path} cannot be opened: make the file and its directory readable and writable, or {elsewhere}",
    "SQLITE_PERM": "{path} cannot be opened: make the file and its directory readable and writable, or {elsewhere}",
    "SQLITE_IOERR": "the disk fails: {path} could not be read or written ({code}). Look at the system's log",
}
