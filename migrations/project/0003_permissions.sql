-- What tools may do: rules of the project and of its sessions, and what people answered to approvals.
-- What agents ask people, and the to-do lists that they keep for them.

-- Inside one layer the order is that of the ids: they sort by the time of their creation.
CREATE TABLE permissions (
    id         TEXT    NOT NULL PRIMARY KEY,
    layer      TEXT    NOT NULL CHECK (layer IN ('project', 'session', 'remembered')),
    -- Where it is set, the rule is about this session alone.
    session_id TEXT    REFERENCES sessions (id) ON DELETE CASCADE,
    -- A tool, a group of tools or '*'.
    permission TEXT    NOT NULL,
    -- A glob over what a call touches.
    pattern    TEXT    NOT NULL,
    action     TEXT    NOT NULL CHECK (action IN ('allow', 'ask', 'deny')),
    created_by TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

CREATE INDEX permissions_by_session ON permissions (session_id) WHERE session_id IS NOT NULL;

-- Rules about what the tool calls of an agent may touch.
ALTER TABLE agents ADD COLUMN permissions TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(permissions));

-- What the call touches and what the rules said of it.
ALTER TABLE approvals ADD COLUMN accesses TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(accesses));
-- How long a yes holds.
ALTER TABLE approvals ADD COLUMN remember TEXT;
-- What the model gave, where who approved changed it.
ALTER TABLE approvals ADD COLUMN original_input TEXT CHECK (json_valid(original_input));

CREATE INDEX approvals_by_state ON approvals (state, id);
CREATE INDEX approvals_by_session_state ON approvals (session_id, state, id);
DROP INDEX approvals_by_session;

-- Calls of the tool `question`: each waits for the answers, which are its result.
CREATE TABLE questions (
    id           TEXT    NOT NULL PRIMARY KEY,
    session_id   TEXT    NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    run_id       TEXT    NOT NULL,
    message_id   TEXT    NOT NULL,
    tool_call_id TEXT    NOT NULL UNIQUE,
    questions    TEXT    NOT NULL CHECK (json_valid(questions)),
    -- A list of texts for each question, once it is answered.
    answers      TEXT    CHECK (json_valid(answers)),
    state        TEXT    NOT NULL
        CHECK (state IN ('pending', 'answered', 'rejected', 'expired', 'cancelled')),
    answered_by  TEXT,
    reason       TEXT,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL
) STRICT;

CREATE INDEX questions_pending ON questions (session_id, run_id) WHERE state = 'pending';
CREATE INDEX questions_by_state ON questions (state, id);
CREATE INDEX questions_by_session_state ON questions (session_id, state, id);

-- The to-do list of each session, replaced as a whole.
CREATE TABLE todos (
    session_id TEXT    NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    -- From 0, in the order of the list.
    place      INTEGER NOT NULL,
    id         TEXT    NOT NULL,
    content    TEXT    NOT NULL,
    status     TEXT    NOT NULL
        CHECK (status IN ('pending', 'inProgress', 'completed', 'cancelled')),
    priority   TEXT    NOT NULL CHECK (priority IN ('high', 'medium', 'low')),
    PRIMARY KEY (session_id, place)
) STRICT, WITHOUT ROWID;
