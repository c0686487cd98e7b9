-- What must go on after a crash without anybody asking for it: projects with unfinished work, events
-- on their way to a project, directories that are being made or removed.
-- Times are milliseconds since 1970 UTC.

-- Projects that the server opens by itself. Written before the work begins.
CREATE TABLE unfinished_work (
    project_id TEXT    NOT NULL PRIMARY KEY REFERENCES projects (id) ON DELETE CASCADE,
    since      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Nobody knows of projects of an earlier version: each is looked at once.
INSERT INTO unfinished_work (project_id, since) SELECT id, created_at FROM projects;

-- Events of a project that were committed here and have to be published there, in the order of the id.
CREATE TABLE outbox (
    -- Rises with time as well as from row to row, so that an id is never used twice, not even by a
    -- database that was restored.
    id         INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    project_id TEXT    NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    event      TEXT    NOT NULL CHECK (json_valid(event)),
    user_id    TEXT    NOT NULL,
    at         INTEGER NOT NULL
) STRICT;

CREATE INDEX outbox_by_project ON outbox (project_id, id);

-- Directories of projects that the root database does not know yet, or not any more. One that stands
-- here when the server starts was left behind by a crash. Only 'removing' means the backups too.
CREATE TABLE directory_intents (
    project_id TEXT    NOT NULL PRIMARY KEY,
    intent     TEXT    NOT NULL CHECK (intent IN ('making', 'removing', 'removing_files')),
    at         INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

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

-- Indexes for what is asked of tables that grow.

-- Directories of projects that have one of their own: whether a new one lies in, or holds, another.
CREATE INDEX projects_by_path ON projects (path) WHERE path IS NOT NULL;

-- The members of a project in the order in which they are listed.
CREATE INDEX project_members_by_time ON project_members (project_id, joined_at, user_id);
