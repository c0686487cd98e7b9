-- MCP servers of the project, and what people approved of what they offer.

CREATE TABLE mcp_servers (
    name                  TEXT    NOT NULL PRIMARY KEY,
    -- Without secrets.
    transport             TEXT    NOT NULL CHECK (json_valid(transport)),
    -- The names of the headers whose values are in `secrets`.
    secret_headers        TEXT    NOT NULL CHECK (json_valid(secret_headers)),
    -- Sealed with the key of the server; nothing else can read it.
    secrets               TEXT,
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
