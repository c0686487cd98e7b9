//! MCP servers: how they are configured, what is approved, how they are.

mod authorize;

use std::collections::BTreeMap;

use iris_auth::PlainSecret;
use iris_protocol::{
    ApiError, ErrorCode, McpCounts, McpCreate, McpOauthSettings, McpPage, McpPayload, McpServer,
    McpState, McpStatus, McpStatusPayload, McpToolState, McpTransport, McpUpdate, Role,
};
use iris_sandbox::plain_text;
use iris_store::project::{
    CreateMcpServer, DeleteMcpServer, McpApproval, McpOauthConfig, McpSecrets, StoredMcpServer,
    UpdateMcpServer,
};
use iris_store::{Committed, WriteContext};

use super::permissions::role_of;
use super::{Done, Grant, done, internal, stored};
use crate::mcp::authorization::{self, Sealed};
use crate::mcp::{Offer, checks, definitions_of, secrets_owner, statuses};
use crate::permissions::check_may_run_code;
use crate::project::{ProjectHandle, WakeMcp};
use crate::toolbox::{check_directory, tools_of};
use crate::{Node, write};

pub(super) use authorize::{begin as authorize, come_back, finish};

pub(super) async fn list(node: &Node, grant: &Grant) -> Result<Done, ApiError> {
    let project = grant.project(node).await?;
    let servers = project.reader.mcp_servers().await.map_err(stored)?;
    done(McpPage { servers: servers.into_iter().map(|stored| stored.server).collect() })
}

/// A program runs on the machine of the server, whoever calls it: only who may have programs run says which.
async fn check_code(
    node: &Node,
    grant: &Grant,
    transports: &[&McpTransport],
) -> Result<(), ApiError> {
    let is_program = |it: &&McpTransport| match it {
        McpTransport::Stdio { .. } => true,
        McpTransport::Http { .. } => false,
    };
    if !transports.iter().any(is_program) {
        return Ok(());
    }
    check_may_run_code(&node.root_reader, grant.user_id()?, ", nor say which ones are").await
}

/// Refuses a program where there is no directory to run it in.
fn check_place(project: &ProjectHandle, transport: &McpTransport) -> Result<(), ApiError> {
    match transport {
        McpTransport::Stdio { .. } => check_directory(project),
        McpTransport::Http { .. } => Ok(()),
    }
}

/// What is kept secret, as it is stored.
fn sealed(
    node: &Node,
    grant: &Grant,
    name: &str,
    secrets: Option<BTreeMap<String, String>>,
) -> Result<Option<McpSecrets>, ApiError> {
    let Some(secrets) = secrets else { return Ok(None) };
    let names: Vec<String> = secrets.keys().cloned().collect();
    if names.is_empty() {
        return Ok(Some(McpSecrets { names, sealed: None }));
    }
    let text = PlainSecret::new(serde_json::to_string(&secrets).map_err(internal)?);
    let owner = secrets_owner(grant.project_id()?, name);
    let sealed = node.services.sealing.seal(&text, &owner.each_ref().map(String::as_str));
    Ok(Some(McpSecrets { names, sealed: Some(sealed.map_err(internal)?) }))
}

/// How the server is asked for an authorization, as it is stored.
fn asked_how(
    node: &Node,
    grant: &Grant,
    name: &str,
    transport: &McpTransport,
    settings: Option<McpOauthSettings>,
) -> Result<Option<McpOauthConfig>, ApiError> {
    let Some(settings) = settings else { return Ok(None) };
    let (oauth, secret) = authorization::checked(transport, settings)?;
    let owner = (grant.project_id()?, name);
    let seal = |secret| Sealed::ClientSecret.seal(&node.services, owner, &secret);
    let client_secret = secret.map(seal).transpose().map_err(internal)?;
    Ok(Some(McpOauthConfig { oauth: Some(oauth), client_secret }))
}

/// What nobody changes, sealed anew where the key is on its way out: the headers, and the secret of the
/// client.
fn resealed(
    node: &Node,
    grant: &Grant,
    before: &StoredMcpServer,
) -> Result<(Option<McpSecrets>, Option<String>), ApiError> {
    let (sealing, name) = (&node.services.sealing, before.server.name.as_str());
    let renewed = |sealed: Option<&String>, owner: &[String]| {
        let owner: Vec<&str> = owner.iter().map(String::as_str).collect();
        let renewed = sealed.map(|sealed| sealing.renewed(sealed, &owner)).transpose();
        renewed.map(Option::flatten).map_err(internal)
    };
    let id = grant.project_id()?;
    let headers = renewed(before.secrets.as_ref(), &secrets_owner(id, name))?;
    let headers = headers.map(|sealed| McpSecrets {
        names: before.server.secret_headers.clone(),
        sealed: Some(sealed),
    });
    let owner = Sealed::ClientSecret.owner(id, name);
    Ok((headers, renewed(before.client_secret.as_ref(), &owner)?))
}

pub(super) async fn create(
    node: &Node,
    grant: &Grant,
    request: McpCreate,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let McpCreate { name, transport, secret_headers, oauth, enabled, .. } = request;
    let (initialize, answer_within) = (request.initialize_timeout_ms, request.request_timeout_ms);
    checks::check_name(&name)?;
    checks::check_transport(&transport)?;
    checks::check_secrets(&transport, &secret_headers.clone().unwrap_or_default())?;
    checks::check_timeouts(initialize, answer_within)?;
    check_code(node, grant, &[&transport]).await?;
    let project = grant.project(node).await?;
    check_place(&project, &transport)?;
    let secrets = sealed(node, grant, &name, secret_headers)?;
    let oauth = asked_how(node, grant, &name, &transport, oauth)?.unwrap_or_default();
    let nothing = McpSecrets { names: Vec::new(), sealed: None };
    let (initialize_timeout_ms, request_timeout_ms) = checks::timeouts(initialize, answer_within);
    let command = CreateMcpServer {
        name,
        transport,
        secrets: secrets.unwrap_or(nothing),
        oauth,
        enabled: enabled.unwrap_or(true),
        initialize_timeout_ms,
        request_timeout_ms,
        quotas: node.services.settings.quotas,
        by: grant.user_id()?.clone(),
        at: node.services.clock.now_ms(),
    };
    answer(write(&project.address, command, context).await.map_err(stored)?)
}

fn answer(changed: Committed<McpServer>) -> Result<Done, ApiError> {
    let Committed { output: server, seq, replayed } = changed;
    Ok(done(McpPayload { server })?.at(seq, replayed))
}

async fn existing(project: &ProjectHandle, name: &str) -> Result<StoredMcpServer, ApiError> {
    let found = project.reader.mcp_server(name.to_owned()).await.map_err(stored)?;
    found.ok_or_else(|| ApiError::not_found("MCP server"))
}

pub(super) async fn update(
    node: &Node,
    grant: &Grant,
    request: McpUpdate,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let McpUpdate { name, transport, secret_headers, oauth, enabled, approve, .. } = request;
    let forgets_authorization = request.forget_authorization.unwrap_or_default();
    let (initialize, answer_within) = (request.initialize_timeout_ms, request.request_timeout_ms);
    checks::check_name(&name)?;
    checks::check_timeouts(initialize, answer_within)?;
    let project = grant.project(node).await?;
    let before = existing(&project, &name).await?;
    let target = transport.as_ref().unwrap_or(&before.server.transport);
    check_code(node, grant, &[target, &before.server.transport]).await?;
    checks::check_transport(target)?;
    if transport.is_some() {
        check_place(&project, target)?;
    }
    if transport.is_some() && secret_headers.is_none() && !before.server.secret_headers.is_empty() {
        let message =
            "another transport takes all `secretHeaders` anew: they were for another place";
        return Err(ApiError::invalid(message).reason("secrets_missing"));
    }
    checks::check_secrets(target, &secret_headers.clone().unwrap_or_default())?;
    if approve.is_some() && transport.as_ref().is_some_and(|new| *new != before.server.transport) {
        let message = "what another transport offers is not known yet: approve it afterwards";
        return Err(ApiError::invalid(message).reason("not_offered"));
    }
    let approval = match approve {
        Some(hash) => match approval(&project, &name, &hash) {
            Ok(approval) => Some(approval),
            Err(error) => return repeated(&project, context, error).await,
        },
        None => None,
    };
    let secrets = sealed(node, grant, &name, secret_headers)?;
    let oauth = asked_how(node, grant, &name, target, oauth)?;
    let oauth = match (oauth, target) {
        // There is nothing to ask a program for.
        (None, McpTransport::Stdio { .. }) if before.server.oauth.is_some() => {
            Some(McpOauthConfig::default())
        }
        (oauth, _) => oauth,
    };
    let (secrets_resealed, client_secret_resealed) = resealed(node, grant, &before)?;
    let command = UpdateMcpServer {
        name,
        seen: Some(before.server.transport),
        transport,
        secrets: secrets.or(secrets_resealed),
        oauth,
        forgets_authorization,
        client_secret_resealed,
        enabled,
        initialize_timeout_ms: initialize,
        request_timeout_ms: answer_within,
        approval,
        quotas: node.services.settings.quotas,
        by: grant.user_id()?.clone(),
        at: node.services.clock.now_ms(),
    };
    let changed = write(&project.address, command, context).await.map_err(stored)?;
    // The schemas are compiled now, and not while a run waits.
    tools_of(&project, &node.services).await.map_err(stored)?;
    answer(changed)
}

/// What the server offers now, if that is what the caller saw.
fn approval(project: &ProjectHandle, name: &str, hash: &str) -> Result<McpApproval, ApiError> {
    let conflict = |message: &str, reason: &str| {
        Err(ApiError::new(ErrorCode::Conflict, message).reason(reason))
    };
    let Some(offer) = project.kept.mcp.seat(name).offer() else {
        return conflict(
            "what the server offers is not known: it has to be reached first",
            "not_offered",
        );
    };
    if offer.hash != hash {
        return conflict(
            "the server offers something else by now: look at it again",
            "offer_changed",
        );
    }
    let tools = statuses(name, &offer.definitions, Some(&offer)).into_iter();
    let usable = tools.filter(|tool| tool.state == McpToolState::Approved);
    let Offer { definitions, hash } = &*offer;
    let values = definitions.iter().map(serde_json::to_value).collect::<Result<_, _>>();
    Ok(McpApproval {
        definitions: values.map_err(internal)?,
        tools: usable.map(|tool| tool.tool_name).collect(),
        hash: hash.clone(),
    })
}

/// What the same request was answered the first time; `error` when it did not come before.
async fn repeated(
    project: &ProjectHandle,
    context: WriteContext,
    error: ApiError,
) -> Result<Done, ApiError> {
    let Some(key) = context.idempotency else { return Err(error) };
    let first = project.reader.recall::<UpdateMcpServer>(key).await.map_err(stored)?;
    answer(first.ok_or(error)?)
}

pub(super) async fn delete(
    node: &Node,
    grant: &Grant,
    name: String,
    context: WriteContext,
) -> Result<Done, ApiError> {
    checks::check_name(&name)?;
    let by = grant.user_id()?.clone();
    let command = DeleteMcpServer { name, by, at: node.services.clock.now_ms() };
    let project = grant.project(node).await?;
    let deleted = write(&project.address, command, context).await.map_err(stored)?;
    Ok(done(iris_protocol::Done { done: true })?.at(deleted.seq, deleted.replayed))
}

pub(super) async fn status(node: &Node, grant: &Grant, name: &str) -> Result<Done, ApiError> {
    checks::check_name(name)?;
    let project = grant.project(node).await?;
    let found = existing(&project, name).await?;
    let is_admin = role_of(node, grant).await? >= Role::Admin;
    // Who may have no programs run starts none by looking at one.
    if found.server.enabled && check_code(node, grant, &[&found.server.transport]).await.is_ok() {
        project.address.tell(WakeMcp(name.to_owned()));
    }
    let standing = project.kept.mcp.seat(name).standing();
    let report = standing.report();
    let counts = report.as_ref().map(|report| McpCounts {
        garbage: report.counts.garbage,
        too_long: report.counts.too_long,
        unknown_answers: report.counts.unknown_answers,
        repeated_answers: report.counts.repeated_answers,
        refused_requests: report.counts.refused_requests,
    });
    let errors = report.filter(|report| is_admin && !report.errors.is_empty());
    let state = if found.server.enabled { standing.state } else { McpState::Disabled };
    let called = standing.connection.as_ref().and_then(|connection| connection.server());
    let secrets = &project.kept.secrets;
    let status = McpStatus {
        name: name.to_owned(),
        state,
        reason: standing.reason,
        since: standing.since,
        restarts: standing.restarts,
        server: called.map(|(name, version)| {
            iris_mcp::with_hidden_shown(&secrets.mask(&format!("{name} {version}")))
        }),
        offered_hash: standing.offer.as_ref().map(|offer| offer.hash.clone()),
        approved_hash: found.server.approved_hash.clone(),
        tools: statuses(name, &definitions_of(&found), standing.offer.as_deref()),
        counts,
        errors: errors.map(|report| secrets.mask_piece(&plain_text(&report.errors)).into_owned()),
    };
    done(McpStatusPayload { status })
}
