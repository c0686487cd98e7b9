-- Keys with which model providers are asked, sealed with the master key.

CREATE TABLE provider_credentials (
    id          TEXT    NOT NULL PRIMARY KEY,
    -- Of a user, of a project, or with neither of the server.
    user_id     TEXT    REFERENCES users (id) ON DELETE CASCADE,
    project_id  TEXT    REFERENCES projects (id) ON DELETE CASCADE,
    -- As the configuration names it.
    provider_id TEXT    NOT NULL CHECK (provider_id <> ''),
    -- Bound to its owner and its provider: in another row it does not open.
    sealed      TEXT    NOT NULL,
    hint        TEXT    NOT NULL,
    -- Who set it; they may be gone.
    created_by  TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    CHECK (user_id IS NULL OR project_id IS NULL)
) STRICT;

-- One for each owner and provider.
CREATE UNIQUE INDEX provider_credentials_of_user
    ON provider_credentials (user_id, provider_id) WHERE user_id IS NOT NULL;
CREATE UNIQUE INDEX provider_credentials_of_project
    ON provider_credentials (project_id, provider_id) WHERE project_id IS NOT NULL;
CREATE UNIQUE INDEX provider_credentials_of_server
    ON provider_credentials (provider_id) WHERE user_id IS NULL AND project_id IS NULL;
