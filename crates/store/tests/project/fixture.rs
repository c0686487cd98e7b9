//! A project's database in a temporary directory, and short ways to say what happens in it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use iris_protocol::*;
use iris_store::project::*;
use iris_store::{Command, Committed, StoreError, StoredEvent, WriteContext};
use serde_json::json;
use tempfile::TempDir;

/// A time: 2026-09-21 in milliseconds since 1970 UTC.
pub(crate) const NOW: i64 = 1_790_000_000_000;

pub(crate) fn project_id() -> ProjectId {
    ProjectId::from_bits(1)
}

pub(crate) fn ann() -> UserId {
    UserId::from_bits(1)
}

pub(crate) fn bob() -> UserId {
    UserId::from_bits(2)
}

pub(crate) fn model() -> ModelRef {
    ModelRef { provider_id: "local".into(), model_id: "small".into() }
}

/// The first session; the ids of the others count from it.
pub(crate) fn session_id() -> SessionId {
    SessionId::from_bits(1)
}

pub(crate) fn run_id(n: u128) -> RunId {
    RunId::from_bits(n)
}

/// The id of the user's message of a run.
pub(crate) fn message_id(n: u128) -> MessageId {
    MessageId::from_bits(n * 2)
}

/// The id of the answer of a run.
pub(crate) fn answer_id(n: u128) -> MessageId {
    MessageId::from_bits(n * 2 + 1)
}

pub(crate) fn call_id(n: u128) -> ToolCallId {
    ToolCallId::from_bits(n)
}

/// A path at which somebody wrote these bytes.
pub(crate) fn wrote(path: &str, bytes: &[u8], by: &UserId) -> RecordFiles {
    let content = FoundContent {
        size: bytes.len() as u64,
        hash: BlobHash::of(bytes).to_hex(),
        bytes: Some(bytes.into()),
        mode: 0o644,
        facts: None,
    };
    let found =
        FoundFile { path: path.into(), content: Some(content), from: None, is_written: true };
    RecordFiles {
        found: vec![found],
        author: Author::user(by.clone(), FileSource::Api),
        quotas: None,
        is_quiet: false,
        versions_max: 200,
        keeps_all: false,
        ends_restore: None,
        at: NOW,
    }
}

pub(crate) struct Fixture {
    directory: TempDir,
    database: Option<ProjectDatabase>,
    events: Arc<Mutex<Vec<StoredEvent>>>,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let events = Arc::default();
        let mut fixture = Self { directory, database: None, events };
        ProjectDatabase::create(&fixture.path(), &project_id(), "epoch", NOW).unwrap();
        fixture.open();
        fixture
    }

    /// With one session.
    pub(crate) async fn with_session() -> Self {
        let fixture = Self::new();
        fixture.write(create_session(1)).await.unwrap();
        fixture.take_events();
        fixture
    }

    /// With one session, whose run 1 has started.
    pub(crate) async fn with_run() -> Self {
        let fixture = Self::with_session().await;
        fixture.write(accept(1)).await.unwrap();
        fixture.write(start(1)).await.unwrap();
        fixture.take_events();
        fixture
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("project.db")
    }

    pub(crate) fn open(&mut self) {
        let events = Arc::clone(&self.events);
        let on_commit = move |committed| events.lock().unwrap().extend::<Vec<_>>(committed);
        let database = ProjectDatabase::open(&self.path(), &project_id(), on_commit).unwrap();
        self.database = Some(database);
    }

    pub(crate) fn close(&mut self) {
        self.database.take().unwrap().close();
    }

    /// A second copy of the files as they are now, as a crash would leave them.
    pub(crate) fn crash(&self) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["project.db", "project.db-wal"] {
            std::fs::copy(self.directory.path().join(name), directory.path().join(name)).unwrap();
        }
        let mut copy = Self { directory, database: None, events: Arc::default() };
        copy.open();
        copy
    }

    pub(crate) fn database(&self) -> &ProjectDatabase {
        self.database.as_ref().unwrap()
    }

    pub(crate) fn reader(&self) -> ProjectReader {
        self.database().reader()
    }

    pub(crate) async fn commit<C: Command>(
        &self,
        command: C,
        context: WriteContext,
    ) -> Result<Committed<C::Output>, StoreError> {
        self.database().writer().submit(command, context).await
    }

    pub(crate) async fn write<C: Command>(&self, command: C) -> Result<C::Output, StoreError> {
        Ok(self.commit(command, WriteContext::default()).await?.output)
    }

    /// The code and the reason with which a command is refused.
    pub(crate) async fn refusal<C: Command>(&self, command: C) -> (ErrorCode, String) {
        let error = self.write(command).await.map(drop).unwrap_err().to_api();
        let reason = error.details.get("reason").and_then(|reason| reason.as_str());
        (error.code, reason.unwrap_or_default().to_owned())
    }

    /// What was published since the last call: `S` or `P` for the room, then the name.
    pub(crate) fn take_events(&self) -> Vec<String> {
        self.take_stored().iter().map(told).collect()
    }

    pub(crate) fn take_stored(&self) -> Vec<StoredEvent> {
        std::mem::take(&mut self.events.lock().unwrap())
    }

    pub(crate) async fn session(&self) -> Session {
        self.reader().session(session_id()).await.unwrap().unwrap()
    }

    pub(crate) async fn run(&self, n: u128) -> Run {
        self.reader().run(run_id(n)).await.unwrap().unwrap()
    }

    pub(crate) async fn answer(&self, n: u128) -> Message {
        self.reader().message(session_id(), answer_id(n)).await.unwrap().unwrap()
    }

    pub(crate) async fn calls(&self, n: u128) -> Vec<ToolPart> {
        let parts = self.answer(n).await.parts.into_iter();
        parts
            .filter_map(|part| if let Part::Tool(call) = part { Some(call) } else { None })
            .collect()
    }

    /// How many pieces of streaming text the file holds.
    pub(crate) fn chunks(&self) -> usize {
        let conn = rusqlite::Connection::open(self.path()).unwrap();
        conn.query_row("SELECT count(*) FROM stream_chunks", [], |row| row.get(0)).unwrap()
    }

    /// The texts of an answer, and whether each was interrupted.
    pub(crate) async fn texts(&self, n: u128) -> Vec<(String, bool)> {
        let texts = self.answer(n).await.parts.into_iter().filter_map(|part| match part {
            Part::Text { text, interrupted, .. } | Part::Reasoning { text, interrupted, .. } => {
                Some((text, interrupted))
            }
            Part::Tool(_)
            | Part::Subtask(_)
            | Part::Compaction(_)
            | Part::AnswerFormat(_)
            | Part::Attachment(_)
            | Part::Step { .. } => None,
        });
        texts.collect()
    }

    pub(crate) async fn log(&self, room: Room) -> Vec<StoredEvent> {
        let replay = self.reader().events(room, 0, u64::MAX, 100_000, usize::MAX).await.unwrap();
        let Replay::Events(events) = replay else { unreachable!("no test writes that much") };
        events
    }
}

pub(crate) fn told(event: &StoredEvent) -> String {
    match &event.room {
        Room::Session(_) => format!("S {}", event.name),
        Room::Project(_) => format!("P {}", event.name),
        Room::User(_) => format!("U {}", event.name),
        Room::Admin => format!("A {}", event.name),
    }
}

pub(crate) fn create_session(n: u128) -> CreateSession {
    CreateSession {
        id: SessionId::from_bits(n),
        title: Some(format!("session {n}")),
        agent: "default".into(),
        model: None,
        mode: SessionMode::Default,
        created_by: ann(),
        quotas: Quotas::default(),
        at: NOW,
    }
}

/// Accepts the message of run `n` in the first session.
pub(crate) fn accept(n: u128) -> AcceptMessage {
    AcceptMessage {
        session_id: session_id(),
        message_id: message_id(n),
        part_id: PartId::from_bits(1_000_000 + n),
        run_id: run_id(n),
        text: format!("message {n}"),
        answer_format: None,
        attachments: Vec::new(),
        by: ann(),
        when_busy: WhenBusy::Queue,
        quotas: Quotas::default(),
        at: NOW,
    }
}

/// Lets what waits for it join run `n`.
pub(crate) fn join(n: u128) -> JoinMessages {
    let (session_id, run_id, message_id) = (session_id(), run_id(n), answer_id(n));
    JoinMessages { session_id, run_id, message_id, at: NOW + 2 }
}

pub(crate) fn dequeue(message_id: MessageId) -> DequeueMessage {
    DequeueMessage { session_id: session_id(), message_id, by: ann(), at: NOW + 5 }
}

/// Has a message answered again, by run `n`.
pub(crate) fn retry(message_id: MessageId, n: u128) -> RetryMessage {
    let (session_id, run_id, quotas) = (session_id(), run_id(n), Quotas::default());
    RetryMessage { session_id, message_id, run_id, by: bob(), quotas, at: NOW + 6 }
}

/// Takes the message of run `n` in place of another one.
pub(crate) fn edit(message: MessageId, n: u128) -> EditMessage {
    EditMessage {
        session_id: session_id(),
        message_id: message,
        new_id: message_id(n),
        part_id: PartId::from_bits(1_000_000 + n),
        run_id: run_id(n),
        text: format!("message {n}"),
        answer_format: None,
        attachments: Vec::new(),
        by: bob(),
        quotas: Quotas::default(),
        at: NOW + 6,
    }
}

pub(crate) fn start(n: u128) -> StartRun {
    let (run_id, answer_id) = (run_id(n), answer_id(n));
    StartRun { run_id, answer_id, agent: "default".into(), model: model(), at: NOW + 1 }
}

pub(crate) fn usage(output_tokens: u64) -> Usage {
    Usage { input_tokens: 10, output_tokens, cost_nano_usd: Some(7), ..Usage::default() }
}

/// A call whose part has the id that the call has.
pub(crate) fn call(n: u128, state: ToolState) -> NewPart {
    NewPart::Tool(ToolPart {
        id: PartId::from_bits(n),
        tool_call_id: call_id(n),
        tool_name: "write".into(),
        input: json!({ "path": "a.txt" }),
        state,
        output: None,
        error: state.is_final().then(|| "no such tool".into()),
        attachment: None,
        metadata: None,
        provider_executed: false,
        started_at: None,
        ended_at: None,
    })
}

pub(crate) fn text(n: u128, text: &str) -> NewPart {
    NewPart::Text { id: PartId::from_bits(2_000_000 + n), text: text.into() }
}

/// What a person is asked about: changing a file.
pub(crate) fn asked(path: &str) -> JudgedAccess {
    JudgedAccess {
        permission: "write".into(),
        target: path.into(),
        action: PermissionAction::Ask,
        rule: None,
        reason: "no rule names it".into(),
    }
}

/// One model call of run `n`, with these parts; waiting calls among them are asked about.
pub(crate) fn step(n: u128, index: u32, parts: Vec<NewPart>) -> RecordStep {
    let approvals = parts.iter().filter_map(|part| match part {
        NewPart::Tool(call) if call.state == ToolState::Waiting => Some(NewApproval {
            id: ApprovalId::from_bits(1),
            tool_call_id: call.tool_call_id.clone(),
            accesses: vec![asked("a.txt")],
            message: "may I?".into(),
            options: vec![Remember::Once, Remember::Session],
            expires_at: NOW + 1000,
        }),
        NewPart::Text { .. }
        | NewPart::Reasoning { .. }
        | NewPart::Tool(_)
        | NewPart::Compaction(_) => None,
    });
    let mut approvals: Vec<_> = approvals.collect();
    for (approval, bits) in approvals.iter_mut().zip(1 + n * 1000 + u128::from(index) * 100..) {
        approval.id = ApprovalId::from_bits(bits);
    }
    RecordStep {
        session_id: session_id(),
        run_id: run_id(n),
        message_id: answer_id(n),
        parts,
        provider_data: Vec::new(),
        approvals,
        questions: Vec::new(),
        step: Some(end_of_step(n, index, FinishReason::ToolCalls)),
        at: NOW + 2,
    }
}

pub(crate) fn end_of_step(n: u128, index: u32, finish_reason: FinishReason) -> StepEnd {
    let part_id = PartId::from_bits(3_000_000 + n * 1000 + u128::from(index));
    StepEnd {
        part_id,
        index,
        usage: usage(5),
        answered_by: None,
        finish_reason,
        raw_finish_reason: None,
        spent: Spent { price_version: Some("v1".to_owned()), wall_time_ms: 3, ..Spent::default() },
    }
}

/// A piece of the part that `text(part, ..)` would record.
pub(crate) fn chunk(part: u128, offset: u64, text: &str) -> TextChunk {
    let (part_id, kind) = (PartId::from_bits(2_000_000 + part), StreamKind::Text);
    TextChunk { part_id, kind, offset, text: text.into() }
}

pub(crate) fn checkpoint(n: u128, chunks: Vec<TextChunk>) -> CheckpointText {
    let (session_id, run_id, message_id) = (session_id(), run_id(n), answer_id(n));
    CheckpointText { session_id, run_id, message_id, chunks }
}

pub(crate) fn cancel() -> ChooseCancelled {
    ChooseCancelled { session_id: session_id() }
}

/// The run that a cancel chose.
pub(crate) fn chosen(n: u128, is_ending: bool) -> ChosenRun {
    ChosenRun { run_id: run_id(n), is_ending }
}

/// As after a crash; what was interrupted is resumed where that is asked for.
pub(crate) fn recover(resume: bool) -> RecoverRuns {
    RecoverRuns { resume, at: NOW + 7 }
}

pub(crate) fn resume(n: u128) -> ResumeRun {
    ResumeRun { session_id: session_id(), run_id: run_id(n), by: bob(), at: NOW + 8 }
}

pub(crate) fn result(n: u128, call: u128, outcome: Outcome) -> RecordResult {
    RecordResult {
        session_id: session_id(),
        run_id: run_id(n),
        message_id: answer_id(n),
        tool_call_id: call_id(call),
        outcome,
        by: ann(),
        at: NOW + 3,
    }
}

pub(crate) fn completed(output: &str) -> Outcome {
    Outcome::Completed { output: output.into(), metadata: None, attachment: None }
}

pub(crate) fn finish(n: u128, status: RunStatus, finish_reason: FinishReason) -> FinishRun {
    FinishRun {
        session_id: session_id(),
        run_id: run_id(n),
        message_id: answer_id(n),
        parts: Vec::new(),
        provider_data: Vec::new(),
        step: None,
        rest: Rest::default(),
        status,
        finish_reason,
        error: None,
        at: NOW + 4,
    }
}

pub(crate) fn resolve(call: u128, decision: Decision) -> ResolveApproval {
    let by = (decision != Decision::Expire).then(bob);
    ResolveApproval {
        session_id: session_id(),
        tool_call_id: call_id(call),
        decision,
        by,
        at: NOW + 5,
    }
}

pub(crate) fn question_id(n: u128) -> QuestionId {
    QuestionId::from_bits(n)
}

/// What call `n` asks.
pub(crate) fn asks(n: u128) -> NewQuestion {
    let item =
        |text: &str| QuestionItem { text: text.into(), options: Vec::new(), multiple: false };
    NewQuestion {
        id: question_id(n),
        tool_call_id: call_id(n),
        questions: vec![item("which?"), item("why?")],
        expires_at: NOW + 1000,
    }
}

pub(crate) fn respond(n: u128, reply: Reply) -> ResolveQuestion {
    let by = (reply != Reply::Expire).then(bob);
    let (session_id, question_id) = (session_id(), question_id(n));
    ResolveQuestion { session_id, question_id, reply, by, at: NOW + 5 }
}

/// The SHA-256 of a file, in hexadecimal.
pub(crate) fn sha256(path: &std::path::Path) -> String {
    sha256_of(std::fs::read(path).unwrap())
}

pub(crate) fn sha256_of(bytes: impl AsRef<[u8]>) -> String {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}
