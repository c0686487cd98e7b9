//! Commands that run. Each may change any file at any time, so what a look finds meanwhile is their work.

use iris_protocol::{FileSource, UserId};
use iris_store::project::{Author, RecordedFiles};
use parking_lot::Mutex;

use crate::project::ProjectHandle;

/// Those of a project.
#[derive(Default)]
pub(super) struct Commands {
    running: Mutex<Vec<Running>>,
}

struct Running {
    id: u128,
    author: Author,
    done: Done,
}

/// What was recorded as the work of a command so far, or may be.
#[derive(Debug, Clone, Default)]
pub(super) struct Done {
    /// Whether anything was.
    pub(super) is_any: bool,
    /// Paths on which somebody else had a lock, and who.
    pub(super) despite_locks: Vec<(String, UserId)>,
}

impl Commands {
    pub(super) fn is_empty(&self) -> bool {
        self.running.lock().is_empty()
    }

    /// Who may have made what a look finds now.
    pub(super) fn author(&self) -> Author {
        let running = self.running.lock();
        let Some((first, others)) = running.split_first() else { return Author::OUTSIDE };
        let first = &first.author;
        if others.iter().all(|other| other.author.run_id == first.run_id) {
            return first.clone();
        }
        let is_of_all =
            |is_same: &dyn Fn(&Author) -> bool| others.iter().all(|other| is_same(&other.author));
        let mut shared: Vec<_> =
            running.iter().filter_map(|one| one.author.run_id.clone()).collect();
        shared.sort_unstable();
        shared.dedup();
        Author {
            by: first.by.clone().filter(|_| is_of_all(&|other| other.by == first.by)),
            source: FileSource::Tool,
            session_id: first
                .session_id
                .clone()
                .filter(|_| is_of_all(&|other| other.session_id == first.session_id)),
            run_id: None,
            message_id: None,
            shared,
        }
    }

    /// Notes what was recorded as the work of those that run.
    pub(super) fn note(&self, recorded: &RecordedFiles) {
        if recorded.count == 0 {
            return;
        }
        for Running { done, .. } in &mut *self.running.lock() {
            done.is_any = true;
            for (path, owner) in &recorded.despite_locks {
                if !done.despite_locks.iter().any(|(known, _)| known == path) {
                    done.despite_locks.push((path.clone(), owner.clone()));
                }
            }
        }
    }
}

/// A command that runs until this is dropped.
pub(super) struct Command {
    project: ProjectHandle,
    id: u128,
}

impl Command {
    /// The caller has the turn, and looked at all files.
    pub(super) fn begin(project: ProjectHandle, id: u128, author: Author) -> Self {
        let running = Running { id, author, done: Done::default() };
        project.kept.files.commands.running.lock().push(running);
        Self { project, id }
    }

    /// What was recorded of it so far.
    pub(super) fn done(&self) -> Done {
        let running = self.project.kept.files.commands.running.lock();
        let found = running.iter().find(|one| one.id == self.id);
        found.map(|one| one.done.clone()).unwrap_or_default()
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        let desk = &self.project.kept.files;
        let mut running = desk.commands.running.lock();
        running.retain(|one| one.id != self.id);
        if running.is_empty() {
            desk.idle.notify_one();
        }
    }
}
