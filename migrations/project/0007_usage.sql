-- What was used, as it was when it was recorded: no cost is computed again when prices change. Sums
-- are made by the server, which lets nothing overflow.

-- By day, user, model and table of prices: of the project where `session_id` is empty, else of that
-- session and of those of its sub-agents. What the project used outlives its sessions.
CREATE TABLE usage_days (
    session_id            TEXT    NOT NULL,
    -- Days since 1970 UTC.
    day                   INTEGER NOT NULL,
    user_id               TEXT    NOT NULL,
    provider_id           TEXT    NOT NULL,
    model_id              TEXT    NOT NULL,
    -- Empty where the cost is not known, '-' where it was used before there were prices.
    price_version         TEXT    NOT NULL,
    steps                 INTEGER NOT NULL,
    -- Those among them whose cost is not known.
    unpriced_steps        INTEGER NOT NULL,
    input_tokens          INTEGER NOT NULL,
    output_tokens         INTEGER NOT NULL,
    reasoning_tokens      INTEGER NOT NULL,
    cache_read_tokens     INTEGER NOT NULL,
    cache_write_tokens    INTEGER NOT NULL,
    cache_write_1h_tokens INTEGER NOT NULL,
    server_tool_calls     INTEGER NOT NULL,
    -- Billionths of a US dollar.
    known_cost            INTEGER NOT NULL,
    -- Milliseconds.
    wall_time             INTEGER NOT NULL,
    -- Of rows of the project: rises over all of them with each change, so that the root database is told
    -- of what changed. 0 for others.
    revision              INTEGER NOT NULL,
    PRIMARY KEY (session_id, day, user_id, provider_id, model_id, price_version)
) STRICT, WITHOUT ROWID;

CREATE INDEX usage_days_by_revision ON usage_days (revision) WHERE revision > 0;

-- What budgets limit, each in one row: a run and a session (with those of sub-agents) by id, a user by
-- id, the project with an empty key; those of a month with the month before the key, as in
-- '2026-11 usr_..'.
CREATE TABLE usage_totals (
    scope                 TEXT    NOT NULL
        CHECK (scope IN ('run', 'session', 'user', 'userMonth', 'project', 'projectMonth')),
    key                   TEXT    NOT NULL,
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
    PRIMARY KEY (scope, key)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER sessions_usage_gone AFTER DELETE ON sessions BEGIN
    DELETE FROM usage_days WHERE session_id = OLD.id;
    DELETE FROM usage_totals WHERE scope = 'session' AND key = OLD.id;
END;

CREATE TRIGGER runs_usage_gone AFTER DELETE ON runs BEGIN
    DELETE FROM usage_totals WHERE scope = 'run' AND key = OLD.id;
END;

-- The most that a session may use, and a run that an agent answers.
ALTER TABLE sessions ADD COLUMN budget TEXT CHECK (json_valid(budget));
ALTER TABLE agents ADD COLUMN budget TEXT CHECK (json_valid(budget));

-- What was used before there were prices: no cost of it is known, and the root database is not told, for
-- the database may come from elsewhere.
-- Whatever a provider said, the sums fit.
CREATE TEMP TABLE used AS
SELECT r.id AS run_id, r.session_id AS session_id, r.started_by AS user_id,
       coalesce(r.started_at, 0) / 86400000 AS day,
       strftime('%Y-%m', coalesce(r.started_at, 0) / 1000, 'unixepoch') AS month,
       coalesce(m.model ->> '$.providerId', '') AS provider_id,
       coalesce(m.model ->> '$.modelId', '') AS model_id,
       r.steps AS steps,
       min(cast(coalesce(r.usage ->> '$.inputTokens', 0) AS INTEGER), 1000000000000) AS input_tokens,
       min(cast(coalesce(r.usage ->> '$.outputTokens', 0) AS INTEGER), 1000000000000) AS output_tokens,
       min(cast(coalesce(r.usage ->> '$.reasoningTokens', 0) AS INTEGER), 1000000000000) AS reasoning_tokens,
       min(cast(coalesce(r.usage ->> '$.cacheReadTokens', 0) AS INTEGER), 1000000000000) AS cache_read_tokens,
       min(cast(coalesce(r.usage ->> '$.cacheWriteTokens', 0) AS INTEGER), 1000000000000) AS cache_write_tokens,
       min(cast(coalesce(r.usage ->> '$.cacheWrite1hTokens', 0) AS INTEGER), 1000000000000) AS cache_write_1h_tokens,
       min(cast(coalesce(r.usage ->> '$.serverToolCalls', 0) AS INTEGER), 1000000000000) AS server_tool_calls
FROM runs r LEFT JOIN messages m ON m.run_id = r.id AND m.session_id = r.session_id AND m.place = 1
WHERE r.steps > 0;

-- Each with the sessions and the runs above it; the project has no name.
CREATE TEMP TABLE used_in AS
WITH RECURSIVE above (run_id, id) AS (
    SELECT run_id, session_id FROM used
    UNION SELECT a.run_id, s.parent_id FROM above a JOIN sessions s ON s.id = a.id
    WHERE s.parent_id IS NOT NULL
)
SELECT run_id, id FROM above UNION ALL SELECT run_id, '' FROM used;

CREATE TEMP TABLE used_by AS
WITH RECURSIVE above (run_id, id) AS (
    SELECT run_id, run_id FROM used
    UNION SELECT a.run_id, t.run_id FROM above a JOIN tasks t ON t.child_run_id = a.id
)
SELECT run_id, id FROM above;

INSERT INTO usage_days
SELECT i.id, u.day, u.user_id, u.provider_id, u.model_id, '-', sum(steps), sum(steps),
       sum(input_tokens), sum(output_tokens), sum(reasoning_tokens), sum(cache_read_tokens),
       sum(cache_write_tokens), sum(cache_write_1h_tokens), sum(server_tool_calls), 0, 0, 0
FROM used u JOIN used_in i ON i.run_id = u.run_id
GROUP BY i.id, u.day, u.user_id, u.provider_id, u.model_id;

INSERT INTO usage_totals
SELECT t.scope, t.key, sum(steps), sum(steps), sum(input_tokens), sum(output_tokens),
       sum(reasoning_tokens), sum(cache_read_tokens), sum(cache_write_tokens),
       sum(cache_write_1h_tokens), sum(server_tool_calls), 0, 0
FROM used u JOIN (
    SELECT run_id, iif(id = '', 'project', 'session') AS scope, id AS key FROM used_in
    UNION ALL SELECT run_id, 'run', id FROM used_by
    UNION ALL SELECT run_id, 'user', user_id FROM used
    UNION ALL SELECT run_id, 'userMonth', month || ' ' || user_id FROM used
    UNION ALL SELECT run_id, 'projectMonth', month FROM used
) t ON t.run_id = u.run_id
GROUP BY t.scope, t.key;

DROP TABLE used_by;
DROP TABLE used_in;
DROP TABLE used;
