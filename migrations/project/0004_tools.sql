-- Tools that the project defined for itself.

CREATE TABLE tools (
    id          TEXT    NOT NULL PRIMARY KEY,
    -- What models call it by; two that differ in case alone would be taken for one another.
    name        TEXT    NOT NULL UNIQUE COLLATE NOCASE,
    description TEXT    NOT NULL,
    kind        TEXT    NOT NULL CHECK (kind IN ('http', 'command')),
    -- JSON Schema of the arguments.
    parameters  TEXT    NOT NULL CHECK (json_valid(parameters)),
    -- What a call does, without secrets.
    config      TEXT    NOT NULL CHECK (json_valid(config)),
    -- Sealed values of secret headers by their names; an empty one has to be set again.
    secrets     TEXT    NOT NULL CHECK (json_valid(secrets)),
    writes      INTEGER NOT NULL,
    enabled     INTEGER NOT NULL,
    -- Rises by one with each change.
    revision    INTEGER NOT NULL,
    created_by  TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    updated_by  TEXT    NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT;
