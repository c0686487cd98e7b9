//! Where the chat takes place: which project, and which session of it.

use std::io::{self, Write};

use iris_client::{Client, ClientError};
use iris_protocol::{
    Project, ProjectCreate, ProjectId, ProjectList, ProjectType, Session, SessionCreate,
    SessionGet, SessionId, SessionList,
};

use super::ChatOptions;
use crate::remote::text::{utc, visible};
use crate::remote::{RemoteError, prompt};

/// Projects and sessions that are looked at.
const LISTED_MAX: u32 = 200;
/// Projects whose sessions are looked at for the last one.
const PROJECTS_FOR_LAST_MAX: usize = 50;
/// What the project is called that is made for who has none.
const NAME: &str = "chat";

/// A project and a session of it.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) project: ProjectId,
    pub(super) session: SessionId,
}

/// The place that the options name, or the one that is chosen or made.
pub(super) async fn find(
    client: &Client,
    options: &ChatOptions,
    may_ask: bool,
) -> Result<Place, RemoteError> {
    if options.last {
        return last(client, options).await;
    }
    let project = project(client, options, may_ask).await?;
    let session = match &options.session {
        Some(session) => {
            let request = SessionGet { session_id: session.clone(), limit: Some(1), before: None };
            client.call(Some(&project), request).await?.session.id
        }
        None => begin(client, &project, options).await?,
    };
    Ok(Place { project, session })
}

/// Another session, as the options want it.
pub(super) async fn begin(
    client: &Client,
    project: &ProjectId,
    options: &ChatOptions,
) -> Result<SessionId, ClientError> {
    let (agent, model) = (options.agent.clone(), options.model.clone());
    let request = SessionCreate { title: None, agent, model, mode: None };
    Ok(client.call(Some(project), request).await?.session.id)
}

/// The project that the options name, the only one, or a new one for who has none.
pub(super) async fn project(
    client: &Client,
    options: &ChatOptions,
    may_ask: bool,
) -> Result<ProjectId, RemoteError> {
    // An API key may be good for a project and not for the list of them.
    if let Some(id) = options.project.as_deref().and_then(|name| name.parse().ok()) {
        return Ok(id);
    }
    let projects = projects(client).await?;
    if let Some(name) = &options.project {
        let mut named = projects.iter().filter(|project| project.name == *name);
        return match (named.next(), named.next()) {
            (Some(project), None) => Ok(project.id.clone()),
            (None, _) => Err(wrong(&format!("there is no project `{name}`"), &projects)),
            (Some(_), Some(_)) => {
                Err(wrong(&format!("several projects are called `{name}`: use the id"), &projects))
            }
        };
    }
    match projects.as_slice() {
        [] => {
            let name = NAME.to_owned();
            let r#type = ProjectType::default();
            let request = ProjectCreate { name, description: None, r#type, path: None, git: None };
            Ok(client.call(None, request).await?.project.id)
        }
        [only] => Ok(only.id.clone()),
        _ if may_ask => choose(&projects),
        _ => Err(wrong("there are several projects: name one with `--project`", &projects)),
    }
}

async fn projects(client: &Client) -> Result<Vec<Project>, ClientError> {
    let request = ProjectList { limit: Some(LISTED_MAX), cursor: None, include_archived: None };
    Ok(client.call(None, request).await?.projects)
}

fn wrong(text: &str, projects: &[Project]) -> RemoteError {
    let names: Vec<String> =
        projects.iter().map(|project| format!("{} ({})", project.name, project.id)).collect();
    let list = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    RemoteError::Usage(format!("{text}; there are: {list}"))
}

fn choose(projects: &[Project]) -> Result<ProjectId, RemoteError> {
    for (n, project) in projects.iter().enumerate() {
        writeln!(io::stderr(), "  {} {}", n + 1, visible(&project.name))?;
    }
    let answer = prompt::line("Which project? ")?;
    let n = answer.trim().parse::<usize>().ok().and_then(|n| n.checked_sub(1));
    let chosen = n.and_then(|n| projects.get(n));
    let chosen = chosen.or_else(|| projects.iter().find(|project| project.name == answer.trim()));
    chosen
        .map(|project| project.id.clone())
        .ok_or_else(|| wrong(&format!("there is no project `{}`", answer.trim()), projects))
}

/// The session in which something happened last, of the project that the options name or of all.
async fn last(client: &Client, options: &ChatOptions) -> Result<Place, RemoteError> {
    let projects = match &options.project {
        Some(_) => vec![project(client, options, false).await?],
        None => projects(client).await?.into_iter().map(|project| project.id).collect(),
    };
    let mut newest: Option<(i64, Place)> = None;
    for project in projects.into_iter().take(PROJECTS_FOR_LAST_MAX) {
        for session in sessions(client, &project).await? {
            if newest.as_ref().is_none_or(|(at, _)| session.updated_at > *at) {
                let place = Place { project: project.clone(), session: session.id };
                newest = Some((session.updated_at, place));
            }
        }
    }
    newest.map(|(_, place)| place).ok_or_else(|| {
        RemoteError::Usage("there is no session yet: leave `--last` out to begin one".to_owned())
    })
}

/// The sessions of a project, newest first.
pub(super) async fn sessions(
    client: &Client,
    project: &ProjectId,
) -> Result<Vec<Session>, ClientError> {
    let request = SessionList {
        limit: Some(LISTED_MAX),
        cursor: None,
        include_archived: None,
        parent_id: None,
    };
    Ok(client.call(Some(project), request).await?.sessions)
}

/// A session in one line.
pub(super) fn session_line(session: &Session) -> String {
    let (id, title, messages) = (&session.id, &session.title, session.message_count);
    format!("{id}  {}  {messages} messages  {title}", utc(session.updated_at))
}
