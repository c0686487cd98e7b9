-- Indexes for what is asked of tables that grow.

-- Directories of projects that have one of their own: whether a new one lies in, or holds, another.
CREATE INDEX projects_by_path ON projects (path) WHERE path IS NOT NULL;

-- The members of a project in the order in which they are listed.
CREATE INDEX project_members_by_time ON project_members (project_id, joined_at, user_id);
