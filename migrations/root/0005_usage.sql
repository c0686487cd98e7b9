-- What users used in all projects, what they may, and what administrators know of models.

-- By day, user, project, model and table of prices; stays when the project or the user is deleted.
CREATE TABLE usage_days (
    day                   INTEGER NOT NULL,
    user_id               TEXT    NOT NULL,
    project_id            TEXT    NOT NULL,
    provider_id           TEXT    NOT NULL,
    model_id              TEXT    NOT NULL,
    price_version         TEXT    NOT NULL,
    steps                 INTEGER NOT NULL,
    unpriced_steps        INTEGER NOT NULL,
    input_tokens          INTEGER NOT NULL,
    output_tokens         INTEGER NOT NULL,
    reasoning_tokens      INTEGER NOT NULL,
    cache_read_tokens     INTEGER NOT NULL,
    cache_write_tokens    INTEGER NOT NULL,
    cache_write_1h_tokens INTEGER NOT NULL,
    server_tool_calls     INTEGER NOT NULL,
    known_cost            INTEGER NOT NULL,
    wall_time             INTEGER NOT NULL,
    -- What the project said last, and in which of its lives: what it says next counts from there on.
    told                  TEXT    NOT NULL CHECK (json_valid(told)),
    epoch                 TEXT    NOT NULL,
    PRIMARY KEY (day, user_id, project_id, provider_id, model_id, price_version)
) STRICT, WITHOUT ROWID;

CREATE INDEX usage_days_by_user ON usage_days (user_id, day);

-- How far each project has told what was used in it.
CREATE TABLE usage_heads (
    project_id TEXT    NOT NULL PRIMARY KEY,
    epoch      TEXT    NOT NULL,
    revision   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Of each user in all projects: for ever where `period` is empty, else in a month, as '2026-11'.
CREATE TABLE usage_totals (
    user_id               TEXT    NOT NULL,
    period                TEXT    NOT NULL,
    steps                 INTEGER NOT NULL,
    unpriced_steps        INTEGER NOT NULL,
    input_tokens          INTEGER NOT NULL,
    output_tokens         INTEGER NOT NULL,
    reasoning_tokens      INTEGER NOT NULL,
    cache_read_tokens     INTEGER NOT NULL,
    cache_write_tokens    INTEGER NOT NULL,
    cache_write_1h_tokens INTEGER NOT NULL,
    server_tool_calls     INTEGER NOT NULL,
    known_cost            INTEGER NOT NULL,
    wall_time             INTEGER NOT NULL,
    PRIMARY KEY (user_id, period)
) STRICT, WITHOUT ROWID;

-- What administrators allow a user in place of what the configuration says.
CREATE TABLE user_budgets (
    user_id TEXT    NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    budgets TEXT    NOT NULL CHECK (json_valid(budgets)),
    set_by  TEXT    NOT NULL,
    set_at  INTEGER NOT NULL
) STRICT;

-- What administrators know of a model better than the catalogue.
CREATE TABLE model_facts (
    provider_id TEXT    NOT NULL,
    model_id    TEXT    NOT NULL,
    facts       TEXT    NOT NULL CHECK (json_valid(facts)),
    -- Rises over all of them with each change: the version of the prices.
    revision    INTEGER NOT NULL,
    set_by      TEXT    NOT NULL,
    set_at      INTEGER NOT NULL,
    PRIMARY KEY (provider_id, model_id)
) STRICT, WITHOUT ROWID;
