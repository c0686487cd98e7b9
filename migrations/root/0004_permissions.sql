-- Rules about what tools may touch, for all projects. Their order is that of the ids, which sort by the
-- time of their creation.
CREATE TABLE permissions (
    id         TEXT    NOT NULL PRIMARY KEY,
    -- A tool, a group of tools or '*'.
    permission TEXT    NOT NULL,
    -- A glob over what a call touches.
    pattern    TEXT    NOT NULL,
    action     TEXT    NOT NULL CHECK (action IN ('allow', 'ask', 'deny')),
    created_by TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
