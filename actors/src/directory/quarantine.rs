//! Projects whose databases are damaged: remembered, so that they are not opened over and over, and
//! looked at again after a while or when their files change, so that a repair needs no restart.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use actix::prelude::*;
use iris_protocol::{ApiError, ProjectId};
use iris_store::StoreError;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Directory, ProjectPlaces};

/// How often the files of projects in quarantine are looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a project stays in quarantine whose files do not change.
const OPEN_AGAIN_AFTER: Duration = Duration::from_secs(30);
/// Most projects that are remembered; of more, the oldest ones are opened again when they are wanted.
const REMEMBERED_MAX: usize = 1024;
/// Most projects that are named to operators.
const NAMED_MAX: usize = 32;

/// The projects in quarantine.
#[derive(Default)]
pub(super) struct Quarantine {
    projects: HashMap<ProjectId, Entry>,
}

struct Entry {
    /// For operators.
    reason: String,
    /// For callers.
    error: ApiError,
    since: Instant,
    /// Known from the first look on.
    files: Option<Stamp>,
    /// Whether it may be opened again, by the next caller or for its unfinished work.
    is_due: bool,
}

/// Why a project may be opened again.
enum LetOut {
    /// Somebody did something about it.
    Changed,
    /// It was kept long enough.
    Unchanged,
}

impl Quarantine {
    /// What a caller is told who wants a project that is not to be opened.
    pub(super) fn refusal(&self, id: &ProjectId) -> Option<ApiError> {
        let entry = self.projects.get(id).filter(|entry| !entry.is_due)?;
        Some(entry.error.clone())
    }

    /// Takes a project in. Answers whether that is news.
    fn take(&mut self, id: ProjectId, reason: &str, error: &ApiError) -> bool {
        if self.projects.len() >= REMEMBERED_MAX && !self.projects.contains_key(&id) {
            let oldest = self.projects.iter().min_by_key(|(_, entry)| entry.since);
            if let Some(oldest) = oldest.map(|(id, _)| id.clone()) {
                self.projects.remove(&oldest);
            }
        }
        let entry = Entry {
            reason: reason.to_owned(),
            error: error.clone(),
            since: Instant::now(),
            files: None,
            is_due: false,
        };
        let before = self.projects.insert(id, entry);
        before.is_none_or(|before| before.reason != reason)
    }

    /// Lets a project out: it could be opened, or its files are about to go or to be replaced.
    pub(super) fn release(&mut self, id: &ProjectId) {
        self.projects.remove(id);
    }

    /// What operators see.
    pub(super) fn observe(&self) -> Value {
        let named = self.projects.iter().take(NAMED_MAX);
        let named = named.map(|(id, entry)| (id.to_string(), Value::from(entry.reason.clone())));
        json!({ "count": self.projects.len(), "projects": named.collect::<serde_json::Map<_, _>>() })
    }

    /// Answers how a project is let out now that was not before.
    fn looked_at(&mut self, id: &ProjectId, now: Stamp) -> Option<LetOut> {
        let entry = self.projects.get_mut(id)?;
        let has_changed = entry.files.is_some_and(|before| before != now);
        entry.files = Some(now);
        if entry.is_due {
            return None;
        }
        entry.is_due = has_changed || entry.since.elapsed() >= OPEN_AGAIN_AFTER;
        entry.is_due.then_some(if has_changed { LetOut::Changed } else { LetOut::Unchanged })
    }
}

impl Directory {
    /// Remembers that the database of a project could not be opened, and why.
    pub(super) fn keep_out(
        &mut self,
        id: ProjectId,
        reason: &str,
        error: &ApiError,
        ctx: &mut Context<Self>,
    ) {
        let path = format!("{}/project/{id}", self.vitals.path());
        if self.quarantine.take(id, reason, error) {
            self.services.supervision.log().unusable(path, "project", reason);
        }
        // At once, so that no change from here on is missed.
        self.look_at_quarantine(ctx);
    }

    /// The same of one that was open: its end is in the supervision log already.
    pub(super) fn quarantine_open(&mut self, id: ProjectId, reason: &str, ctx: &mut Context<Self>) {
        let error = StoreError::Corrupt { reason: reason.to_owned() };
        self.quarantine.take(id, &error.to_string(), &error.to_api());
        self.look_at_quarantine(ctx);
    }

    /// Looks whether somebody repaired something.
    pub(super) fn look_at_quarantine(&mut self, ctx: &mut Context<Self>) {
        if self.quarantine.projects.is_empty() {
            return;
        }
        let data_dir = self.services.settings.data_dir.clone();
        let ids: Vec<_> = self.quarantine.projects.keys().cloned().collect();
        let look = move || {
            let stamp = |id: ProjectId| {
                let stamp = Stamp::of(&ProjectPlaces::new(&data_dir, &id).database);
                (id, stamp)
            };
            ids.into_iter().map(stamp).collect::<Vec<_>>()
        };
        let looked = tokio::task::spawn_blocking(look).into_actor(self);
        ctx.spawn(looked.map(|looked, directory, ctx| {
            for (id, stamp) in looked.unwrap_or_default() {
                let Some(let_out) = directory.quarantine.looked_at(&id, stamp) else { continue };
                if matches!(let_out, LetOut::Changed) {
                    directory.unfinished.forgive(&id);
                }
                directory.take_up_later(id, ctx);
            }
        }));
    }
}

/// What shows that somebody changed the database, its write-ahead log or its head file.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp([Option<(u64, SystemTime)>; 3]);

impl Stamp {
    fn of(database: &Path) -> Self {
        let names = ["project.db", "project.db-wal", "project.head"];
        Self(names.map(|name| {
            let found = fs::metadata(database.with_file_name(name)).ok()?;
            Some((found.len(), found.modified().ok()?))
        }))
    }
}
