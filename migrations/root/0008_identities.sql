-- Who users are at other providers of logins.

CREATE TABLE identities (
    id            TEXT    NOT NULL PRIMARY KEY,
    user_id       TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- As the configuration named it when it was linked.
    provider      TEXT    NOT NULL CHECK (provider <> ''),
    -- What the provider calls itself, and what it calls the user: they alone decide who somebody is.
    issuer        TEXT    NOT NULL CHECK (issuer <> ''),
    subject       TEXT    NOT NULL CHECK (subject <> ''),
    -- What the provider told last; decides nothing.
    email         TEXT,
    created_at    INTEGER NOT NULL,
    -- Null before the first time.
    last_login_at INTEGER,
    UNIQUE (issuer, subject)
) STRICT;

CREATE INDEX identities_by_user ON identities (user_id, id);
