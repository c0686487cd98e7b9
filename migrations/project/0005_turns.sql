-- Messages that join a run, messages whose place others took, and sessions that go on elsewhere.

-- The run that a queued message is to join. Once that has ended it is queued like any other; once the
-- message joined there is no such row any more.
ALTER TABLE runs ADD COLUMN joins TEXT;

CREATE INDEX runs_joining ON runs (joins, number) WHERE joins IS NOT NULL;

-- On a message that joined a run: how many steps of the run's answer stand before it. Its number is one
-- of its own, behind that of the run.
ALTER TABLE messages ADD COLUMN after_step INTEGER;

CREATE INDEX messages_joined ON messages (run_id, run_number) WHERE after_step IS NOT NULL;

-- What models read of a conversation.
CREATE INDEX messages_current ON messages (session_id, run_number, place)
    WHERE state <> 'superseded';

-- A fork has the calls of the session that it was made of, under their ids.
DROP INDEX message_parts_by_call;
CREATE INDEX message_parts_by_call ON message_parts (tool_call_id, message_id)
    WHERE tool_call_id IS NOT NULL;

CREATE TABLE tool_outputs_anew (
    session_id   TEXT    NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    tool_call_id TEXT    NOT NULL,
    mime_type    TEXT    NOT NULL,
    blob         BLOB    NOT NULL REFERENCES blobs (hash),
    PRIMARY KEY (session_id, tool_call_id)
) STRICT;

-- Before its triggers: what it names is counted already.
INSERT INTO tool_outputs_anew (session_id, tool_call_id, mime_type, blob)
SELECT session_id, tool_call_id, mime_type, blob FROM tool_outputs;

DROP TABLE tool_outputs;
ALTER TABLE tool_outputs_anew RENAME TO tool_outputs;

CREATE INDEX tool_outputs_by_blob ON tool_outputs (blob);

CREATE TRIGGER tool_outputs_name_blob AFTER INSERT ON tool_outputs BEGIN
    UPDATE blobs SET refs = refs + 1 WHERE hash = NEW.blob;
END;

CREATE TRIGGER tool_outputs_drop_blob AFTER DELETE ON tool_outputs BEGIN
    UPDATE blobs SET refs = refs - 1 WHERE hash = OLD.blob;
END;
