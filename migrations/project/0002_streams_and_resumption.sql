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
