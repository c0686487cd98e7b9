-- Sub-agents: calls of the tool `task`, each of which has a run in a session of its own do something,
-- and what agents are for. What tools answer beyond what a model reads at once.

CREATE TABLE tasks (
    tool_call_id  TEXT    NOT NULL PRIMARY KEY,
    -- Who made the call.
    session_id    TEXT    NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    run_id        TEXT    NOT NULL,
    message_id    TEXT    NOT NULL,
    -- The run that does what was asked.
    child_id      TEXT    NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    child_run_id  TEXT    NOT NULL UNIQUE,
    -- The part of the message that says how far it is, as it stands on the wire.
    part          TEXT    NOT NULL CHECK (json_valid(part)),
    -- Whether the run that asked goes on without waiting for it.
    background    INTEGER NOT NULL CHECK (background IN (0, 1)),
    -- The ids of the message that tells the session of the end; absent once it did, or when it does not.
    wake          TEXT    CHECK (json_valid(wake))
) STRICT;

CREATE INDEX tasks_by_run ON tasks (run_id);
CREATE INDEX tasks_by_session ON tasks (session_id);
CREATE INDEX tasks_by_child ON tasks (child_id);

-- Lists are of the sessions that no agent spawned, or of those that agents of one session did.
DROP INDEX sessions_active;
DROP INDEX sessions_kept;
DROP INDEX sessions_by_parent;
CREATE INDEX sessions_active ON sessions (id) WHERE status = 'active' AND parent_id IS NULL;
CREATE INDEX sessions_kept ON sessions (id) WHERE status <> 'deleted' AND parent_id IS NULL;
CREATE INDEX sessions_by_parent ON sessions (parent_id, id) WHERE parent_id IS NOT NULL;

-- What it is for, and who may set it to work.
ALTER TABLE agents ADD COLUMN description TEXT NOT NULL DEFAULT '';
ALTER TABLE agents ADD COLUMN mode TEXT NOT NULL DEFAULT 'all'
    CHECK (mode IN ('primary', 'subagent', 'all'));

-- What a tool answered besides what the model read at once: the whole of a text that was cut, an image.
CREATE TABLE tool_outputs (
    tool_call_id TEXT    NOT NULL PRIMARY KEY,
    session_id   TEXT    NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    mime_type    TEXT    NOT NULL,
    blob         BLOB    NOT NULL REFERENCES blobs (hash)
) STRICT;

CREATE INDEX tool_outputs_by_session ON tool_outputs (session_id);
CREATE INDEX tool_outputs_by_blob ON tool_outputs (blob);

CREATE TRIGGER tool_outputs_name_blob AFTER INSERT ON tool_outputs BEGIN
    UPDATE blobs SET refs = refs + 1 WHERE hash = NEW.blob;
END;

CREATE TRIGGER tool_outputs_drop_blob AFTER DELETE ON tool_outputs BEGIN
    UPDATE blobs SET refs = refs - 1 WHERE hash = OLD.blob;
END;

-- What the provider of a model wants back with a part, such as the signature of a thought: sent to
-- providers of its kind, byte for byte, and to nobody else.
CREATE TABLE provider_data (
    part_id    TEXT NOT NULL PRIMARY KEY REFERENCES message_parts (id) ON DELETE CASCADE,
    message_id TEXT NOT NULL REFERENCES messages (id) ON DELETE CASCADE,
    kind       TEXT NOT NULL,
    data       TEXT NOT NULL CHECK (json_valid(data))
) STRICT;

CREATE INDEX provider_data_by_message ON provider_data (message_id);

-- Tools that the project defined for itself.

CREATE TABLE tools (
    id          TEXT    NOT NULL PRIMARY KEY,
    -- What models call it by; two that differ in case alone would be taken for one another.
    name        TEXT    NOT NULL UNIQUE COLLATE NOCASE,
    description TEXT    NOT NULL,
    kind        TEXT    NOT NULL CHECK (kind IN ('http', 'command')),
    -- JSON Schema of the arguments.
    parameters  TEXT    NOT NULL CHECK (json_valid(parameters)),
    -- What a call does, without secrets.
    config      TEXT    NOT NULL CHECK (json_valid(config)),
    -- Sealed values of secret headers by their names; an empty one has to be set again.
    secrets     TEXT    NOT NULL CHECK (json_valid(secrets)),
    writes      INTEGER NOT NULL,
    enabled     INTEGER NOT NULL,
    -- Rises by one with each change.
    revision    INTEGER NOT NULL,
    created_by  TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    updated_by  TEXT    NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT;

-- MCP servers of the project, and what people approved of what they offer.

CREATE TABLE mcp_servers (
    name                  TEXT    NOT NULL PRIMARY KEY,
    -- Without secrets.
    transport             TEXT    NOT NULL CHECK (json_valid(transport)),
    -- The names of the headers whose values are in `secrets`.
    secret_headers        TEXT    NOT NULL CHECK (json_valid(secret_headers)),
    -- Sealed with the key of the server; nothing else can read it.
    secrets               TEXT,
    -- How it is asked for an authorization, without the secret of the client, which is sealed beside it.
    oauth                 TEXT    CHECK (json_valid(oauth)),
    client_secret         TEXT,
    -- The client that its authorization server registered, sealed.
    client                TEXT,
    -- What somebody agreed to, and the tokens that came of it, sealed.
    authorization         TEXT    CHECK (json_valid(authorization)),
    tokens                TEXT,
    enabled               INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    initialize_timeout_ms INTEGER NOT NULL,
    request_timeout_ms    INTEGER NOT NULL,
    -- The definitions that were approved, as the server gave them.
    definitions           TEXT    NOT NULL CHECK (json_valid(definitions)),
    -- The names by which models call those of them that can be used.
    tools                 TEXT    NOT NULL CHECK (json_valid(tools)),
    approved_hash         TEXT,
    created_by            TEXT    NOT NULL,
    created_at            INTEGER NOT NULL,
    updated_by            TEXT    NOT NULL,
    updated_at            INTEGER NOT NULL
) STRICT;

-- Authorizations that were begun, each until it is finished or its time is over.

CREATE TABLE mcp_authorizations (
    -- SHA-256 of what the browser brings back.
    state_hash TEXT    NOT NULL PRIMARY KEY,
    server     TEXT    NOT NULL REFERENCES mcp_servers (name) ON DELETE CASCADE,
    user_id    TEXT    NOT NULL,
    -- What is needed to finish it.
    sealed     TEXT    NOT NULL,
    expires_at INTEGER NOT NULL,
    UNIQUE (server, user_id)
) STRICT;

-- A call may ask while it runs, and more than once: the call goes on with the answers, which are not its
-- result. The table is made anew because `tool_call_id` was unique.
CREATE TABLE questions_anew (
    id           TEXT    NOT NULL PRIMARY KEY,
    session_id   TEXT    NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    run_id       TEXT    NOT NULL,
    message_id   TEXT    NOT NULL,
    tool_call_id TEXT    NOT NULL,
    questions    TEXT    NOT NULL CHECK (json_valid(questions)),
    -- A list of texts for each question, once it is answered.
    answers      TEXT    CHECK (json_valid(answers)),
    state        TEXT    NOT NULL
        CHECK (state IN ('pending', 'answered', 'rejected', 'expired', 'cancelled')),
    answered_by  TEXT,
    reason       TEXT,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    -- Whether the call runs meanwhile. Otherwise it waits, and the answers are its result.
    during_call  INTEGER NOT NULL DEFAULT 0 CHECK (during_call IN (0, 1))
) STRICT;

INSERT INTO questions_anew (id, session_id, run_id, message_id, tool_call_id, questions, answers, state,
                            answered_by, reason, created_at, expires_at)
SELECT id, session_id, run_id, message_id, tool_call_id, questions, answers, state, answered_by, reason,
       created_at, expires_at
FROM questions;

DROP TABLE questions;
ALTER TABLE questions_anew RENAME TO questions;

CREATE INDEX questions_pending ON questions (session_id, run_id) WHERE state = 'pending';
CREATE INDEX questions_by_state ON questions (state, id);
CREATE INDEX questions_by_session_state ON questions (session_id, state, id);
