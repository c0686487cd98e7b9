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
