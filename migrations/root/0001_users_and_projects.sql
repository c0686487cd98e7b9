-- Who may do what on this server: users, their logins, projects and their members.
-- Times are milliseconds since 1970 UTC. Ids sort by the time of their creation.

-- One row: which of our databases this is.
CREATE TABLE meta (
    one        INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    kind       TEXT    NOT NULL CHECK (kind = 'root'),
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE users (
    id               TEXT    NOT NULL PRIMARY KEY,
    email            TEXT    NOT NULL UNIQUE CHECK (email = lower(email)),
    username         TEXT    NOT NULL COLLATE NOCASE UNIQUE,
    -- PHC string; null for users who never log in with a password.
    password_hash    TEXT,
    is_admin         INTEGER NOT NULL DEFAULT 0 CHECK (is_admin IN (0, 1)),
    can_execute_code INTEGER NOT NULL DEFAULT 0 CHECK (can_execute_code IN (0, 1)),
    disabled         INTEGER NOT NULL DEFAULT 0 CHECK (disabled IN (0, 1)),
    -- Access tokens of an older epoch are void.
    epoch            INTEGER NOT NULL DEFAULT 0,
    preferences      TEXT    NOT NULL DEFAULT '{}' CHECK (json_valid(preferences)),
    created_at       INTEGER NOT NULL
) STRICT;

CREATE INDEX users_admins ON users (is_admin) WHERE is_admin = 1;

-- One login: the family of refresh tokens that came from it.
CREATE TABLE auth_sessions (
    id         TEXT    NOT NULL PRIMARY KEY,
    user_id    TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at INTEGER NOT NULL,
    revoked_at INTEGER,
    ip         TEXT,
    agent      TEXT
) STRICT;

CREATE INDEX auth_sessions_by_user ON auth_sessions (user_id);

CREATE TABLE refresh_tokens (
    -- SHA-256 of the token; the token itself is nowhere.
    hash            BLOB    NOT NULL PRIMARY KEY CHECK (length(hash) = 32),
    auth_session_id TEXT    NOT NULL REFERENCES auth_sessions (id) ON DELETE CASCADE,
    -- The token that was exchanged for this one: each has one child at most.
    parent_hash     BLOB    UNIQUE,
    expires_at      INTEGER NOT NULL,
    used_at         INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX refresh_tokens_by_session ON refresh_tokens (auth_session_id, expires_at);

CREATE TABLE projects (
    id          TEXT    NOT NULL PRIMARY KEY,
    owner_id    TEXT    NOT NULL REFERENCES users (id),
    name        TEXT    NOT NULL,
    description TEXT,
    type        TEXT    NOT NULL CHECK (type IN ('local')),
    -- Null: the files live in the data directory.
    path        TEXT,
    settings    TEXT    NOT NULL DEFAULT '{}' CHECK (json_valid(settings)),
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    archived_at INTEGER
) STRICT;

CREATE INDEX projects_by_owner ON projects (owner_id);

CREATE TABLE project_members (
    project_id TEXT    NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    user_id    TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    role       TEXT    NOT NULL CHECK (role IN ('viewer', 'member', 'admin', 'owner')),
    joined_at  INTEGER NOT NULL,
    PRIMARY KEY (project_id, user_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX project_members_by_user ON project_members (user_id, project_id);

-- Settings of the server that can change while it runs, as JSON.
CREATE TABLE settings (
    key        TEXT    NOT NULL PRIMARY KEY,
    value      TEXT    NOT NULL CHECK (json_valid(value)),
    updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Answers to commands with an idempotency key, for their repeats.
CREATE TABLE idempotency (
    user_id   TEXT    NOT NULL,
    operation TEXT    NOT NULL,
    key       TEXT    NOT NULL,
    body_hash TEXT    NOT NULL,
    output    TEXT    NOT NULL,
    seq       INTEGER,
    at        INTEGER NOT NULL,
    PRIMARY KEY (user_id, operation, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_by_time ON idempotency (at);
