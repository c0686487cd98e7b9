//! What is under way for somebody whose account is closed or who left a project: it ends with their right to it,
//! and does not wait for somebody to look.
//!
//! What a crash keeps from ending so is found when it would go on: a run asks whether its starter may start one
//! before it starts, is taken up and asks a model, and a clone before it is begun anew.

use iris_protocol::{ProjectId, UserId};
use iris_store::WriteContext;
use iris_store::project::EndWorkOf;

use super::files::give_up_uploads;
use crate::directory::FindProject;
use crate::git::stop_clones_of;
use crate::project::{EvictUser, InSession, ProjectHandle};
use crate::session::CancelRun;
use crate::{Node, outbox, record};

/// Ends everything in all projects of a user who may do nothing any more.
pub(super) async fn closed(node: &Node, user_id: &UserId) {
    let memberships = match node.root_reader.memberships(user_id).await {
        Ok(memberships) => memberships,
        Err(error) => {
            return tracing::warn!(
                user.id = %user_id, %error,
                "the projects of a closed account are not known: its runs end at their next step"
            );
        }
    };
    stop_clones_of(node, user_id, None).await;
    for membership in memberships {
        if let Some(project) = open(node, &membership.project_id).await {
            end_work(node, &project, user_id).await;
        }
    }
}

/// Takes somebody out of the rooms of a project who is no member of it any more, has it told, and ends what
/// they have under way there. Where the project is not open nobody hears it and nothing works, and it is told
/// when it is opened.
pub(super) async fn left(node: &Node, project_id: &ProjectId, user_id: &UserId) {
    let open = open(node, project_id).await;
    // Before anything that takes a while: to clear a clone away does.
    if let Some(project) = &open {
        project.address.tell(EvictUser(user_id.clone()));
    }
    stop_clones_of(node, user_id, Some(project_id)).await;
    let Some(project) = open else { return };
    if let Err(error) = outbox::deliver(&project, &node.root_access()).await {
        tracing::warn!(%error, "an event is published later");
    }
    end_work(node, &project, user_id).await;
}

async fn open(node: &Node, project_id: &ProjectId) -> Option<ProjectHandle> {
    node.directory.urge(FindProject(project_id.clone())).await.ok().flatten()
}

/// Ends the runs of a user, those of their sub-agents too, with the approvals and questions on which they wait,
/// and what they send.
async fn end_work(node: &Node, project: &ProjectHandle, user_id: &UserId) {
    let command = EndWorkOf { user_id: user_id.clone(), at: node.services.clock.now_ms() };
    let ended = match record(&project.address, command, WriteContext::default()).await {
        Ok(ended) => ended.output,
        Err(error) => {
            return tracing::warn!(
                project.id = %project.id, user.id = %user_id, %error,
                "runs of who lost access end at their next step"
            );
        }
    };
    for (id, run_id) in ended.runs {
        let ask = InSession { id, message: CancelRun(run_id), is_urgent: true };
        // A session that cannot hear it reads it when it takes the run up.
        if let Ok(asked) = project.address.urge(ask).await {
            asked.await.ok();
        }
    }
    give_up_uploads(node, project, ended.uploads).await;
}
