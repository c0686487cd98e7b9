-- Text that streams, as far as it is safe already, and how often runs were resumed.

-- Pieces of parts that are not recorded yet: they are gone once their part is, or their message ended.
CREATE TABLE stream_chunks (
    -- The order in which they came: it is that of the parts too.
    id          INTEGER NOT NULL PRIMARY KEY,
    message_id  TEXT    NOT NULL REFERENCES messages (id) ON DELETE CASCADE,
    part_id     TEXT    NOT NULL,
    kind        TEXT    NOT NULL CHECK (kind IN ('text', 'reasoning')),
    -- Bytes of UTF-8 of the part before this piece.
    byte_offset INTEGER NOT NULL,
    text        TEXT    NOT NULL,
    UNIQUE (message_id, part_id, byte_offset)
) STRICT;

-- Those of a message in their order.
CREATE INDEX stream_chunks_by_message ON stream_chunks (message_id, id);

-- How often a recovery resumed the run by itself.
ALTER TABLE runs ADD COLUMN resumed INTEGER NOT NULL DEFAULT 0;

-- Whether somebody was told that the run ends as cancelled: whatever comes in between, it does.
ALTER TABLE runs ADD COLUMN cancel_requested INTEGER NOT NULL DEFAULT 0
    CHECK (cancel_requested IN (0, 1));

-- What lets the data of a project grow well: its log can be shortened, its text found, its large
-- values shared, its size known.

-- The log. What was dropped is a prefix of it: every event up to `floor_seq`.
ALTER TABLE meta ADD COLUMN floor_seq INTEGER NOT NULL DEFAULT 0;
-- Bytes of the events that are kept: 128 for each and its payload.
ALTER TABLE meta ADD COLUMN events_bytes INTEGER NOT NULL DEFAULT 0;
UPDATE meta SET events_bytes =
    (SELECT coalesce(sum(octet_length(payload) + 128), 0) FROM events);

CREATE TRIGGER events_dropped AFTER DELETE ON events BEGIN
    UPDATE meta SET events_bytes = max(0, events_bytes - octet_length(OLD.payload) - 128);
END;

-- Large values, each once, named by the SHA-256 of what they hold.
CREATE TABLE blobs (
    hash     BLOB    NOT NULL PRIMARY KEY CHECK (length(hash) = 32),
    -- Bytes of what it holds, before it was compressed.
    size     INTEGER NOT NULL,
    encoding TEXT    NOT NULL CHECK (encoding IN ('plain', 'zstd')),
    -- Rows that name it. What nothing names is collected.
    refs     INTEGER NOT NULL DEFAULT 0 CHECK (refs >= 0),
    content  BLOB    NOT NULL
) STRICT;

CREATE INDEX blobs_unused ON blobs (hash) WHERE refs = 0;

-- Where it is set, the blob holds the long text that `body` lacks, or all of the part when `body` is
-- empty.
ALTER TABLE message_parts ADD COLUMN blob BLOB REFERENCES blobs (hash);

CREATE INDEX message_parts_by_blob ON message_parts (blob) WHERE blob IS NOT NULL;

CREATE TRIGGER message_parts_name_blob AFTER INSERT ON message_parts
WHEN NEW.blob IS NOT NULL BEGIN
    UPDATE blobs SET refs = refs + 1 WHERE hash = NEW.blob;
END;

CREATE TRIGGER message_parts_change_blob AFTER UPDATE OF blob ON message_parts
WHEN NEW.blob IS NOT OLD.blob BEGIN
    UPDATE blobs SET refs = refs - 1 WHERE hash = OLD.blob;
    UPDATE blobs SET refs = refs + 1 WHERE hash = NEW.blob;
END;

CREATE TRIGGER message_parts_drop_blob AFTER DELETE ON message_parts
WHEN OLD.blob IS NOT NULL BEGIN
    UPDATE blobs SET refs = refs - 1 WHERE hash = OLD.blob;
END;

-- The text parts that can be found, in the order in which they were written. Their words come into
-- the index a moment later, many parts at once: each savepoint with a word in it would cost a write
-- of its own there.
CREATE TABLE search_parts (
    id      INTEGER NOT NULL PRIMARY KEY,
    part_id TEXT    NOT NULL UNIQUE REFERENCES message_parts (id) ON DELETE CASCADE,
    indexed INTEGER NOT NULL DEFAULT 0 CHECK (indexed IN (0, 1))
) STRICT;

CREATE INDEX search_parts_waiting ON search_parts (id) WHERE indexed = 0;

-- Their words, under the same numbers. `session` is the id of the session without its prefix, one
-- word, so that the text of one session is found without reading past that of all others.
CREATE VIRTUAL TABLE search_index USING fts5 (
    session, text,
    content = '', contentless_delete = 1,
    tokenize = 'unicode61 remove_diacritics 2'
);

CREATE TRIGGER search_parts_gone AFTER DELETE ON search_parts
WHEN OLD.indexed = 1 BEGIN
    DELETE FROM search_index WHERE rowid = OLD.id;
END;

CREATE TRIGGER search_parts_outdated AFTER UPDATE OF indexed ON search_parts
WHEN OLD.indexed = 1 AND NEW.indexed = 0 BEGIN
    DELETE FROM search_index WHERE rowid = OLD.id;
END;

CREATE TRIGGER message_parts_reworded AFTER UPDATE OF body, blob ON message_parts
WHEN NEW.tool_call_id IS NULL BEGIN
    UPDATE search_parts SET indexed = 0 WHERE part_id = NEW.id;
END;

INSERT INTO search_parts (part_id)
SELECT p.id
FROM messages m JOIN message_parts p ON p.message_id = m.id
WHERE p.body ->> '$.type' = 'text'
ORDER BY m.created_at, m.id, p.ordinal;

-- How much there is, for quotas.
CREATE TABLE usage (
    one        INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    -- Messages and their parts.
    rows       INTEGER NOT NULL,
    -- Files that are known, and their bytes.
    files      INTEGER NOT NULL,
    file_bytes INTEGER NOT NULL
) STRICT;

INSERT INTO usage (one, rows, files, file_bytes) VALUES (
    1,
    (SELECT count(*) FROM messages) + (SELECT count(*) FROM message_parts),
    (SELECT count(*) FROM files),
    (SELECT coalesce(sum(size), 0) FROM files)
);

CREATE TRIGGER messages_counted AFTER INSERT ON messages BEGIN
    UPDATE usage SET rows = rows + 1;
END;

CREATE TRIGGER messages_uncounted AFTER DELETE ON messages BEGIN
    UPDATE usage SET rows = rows - 1;
END;

CREATE TRIGGER message_parts_counted AFTER INSERT ON message_parts BEGIN
    UPDATE usage SET rows = rows + 1;
END;

CREATE TRIGGER message_parts_uncounted AFTER DELETE ON message_parts BEGIN
    UPDATE usage SET rows = rows - 1;
END;

CREATE TRIGGER files_counted AFTER INSERT ON files BEGIN
    UPDATE usage SET files = files + 1, file_bytes = file_bytes + NEW.size;
END;

CREATE TRIGGER files_changed AFTER UPDATE OF size ON files BEGIN
    UPDATE usage SET file_bytes = file_bytes - OLD.size + NEW.size;
END;

CREATE TRIGGER files_uncounted AFTER DELETE ON files BEGIN
    UPDATE usage SET files = files - 1, file_bytes = file_bytes - OLD.size;
END;

-- Events that come from the root database are published once: the id there of the last one that was,
-- and its number here.

ALTER TABLE meta ADD COLUMN outbox_id INTEGER NOT NULL DEFAULT 0;
ALTER TABLE meta ADD COLUMN outbox_seq INTEGER NOT NULL DEFAULT 0;
