-- Projects whose files live elsewhere than in a directory: cloned with git, or in their database.

-- A column's CHECK goes with the column. What references the table stays as it is.
ALTER TABLE projects ADD COLUMN kind TEXT NOT NULL DEFAULT 'local'
    CHECK (kind IN ('local', 'git', 'remote'));
ALTER TABLE projects DROP COLUMN type;
ALTER TABLE projects RENAME COLUMN kind TO type;

-- Where a project of the type `git` came from.
CREATE TABLE project_git (
    project_id TEXT    NOT NULL PRIMARY KEY REFERENCES projects (id) ON DELETE CASCADE,
    -- Without a name and a password.
    url        TEXT    NOT NULL CHECK (url <> ''),
    -- Asked for at its creation; null: what the repository says.
    branch     TEXT,
    username   TEXT,
    -- The token, sealed for the project: in another row it does not open. Null without one.
    sealed     TEXT,
    state      TEXT    NOT NULL CHECK (state IN ('cloning', 'ready', 'failed')),
    -- Why the last clone failed.
    error      TEXT,
    -- Who asked for the last clone; they may be gone.
    by         TEXT    NOT NULL,
    changed_at INTEGER NOT NULL,
    CHECK ((state = 'failed') = (error IS NOT NULL))
) STRICT;

-- What a start has to clone again.
CREATE INDEX project_git_cloning ON project_git (project_id) WHERE state = 'cloning';
