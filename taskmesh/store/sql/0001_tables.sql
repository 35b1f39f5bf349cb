-- The tables of a hub's store, schema 1. docs/store.md says what each is for.
-- Sessions are random unsigned 64-bit numbers: kept as signed ones with the same bits.

BEGIN IMMEDIATE;

CREATE TABLE session (
    session INTEGER PRIMARY KEY,
    name    TEXT NOT NULL,
    host    TEXT NOT NULL
);

CREATE TABLE spec (
    session      INTEGER NOT NULL,
    number       INTEGER NOT NULL,
    name         TEXT NOT NULL,
    digest       BLOB NOT NULL,
    init         BLOB NOT NULL,
    priority     INTEGER NOT NULL,
    timeout_s    REAL NOT NULL,
    memory       INTEGER NOT NULL,
    at_most_once INTEGER NOT NULL,
    submitted    INTEGER NOT NULL DEFAULT 0,    -- every task with a smaller number was accepted
    PRIMARY KEY (session, number)
) WITHOUT ROWID;

CREATE TABLE body (
    digest BLOB PRIMARY KEY,
    data   BLOB NOT NULL
);

-- What changes of a chunk ("remaining") is kept apart from what is large and does not change: SQLite writes a row whole.
CREATE TABLE chunk (
    session   INTEGER NOT NULL,
    spec      INTEGER NOT NULL,
    first     INTEGER NOT NULL,
    base      INTEGER NOT NULL,
    count     INTEGER NOT NULL,
    grain     INTEGER NOT NULL,
    remaining TEXT NOT NULL,                    -- JSON: [[lo, hi], ...], offsets that have not ended
    leaves    INTEGER NOT NULL,                 -- leaves.id
    PRIMARY KEY (session, spec, first)
) WITHOUT ROWID;

CREATE TABLE leaves (
    id      INTEGER PRIMARY KEY,
    sizes   BLOB NOT NULL,
    items   BLOB NOT NULL,
    payload BLOB NOT NULL
);

CREATE TABLE outcome (
    position INTEGER PRIMARY KEY,               -- rises: the order in which outcomes were put
    session  INTEGER NOT NULL,
    spec     INTEGER NOT NULL,
    first    INTEGER NOT NULL,
    lo       INTEGER NOT NULL,
    hi       INTEGER NOT NULL,
    form     INTEGER NOT NULL,
    blob     BLOB NOT NULL,
    UNIQUE (session, spec, first, lo, hi)
);

PRAGMA application_id = 0x746D7368;             -- "tmsh"
PRAGMA user_version = 1;

COMMIT;
