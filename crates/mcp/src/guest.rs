//! What we are for a server: it may ask whether we are there, and ask people something during a call. All
//! else is refused.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rmcp::ErrorData;
use rmcp::handler::client::ClientHandler;
use rmcp::model::{
    ClientConfig, CreateMessageRequestMethod, ElicitRequestParams, ElicitResult, ElicitationAction,
    RequestId,
};
use rmcp::service::{InboundStreamOrigin, NotificationContext, RequestContext, RoleClient};
use tokio::sync::{Mutex, Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::call::{Elicitation, ElicitationAnswer, ElicitationSource};

/// Most bytes of what a server asks people.
const ELICITATION_BYTES_MAX: usize = 64 * 1024;

/// How often a server may ask during one call.
const ELICITATIONS_MAX: usize = 8;

/// A call that runs.
#[derive(Clone)]
pub(crate) struct RunningCall {
    /// Who answers what the server asks; none where nobody does.
    source: Option<Arc<dyn ElicitationSource>>,
    /// How many questions of it wait for people.
    waiting: watch::Sender<usize>,
    /// How often the server asked.
    asked: Arc<AtomicUsize>,
    /// Cancelled when the call is over: then nobody is asked about it any more.
    pub(crate) over: CancellationToken,
}

impl RunningCall {
    pub(crate) fn new(
        source: Option<Arc<dyn ElicitationSource>>,
        waiting: watch::Sender<usize>,
    ) -> Self {
        Self { source, waiting, asked: Arc::default(), over: CancellationToken::new() }
    }
}

/// The calls that run. The lock is held while one is sent, so that the server cannot ask about a call that
/// is not here yet.
pub(crate) type Calls = Arc<Mutex<HashMap<RequestId, RunningCall>>>;

pub(crate) struct Guest {
    pub(crate) config: ClientConfig,
    pub(crate) calls: Calls,
    /// Told when the server says that its tools are others now.
    pub(crate) changed: Arc<Notify>,
}

impl Guest {
    /// The call that a question is about: the one whose stream it came with, or the only one there is. Where
    /// that cannot be told, people of one session could be asked what is meant for those of another.
    async fn call_of(&self, context: &RequestContext<RoleClient>) -> Option<RunningCall> {
        let calls = self.calls.lock().await;
        match context.extensions.get::<InboundStreamOrigin>() {
            Some(InboundStreamOrigin::OutboundRequest(id)) => calls.get(id).cloned(),
            _ if calls.len() == 1 => calls.values().next().cloned(),
            _ => None,
        }
    }

    async fn elicit(
        &self,
        request: ElicitRequestParams,
        context: RequestContext<RoleClient>,
    ) -> ElicitResult {
        let ElicitRequestParams::FormElicitationParams { message, requested_schema, .. } = request
        else {
            // Nobody is sent to an address that a server names.
            return ElicitResult::new(ElicitationAction::Decline);
        };
        let schema = serde_json::to_value(requested_schema).unwrap_or_default();
        if message.len() + schema.to_string().len() > ELICITATION_BYTES_MAX {
            return ElicitResult::new(ElicitationAction::Decline);
        }
        let Some(call) = self.call_of(&context).await else {
            return ElicitResult::new(ElicitationAction::Decline);
        };
        let Some(source) = &call.source else {
            return ElicitResult::new(ElicitationAction::Decline);
        };
        if call.asked.fetch_add(1, Ordering::Relaxed) >= ELICITATIONS_MAX {
            return ElicitResult::new(ElicitationAction::Decline);
        }
        call.waiting.send_modify(|count| *count += 1);
        let answer = tokio::select! {
            answer = source.ask(Elicitation { message, schema }) => answer,
            () = context.ct.cancelled() => ElicitationAnswer::Cancel,
            () = call.over.cancelled() => ElicitationAnswer::Cancel,
        };
        call.waiting.send_modify(|count| *count = count.saturating_sub(1));
        match answer {
            ElicitationAnswer::Accept(given) => {
                ElicitResult::new(ElicitationAction::Accept).with_content(given)
            }
            ElicitationAnswer::Decline => ElicitResult::new(ElicitationAction::Decline),
            ElicitationAnswer::Cancel => ElicitResult::new(ElicitationAction::Cancel),
        }
    }
}

#[expect(deprecated, reason = "older servers ask for these, and have to be refused")]
impl ClientHandler for Guest {
    fn get_info(&self) -> ClientConfig {
        self.config.clone()
    }

    async fn create_message(
        &self,
        _: rmcp::model::CreateMessageRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<rmcp::model::CreateMessageResult, ErrorData> {
        Err(ErrorData::method_not_found::<CreateMessageRequestMethod>())
    }

    async fn list_roots(
        &self,
        _: RequestContext<RoleClient>,
    ) -> Result<rmcp::model::ListRootsResult, ErrorData> {
        Err(ErrorData::method_not_found::<rmcp::model::ListRootsRequestMethod>())
    }

    async fn create_elicitation(
        &self,
        request: ElicitRequestParams,
        context: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        Ok(self.elicit(request, context).await)
    }

    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.changed.notify_one();
    }
}
