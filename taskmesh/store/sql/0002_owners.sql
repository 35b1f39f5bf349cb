-- Schema 2: whose a session is. A client that comes back has to prove that it is the same one.

BEGIN IMMEDIATE;

ALTER TABLE session ADD COLUMN proof BLOB NOT NULL DEFAULT x'';     -- a digest of its secret
ALTER TABLE session ADD COLUMN ticket TEXT NOT NULL DEFAULT '';     -- the name of the ticket with which it came last

PRAGMA user_version = 2;

COMMIT;
