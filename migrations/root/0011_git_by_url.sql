-- No project is made where another one is cloned from. A server between two versions made the index before it had a
-- migration of its own.
CREATE INDEX IF NOT EXISTS project_git_by_url ON project_git (url);
