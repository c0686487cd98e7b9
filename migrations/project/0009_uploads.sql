-- Files that are being received over sockets: what of them has come is in the project's directory, under the
-- name of the upload. A client that comes back goes on with it.

CREATE TABLE uploads (
    id         TEXT    NOT NULL PRIMARY KEY,
    user_id    TEXT    NOT NULL,
    path       TEXT    NOT NULL,
    size       INTEGER NOT NULL,
    sha256     TEXT    NOT NULL,
    -- The version that the sender knows; absent where any will do.
    version    INTEGER,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
