-- What must go on after a crash without anybody asking for it: projects with unfinished work, events
-- on their way to a project, directories that are being made or removed.
-- Times are milliseconds since 1970 UTC.

-- Projects that the server opens by itself when it starts. Written before the work begins.
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
-- here when the server starts was left behind by a crash.
CREATE TABLE directory_intents (
    project_id TEXT    NOT NULL PRIMARY KEY,
    intent     TEXT    NOT NULL CHECK (intent IN ('making', 'removing')),
    at         INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
