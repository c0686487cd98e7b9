//! Reaches one MCP server of a project and keeps what is known of it up to date. The project's registry
//! starts it when the server is needed, and it ends with the project.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use iris_mcp::{Connection, Definition, McpError, NotOpened, Report, Secret, Token};
use iris_protocol::{McpState, ProjectId};
use iris_redact::Redactor;
use iris_store::WriteContext;
use iris_store::project::{ProjectReader, PublishMcpStatus, StoredMcpServer};
use iris_tools::Places;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::authorization::{self, Good};
use super::definitions_of;
use super::offer::{Offer, without_secrets};
use super::seat::Seat;
use super::way::{Opened, connected};
use crate::project::{Kept, Project};
use crate::supervision::{
    Address, ChildSpec, Intensity, RestartPolicy, Supervise, Vitals, WeakAddress, spawn,
};
use crate::{Services, record};

/// How often a server is reached again in [`WINDOW`] before it counts as failed.
const RESTARTS_MAX: usize = 5;
/// How far back restarts count.
const WINDOW: Duration = Duration::from_mins(10);
/// How long to wait before the first further attempt; doubled for each one in the window.
const AGAIN_AFTER: Duration = Duration::from_millis(200);
/// How soon the tools of a server are looked at that says they are others now: more may change at once.
const LOOK_AFTER: Duration = Duration::from_millis(100);
/// The least time between two looks.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// So many changes of its tools are looked at in one connection; then it is left as it is.
const LOOKS_MAX: u32 = 100;
/// Messages that may wait for a client.
const MAILBOX_LIMIT: u32 = 64;

/// Where a client belongs.
#[derive(Clone)]
pub(crate) struct McpPlace {
    pub(crate) project_id: ProjectId,
    pub(crate) name: String,
    pub(crate) project: WeakAddress<Project>,
    pub(crate) reader: ProjectReader,
    pub(crate) places: Option<Arc<Places>>,
    pub(crate) kept: Arc<Kept>,
    pub(crate) services: Arc<Services>,
}

/// The client actor.
pub(crate) struct McpClient {
    place: McpPlace,
    vitals: Arc<Vitals>,
    seat: Arc<Seat>,
    /// As it was configured when it was looked at last.
    stored: Option<StoredMcpServer>,
    /// Counts connections, so that what an earlier one says is told from what this one does.
    generation: u64,
    /// When the server was reached again inside the window, oldest first.
    restarts: VecDeque<Instant>,
    /// When it was given up.
    failed_at: Option<Instant>,
    /// The token of the connection that stands, is about to or stood last.
    token: Token,
    /// Hides what the server of the connection that stands was given.
    given: Redactor,
    /// Whether the connection that is about to stand has a token in place of one that was refused.
    has_renewed: bool,
    /// What the project's room was told last.
    told: Option<(McpState, Option<String>, Option<String>)>,
}

impl McpPlace {
    /// Starts the client on the current arbiter.
    pub(crate) fn start(self, parent: &Arc<Vitals>) -> Address<McpClient> {
        let spec = ChildSpec {
            policy: RestartPolicy::Transient(Intensity::DEFAULT),
            mailbox_limit: MAILBOX_LIMIT,
            ..ChildSpec::new("mcp", self.name.clone())
        };
        let seat = self.kept.mcp.seat(&self.name);
        let gone = Arc::clone(&seat);
        let create = move |_: &mut Context<McpClient>, vitals: &Arc<Vitals>| {
            McpClient::new(self, Arc::clone(vitals), seat)
        };
        spawn(parent, spec, create, move |exited| {
            if let Some(error) = exited.reason.error() {
                let reason = format!("the client of this server failed: {error}");
                gone.change(|standing| {
                    standing.state = McpState::Failed;
                    standing.reason = Some(reason);
                });
            }
        })
    }
}

impl McpClient {
    fn new(place: McpPlace, vitals: Arc<Vitals>, seat: Arc<Seat>) -> Self {
        Self {
            place,
            vitals,
            seat,
            stored: None,
            generation: 0,
            restarts: VecDeque::new(),
            failed_at: None,
            token: Token::default(),
            given: Redactor::within_shared(),
            has_renewed: false,
            told: None,
        }
    }
}

impl Actor for McpClient {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.look(ctx);
    }
}

impl Drop for McpClient {
    /// Whoever waits learns that nobody reaches the server any more; calls that run go on to their end.
    fn drop(&mut self) {
        self.seat.change(|standing| {
            standing.last_report = standing.report();
            standing.connection = None;
            standing.state = match standing.state {
                ended @ (McpState::Disabled | McpState::Failed) => ended,
                McpState::Connecting
                | McpState::Ready
                | McpState::NeedsApproval
                | McpState::NeedsAuth => McpState::Connecting,
            };
        });
    }
}

crate::supervised!(McpClient);

impl Supervise for McpClient {
    fn rebuild(&mut self, _: &mut Context<Self>) -> Result<Self, String> {
        Ok(Self::new(self.place.clone(), Arc::clone(&self.vitals), Arc::clone(&self.seat)))
    }

    fn observe(&self) -> Value {
        let standing = self.seat.standing();
        json!({
            "state": standing.state,
            "isConnected": standing.connection.is_some(),
            "toolsOffered": standing.offer.map(|offer| offer.definitions.len()),
            "connections": self.generation,
            "restarts": self.restarts.len(),
        })
    }
}

/// Tell: somebody changed how the server is configured, or what is approved.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Reload;

impl Handler<Reload> for McpClient {
    type Result = ();

    fn handle(&mut self, _: Reload, ctx: &mut Context<Self>) {
        self.look(ctx);
    }
}

/// Tell: somebody needs the server. One that was given up long enough ago is tried again.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Wake;

impl Handler<Wake> for McpClient {
    type Result = ();

    fn handle(&mut self, _: Wake, ctx: &mut Context<Self>) {
        if self.failed_at.is_some_and(|at| at.elapsed() >= WINDOW) {
            self.look(ctx);
        }
    }
}

impl McpClient {
    /// Reads how the server is configured, and does what follows from it.
    fn look(&mut self, ctx: &mut Context<Self>) {
        let (reader, name) = (self.place.reader.clone(), self.place.name.clone());
        let stored = async move { reader.mcp_server(name).await };
        ctx.wait(stored.into_actor(self).map(|stored, client, ctx| match stored {
            Ok(Some(stored)) if stored.server.enabled => client.configured(stored, ctx),
            Ok(Some(_)) => client.end(ctx),
            // It was deleted, and nobody needs to hear how it is.
            Ok(None) => ctx.stop(),
            Err(error) => {
                tracing::error!(actor.path = %client.vitals.path(), %error, "an MCP server could not be looked up");
                client.vitals.fail("its configuration could not be read");
                ctx.stop();
            }
        }));
    }

    /// The server is not used.
    fn end(&mut self, ctx: &mut Context<Self>) {
        self.let_go();
        self.seat.change(|standing| {
            standing.state = McpState::Disabled;
            standing.reason = None;
            standing.offer = None;
        });
        self.place.kept.tools.outdate();
        ctx.stop();
    }

    fn configured(&mut self, stored: StoredMcpServer, ctx: &mut Context<Self>) {
        let is_same = self.stored.as_ref().is_some_and(|before| is_same_server(before, &stored));
        // What another place offered says nothing of this one.
        let is_moved = self
            .stored
            .as_ref()
            .is_some_and(|before| before.server.transport != stored.server.transport);
        if is_moved {
            self.seat.change(|standing| standing.offer = None);
            self.place.kept.tools.outdate();
        }
        let is_there = self.seat.standing().connection.is_some_and(|it| !it.is_over());
        if self.stored.is_some() {
            // The change was told as if the server were about to be reached.
            self.told = Some((McpState::Connecting, None, None));
        }
        self.stored = Some(stored);
        if is_same && is_there {
            return self.judge();
        }
        self.restarts.clear();
        self.failed_at = None;
        self.has_renewed = false;
        self.connect(Duration::ZERO, None, ctx);
    }

    /// Ends the connection, if there is one; what comes of it from now on is not heard.
    fn let_go(&mut self) {
        self.generation += 1;
        self.seat.change(|standing| {
            standing.last_report = standing.report();
            // Dropped, it ends; calls that run keep it until they have ended.
            standing.connection = None;
        });
    }

    /// Reaches the server, with another token than `refused`.
    fn connect(&mut self, after: Duration, refused: Option<Secret>, ctx: &mut Context<Self>) {
        self.let_go();
        let (generation, place) = (self.generation, self.place.clone());
        let restarts = u32::try_from(self.restarts.len()).unwrap_or(u32::MAX);
        self.seat.change(|standing| standing.restarts = restarts);
        self.stand(McpState::Connecting, self.seat.standing().reason.filter(|_| restarts > 0));
        let (seat, token) = (Arc::clone(&self.seat), Token::default());
        self.token = token.clone();
        let connected = async move {
            sleep(after).await;
            let stored = configuration(&place).await?;
            let opened = connected(&place, &seat, &stored, token, refused).await?;
            Ok((opened, stored.secrets))
        };
        ctx.spawn(connected.into_actor(self).map(move |connected, client, ctx| {
            if client.generation != generation {
                return;
            }
            match connected {
                Ok((opened, secrets)) => {
                    // Sealed anew they are the same ones.
                    if let Some(stored) = &mut client.stored {
                        stored.secrets = secrets;
                    }
                    client.connected(opened, ctx);
                }
                Err(NotOpened { error, report }) => {
                    client.lost(&error, ctx);
                    client.seat.change(|standing| standing.last_report = Some(report));
                }
            }
        }));
    }

    fn connected(&mut self, opened: Opened, ctx: &mut Context<Self>) {
        let Opened { connection, definitions, given, renew_in } = opened;
        self.given = given;
        self.has_renewed = false;
        self.renew(renew_in, ctx);
        let kept = Arc::clone(&connection);
        self.seat.change(|standing| {
            standing.connection = Some(kept);
            standing.reason = None;
            standing.last_report = None;
            standing.challenge = None;
        });
        self.offered(definitions);
        self.hear(connection, 0, ctx);
    }

    /// Puts another token in the place of the connection's one before it runs out. Where that does not work
    /// the server will say that it is good no more.
    fn renew(&mut self, after: Option<Duration>, ctx: &mut Context<Self>) {
        let Some(after) = after else { return };
        let (generation, place, seat) =
            (self.generation, self.place.clone(), Arc::clone(&self.seat));
        let renewed = async move {
            sleep(after).await;
            authorization::token(&place, &seat, None).await
        };
        ctx.spawn(renewed.into_actor(self).map(move |renewed, client, ctx| {
            if client.generation != generation {
                return;
            }
            match renewed {
                Ok(Some(Good { secret, renew_in })) => {
                    for redactor in [&client.given, &*client.place.kept.secrets] {
                        redactor.learn_chosen(secret.expose());
                    }
                    client.token.replace(secret);
                    client.renew(renew_in, ctx);
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::info!(actor.path = %client.vitals.path(), %error, "a token was not renewed");
                }
            }
        }));
    }

    /// Waits until the server has other tools, or is gone.
    fn hear(&mut self, connection: Arc<Connection>, looks: u32, ctx: &mut Context<Self>) {
        let generation = self.generation;
        let heard = async move {
            let heard = tokio::select! {
                error = connection.ended() => Heard::Over(error),
                () = connection.changed(), if looks < LOOKS_MAX => {
                    sleep(if looks == 0 { LOOK_AFTER } else { LOOK_AGAIN_AFTER }).await;
                    connection.tools().await.map_or_else(Heard::Over, Heard::Tools)
                }
            };
            (heard, connection)
        };
        ctx.spawn(heard.into_actor(self).map(move |(heard, connection), client, ctx| {
            if client.generation != generation {
                return;
            }
            match heard {
                Heard::Over(error) => client.lost(&error, ctx),
                Heard::Tools(definitions) => {
                    client.offered(definitions);
                    client.hear(connection, looks + 1, ctx);
                }
            }
        }));
    }

    /// The server has these tools now.
    fn offered(&mut self, definitions: Vec<Definition>) {
        // Before it is compared, shown or kept: what is approved has no secret in it either.
        let offer = Arc::new(Offer::new(without_secrets(definitions, &self.given)));
        let is_new = self.seat.offer().is_none_or(|before| *before != *offer);
        self.seat.change(|standing| standing.offer = Some(offer));
        if is_new {
            self.place.kept.tools.outdate();
        }
        self.judge();
    }

    /// Says whether all that is offered is approved.
    fn judge(&mut self) {
        let (Some(stored), Some(offer)) = (&self.stored, self.seat.offer()) else { return };
        let state = offer.state(&definitions_of(stored));
        self.stand(state, None);
    }

    /// The connection ended, or there was none: the server is reached again, a few times.
    fn lost(&mut self, error: &McpError, ctx: &mut Context<Self>) {
        let reason = self.place.kept.secrets.mask(&error.to_string()).into_owned();
        self.let_go();
        let now = Instant::now();
        while self.restarts.front().is_some_and(|at| now.duration_since(*at) > WINDOW) {
            self.restarts.pop_front();
        }
        if let McpError::Unauthorized { challenge, .. } = error {
            self.seat.change(|standing| standing.challenge.clone_from(challenge));
        }
        match self.other_token(error) {
            Wanted::Nothing => {}
            Wanted::Person => return self.stand(McpState::NeedsAuth, Some(reason)),
            Wanted::Other(refused) => {
                self.has_renewed = true;
                self.restarts.push_back(now);
                return self.connect(Duration::ZERO, Some(refused), ctx);
            }
        }
        if self.restarts.len() >= RESTARTS_MAX {
            self.failed_at = Some(now);
            return self.stand(McpState::Failed, Some(reason));
        }
        let doublings = u32::try_from(self.restarts.len()).unwrap_or_default();
        self.restarts.push_back(now);
        self.seat.change(|standing| standing.reason = Some(reason));
        self.connect(AGAIN_AFTER * 2_u32.saturating_pow(doublings), None, ctx);
    }

    /// Whether a token could help. Each is asked for once: a server that refuses the new one as well, or
    /// one after the other, wants something else.
    fn other_token(&self, error: &McpError) -> Wanted {
        match error {
            McpError::Unauthorized { status: 401, .. } => match self.token.current() {
                Some(refused) if !self.has_renewed && self.restarts.len() < RESTARTS_MAX => {
                    Wanted::Other(refused)
                }
                Some(_) | None => Wanted::Person,
            },
            McpError::Unauthorized { .. } | McpError::Expired { .. } => Wanted::Person,
            McpError::Sandbox(_)
            | McpError::Egress(_)
            | McpError::NotRenewed(_)
            | McpError::Status { .. }
            | McpError::SessionLost
            | McpError::Closed { .. }
            | McpError::TimedOut { .. }
            | McpError::Refused { .. }
            | McpError::Malformed { .. }
            | McpError::TooMuch { .. }
            | McpError::BadTool { .. } => Wanted::Nothing,
        }
    }

    /// Notes how the server is, and tells the project's room where that is news.
    fn stand(&mut self, state: McpState, reason: Option<String>) {
        let at = self.place.services.clock.now_ms();
        let offer = self.seat.offer();
        let offered_hash = match state {
            McpState::Ready | McpState::NeedsApproval => offer.map(|offer| offer.hash.clone()),
            McpState::Disabled | McpState::Connecting | McpState::NeedsAuth | McpState::Failed => {
                None
            }
        };
        self.seat.change(|standing| {
            if standing.state != state || standing.since == 0 {
                standing.since = at;
            }
            standing.state = state;
            standing.reason.clone_from(&reason);
        });
        let news = (state, reason.clone(), offered_hash.clone());
        // That it is about to be reached was told with its configuration.
        let is_known = self.told.as_ref() == Some(&news)
            || (self.told.is_none() && state == McpState::Connecting);
        self.told = Some(news);
        let Some(project) = self.place.project.upgrade().filter(|_| !is_known) else { return };
        let name = self.place.name.clone();
        let command = PublishMcpStatus { name, state, reason, offered_hash, at };
        let told = record(&project, command, WriteContext::default());
        let project_id = self.place.project_id.clone();
        crate::supervision::detached(async move {
            if let Err(error) = told.await {
                tracing::warn!(project.id = %project_id, %error, "how an MCP server is was not told");
            }
        });
    }
}

/// What a server that is lost wants besides being reached again.
enum Wanted {
    Nothing,
    /// Somebody has to agree.
    Person,
    /// Another token than this one.
    Other(Secret),
}

enum Heard {
    /// The connection is over, or as good as that.
    Over(McpError),
    /// The server has these tools now.
    Tools(Vec<Definition>),
}

/// How a server is configured now. What was read before may be sealed with a key that is gone.
async fn configuration(place: &McpPlace) -> Result<StoredMcpServer, NotOpened> {
    let stored = place.reader.mcp_server(place.name.clone()).await;
    let reason = match stored {
        Ok(Some(stored)) => return Ok(stored),
        Ok(None) => "it is not configured any more".to_owned(),
        Err(error) => format!("its configuration cannot be read: {error}"),
    };
    Err(NotOpened { error: McpError::Closed { reason }, report: Report::default() })
}

/// Whether nothing changed that a connection depends on.
fn is_same_server(before: &StoredMcpServer, now: &StoredMcpServer) -> bool {
    let (a, b) = (&before.server, &now.server);
    a.transport == b.transport
        && before.secrets == now.secrets
        && a.authorization == b.authorization
        && a.initialize_timeout_ms == b.initialize_timeout_ms
        && a.request_timeout_ms == b.request_timeout_ms
}
