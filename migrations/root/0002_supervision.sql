-- What became of actors, as far as an operator should know of it, and what administrators did.
-- Times are milliseconds since 1970 UTC.

CREATE TABLE supervision_log (
    -- Given by the server, rising with time.
    id         INTEGER NOT NULL PRIMARY KEY,
    at         INTEGER NOT NULL,
    kind       TEXT    NOT NULL,
    path       TEXT    NOT NULL,
    actor_kind TEXT    NOT NULL,
    reason     TEXT,
    error      TEXT,
    -- In the source: file:line:column.
    location   TEXT,
    -- The name of what was being handled.
    message    TEXT,
    request_id TEXT,
    counts     TEXT    NOT NULL CHECK (json_valid(counts))
) STRICT;

-- The entries of one key stand in the order of the id, which is the rowid.
CREATE INDEX supervision_log_by_kind ON supervision_log (kind);
CREATE INDEX supervision_log_by_path ON supervision_log (path);
CREATE INDEX supervision_log_by_time ON supervision_log (at);

-- What administrators of the server did. Append-only, and it outlives the users it names.
CREATE TABLE audit (
    id         INTEGER NOT NULL PRIMARY KEY,
    at         INTEGER NOT NULL,
    user_id    TEXT    NOT NULL,
    -- The name of the operation.
    action     TEXT    NOT NULL,
    -- What it was done to.
    target     TEXT    NOT NULL,
    request_id TEXT,
    details    TEXT    NOT NULL CHECK (json_valid(details))
) STRICT;

CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit is append-only');
END;

CREATE TRIGGER audit_is_not_shortened BEFORE DELETE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit is append-only');
END;
