-- Files: what the project's directory holds as far as anybody looked, every version of it, snapshots and
-- locks. Content is on the disk; what it was is in `blobs`.

CREATE TABLE files_anew (
    path       TEXT    NOT NULL PRIMARY KEY,
    size       INTEGER NOT NULL,
    -- The number of its newest version.
    version    INTEGER NOT NULL,
    -- Empty for what is too large to be kept.
    hash       TEXT    NOT NULL,
    updated_at INTEGER NOT NULL,
    updated_by TEXT,
    -- What the file system said of exactly this content; absent where it has to be looked at again.
    mtime_ns   INTEGER,
    ctime_ns   INTEGER,
    inode      INTEGER
) STRICT, WITHOUT ROWID;

INSERT INTO files_anew (path, size, version, hash, updated_at, updated_by)
SELECT path, size, version, hash, updated_at, updated_by FROM files;

DROP TABLE files;
ALTER TABLE files_anew RENAME TO files;

CREATE TRIGGER files_counted AFTER INSERT ON files BEGIN
    UPDATE usage SET files = files + 1, file_bytes = file_bytes + NEW.size;
END;

CREATE TRIGGER files_changed AFTER UPDATE OF size ON files BEGIN
    UPDATE usage SET file_bytes = file_bytes - OLD.size + NEW.size;
END;

CREATE TRIGGER files_uncounted AFTER DELETE ON files BEGIN
    UPDATE usage SET files = files - 1, file_bytes = file_bytes - OLD.size;
END;

CREATE TABLE file_versions (
    -- The order of all changes of the project. Not one is used twice.
    number     INTEGER PRIMARY KEY AUTOINCREMENT,
    path       TEXT    NOT NULL,
    -- 1, 2, 3 for the path, across deletions too.
    version    INTEGER NOT NULL,
    -- The number of the next version of the path; absent in the newest one.
    until      INTEGER,
    change     TEXT    NOT NULL CHECK (change IN ('created', 'updated', 'moved', 'deleted')),
    size       INTEGER NOT NULL,
    hash       TEXT    NOT NULL,
    -- Absent where the content is not kept.
    blob       BLOB    REFERENCES blobs (hash),
    -- Permission bits of the file.
    mode       INTEGER,
    source     TEXT    NOT NULL CHECK (source IN ('tool', 'api', 'upload', 'restore', 'external')),
    caused_by  TEXT,
    session_id TEXT,
    run_id     TEXT,
    message_id TEXT,
    -- Where a file was that was moved.
    from_path  TEXT,
    at         INTEGER NOT NULL,
    UNIQUE (path, version)
) STRICT;

CREATE INDEX file_versions_by_run ON file_versions (run_id, path, version) WHERE run_id IS NOT NULL;
CREATE INDEX file_versions_by_blob ON file_versions (blob) WHERE blob IS NOT NULL;
CREATE INDEX file_versions_old ON file_versions (at) WHERE until IS NOT NULL;
CREATE INDEX file_versions_gone ON file_versions (at) WHERE until IS NULL AND change = 'deleted';

-- What was there before versions were kept: its content is adopted when it is looked at.
INSERT INTO file_versions (path, version, change, size, hash, source, caused_by, at)
SELECT path, version, 'updated', size, hash, 'api', updated_by, updated_at FROM files;

-- Bytes of the contents that versions keep, before they are compressed and joined with equal ones.
ALTER TABLE usage ADD COLUMN version_bytes INTEGER NOT NULL DEFAULT 0;

CREATE TRIGGER file_versions_name_blob AFTER INSERT ON file_versions WHEN NEW.blob IS NOT NULL BEGIN
    UPDATE blobs SET refs = refs + 1 WHERE hash = NEW.blob;
    UPDATE usage SET version_bytes = version_bytes + NEW.size;
END;

CREATE TRIGGER file_versions_adopt_blob AFTER UPDATE OF blob ON file_versions
WHEN OLD.blob IS NULL AND NEW.blob IS NOT NULL BEGIN
    UPDATE blobs SET refs = refs + 1 WHERE hash = NEW.blob;
    UPDATE usage SET version_bytes = version_bytes + NEW.size;
END;

CREATE TRIGGER file_versions_drop_blob AFTER DELETE ON file_versions WHEN OLD.blob IS NOT NULL BEGIN
    UPDATE blobs SET refs = refs - 1 WHERE hash = OLD.blob;
    UPDATE usage SET version_bytes = version_bytes - OLD.size;
END;

-- When all files were looked at for the first time; absent before.
ALTER TABLE meta ADD COLUMN files_known_at INTEGER;

-- A snapshot is a moment in the order of changes: it holds, of each path, the newest version up to then.
CREATE TABLE snapshots (
    id         TEXT    NOT NULL PRIMARY KEY,
    number     INTEGER NOT NULL,
    session_id TEXT,
    run_id     TEXT,
    message_id TEXT,
    created_by TEXT,
    file_count INTEGER NOT NULL,
    -- Whether every file was looked at.
    complete   INTEGER NOT NULL CHECK (complete IN (0, 1)),
    at         INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX snapshots_by_number ON snapshots (number);
CREATE INDEX snapshots_by_run ON snapshots (run_id) WHERE run_id IS NOT NULL;

-- Several files that are being put back together. It is there from before the first of them is touched until
-- all of them are recorded: whoever finds it goes on with it.
CREATE TABLE file_restores (
    one     INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    -- Which files, and what each of them is to hold.
    targets TEXT    NOT NULL CHECK (json_valid(targets)),
    -- Who does it, and why.
    author  TEXT    NOT NULL CHECK (json_valid(author)),
    at      INTEGER NOT NULL
) STRICT;

-- Turns that were undone and can be done again: the newest of a session, as long as nothing was said since.
CREATE TABLE session_reverts (
    number     INTEGER PRIMARY KEY AUTOINCREMENT,
    session_id TEXT    NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    -- The message with which the first turn began that was undone.
    message_id TEXT    NOT NULL,
    -- The last run of the session then.
    last_run   INTEGER NOT NULL,
    -- What the session did then.
    state      TEXT    NOT NULL,
    -- Which messages it superseded, and what each was before.
    messages   TEXT    NOT NULL CHECK (json_valid(messages)),
    -- Which files it changed: the version before it and the one that it made.
    files      TEXT    NOT NULL CHECK (json_valid(files)),
    at         INTEGER NOT NULL
) STRICT;

CREATE INDEX session_reverts_by_session ON session_reverts (session_id, number);

-- The right of one user to write a path.
CREATE TABLE file_locks (
    path            TEXT    NOT NULL PRIMARY KEY,
    scope           TEXT    NOT NULL CHECK (scope IN ('file', 'subtree')),
    owner_id        TEXT    NOT NULL,
    while_connected INTEGER NOT NULL CHECK (while_connected IN (0, 1)),
    created_at      INTEGER NOT NULL,
    expires_at      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
