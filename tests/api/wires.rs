//! The whole server with a provider on each wire: every fixture and every fault of a stream, on all wires
//! that have it.

mod attachments;
mod cancelling;
mod faults;
mod fixtures;
mod formats;
mod limits;
mod network;

use std::time::Duration;

use iris_agent::RetryLimits;
use iris_llm::ProviderConfig;
use iris_protocol::{
    ErrorCode, Event, Message, MessageState, ModelRef, RunStatus, SessionState, SessionUpdate,
    UsageGet, UsageTotals,
};
use iris_testkit::{
    AppOptions, Conversation, Dialect, FakeProvider, Person, Reply, TestApp, spawn_app_with,
};

use crate::code_of;
use crate::usage::set_price;

/// A session whose model's provider speaks one wire.
struct Talk {
    dialect: Dialect,
    ann: Conversation,
    provider: FakeProvider,
}

/// A server with a provider on each of some wires, and a session for each provider.
async fn talks_on(
    dialects: &[Dialect],
    change: impl FnOnce(&mut AppOptions),
    replies: impl Fn(Dialect) -> Vec<Reply>,
) -> (TestApp, Vec<Talk>) {
    let mut options = AppOptions::default();
    let mut providers = Vec::new();
    for dialect in dialects {
        let provider = FakeProvider::start(replies(*dialect)).await;
        let config = ProviderConfig {
            base_url: Some(provider.base_url().replace("/v1", "")),
            ..ProviderConfig::new(dialect.kind())
        };
        options.providers.insert(dialect.kind().as_str().to_owned(), config);
        providers.push((*dialect, provider));
    }
    change(&mut options);
    let app = spawn_app_with(options).await;
    let ann = app.user("ann").await;
    let project = ann.project("wires").await.id;
    let mut talks = Vec::new();
    for (dialect, provider) in providers {
        let ann = ann.conversation_in(&project).await;
        let model =
            ModelRef { provider_id: dialect.kind().as_str().to_owned(), model_id: "m".to_owned() };
        let session_id = ann.session.clone();
        let model = Some(model);
        let update = SessionUpdate { session_id, model, title: None, agent: None, mode: None };
        ann.call(update).await.unwrap();
        talks.push(Talk { dialect, ann, provider });
    }
    (app, talks)
}

/// The same on every wire, with models that are asked once.
async fn talks(replies: impl Fn(Dialect) -> Vec<Reply>) -> (TestApp, Vec<Talk>) {
    talks_on(&Dialect::ALL, |_| {}, replies).await
}

/// Has models asked up to `attempts` times, soon after one another.
pub(crate) fn patient(attempts: u32) -> impl FnOnce(&mut AppOptions) {
    move |options| {
        let base = Duration::from_millis(1);
        options.turn.retry = RetryLimits { attempts_max: attempts, base, ..options.turn.retry };
    }
}

impl Talk {
    async fn put(&self, path: &str, content: &str) {
        self.ann.person.client.file_put(&self.ann.project, path, content.to_owned()).await.unwrap();
    }

    /// Asks, and takes the answer with its run's end.
    async fn ask(&mut self) -> (RunStatus, Message) {
        let run = self.ann.send_message("go").await.run_id;
        let status = self.ann.run_ended(&run).await;
        (status, self.ann.answer(&run).await)
    }

    /// Asks and takes the answer of a run that comes to its end.
    async fn answer(&mut self) -> Message {
        let (status, answer) = self.ask().await;
        let error = &answer.error;
        assert_eq!((status, error), (RunStatus::Completed, &None), "{:?}", self.dialect);
        assert_eq!(answer.state, MessageState::Complete, "{:?}", self.dialect);
        answer
    }

    /// Asks and takes the answer of a run that fails for a reason.
    async fn failure(&mut self, reason: &str) -> Message {
        let (status, answer) = self.ask().await;
        assert_eq!(status, RunStatus::Failed, "{:?}", self.dialect);
        assert_eq!(answer.state, MessageState::Error, "{:?}", self.dialect);
        let error = answer.error.clone().unwrap();
        assert_eq!(
            code_of(&error),
            (ErrorCode::ProviderError, reason),
            "{:?} {error}",
            self.dialect
        );
        answer
    }

    /// What the session says of its next wait for a provider: attempt, class, delay.
    async fn wait(&mut self) -> (u32, String, u64) {
        let is_wait = |event: &Event| {
            matches!(event, Event::SessionStatus { state: SessionState::Retrying, .. })
        };
        let event = self.ann.wait_until("a wait for the provider", is_wait).await.event;
        let Event::SessionStatus { attempt, class, delay_ms, .. } = event else {
            panic!("{event:?}")
        };
        (attempt.unwrap(), class.unwrap(), delay_ms.unwrap())
    }

    /// What its session used in all.
    async fn used(&self) -> UsageTotals {
        let session_id = Some(self.ann.session.clone());
        self.ann.call(UsageGet { session_id, ..UsageGet::default() }).await.unwrap().total
    }

    /// Sets the price of its model: a thousand billionths of a dollar for each token.
    async fn set_price(&self, admin: &Person) {
        let model = (self.dialect.kind().as_str(), "m");
        set_price(admin, model, 1_000_000_000, 1_000_000_000).await;
    }

    /// The body of the request of that number.
    fn asked(&self, number: usize) -> String {
        self.provider.asked()[number].body.to_string()
    }
}
