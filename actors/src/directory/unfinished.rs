//! Unfinished work: its projects are opened although nobody comes, after a start and whenever one of them
//! could not be opened or has ended, for as long as it takes.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use actix::prelude::*;
use iris_protocol::ProjectId;
use tokio::time::Instant;

use super::{Directory, Entry};
use crate::supervision::Address;

/// Projects with unfinished work that are on their way at the same time.
const AT_ONCE: usize = 8;
/// The part of all open projects that is kept for visitors while unfinished work is taken up: one in
/// so many.
const KEPT_FOR_VISITORS: usize = 4;
/// How long to wait before the index of unfinished work is read again that could not be read.
const READ_INDEX_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// How long to wait before a project is looked at that is not open any more; doubled with each time in
/// a row, up to the most.
const LOOK_AFTER_MIN: Duration = Duration::from_secs(1);
const LOOK_AFTER_MAX: Duration = Duration::from_mins(5);

/// What the directory knows of unfinished work.
#[derive(Default)]
pub(super) struct Unfinished {
    /// Projects that are to be opened.
    to_open: VecDeque<ProjectId>,
    /// Whether the index of unfinished work is still to be read.
    wants_index: bool,
    /// Whether it was ever to be read.
    is_begun: bool,
    /// Projects that could not be opened or have ended.
    troubled: HashMap<ProjectId, Trouble>,
}

/// How often a project could not be opened, or ended, in a row.
struct Trouble {
    times: u32,
    last: Instant,
    /// Whether somebody will look at it.
    is_watched: bool,
    /// Whether somebody is looking.
    is_looked_at: bool,
}

impl Trouble {
    fn new() -> Self {
        Self { times: 0, last: Instant::now(), is_watched: false, is_looked_at: false }
    }

    /// How long to wait after one time more.
    fn wait(&mut self) -> Duration {
        // Whatever was wrong before was over for a while.
        if self.last.elapsed() > 2 * LOOK_AFTER_MAX {
            self.times = 0;
        }
        let doubled = 2_u32.checked_pow(self.times).unwrap_or(u32::MAX);
        self.times = self.times.saturating_add(1);
        self.last = Instant::now();
        LOOK_AFTER_MIN.saturating_mul(doubled).min(LOOK_AFTER_MAX)
    }
}

impl Unfinished {
    /// What a directory that starts again knows: nobody looks at anything any more, and what was being
    /// opened is not; the index has it all.
    pub(super) fn rebuild(&mut self) -> Self {
        let (is_begun, to_open) = (self.is_begun, std::mem::take(&mut self.to_open));
        Self { to_open, wants_index: is_begun, is_begun, troubled: HashMap::new() }
    }

    pub(super) fn wants_index(&self) -> bool {
        self.wants_index
    }

    /// Number of projects that are to be opened.
    pub(super) fn to_open(&self) -> usize {
        self.to_open.len()
    }

    /// Number of projects that somebody looks at, or will.
    pub(super) fn to_look_at(&self) -> usize {
        let looked_at = self.troubled.values().filter(|it| it.is_watched || it.is_looked_at);
        looked_at.count()
    }

    /// What was wrong with a project is over: it is looked at soon should anything be wrong again.
    pub(super) fn forgive(&mut self, id: &ProjectId) {
        if let Some(trouble) = self.troubled.get_mut(id) {
            trouble.times = 0;
        }
    }
}

/// Tell: opens the projects with unfinished work, without anybody waiting for them.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct OpenUnfinished;

impl Handler<OpenUnfinished> for Directory {
    type Result = ();

    fn handle(&mut self, _: OpenUnfinished, ctx: &mut Context<Self>) {
        self.unfinished.is_begun = true;
        self.unfinished.wants_index = true;
        self.read_index(ctx);
    }
}

/// Held by whoever has the files of a project: tells the directory when they are given back.
pub(super) struct Taken {
    pub(super) id: ProjectId,
    pub(super) directory: Address<Directory>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.directory.tell(GivenBack(self.id.clone()));
    }
}

/// Tell: the files of a project were given back.
#[derive(Message)]
#[rtype(result = "()")]
struct GivenBack(ProjectId);

impl Handler<GivenBack> for Directory {
    type Result = ();

    fn handle(&mut self, GivenBack(id): GivenBack, ctx: &mut Context<Self>) {
        self.take_up_later(id, ctx);
    }
}

impl Directory {
    pub(super) fn read_index(&mut self, ctx: &mut Context<Self>) {
        let reader = self.root.reader.clone();
        let read = async move { reader.unfinished_projects().await }.into_actor(self);
        ctx.spawn(read.map(|read, directory, ctx| match read {
            Ok(ids) => {
                directory.unfinished.wants_index = false;
                tracing::info!(projects = ids.len(), "projects with unfinished work are opened");
                directory.unfinished.to_open.extend(ids);
                directory.open_unfinished(ctx);
            }
            Err(error) => {
                tracing::error!(%error, "the index of unfinished work could not be read");
                ctx.run_later(READ_INDEX_AGAIN_AFTER, Self::read_index);
            }
        }));
    }

    /// Opens projects with unfinished work, as far as there is room and not too many at once. One that
    /// cannot be opened does not hold up the others.
    pub(super) fn open_unfinished(&mut self, ctx: &mut Context<Self>) {
        if self.unfinished.to_open.is_empty() || self.is_closing || self.services.is_draining() {
            return;
        }
        let all = self.services.settings.projects_open_max;
        let room = (all - all / KEPT_FOR_VISITORS).max(1);
        let is_opening = |entry: &&Entry| matches!(entry, Entry::Opening(..));
        let mut opening = self.projects.values().filter(is_opening).count();
        while self.projects.len() < room
            && opening < AT_ONCE
            && let Some(id) = self.unfinished.to_open.pop_front()
        {
            if !self.projects.contains_key(&id) && self.quarantine.refusal(&id).is_none() {
                self.open(id, Vec::new(), ctx);
                opening += 1;
            }
        }
    }

    /// Sees to it that a project that is not open is opened again if it has unfinished work: not at once,
    /// and later each time in a row, so that one that fails over and over costs little.
    pub(super) fn take_up_later(&mut self, id: ProjectId, ctx: &mut Context<Self>) {
        if self.is_closing {
            return;
        }
        let trouble = self.unfinished.troubled.entry(id.clone()).or_insert_with(Trouble::new);
        if std::mem::replace(&mut trouble.is_watched, true) {
            return;
        }
        ctx.run_later(trouble.wait(), |directory, ctx| directory.take_up(id, ctx));
    }

    fn take_up(&mut self, id: ProjectId, ctx: &mut Context<Self>) {
        // One in quarantine is looked at again when it is let out.
        let is_known = self.projects.contains_key(&id);
        let is_left = self.is_closing || is_known || self.quarantine.refusal(&id).is_some();
        if let Some(trouble) = self.unfinished.troubled.get_mut(&id) {
            (trouble.is_watched, trouble.is_looked_at) = (false, !is_left);
        }
        if is_left {
            return;
        }
        let reader = self.root.reader.clone();
        let read = async move { (reader.project_location(&id).await, id) }.into_actor(self);
        ctx.spawn(read.map(|(read, id), directory, ctx| {
            let troubled = &mut directory.unfinished.troubled;
            let mut is_watched = false;
            if let Some(trouble) = troubled.get_mut(&id) {
                trouble.is_looked_at = false;
                is_watched = trouble.is_watched;
            }
            match read {
                Ok(Some(location)) if location.is_unfinished => {
                    directory.unfinished.to_open.push_back(id);
                    directory.open_unfinished(ctx);
                }
                // It ended meanwhile, perhaps with work that this did not see.
                Ok(_) if is_watched => {}
                Ok(_) => drop(troubled.remove(&id)),
                Err(error) => {
                    tracing::error!(project.id = %id, %error, "whether there is unfinished work could not be read");
                    directory.take_up_later(id, ctx);
                }
            }
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_in_a_row_waits_twice_as_long_up_to_the_most() {
        let mut trouble = Trouble::new();
        let waits: Vec<_> = (0..40).map(|_| trouble.wait().as_secs()).collect();
        assert_eq!(waits[..10], [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert!(waits[10..].iter().all(|wait| *wait == 300), "{waits:?}");
    }
}
