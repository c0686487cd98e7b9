-- What one of several commands made that ran at the same time, and what was changed although somebody else
-- had a lock on it.

-- The runs of these commands: nobody knows which of them it was.
CREATE TABLE shared_versions (
    run_id  TEXT    NOT NULL,
    path    TEXT    NOT NULL,
    version INTEGER NOT NULL,
    PRIMARY KEY (run_id, path, version),
    FOREIGN KEY (path, version) REFERENCES file_versions (path, version) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE INDEX shared_versions_by_version ON shared_versions (path, version);

-- Whose lock it was.
ALTER TABLE file_versions ADD COLUMN despite_lock_of TEXT;
