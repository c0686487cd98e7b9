-- The ways into accounts, who is invited where, and a chain through the audit.
-- Times are milliseconds since 1970 UTC. Ids sort by the time of their creation.

ALTER TABLE users ADD COLUMN avatar_url TEXT;

-- When a refresh token of the login was exchanged last; null before the first time.
ALTER TABLE auth_sessions ADD COLUMN last_used_at INTEGER;

DROP INDEX auth_sessions_by_user;
CREATE INDEX auth_sessions_by_user ON auth_sessions (user_id, id);

CREATE TABLE api_keys (
    id           TEXT    NOT NULL PRIMARY KEY,
    user_id      TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name         TEXT    NOT NULL CHECK (name <> ''),
    -- SHA-256 of the key; the key itself is nowhere.
    hash         BLOB    NOT NULL UNIQUE CHECK (length(hash) = 32),
    -- The first and the last characters of the key, by which its owner knows it.
    hint         TEXT    NOT NULL,
    scopes       TEXT    NOT NULL CHECK (json_valid(scopes)),
    -- Null: every project of the user.
    project_id   TEXT    REFERENCES projects (id) ON DELETE CASCADE,
    created_at   INTEGER NOT NULL,
    -- Null: no time is set.
    expires_at   INTEGER,
    last_used_at INTEGER
) STRICT;

CREATE INDEX api_keys_by_user ON api_keys (user_id, id);
CREATE INDEX api_keys_by_project ON api_keys (project_id) WHERE project_id IS NOT NULL;

-- What lets somebody set a new password once, without the old one.
CREATE TABLE password_resets (
    -- SHA-256 of the secret in the link; a user has one at most.
    hash       BLOB    NOT NULL PRIMARY KEY CHECK (length(hash) = 32),
    user_id    TEXT    NOT NULL UNIQUE REFERENCES users (id) ON DELETE CASCADE,
    -- Where the user was reached when it was made: one for another address is void.
    email      TEXT    NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE invitations (
    id          TEXT    NOT NULL PRIMARY KEY,
    -- Null: to the server alone.
    project_id  TEXT    REFERENCES projects (id) ON DELETE CASCADE,
    -- The role in the project; null without one.
    role        TEXT    CHECK (role IN ('viewer', 'member', 'admin')),
    -- Lower case; null: whoever has the link.
    email       TEXT    CHECK (email = lower(email)),
    -- SHA-256 of the secret in the link.
    hash        BLOB    NOT NULL UNIQUE CHECK (length(hash) = 32),
    -- Who invites; they may be gone.
    created_by  TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    accepted_by TEXT,
    accepted_at INTEGER,
    revoked_at  INTEGER,
    CHECK ((project_id IS NULL) = (role IS NULL))
) STRICT;

CREATE INDEX invitations_by_project ON invitations (project_id, id);
CREATE INDEX invitations_by_email ON invitations (email, id) WHERE email IS NOT NULL;

-- The audit again, with more to each record: from where and with what it was done, in which project,
-- what became of it, and a hash over it and the record before. The records of earlier versions keep
-- their numbers and have no hash of their own: the first new one counts them in.
CREATE TABLE audit_chained (
    id         INTEGER NOT NULL PRIMARY KEY,
    at         INTEGER NOT NULL,
    -- Null: nobody who is known.
    user_id    TEXT,
    -- The login or the API key; null: neither, or nobody noted it.
    credential TEXT,
    -- The address of the client, as text.
    ip         TEXT,
    -- The name of the operation.
    action     TEXT    NOT NULL,
    -- What it was done to.
    target     TEXT    NOT NULL,
    project_id TEXT,
    -- `done`, `begun`, or why it was not done.
    result     TEXT    NOT NULL,
    request_id TEXT,
    details    TEXT    NOT NULL CHECK (json_valid(details)),
    hash       BLOB    CHECK (length(hash) = 32)
) STRICT;

INSERT INTO audit_chained (id, at, user_id, action, target, result, request_id, details)
    SELECT id, at, user_id, action, target, 'done', request_id, details FROM audit ORDER BY id;

DROP TRIGGER audit_is_not_changed;
DROP TRIGGER audit_is_not_shortened;
DROP TABLE audit;
ALTER TABLE audit_chained RENAME TO audit;

CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit is append-only');
END;

-- Where the audit begins: the last record that was let go. None before the first time.
CREATE TABLE audit_anchor (
    one  INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    id   INTEGER NOT NULL CHECK (id > 0),
    -- The hash of that record, on which the first one that is left stands.
    hash BLOB    NOT NULL CHECK (length(hash) = 32)
) STRICT;

CREATE TRIGGER audit_is_not_shortened BEFORE DELETE ON audit
WHEN OLD.id > coalesce((SELECT id FROM audit_anchor), 0)
BEGIN
    SELECT RAISE(ABORT, 'the audit is append-only: it is shortened from its beginning alone');
END;

CREATE TRIGGER audit_begins_no_earlier BEFORE UPDATE ON audit_anchor
WHEN NEW.id < OLD.id
BEGIN
    SELECT RAISE(ABORT, 'what was let go does not come back');
END;
