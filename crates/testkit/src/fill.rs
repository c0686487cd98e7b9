//! A project's database with as many conversations as a measurement wants.

use std::collections::VecDeque;

use futures_util::future::BoxFuture;
use iris_protocol::{
    FinishReason, MessageId, ModelRef, PartId, RunId, RunStatus, SessionId, SessionMode, UserId,
};
use iris_store::project::{
    AcceptMessage, CreateSession, FinishRun, NewPart, ProjectDatabase, Quotas, Rest, StartRun,
};
use iris_store::{Command, WriteContext, Writer};

/// Commands on their way at once: fewer than the writer lets wait.
const IN_FLIGHT: usize = 512;

/// What stands in a filled project. Ids count from 1; a run is a question and its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fill {
    /// Sessions.
    pub sessions: u32,
    /// Runs of each session.
    pub runs: u32,
    /// The time of the first message, in milliseconds since 1970 UTC; each one later by one.
    pub at: i64,
}

impl Fill {
    /// The id of a session, from 0.
    pub fn session_id(session: u32) -> SessionId {
        SessionId::from_bits(u128::from(session) + 1)
    }

    /// The text of a message, from 0: fifty words of a language of five thousand. `message` is in
    /// all of them, `rareN` in message N alone.
    pub fn text(message: u64) -> String {
        use std::fmt::Write as _;
        let mut text = format!("message rare{message}");
        // A generator of Lehmer's kind (Park and Miller): the same words each time.
        let mut state = message * 48_271 + 11;
        for _ in 0..48 {
            state = state * 48_271 % 0x7FFF_FFFF;
            // Small numbers come often, as common words do.
            let word = (state % 5_000) * (state / 5_000 % 5_000) / 5_000;
            write!(text, " word{word}").unwrap();
        }
        text
    }

    /// Fills a database that is empty.
    ///
    /// # Panics
    /// When a command is refused.
    pub async fn run(self, database: &ProjectDatabase) {
        let mut sending = Sending { writer: database.writer(), waiting: VecDeque::new() };
        for session in 0..self.sessions {
            sending.send(create(session, self.at)).await;
            for run in 0..self.runs {
                let number = u64::from(session) * u64::from(self.runs) + u64::from(run);
                let at = self.at + i64::try_from(number * 2).unwrap();
                sending.send(accept(session, number, at)).await;
                sending.send(start(number, at)).await;
                sending.send(finish(session, number, at + 1)).await;
            }
        }
        sending.wait_for(0).await;
    }
}

/// Commands whose outcome is still to be looked at.
struct Sending<'a> {
    writer: &'a Writer,
    waiting: VecDeque<BoxFuture<'static, ()>>,
}

impl Sending<'_> {
    async fn send<C: Command>(&mut self, command: C) {
        let receipt = self.writer.submit(command, WriteContext::default());
        self.waiting.push_back(Box::pin(async move { drop(receipt.await.unwrap()) }));
        self.wait_for(IN_FLIGHT).await;
    }

    async fn wait_for(&mut self, left: usize) {
        while self.waiting.len() > left
            && let Some(first) = self.waiting.pop_front()
        {
            first.await;
        }
    }
}

fn somebody() -> UserId {
    UserId::from_bits(1)
}

fn create(session: u32, at: i64) -> CreateSession {
    CreateSession {
        id: Fill::session_id(session),
        title: Some(format!("session {session}")),
        agent: "default".to_owned(),
        model: None,
        mode: SessionMode::Default,
        created_by: somebody(),
        quotas: Quotas::default(),
        at,
    }
}

fn accept(session: u32, number: u64, at: i64) -> AcceptMessage {
    AcceptMessage {
        session_id: Fill::session_id(session),
        message_id: MessageId::from_bits(u128::from(number) * 2),
        part_id: PartId::from_bits(u128::from(number) * 2),
        run_id: RunId::from_bits(number.into()),
        text: Fill::text(number * 2),
        answer_format: None,
        attachments: Vec::new(),
        by: somebody(),
        when_busy: iris_protocol::WhenBusy::Queue,
        quotas: Quotas::default(),
        at,
    }
}

fn start(number: u64, at: i64) -> StartRun {
    StartRun {
        run_id: RunId::from_bits(number.into()),
        answer_id: MessageId::from_bits(u128::from(number) * 2 + 1),
        agent: "default".to_owned(),
        model: ModelRef { provider_id: "demo".to_owned(), model_id: "script".to_owned() },
        at,
    }
}

fn finish(session: u32, number: u64, at: i64) -> FinishRun {
    let id = PartId::from_bits(u128::from(number) * 2 + 1);
    FinishRun {
        session_id: Fill::session_id(session),
        run_id: RunId::from_bits(number.into()),
        message_id: MessageId::from_bits(u128::from(number) * 2 + 1),
        parts: vec![NewPart::Text { id, text: Fill::text(number * 2 + 1) }],
        provider_data: Vec::new(),
        step: None,
        rest: Rest::default(),
        status: RunStatus::Completed,
        finish_reason: FinishReason::Stop,
        error: None,
        at,
    }
}
