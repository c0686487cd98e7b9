-- What git is about to change in the repository among the files of a project, until it is noted what became of it:
-- whoever finds a row that nobody works on finishes what it says or takes it back.
CREATE TABLE git_work (
    project_id TEXT    NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    -- Each of them has one at a time.
    part       TEXT    NOT NULL CHECK (part IN ('files', 'branches')),
    -- JSON: what is done, what was there before, and the locks that others had.
    work       TEXT    NOT NULL,
    -- JSON: under which idempotency key. Null without one.
    key        TEXT,
    by         TEXT    NOT NULL,
    at         INTEGER NOT NULL,
    PRIMARY KEY (project_id, part)
) STRICT, WITHOUT ROWID;
