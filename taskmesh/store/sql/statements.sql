-- Every statement that changes a store, in the order in which a commit runs them. "-- name:" names the one below it.

-- name: drop_session_outcomes
DELETE FROM outcome WHERE session = ?;
-- name: drop_session_leaves
DELETE FROM leaves WHERE id IN (SELECT leaves FROM chunk WHERE session = ?);
-- name: drop_session_chunks
DELETE FROM chunk WHERE session = ?;
-- name: drop_session_specs
DELETE FROM spec WHERE session = ?;
-- name: drop_session
DELETE FROM session WHERE session = ?;
-- name: put_session
INSERT OR REPLACE INTO session (session, name, host, proof, ticket) VALUES (?, ?, ?, ?, ?);

-- name: drop_spec_outcomes
DELETE FROM outcome WHERE session = ? AND spec = ?;
-- name: drop_spec_leaves
DELETE FROM leaves WHERE id IN (SELECT leaves FROM chunk WHERE session = ? AND spec = ?);
-- name: drop_spec_chunks
DELETE FROM chunk WHERE session = ? AND spec = ?;
-- name: drop_spec
DELETE FROM spec WHERE session = ? AND number = ?;
-- name: put_spec
INSERT INTO spec (session, number, name, digest, init, priority, timeout_s, memory, at_most_once)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (session, number) DO UPDATE SET
    name = excluded.name, digest = excluded.digest, init = excluded.init, priority = excluded.priority,
    timeout_s = excluded.timeout_s, memory = excluded.memory, at_most_once = excluded.at_most_once;
-- name: raise_submitted
UPDATE spec SET submitted = max(submitted, ?) WHERE session = ? AND number = ?;

-- name: drop_leaves
DELETE FROM leaves WHERE id = (SELECT leaves FROM chunk WHERE session = ? AND spec = ? AND first = ?);
-- name: drop_chunk
DELETE FROM chunk WHERE session = ? AND spec = ? AND first = ?;
-- name: put_leaves
INSERT INTO leaves (id, sizes, items, payload) VALUES (?, ?, ?, ?);
-- name: put_chunk
INSERT INTO chunk (session, spec, first, base, count, grain, remaining, leaves) VALUES (?, ?, ?, ?, ?, ?, ?, ?);
-- name: put_remaining
UPDATE chunk SET remaining = ? WHERE session = ? AND spec = ? AND first = ?;

-- name: drop_outcome
DELETE FROM outcome WHERE session = ? AND spec = ? AND first = ? AND lo = ? AND hi = ?;
-- name: put_outcome
INSERT INTO outcome (position, session, spec, first, lo, hi, form, blob) VALUES (?, ?, ?, ?, ?, ?, ?, ?);

-- name: put_body
INSERT OR IGNORE INTO body (digest, data) VALUES (?, ?);
-- name: drop_body
DELETE FROM body WHERE digest = ?;
