-- What happens in one project: sessions, runs, messages, approvals, agents, files and the log.
-- Times are milliseconds since 1970 UTC. Ids sort by the time of their creation. Users are named by
-- id alone: their rows are in the root database.

CREATE TABLE meta (
    one        INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    project_id TEXT    NOT NULL,
    -- Changes when the project is restored: positions of clients are void then.
    epoch      TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    -- Number of the last event, kept or not.
    last_seq   INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE sessions (
    id            TEXT    NOT NULL PRIMARY KEY,
    parent_id     TEXT    REFERENCES sessions (id) ON DELETE SET NULL,
    title         TEXT    NOT NULL,
    agent         TEXT    NOT NULL,
    model         TEXT    CHECK (json_valid(model)),
    mode          TEXT    NOT NULL,
    status        TEXT    NOT NULL CHECK (status IN ('active', 'archived', 'deleted')),
    state         TEXT    NOT NULL,
    created_by    TEXT    NOT NULL,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    archived_at   INTEGER,
    message_count INTEGER NOT NULL DEFAULT 0,
    usage         TEXT    NOT NULL CHECK (json_valid(usage)),
    -- Number of the last run.
    last_run      INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX sessions_by_parent ON sessions (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX sessions_active ON sessions (id) WHERE status = 'active';
CREATE INDEX sessions_kept ON sessions (id) WHERE status <> 'deleted';

-- A run exists from the moment its message is accepted. It is open until `ended_at` is set.
CREATE TABLE runs (
    id         TEXT    NOT NULL PRIMARY KEY,
    session_id TEXT    NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    -- 1, 2, 3 in its session: runs start in this order.
    number     INTEGER NOT NULL,
    status     TEXT    NOT NULL,
    started_by TEXT    NOT NULL,
    steps      INTEGER NOT NULL DEFAULT 0,
    usage      TEXT    NOT NULL CHECK (json_valid(usage)),
    started_at INTEGER,
    ended_at   INTEGER,
    error      TEXT    CHECK (json_valid(error)),
    UNIQUE (session_id, number)
) STRICT;

CREATE INDEX runs_open ON runs (session_id, number) WHERE ended_at IS NULL;

CREATE TABLE messages (
    id            TEXT    NOT NULL PRIMARY KEY,
    session_id    TEXT    NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    run_id        TEXT    NOT NULL,
    -- The order of a conversation: by run, and in a run the user's message before the answer.
    run_number    INTEGER NOT NULL,
    place         INTEGER NOT NULL CHECK (place IN (0, 1)),
    role          TEXT    NOT NULL,
    agent         TEXT,
    model         TEXT    CHECK (json_valid(model)),
    state         TEXT    NOT NULL,
    finish_reason TEXT,
    error         TEXT    CHECK (json_valid(error)),
    usage         TEXT    CHECK (json_valid(usage)),
    created_by    TEXT,
    created_at    INTEGER NOT NULL,
    completed_at  INTEGER,
    UNIQUE (session_id, run_number, place)
) STRICT;

CREATE TABLE message_parts (
    id           TEXT    NOT NULL PRIMARY KEY,
    message_id   TEXT    NOT NULL REFERENCES messages (id) ON DELETE CASCADE,
    -- From 0, in order of appearance.
    ordinal      INTEGER NOT NULL,
    -- Both on tool calls alone.
    tool_call_id TEXT,
    tool_state   TEXT,
    -- The whole part as it stands on the wire.
    body         TEXT    NOT NULL,
    UNIQUE (message_id, ordinal)
) STRICT;

CREATE UNIQUE INDEX message_parts_by_call ON message_parts (tool_call_id)
    WHERE tool_call_id IS NOT NULL;

CREATE TABLE approvals (
    id           TEXT    NOT NULL PRIMARY KEY,
    session_id   TEXT    NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    run_id       TEXT    NOT NULL,
    message_id   TEXT    NOT NULL,
    tool_call_id TEXT    NOT NULL UNIQUE,
    tool_name    TEXT    NOT NULL,
    input        TEXT    NOT NULL CHECK (json_valid(input)),
    message      TEXT    NOT NULL,
    options      TEXT    NOT NULL CHECK (json_valid(options)),
    state        TEXT    NOT NULL,
    decided_by   TEXT,
    reason       TEXT,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL
) STRICT;

CREATE INDEX approvals_by_session ON approvals (session_id);
CREATE INDEX approvals_pending ON approvals (session_id, run_id) WHERE state = 'pending';

CREATE TABLE agents (
    id         TEXT    NOT NULL PRIMARY KEY,
    name       TEXT    NOT NULL UNIQUE,
    prompt     TEXT    NOT NULL,
    model      TEXT    CHECK (json_valid(model)),
    tools      TEXT    NOT NULL CHECK (json_valid(tools)),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

-- Files that were changed through Iris; what they hold is on the disk.
CREATE TABLE files (
    path       TEXT    NOT NULL PRIMARY KEY,
    size       INTEGER NOT NULL,
    -- Number of changes, from 1.
    version    INTEGER NOT NULL,
    hash       TEXT    NOT NULL,
    updated_at INTEGER NOT NULL,
    updated_by TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

-- The log: each durable event, in the order of the project.
CREATE TABLE events (
    seq     INTEGER NOT NULL PRIMARY KEY,
    room    TEXT    NOT NULL,
    -- The event before this one in the same room; 0 for the first.
    prev    INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    user_id TEXT,
    name    TEXT    NOT NULL,
    payload TEXT    NOT NULL
) STRICT;

CREATE INDEX events_by_room ON events (room, seq);

-- The last event of each room.
CREATE TABLE rooms (
    room TEXT    NOT NULL PRIMARY KEY,
    head INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Outcomes of commands that may be repeated, for 24 hours.
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
