-- MCP servers of the project, and what people approved of what they offer.

CREATE TABLE mcp_servers (
    name                  TEXT    NOT NULL PRIMARY KEY,
    -- Without secrets.
    transport             TEXT    NOT NULL CHECK (json_valid(transport)),
    -- The names of the headers whose values are in `secrets`.
    secret_headers        TEXT    NOT NULL CHECK (json_valid(secret_headers)),
    -- Sealed with the key of the server; nothing else can read it.
    secrets               TEXT,
    enabled               INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    initialize_timeout_ms INTEGER NOT NULL,
    request_timeout_ms    INTEGER NOT NULL,
    -- The definitions that were approved, as the server gave them.
    definitions           TEXT    NOT NULL CHECK (json_valid(definitions)),
    -- The names by which models call those of them that can be used.
    tools                 TEXT    NOT NULL CHECK (json_valid(tools)),
    approved_hash         TEXT,
    created_by            TEXT    NOT NULL,
    created_at            INTEGER NOT NULL,
    updated_by            TEXT    NOT NULL,
    updated_at            INTEGER NOT NULL
) STRICT;
