//! Invitations, ownership and leaving.

use iris_auth::OneTimeSecret;
use iris_protocol::{
    ApiError, Event, EventFrame, EventMeta, Invitation, InvitationAccept, InvitationCreate,
    InvitationGrant, InvitationId, InvitationPage, ProjectId, ProjectPayload, ProjectTransfer,
    Role, Room, ServerInvitationCreate, UserId,
};
use iris_store::WriteContext;
use iris_store::root::{
    AcceptInvitation, CreateInvitation, RemoveMember, RevokeInvitation, TransferProject,
};

use super::accounts::check_email;
use super::departing::left;
use super::passwords::{link, text};
use super::projects::{check_role, project_of, publish};
use super::{Done, Grant, done, shown_once, stored};
use crate::mail::Mail;
use crate::{Node, outbox, write};

/// How long an invitation is good unless told otherwise, and at most.
const HOURS_DEFAULT: u32 = 168;
const HOURS_MAX: u32 = 720;
const HOUR_MS: i64 = 60 * 60 * 1_000;

pub(super) async fn create(
    node: &Node,
    grant: &Grant,
    request: InvitationCreate,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let InvitationCreate { role, email, expires_in_hours } = request;
    check_role(role)?;
    let place = Some((grant.project_id()?.clone(), role));
    invite(node, grant, place, email, expires_in_hours, context).await
}

pub(super) async fn create_for_server(
    node: &Node,
    grant: &Grant,
    request: ServerInvitationCreate,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let ServerInvitationCreate { email, expires_in_hours } = request;
    invite(node, grant, None, email, expires_in_hours, context).await
}

async fn invite(
    node: &Node,
    grant: &Grant,
    place: Option<(ProjectId, Role)>,
    email: Option<String>,
    hours: Option<u32>,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let email = email.map(|email| email.trim().to_lowercase());
    if let Some(email) = &email {
        check_email(email)?;
    }
    let hours = hours.unwrap_or(HOURS_DEFAULT);
    if !(1..=HOURS_MAX).contains(&hours) {
        let message = format!("`expiresInHours` must be 1 to {HOURS_MAX}");
        return Err(ApiError::invalid(message).reason("expires_in_hours"));
    }
    if let Some(key) = context.idempotency.clone()
        && node.root_reader.recall::<CreateInvitation>(key).await.map_err(stored)?.is_some()
    {
        return Err(shown_once());
    }
    if let (Some(email), true) = (&email, node.services.mailer.is_some()) {
        node.rates.count_invitation(grant.user_id()?, email)?;
    }
    let secret = OneTimeSecret::random().map_err(|error| error.to_error())?;
    let at = node.services.clock.now_ms();
    let command = CreateInvitation {
        id: InvitationId::from_bits(node.services.ids.next_bits()),
        place,
        email,
        hash: secret.hash(),
        by: grant.user_id()?.clone(),
        expires_at: at.saturating_add(i64::from(hours) * HOUR_MS),
        at,
    };
    let created = write(&node.root, command, context).await.map_err(stored)?;
    if created.replayed {
        return Err(shown_once());
    }
    let invitation = created.output;
    let mailed = mail(node, &invitation, &secret, hours).await;
    tell(node, &invitation).await;
    let (token, url) = (secret.as_str().to_owned(), link(node, "invitation", &secret));
    done(InvitationGrant { invitation, token, url, mailed })
}

/// Sends an invitation to the address that it is for. Says whether it is on its way: without an address, without
/// a mail server, and where too many mails wait, whoever invites hands the link over.
async fn mail(node: &Node, invitation: &Invitation, secret: &OneTimeSecret, hours: u32) -> bool {
    let (Some(mailer), Some(to)) = (&node.services.mailer, invitation.email.clone()) else {
        return false;
    };
    let why = who_invites(node, invitation).await;
    let bounds = format!(
        "It is good once, for {hours} hours, and for this address alone. If you know nothing of it, do nothing."
    );
    let text = text(node, "invitation", secret, &why, &bounds);
    mailer.send(Mail { to, subject: "You are invited", text })
}

/// Who invites, and where to, as far as that can be found out now.
async fn who_invites(node: &Node, invitation: &Invitation) -> String {
    let by = node.root_reader.user(&invitation.created_by).await.ok().flatten();
    let by = by.map_or_else(|| "Somebody".to_owned(), |user| user.username);
    let Some(project_id) = &invitation.project_id else {
        return format!("{by} invites you to work together on this server.");
    };
    match project_of(node, &invitation.created_by, project_id).await {
        Ok(project) => format!("{by} invites you to the project \"{}\".", project.name),
        Err(_) => format!("{by} invites you to a project."),
    }
}

/// Tells whoever has the address that is invited, where they are connected.
async fn tell(node: &Node, invitation: &Invitation) {
    let Some(email) = &invitation.email else { return };
    let Ok(Some(found)) = node.root_reader.user_by_email(email).await else { return };
    let event = Event::InvitationReceived {
        invitation_id: invitation.id.clone(),
        project_id: invitation.project_id.clone(),
        role: invitation.role,
        by: invitation.created_by.clone(),
        expires_at: invitation.expires_at,
    };
    node.connections.tell_user(&found.user.id, &event_of(&found.user.id, event));
}

/// An event in the room of a user.
pub(super) fn event_of(user_id: &UserId, event: Event) -> EventFrame {
    let room = Room::User(user_id.clone());
    let meta = EventMeta { project_id: None, room, seq: None, prev: None, at: None, by: None };
    EventFrame { meta, event }
}

pub(super) async fn list(node: &Node, project_id: Option<&ProjectId>) -> Result<Done, ApiError> {
    let now = node.services.clock.now_ms();
    let invitations = node.root_reader.invitations(project_id, now).await.map_err(stored)?;
    done(InvitationPage { invitations })
}

pub(super) async fn revoke(
    node: &Node,
    grant: &Grant,
    id: InvitationId,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let (project_id, at) = (grant.project_id.clone(), node.services.clock.now_ms());
    let revoked = write(&node.root, RevokeInvitation { id, project_id, at }, context).await;
    let revoked = revoked.map_err(stored)?;
    Ok(done(iris_protocol::Done { done: true })?.at(None, revoked.replayed))
}

pub(super) async fn accept(
    node: &Node,
    grant: &Grant,
    request: InvitationAccept,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let (user_id, at) = (grant.user_id()?.clone(), node.services.clock.now_ms());
    let hash = OneTimeSecret::hash_of(&request.token);
    let command = AcceptInvitation { hash, user_id: user_id.clone(), at };
    let accepted = write(&node.root, command, context).await.map_err(stored)?;
    let replayed = accepted.replayed;
    let Some(project_id) = accepted.output.project_id else {
        let message = "this invitation is to the server, where you are already";
        return Err(ApiError::invalid(message).reason("server_invitation"));
    };
    let seq = if replayed { None } else { joined(node, &project_id).await };
    let project = project_of(node, &user_id, &project_id).await?;
    Ok(done(ProjectPayload { project })?.at(seq, replayed))
}

/// Has a project told that somebody joined it. Answers the number of the event.
pub(super) async fn joined(node: &Node, project_id: &ProjectId) -> Option<u64> {
    let told = async {
        let project = node.project(project_id).await?;
        outbox::deliver(&project, &node.root_access()).await.map_err(stored)
    };
    told.await.inspect_err(|error| tracing::warn!(%error, "an event is published later")).ok()
}

pub(super) async fn transfer(
    node: &Node,
    grant: &Grant,
    request: ProjectTransfer,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let (project_id, user_id) = (grant.project_id()?.clone(), grant.user_id()?.clone());
    let command = TransferProject {
        project_id: project_id.clone(),
        from: user_id.clone(),
        to: request.user_id,
        at: node.services.clock.now_ms(),
    };
    let transferred = write(&node.root, command, context).await.map_err(stored)?;
    let seq = publish(node, grant, transferred.replayed).await;
    let project = project_of(node, &user_id, &project_id).await?;
    Ok(done(ProjectPayload { project })?.at(seq, transferred.replayed))
}

pub(super) async fn leave(
    node: &Node,
    grant: &Grant,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let (project_id, user_id) = (grant.project_id()?.clone(), grant.user_id()?.clone());
    let command = RemoveMember {
        project_id: project_id.clone(),
        user_id: user_id.clone(),
        by: user_id.clone(),
        at: node.services.clock.now_ms(),
    };
    let removed = write(&node.root, command, context).await.map_err(stored)?;
    if !removed.replayed {
        left(node, &project_id, &user_id).await;
    }
    Ok(done(iris_protocol::Done { done: true })?.at(None, removed.replayed))
}
