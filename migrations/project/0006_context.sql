-- What models are told of long conversations, titles that models make, and agents that stand in files.

-- The summaries in answers: models are told nothing of what came before the last one.
CREATE TABLE compactions (
    part_id    TEXT    NOT NULL PRIMARY KEY REFERENCES message_parts (id) ON DELETE CASCADE,
    message_id TEXT    NOT NULL REFERENCES messages (id) ON DELETE CASCADE,
    session_id TEXT    NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    run_number INTEGER NOT NULL
) STRICT;

CREATE INDEX compactions_by_session ON compactions (session_id, run_number);
CREATE INDEX compactions_by_message ON compactions (message_id);

-- Whether a run makes a summary and nothing else: it has no message of a user.
ALTER TABLE runs ADD COLUMN compacts INTEGER NOT NULL DEFAULT 0 CHECK (compacts IN (0, 1));

-- The last call of which models are not told the output any more, nor of those before it.
ALTER TABLE sessions ADD COLUMN left_out_to TEXT;

-- Whether the title is the one of every new session, which a model may replace.
ALTER TABLE sessions ADD COLUMN untitled INTEGER NOT NULL DEFAULT 0 CHECK (untitled IN (0, 1));
UPDATE sessions SET untitled = 1 WHERE title = 'New session' AND parent_id IS NULL;

ALTER TABLE agents ADD COLUMN temperature REAL;
ALTER TABLE agents ADD COLUMN top_p REAL;
ALTER TABLE agents ADD COLUMN max_steps INTEGER CHECK (max_steps > 0);

-- The agents that stood in files when somebody looked last, each with a hash of what it was: clients are
-- told of each that is another one then.
CREATE TABLE file_agents (
    name TEXT NOT NULL PRIMARY KEY,
    hash TEXT NOT NULL
) STRICT, WITHOUT ROWID;
