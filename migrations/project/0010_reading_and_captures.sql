-- How far users have read sessions, and what sessions ask model providers while somebody debugs them.

CREATE TABLE read_positions (
    user_id    TEXT    NOT NULL,
    session_id TEXT    NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    -- The newest message that was read; it may be gone.
    message_id TEXT    NOT NULL,
    at         INTEGER NOT NULL,
    PRIMARY KEY (user_id, session_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX read_positions_by_session ON read_positions (session_id);

-- What came after a message, in the order in which it was said.
CREATE INDEX messages_by_session ON messages (session_id, id, created_by, state);

-- Of a session that is being recorded: for which session, by whom and until when.
ALTER TABLE sessions ADD COLUMN capturing TEXT CHECK (json_valid(capturing));

CREATE INDEX sessions_capturing ON sessions (id) WHERE capturing IS NOT NULL;

-- One for each session that is being recorded, or of which records are kept.
CREATE TABLE captures (
    session_id TEXT    NOT NULL PRIMARY KEY REFERENCES sessions (id) ON DELETE CASCADE,
    started_by    TEXT    NOT NULL,
    since      INTEGER NOT NULL,
    until      INTEGER NOT NULL,
    ended_at   INTEGER,
    bytes_max  INTEGER NOT NULL,
    -- Records that had to make room.
    dropped    INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE TABLE capture_records (
    id         TEXT    NOT NULL PRIMARY KEY,
    -- The recorded session, and the one that asked: the same, or that of a sub-agent.
    captured   TEXT    NOT NULL REFERENCES captures (session_id) ON DELETE CASCADE,
    session_id TEXT    NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    at         INTEGER NOT NULL,
    bytes      INTEGER NOT NULL,
    -- What is listed of it, then the rest, as they stand on the wire.
    record     TEXT    NOT NULL CHECK (json_valid(record)),
    exchange   TEXT    NOT NULL
) STRICT;

CREATE INDEX capture_records_by_capture ON capture_records (captured, id, bytes);
CREATE INDEX capture_records_by_session ON capture_records (session_id);
CREATE INDEX capture_records_by_time ON capture_records (at);
