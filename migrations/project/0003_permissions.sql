-- What tools may do: rules of the project and of its sessions, and what people answered to approvals.

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
