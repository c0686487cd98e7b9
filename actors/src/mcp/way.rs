//! The way to an MCP server: the program or the place that is configured, with its secrets and its token.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use iris_mcp::{
    Connection, Definition, HttpServer, McpError, NotOpened, Patience, Report, Secret, Target,
    Token,
};
use iris_protocol::McpTransport;
use iris_redact::Redactor;
use iris_sandbox::{Command as Program, Request};
use iris_store::project::StoredMcpServer;

use super::authorization::{self, Good};
use super::client::McpPlace;
use super::seat::Seat;
use super::secrets_owner;

/// A connection, and what it stands on.
pub(super) struct Opened {
    pub(super) connection: Arc<Connection>,
    pub(super) definitions: Vec<Definition>,
    /// Hides what the server was given to know the project by, should it repeat that.
    pub(super) given: Redactor,
    /// When the token has to be renewed.
    pub(super) renew_in: Option<Duration>,
}

/// Reaches a server and asks for its tools, on threads of their own; notes the token that it shows.
pub(super) async fn connected(
    place: &McpPlace,
    seat: &Seat,
    stored: &StoredMcpServer,
    token: Token,
    refused: Option<Secret>,
) -> Result<Opened, NotOpened> {
    let unheard = |error| NotOpened { error, report: Report::default() };
    let closed = |error: io::Error| unheard(McpError::Closed { reason: error.to_string() });
    let threads = place.services.mcp.handle().map_err(closed)?;
    let good = authorization::token(place, seat, refused).await.map_err(unheard)?;
    let renew_in = good.as_ref().and_then(|good| good.renew_in);
    let given = Redactor::within_shared();
    if let Some(Good { secret, .. }) = good {
        for redactor in [&given, &*place.kept.secrets] {
            redactor.learn_chosen(secret.expose());
        }
        token.replace(secret);
    }
    let target = target(place, stored, token, &given).await.map_err(unheard)?;
    let patience = Patience {
        initialize: Duration::from_millis(stored.server.initialize_timeout_ms),
        request: Duration::from_millis(stored.server.request_timeout_ms),
    };
    let opening = threads.spawn(async move {
        let connection = Connection::open(target, patience).await?;
        match connection.tools().await {
            Ok(definitions) => {
                Ok(Opened { connection: Arc::new(connection), definitions, given, renew_in })
            }
            Err(error) => Err(NotOpened { error, report: connection.report() }),
        }
    });
    opening.await.unwrap_or_else(|error| Err(closed(error.into())))
}

/// Why a program is not started in a project whose files are in its database.
const NO_DIRECTORY: &str = "the project has no directory to run programs in";

/// Where a server is.
async fn target(
    place: &McpPlace,
    stored: &StoredMcpServer,
    token: Token,
    given: &Redactor,
) -> Result<Target, McpError> {
    let closed = |reason: String| McpError::Closed { reason };
    match &stored.server.transport {
        McpTransport::Stdio { command, args, env } => {
            let sandbox = place.services.sandbox.clone();
            let sandbox =
                sandbox.ok_or_else(|| closed("this server runs no programs".to_owned()))?;
            let places = place.places.as_ref();
            let places = places.ok_or_else(|| closed(NO_DIRECTORY.to_owned()))?;
            let prepared = places.prepare(&sandbox).await;
            prepared.map_err(|error| closed(format!("its directories cannot be made: {error}")))?;
            let arguments = [std::slice::from_ref(command), args].concat();
            let (project, scratch) = (places.project.clone(), places.scratch.clone());
            let mut request = Request::new(Program::Arguments(arguments), project, scratch);
            request.env = env.clone().into_iter().collect();
            Ok(Target::Program { sandbox, request: Box::new(request) })
        }
        McpTransport::Http { url, headers } => {
            let egress = place.services.mcp.egress();
            let egress = egress.ok_or_else(|| closed("this server reaches no web".to_owned()))?;
            let url = iris_egress::parse_url(url)?;
            let mut headers = headers.clone();
            let secret = opened(place, stored).map_err(closed)?;
            for value in secret.values() {
                place.kept.secrets.learn_chosen(value);
                given.learn_chosen(value);
            }
            headers.extend(secret);
            let headers = headers.into_iter().map(|(name, value)| (name, Secret::new(value)));
            Ok(Target::Http(HttpServer { egress, url, headers: headers.collect(), token }))
        }
    }
}

/// The secret headers of a server, in the clear.
fn opened(place: &McpPlace, stored: &StoredMcpServer) -> Result<BTreeMap<String, String>, String> {
    let refused = |why: &str| format!("its secret headers cannot be opened, set them anew: {why}");
    let Some(sealed) = &stored.secrets else {
        // An archive brings their names alone.
        let is_whole = stored.server.secret_headers.is_empty();
        return if is_whole { Ok(BTreeMap::new()) } else { Err(refused("they are not here")) };
    };
    let owner = secrets_owner(&place.project_id, &place.name);
    let opened = place.services.sealing.open(sealed, &owner.each_ref().map(String::as_str));
    let opened = opened.map_err(|error| refused(&error.to_string()))?;
    serde_json::from_str(opened.expose()).map_err(|_| refused("they are none"))
}
