-- The archives of projects in the data directory. Times are milliseconds since 1970 UTC.

CREATE TABLE backups (
    -- Sorts by the time of its creation.
    id          TEXT    NOT NULL PRIMARY KEY,
    project_id  TEXT    NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    kind        TEXT    NOT NULL CHECK (kind IN ('manual', 'scheduled', 'export', 'safety')),
    at          INTEGER NOT NULL,
    bytes       INTEGER NOT NULL,
    -- Of the archive, lower-case hex.
    sha256      TEXT    NOT NULL CHECK (length(sha256) = 64),
    -- The last event in it, and the epoch that this is a number of.
    seq         INTEGER NOT NULL,
    epoch       TEXT    NOT NULL,
    -- Null: the server made it by itself.
    user_id     TEXT,
    verified_at INTEGER NOT NULL,
    -- Null: no time is set.
    expires_at  INTEGER,
    -- Its name in the project's directory of backups.
    file        TEXT    NOT NULL CHECK (file <> '')
) STRICT;

CREATE INDEX backups_by_project ON backups (project_id, id);
CREATE INDEX backups_by_expiry ON backups (expires_at) WHERE expires_at IS NOT NULL;
