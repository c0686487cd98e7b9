//! Noticing what others change in the project's directory while the project is open: by what the system tells
//! of it, and by looking at everything now and then where it does not.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use iris_workspace::{Changes, Watcher};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use super::{Project, ProjectHandle};
use crate::Services;
use crate::files::{Place, look_at, look_at_all, take_turn};
use crate::supervision::{Address, WeakAddress};

/// How long changes are joined before they are looked at.
const JOIN_CHANGES: Duration = Duration::from_millis(200);
/// How much longer than a look at everything took the next one is put off: nobody has the processor to himself.
const REST_FACTOR: u32 = 10;

impl Project {
    /// Looks at everything for a start, a moment after the project was opened, and follows what changes. In the
    /// database nobody changes anything unseen.
    pub(super) fn watch_files(&mut self, ctx: &mut Context<Self>) {
        if self.workspace.is_stored() {
            return;
        }
        ctx.run_later(self.services.settings.files.watch_after, |registry, ctx| {
            let watched = Watched {
                handle: registry.own_handle(ctx),
                services: Arc::clone(&registry.services),
            };
            // It ends with the registry.
            ctx.spawn(watched.follow().into_actor(registry));
        });
    }

    /// A handle that holds nobody up, with what is needed to look at files.
    fn own_handle(&self, ctx: &mut Context<Self>) -> Handle {
        Handle {
            address: Address::of(ctx, &self.vitals).downgrade(),
            make: {
                let (id, reader) = (self.id.clone(), self.reader.clone());
                let (root, kept) = (self.root.clone(), Arc::clone(&self.kept));
                let (workspace, places) = (self.workspace.clone(), self.places.clone());
                let (epoch, is_marked) = (Arc::clone(&self.epoch), Arc::clone(&self.is_marked));
                let (usage, life) = (self.usage_teller(), self.vitals.generation());
                Box::new(move |address| ProjectHandle {
                    id: id.clone(),
                    address,
                    reader: reader.clone(),
                    root: root.reader.clone(),
                    server_rules: Arc::clone(&root.rules),
                    kept: Arc::clone(&kept),
                    workspace: workspace.clone(),
                    places: places.clone(),
                    epoch: Arc::clone(&epoch),
                    life,
                    is_marked: Arc::clone(&is_marked),
                    holders: Arc::default(),
                    usage: usage.clone(),
                })
            },
        }
    }
}

/// Makes handles of a project that is there still.
struct Handle {
    address: WeakAddress<Project>,
    make: Box<dyn Fn(Address<Project>) -> ProjectHandle>,
}

impl Handle {
    fn get(&self) -> Option<ProjectHandle> {
        self.address.upgrade().map(|address| (self.make)(address))
    }
}

struct Watched {
    handle: Handle,
    services: Arc<Services>,
}

impl Watched {
    async fn follow(self) {
        let mut watcher = {
            let Some(project) = self.handle.get() else { return };
            let directories_max = self.services.settings.files.watched_directories_max;
            match Watcher::new(&project.workspace, directories_max).and_then(readable) {
                Ok(watcher) => Some(watcher),
                Err(error) => {
                    let project = project.id.as_str();
                    tracing::info!(project.id = project, %error, "changes of files are not told");
                    None
                }
            }
        };
        let mut changes = Changes { is_all: true, ..Changes::default() };
        // What was heard while commands ran, whose last looks may have come too early for it.
        let mut missed = Changes::default();
        let (mut rest_until, mut scan_at, mut is_watched) = (Instant::now(), Instant::now(), false);
        loop {
            let Some(project) = self.handle.get() else { return };
            let begun = Instant::now();
            // What a command changes is the work of its run: it looks itself.
            let waits = project.kept.files.has_commands();
            if changes.is_all {
                is_watched = self.look_at_everything(&project, watcher.as_mut(), waits).await;
                rest_until = Instant::now() + begun.elapsed() * REST_FACTOR;
                scan_at = Instant::now() + self.services.settings.files.scan_every;
            } else if !waits {
                self.look_at_some(&project, &changes).await;
            }
            if waits {
                missed.extend(changes);
            }
            let kept = Arc::clone(&project.kept);
            drop(project);
            changes = tokio::select! {
                changes = next(watcher.as_mut(), is_watched, scan_at) => changes,
                () = kept.files.idle(), if !missed.is_empty() => std::mem::take(&mut missed),
            };
            tokio::time::sleep_until((Instant::now() + JOIN_CHANGES).max(rest_until)).await;
            if let Some(watcher) = &mut watcher {
                changes.extend(watcher.get_mut().changes());
            }
        }
    }

    /// Watches all directories that are there, and looks at all files then, unless that has to wait. Says whether
    /// all directories are watched.
    async fn look_at_everything(
        &self,
        project: &ProjectHandle,
        watcher: Option<&mut AsyncFd<Watcher>>,
        waits: bool,
    ) -> bool {
        let mut is_watched = false;
        if let Some(watcher) = watcher {
            // First, so that nothing changes unseen in between.
            let workspace = project.workspace.clone();
            let directories = tokio::task::spawn_blocking(move || workspace.directories()).await;
            if let Ok(Ok((directories, is_whole))) = directories {
                is_watched = watcher.get_mut().watch(&directories) && is_whole;
            }
        }
        let place = Place { project, services: &self.services };
        if !waits {
            let looked = async {
                let _turn = take_turn(place).await?;
                look_at_all(place, None).await
            };
            if let Err(error) = looked.await {
                tracing::warn!(%error, "the files of a project could not be looked at");
            }
        }
        is_watched
    }

    async fn look_at_some(&self, project: &ProjectHandle, changes: &Changes) {
        let workspace = project.workspace.clone();
        let mut paths: Vec<String> = changes.paths.iter().cloned().collect();
        let paths = tokio::task::spawn_blocking(move || {
            paths.retain(|path| !workspace.is_ignored(path));
            paths
        });
        let Ok(paths) = paths.await else { return };
        let place = Place { project, services: &self.services };
        let looked = async {
            let _turn = take_turn(place).await?;
            look_at(place, &paths, None).await
        };
        if let Err(error) = looked.await {
            tracing::warn!(%error, "files of a project could not be looked at");
        }
    }
}

/// Has the runtime say when something was heard.
#[expect(
    deprecated,
    reason = "the watcher owns its descriptor until it is dropped, as what is safe wants"
)]
fn readable(watcher: Watcher) -> std::io::Result<AsyncFd<Watcher>> {
    AsyncFd::with_interest(watcher, Interest::READABLE)
}

/// Waits until something changed, or until it is time to look at everything.
async fn next(
    watcher: Option<&mut AsyncFd<Watcher>>,
    is_watched: bool,
    scan_at: Instant,
) -> Changes {
    let all = || Changes { is_all: true, ..Changes::default() };
    let Some(watcher) = watcher else {
        tokio::time::sleep_until(scan_at).await;
        return all();
    };
    loop {
        let readable = async {
            let Ok(mut guard) = watcher.readable_mut().await else { return all() };
            guard.clear_ready();
            guard.get_inner_mut().changes()
        };
        let changes = tokio::select! {
            // First: what changes all the time does not put it off.
            biased;
            () = tokio::time::sleep_until(scan_at), if !is_watched => return all(),
            changes = readable => changes,
        };
        if !changes.is_empty() {
            return changes;
        }
    }
}
