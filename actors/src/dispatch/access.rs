//! The operations on people and their ways into the server, each with its arm.

use iris_protocol::{
    ApiError, Command, CredentialCreate, ErrorCode, ProjectCredentialCreate, ServerCredentialCreate,
};
use iris_store::WriteContext;
use iris_store::root::CredentialOwner;

use super::{
    Done, Grant, Peer, audit, credentials, invitations, keys, oauth, passwords, people, settings,
    users,
};
use crate::Node;

/// Runs one of them; `UNKNOWN_OPERATION` for any other.
pub(super) async fn perform(
    node: &Node,
    grant: &Grant,
    command: Command,
    peer: Peer,
    context: WriteContext,
) -> Result<Done, ApiError> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the others have their arms elsewhere")]
    match command {
        Command::OauthList(_) => oauth::list(node),
        Command::OauthStart(request) => oauth::start(node, request).await,
        Command::OauthCallback(request) => oauth::callback(node, request, peer).await,
        Command::OauthRedeem(request) => oauth::redeem(node, request, peer).await,
        Command::IdentityList(_) => oauth::identities(node, grant).await,
        Command::IdentityLink(request) => oauth::link(node, grant, request).await,
        Command::IdentityCreate(request) => oauth::create(node, grant, request).await,
        Command::IdentityDelete(request) => oauth::delete(node, grant, request, context).await,
        Command::LoginList(_) => people::logins(node, grant).await,
        Command::LoginRevoke(request) => people::end_login(node, grant, request, context).await,
        Command::PasswordChange(request) => passwords::change(node, grant, request, peer).await,
        Command::PasswordForgot(request) => passwords::forgot(node, &request, peer),
        Command::PasswordReset(request) => passwords::reset(node, request, peer).await,
        Command::UserUpdate(request) => people::update(node, grant, request, context).await,
        Command::UserDelete(request) => people::delete(node, grant, request).await,
        Command::UserExport(_) => people::export(node, grant).await,
        Command::KeyCreate(request) => keys::create(node, grant, request, context).await,
        Command::KeyList(_) => keys::list(node, grant).await,
        Command::KeyRevoke(request) => keys::revoke(node, grant, request, context).await,
        Command::CredentialCreate(request) => {
            let CredentialCreate { provider_id, api_key } = request;
            let owner = credentials::own(grant)?;
            credentials::create(node, grant, owner, provider_id, &api_key, context).await
        }
        Command::CredentialList(_) => credentials::list(node, credentials::own(grant)?).await,
        Command::CredentialDelete(request) => {
            let owner = credentials::own(grant)?;
            credentials::delete(node, owner, request.credential_id, context).await
        }
        Command::ProjectCredentialCreate(request) => {
            let ProjectCredentialCreate { provider_id, api_key } = request;
            let owner = credentials::of_project(grant)?;
            credentials::create(node, grant, owner, provider_id, &api_key, context).await
        }
        Command::ProjectCredentialList(_) => {
            credentials::list(node, credentials::of_project(grant)?).await
        }
        Command::ProjectCredentialDelete(request) => {
            let owner = credentials::of_project(grant)?;
            credentials::delete(node, owner, request.credential_id, context).await
        }
        Command::ServerCredentialCreate(request) => {
            let ServerCredentialCreate { provider_id, api_key } = request;
            let owner = CredentialOwner::Server;
            credentials::create(node, grant, owner, provider_id, &api_key, context).await
        }
        Command::ServerCredentialList(_) => credentials::list(node, CredentialOwner::Server).await,
        Command::ServerCredentialDelete(request) => {
            let owner = CredentialOwner::Server;
            credentials::delete(node, owner, request.credential_id, context).await
        }
        Command::ProjectTransfer(request) => {
            invitations::transfer(node, grant, request, context).await
        }
        Command::ProjectLeave(_) => invitations::leave(node, grant, context).await,
        Command::ProjectSettingsGet(_) => settings::of_project(node, grant).await,
        Command::ProjectSettingsUpdate(request) => {
            settings::update_project(node, grant, request, context).await
        }
        Command::InvitationCreate(request) => {
            invitations::create(node, grant, request, context).await
        }
        Command::InvitationList(_) => invitations::list(node, grant.project_id.as_ref()).await,
        Command::InvitationRevoke(request) => {
            invitations::revoke(node, grant, request.invitation_id, context).await
        }
        Command::InvitationAccept(request) => {
            invitations::accept(node, grant, request, context).await
        }
        Command::UserList(request) => users::list(node, request).await,
        Command::UserRead(request) => users::read(node, &request.user_id).await,
        Command::UserCreate(request) => users::create(node, grant, request, context).await,
        Command::UserManage(request) => users::manage(node, grant, request, context).await,
        Command::UserLogout(request) => users::log_out(node, request.user_id, context).await,
        Command::UserPasswordReset(request) => {
            users::password_reset(node, grant, request.user_id).await
        }
        Command::UserRemove(request) => users::remove(node, grant, request.user_id, context).await,
        Command::UserDataRead(request) => users::export(node, grant, request.user_id).await,
        Command::ServerInvitationCreate(request) => {
            invitations::create_for_server(node, grant, request, context).await
        }
        Command::ServerInvitationList(_) => invitations::list(node, None).await,
        Command::ServerInvitationRevoke(request) => {
            invitations::revoke(node, grant, request.invitation_id, context).await
        }
        Command::SettingsGet(_) => settings::get(node),
        Command::SettingsUpdate(request) => settings::update(node, request, context).await,
        Command::AuditList(request) => audit::list(node, request).await,
        _ => Err(ApiError::from(ErrorCode::UnknownOperation)),
    }
}
