//! Events on their way from the root database to the projects that they are about: committed there,
//! published here, each once and in order, whatever crashes in between.

use std::future::Future;

use iris_protocol::{Event, ProjectId};
use iris_store::project::PublishOutbox;
use iris_store::root::{OUTBOX_PAGE, OutboxEntry, SettleOutbox};
use iris_store::{StoreError, WriteContext};

use crate::project::{EvictUser, Project, ProjectHandle, StopTyping};
use crate::record;
use crate::root::{Root, RootAccess};
use crate::supervision::Address;

/// Publishes everything that is on its way to a project. Answers the number of the last event that
/// came this way, now or before.
///
/// # Errors
/// Those of the store; what was not published stays on its way.
pub(crate) async fn deliver(project: &ProjectHandle, root: &RootAccess) -> Result<u64, StoreError> {
    loop {
        let entries = root.reader.outbox(&project.id).await?;
        if entries.is_empty() {
            return project.reader.outbox_seq().await;
        }
        let is_last = entries.len() < OUTBOX_PAGE;
        let seq = publish(&project.address, project.id.clone(), &root.address, entries).await?;
        if is_last {
            return Ok(seq);
        }
    }
}

/// Publishes entries of a project, all of its oldest ones, then has the root forget them. They are on
/// their way to the writer when this returns. Answers the number of the last event.
pub(crate) fn publish(
    project: &Address<Project>,
    project_id: ProjectId,
    root: &Address<Root>,
    entries: Vec<OutboxEntry>,
) -> impl Future<Output = Result<u64, StoreError>> + use<> {
    for entry in &entries {
        // Before the event: it is nothing that they may hear any more.
        if let Event::MemberRemoved { user_id } = &entry.event {
            project.tell(EvictUser(user_id.clone()));
        }
        StopTyping::after(&entry.event, project);
    }
    let (last, is_full) = (entries.last().map(|entry| entry.id), entries.len() >= OUTBOX_PAGE);
    let published = record(project, PublishOutbox { entries }, WriteContext::default());
    let root = root.clone();
    async move {
        let seq = published.await?.output;
        if let Some(up_to) = last {
            let settled =
                record(&root, SettleOutbox { project_id, up_to }, WriteContext::default());
            // What is published twice is published once: only the next page has to wait for this.
            if is_full {
                settled.await?;
            }
        }
        Ok(seq)
    }
}
