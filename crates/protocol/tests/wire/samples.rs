//! One instance of every event, with every optional field filled.

use std::collections::BTreeMap;

use iris_protocol::{
    Agent, AgentId, AgentMode, AgentSource, AgentTuning, AnswerFormatPart, ApiError, Approval,
    ApprovalId, ApprovalState, Attachment, AttachmentGiven, AttachmentPart, AuthSessionId,
    BackupId, Budget, BudgetExceeded, BudgetLimit, BudgetScope, CaptureEnd, Capturing, ChangedFile,
    ChangedSince, CommandTool, CompactionPart, ErrorCode, Event, ExitKind, FileChange, FileLock,
    FileSource, FinishReason, GitAction, HttpMethod, HttpTool, InvitationId, JudgedAccess,
    LockScope, McpAuthorization, McpOauth, McpServer, McpState, McpTransport, Member, Message,
    MessageId, MessageRole, MessageState, ModelRef, Part, PartId, PermissionAction, PermissionId,
    PermissionLayer, PermissionRule, PermissionSetting, Presence, PresenceStatus, ProjectId,
    Question, QuestionId, QuestionItem, QuestionOption, QuestionState, QueueReason, Remember, Role,
    Run, RunId, RunStatus, Session, SessionId, SessionMode, SessionState, SessionStatus,
    SkipReason, SkippedFile, Snapshot, SnapshotId, SnapshotKind, SubtaskPart, SubtaskState,
    SupervisionKind, SupervisionRecord, Todo, TodoId, TodoPriority, TodoStatus, Tool, ToolCallId,
    ToolId, ToolKind, ToolPart, ToolState, UnlockReason, Unread, Usage, UsageTotals, UserId,
};
use serde_json::json;

const SESSION: u128 = 2;
const MESSAGE: u128 = 3;
const PART: u128 = 4;

fn session_id() -> SessionId {
    SessionId::from_bits(SESSION)
}

fn message_id() -> MessageId {
    MessageId::from_bits(MESSAGE)
}

fn part_id() -> PartId {
    PartId::from_bits(PART)
}

fn tool_call_id() -> ToolCallId {
    ToolCallId::from_bits(5)
}

fn run_id() -> RunId {
    RunId::from_bits(6)
}

fn user_id() -> UserId {
    UserId::from_bits(7)
}

pub(crate) fn project_id() -> ProjectId {
    ProjectId::from_bits(8)
}

fn usage() -> Usage {
    Usage {
        input_tokens: 10,
        output_tokens: 20,
        reasoning_tokens: 5,
        cache_read_tokens: 3,
        cache_write_tokens: 2,
        cache_write_1h_tokens: 0,
        server_tool_calls: 0,
        cost_nano_usd: Some(1_500_000),
        incomplete: true,
    }
}

fn error() -> ApiError {
    ApiError::new(ErrorCode::ProviderError, "the provider failed")
        .reason("half_stream")
        .retry_after(250)
}

fn model() -> ModelRef {
    ModelRef { provider_id: "local".to_owned(), model_id: "small/1".to_owned() }
}

fn session() -> Session {
    Session {
        id: session_id(),
        parent_id: Some(SessionId::from_bits(1)),
        title: "title".to_owned(),
        agent: "default".to_owned(),
        model: Some(model()),
        mode: SessionMode::Default,
        status: SessionStatus::Archived,
        state: SessionState::Idle,
        created_by: user_id(),
        created_at: 1,
        updated_at: 2,
        archived_at: Some(3),
        message_count: 4,
        usage: Usage::default(),
        budget: Some(Budget { steps: Some(9), ..Budget::default() }),
        capturing: Some(Capturing {
            session_id: SessionId::from_bits(1),
            by: user_id(),
            since: 1,
            until: 2,
        }),
    }
}

fn attachment() -> Attachment {
    Attachment { mime_type: "text/plain".to_owned(), size: 70_000 }
}

fn child_id() -> SessionId {
    SessionId::from_bits(15)
}

fn subtask() -> SubtaskPart {
    SubtaskPart {
        id: part_id(),
        tool_call_id: tool_call_id(),
        child_session_id: child_id(),
        child_run_id: run_id(),
        agent: "explore".to_owned(),
        description: "look".to_owned(),
        background: true,
        state: SubtaskState::Running,
    }
}

fn parts() -> Vec<Part> {
    vec![
        Part::Reasoning { id: part_id(), text: "hm".to_owned(), interrupted: false },
        Part::Text { id: part_id(), text: "häß€".to_owned(), interrupted: true },
        Part::Tool(ToolPart {
            id: part_id(),
            tool_call_id: tool_call_id(),
            tool_name: "read".to_owned(),
            input: json!({ "path": "a" }),
            state: ToolState::UnknownOutcome,
            output: Some("out".to_owned()),
            error: Some("why".to_owned()),
            attachment: Some(attachment()),
            metadata: Some(json!({ "lines": 1 })),
            provider_executed: false,
            started_at: Some(1),
            ended_at: Some(2),
        }),
        Part::Subtask(subtask()),
        Part::AnswerFormat(AnswerFormatPart {
            id: part_id(),
            name: "person".to_owned(),
            schema: json!({ "type": "object", "properties": { "name": { "type": "string" } } }),
            strict: true,
        }),
        Part::Attachment(AttachmentPart {
            id: part_id(),
            name: "plan.png".to_owned(),
            path: Some("docs/plan.png".to_owned()),
            version: Some(3),
            mime_type: "image/png".to_owned(),
            size: 70,
            hash: "0".repeat(64),
            given: AttachmentGiven::Image,
        }),
        Part::Step {
            id: part_id(),
            index: 0,
            usage: usage(),
            price_version: Some("2026-11-29".to_owned()),
            answered_by: Some("m-2026-11-01".to_owned()),
            finish_reason: FinishReason::ToolCalls,
            raw_finish_reason: Some("tool_use".to_owned()),
        },
    ]
}

fn message() -> Message {
    Message {
        id: message_id(),
        session_id: session_id(),
        run_id: Some(run_id()),
        after_step: Some(1),
        role: MessageRole::Assistant,
        agent: Some("default".to_owned()),
        model: Some(model()),
        parts: parts(),
        state: MessageState::Error,
        finish_reason: Some(FinishReason::Error),
        error: Some(error()),
        usage: Some(usage()),
        created_by: Some(user_id()),
        created_at: 1,
        completed_at: Some(2),
    }
}

fn run() -> Run {
    Run {
        id: run_id(),
        session_id: session_id(),
        status: RunStatus::Failed,
        started_by: user_id(),
        compacts: false,
        steps: 2,
        usage: usage(),
        position: Some(2),
        started_at: Some(1),
        ended_at: Some(2),
        error: Some(error()),
    }
}

fn approval() -> Approval {
    Approval {
        id: ApprovalId::from_bits(9),
        session_id: session_id(),
        child_session_id: Some(child_id()),
        run_id: run_id(),
        message_id: message_id(),
        tool_call_id: tool_call_id(),
        tool_name: "write".to_owned(),
        input: json!({ "path": "a", "content": "b" }),
        input_hash: "0".repeat(64),
        accesses: vec![JudgedAccess {
            permission: "write".to_owned(),
            target: "a".to_owned(),
            action: PermissionAction::Ask,
            rule: Some(permission_rule()),
            reason: "a rule of the project asks".to_owned(),
        }],
        message: "write `a`".to_owned(),
        options: vec![Remember::Once],
        state: ApprovalState::Rejected,
        by: Some(user_id()),
        reason: Some("no".to_owned()),
        remember: Some(Remember::Session),
        original_input: Some(json!({ "path": "b", "content": "b" })),
        created_at: 1,
        expires_at: 2,
    }
}

fn question() -> Question {
    let option = QuestionOption { label: "a".to_owned(), description: Some("first".to_owned()) };
    Question {
        id: QuestionId::from_bits(13),
        session_id: session_id(),
        child_session_id: Some(child_id()),
        run_id: run_id(),
        message_id: message_id(),
        tool_call_id: tool_call_id(),
        questions: vec![QuestionItem {
            text: "which?".to_owned(),
            options: vec![option],
            multiple: true,
        }],
        answers: Some(vec![vec!["a".to_owned()]]),
        state: QuestionState::Answered,
        by: Some(user_id()),
        reason: Some("no".to_owned()),
        created_at: 1,
        expires_at: 2,
    }
}

fn todo() -> Todo {
    Todo {
        id: TodoId::from_bits(14),
        content: "look".to_owned(),
        status: TodoStatus::InProgress,
        priority: TodoPriority::High,
    }
}

fn permission_rule() -> PermissionRule {
    PermissionRule {
        id: Some(PermissionId::from_bits(12)),
        layer: PermissionLayer::Session,
        session_id: Some(session_id()),
        permission: "edit".to_owned(),
        pattern: "src/**".to_owned(),
        action: PermissionAction::Ask,
        created_by: Some(user_id()),
        created_at: Some(1),
        updated_at: Some(2),
    }
}

fn member() -> Member {
    Member {
        user_id: user_id(),
        username: "ann".to_owned(),
        avatar_url: Some("https://example.com/ann.png".to_owned()),
        role: Role::Member,
        joined_at: 1,
    }
}

fn presence() -> Presence {
    Presence {
        user_id: user_id(),
        username: "ann".to_owned(),
        status: PresenceStatus::Busy,
        session_id: Some(session_id()),
        connections: 2,
    }
}

fn mcp_server() -> McpServer {
    McpServer {
        name: "files".to_owned(),
        transport: McpTransport::Stdio {
            command: "node".to_owned(),
            args: vec!["server.js".to_owned()],
            env: [("LEVEL".to_owned(), "debug".to_owned())].into(),
        },
        secret_headers: vec!["authorization".to_owned()],
        oauth: Some(McpOauth {
            client_id: Some("iris".to_owned()),
            has_client_secret: true,
            origins: vec!["https://login.example".to_owned()],
            scopes: vec!["read".to_owned()],
        }),
        authorization: Some(McpAuthorization {
            issuer: "https://login.example".to_owned(),
            scopes: vec!["read".to_owned()],
            by: user_id(),
            at: 3,
        }),
        enabled: true,
        initialize_timeout_ms: 30_000,
        request_timeout_ms: 60_000,
        tools: vec!["files__read".to_owned()],
        approved_hash: Some("cd".repeat(32)),
        created_by: user_id(),
        created_at: 1,
        updated_by: user_id(),
        updated_at: 2,
    }
}

fn agent() -> Agent {
    Agent {
        id: Some(AgentId::from_bits(10)),
        name: "reader".to_owned(),
        description: "reads".to_owned(),
        mode: AgentMode::Subagent,
        prompt: "read".to_owned(),
        model: Some(model()),
        tools: vec!["read".to_owned()],
        permissions: vec![PermissionSetting {
            permission: "edit".to_owned(),
            pattern: "*".to_owned(),
            action: PermissionAction::Deny,
        }],
        budget: Some(Budget { cost_nano_usd: Some(1), ..Budget::default() }),
        tuning: AgentTuning { temperature: Some(0.5), top_p: Some(1.0), max_steps: Some(20) },
        builtin: false,
        source: AgentSource::File,
        path: Some(".iris/agents/reader.md".to_owned()),
        hidden: true,
    }
}

fn tool() -> Tool {
    Tool {
        id: Some(ToolId::from_bits(12)),
        name: "weather".to_owned(),
        description: "Tells the weather.".to_owned(),
        kind: ToolKind::Http,
        parameters: json!({ "type": "object" }),
        writes: true,
        enabled: true,
        problem: None,
        http: Some(HttpTool {
            method: HttpMethod::Post,
            url: "https://weather.example/{{place}}".to_owned(),
            query: BTreeMap::from([("days".to_owned(), "{{days}}".to_owned())]),
            headers: BTreeMap::from([("accept".to_owned(), "text/plain".to_owned())]),
            body: Some(json!({ "at": "{{at}}" })),
            secret_headers: vec!["authorization".to_owned()],
            timeout_ms: 30_000,
        }),
        command: Some(CommandTool {
            argv: vec!["weather".to_owned(), "--json".to_owned()],
            workdir: Some("tools".to_owned()),
            timeout_ms: 120_000,
        }),
        revision: Some(2),
        created_by: Some(user_id()),
        created_at: Some(1),
        updated_by: Some(user_id()),
        updated_at: Some(2),
    }
}

/// Every event once, in the order of [`Event::ALL`].
pub(crate) fn events() -> Vec<Event> {
    let mut events = session_events();
    events.extend(message_events());
    events.extend(stream_events());
    events.extend(run_events());
    events.extend(file_events());
    events.extend(project_events());
    events.extend(SupervisionKind::ALL.iter().copied().map(record).map(Event::supervision));
    events
}

fn record(kind: SupervisionKind) -> SupervisionRecord {
    SupervisionRecord {
        id: 1 << 52,
        at: 1_790_000_000_000,
        kind,
        path: format!("node/directory/project/{}", project_id()),
        actor_kind: "project".to_owned(),
        reason: Some(ExitKind::RestartIntensity),
        error: Some("index out of bounds".to_owned()),
        location: Some("actors/src/project.rs:1:2".to_owned()),
        message: Some("JoinRoom".to_owned()),
        request_id: Some("req_1".to_owned()),
        counts: BTreeMap::from([("restarts".to_owned(), 5)]),
    }
}

fn session_events() -> Vec<Event> {
    vec![
        Event::SessionCreated { session: session() },
        Event::SessionUpdated { session: session() },
        Event::SessionArchived { session: session() },
        Event::SessionDeleted { session: session() },
        Event::SessionCaptureStarted { session: session() },
        Event::SessionCaptureEnded { session: session(), reason: CaptureEnd::Expired },
        Event::SessionForked {
            session_id: session_id(),
            message_id: Some(message_id()),
            fork: session(),
        },
        Event::SessionReverted {
            session_id: session_id(),
            message_id: message_id(),
            message_count: 2,
            file_count: 1,
            files: vec![ChangedFile {
                path: "a/b.txt".to_owned(),
                change: FileChange::Deleted,
                from: Some(2),
                to: Some(0),
                insertions: Some(0),
                deletions: Some(3),
            }],
            changed_since: vec![ChangedSince {
                path: "a/c.txt".to_owned(),
                version: 3,
                source: FileSource::Api,
                by: Some(user_id()),
                session_id: Some(session_id()),
            }],
            skipped: vec![SkippedFile {
                path: "a/d.bin".to_owned(),
                reason: SkipReason::ContentNotKept,
            }],
        },
        Event::SessionUnreverted {
            session_id: session_id(),
            message_id: message_id(),
            message_count: 2,
            file_count: 0,
            files: Vec::new(),
            changed_since: Vec::new(),
            skipped: vec![SkippedFile {
                path: ".iris/agents/a.md".to_owned(),
                reason: SkipReason::ProtectedPath,
            }],
        },
        Event::SessionCompacted {
            session_id: session_id(),
            message_id: message_id(),
            part: CompactionPart {
                id: part_id(),
                summary: "They looked for the notes.".to_owned(),
                replaced: 12,
                kept_steps: 1,
                tokens_before: 9_000,
                tokens_after: 700,
            },
        },
        Event::SessionStatus {
            session_id: session_id(),
            state: SessionState::Retrying,
            attempt: Some(2),
            class: Some("overloaded".into()),
            delay_ms: Some(750),
            message: Some("the provider answered with status 529".into()),
        },
    ]
}

fn message_events() -> Vec<Event> {
    let (session_id, message_id, part_id) = (session_id(), message_id(), part_id());
    vec![
        Event::MessageCreated { session_id: session_id.clone(), message: message() },
        Event::MessageUpdated {
            session_id: session_id.clone(),
            message: Message { parts: Vec::new(), ..message() },
        },
        Event::MessageRemoved {
            session_id: session_id.clone(),
            message_id: message_id.clone(),
            run_id: run_id(),
        },
        Event::MessageTextComplete {
            session_id: session_id.clone(),
            message_id: message_id.clone(),
            part_id: part_id.clone(),
            length: 8,
            text: "häß€".to_owned(),
            interrupted: true,
        },
        Event::MessageReasoningComplete {
            session_id: session_id.clone(),
            message_id: message_id.clone(),
            part_id: part_id.clone(),
            length: 2,
            text: "hm".to_owned(),
            interrupted: false,
        },
        Event::MessageToolCall {
            session_id: session_id.clone(),
            message_id: message_id.clone(),
            part_id: part_id.clone(),
            tool_call_id: tool_call_id(),
            tool_name: "read".to_owned(),
            input: json!({ "path": "a" }),
            provider_executed: false,
        },
        Event::MessageToolResult {
            session_id: session_id.clone(),
            message_id: message_id.clone(),
            part_id: part_id.clone(),
            tool_call_id: tool_call_id(),
            output: "out".to_owned(),
            metadata: Some(json!({ "lines": 1 })),
            truncated: true,
            attachment: Some(attachment()),
        },
        Event::MessageToolError {
            session_id: session_id.clone(),
            message_id: message_id.clone(),
            part_id: part_id.clone(),
            tool_call_id: tool_call_id(),
            state: ToolState::Denied,
            error: "no".to_owned(),
        },
        Event::MessageSubtaskUpdated {
            session_id: session_id.clone(),
            message_id: message_id.clone(),
            part: subtask(),
        },
        Event::MessageStepFinished {
            session_id: session_id.clone(),
            message_id: message_id.clone(),
            part_id,
            index: 0,
            usage: usage(),
            price_version: None,
            answered_by: None,
            finish_reason: FinishReason::Other,
            raw_finish_reason: Some("brand_new".to_owned()),
        },
        Event::UsageUpdated {
            session_id: session_id.clone(),
            totals: UsageTotals::of_step(usage(), 2, 30),
        },
        Event::BudgetExceeded {
            session_id: session_id.clone(),
            run_id: run_id(),
            budget: BudgetExceeded {
                scope: BudgetScope::Session,
                limit: BudgetLimit::CostNanoUsd,
                max: 5,
                used: Some(7),
            },
            message: "used up".to_owned(),
        },
        Event::MessageComplete {
            session_id: session_id.clone(),
            message_id: message_id.clone(),
            finish_reason: FinishReason::Stop,
            usage: usage(),
        },
        Event::MessageError { session_id, message_id, error: error() },
    ]
}

fn stream_events() -> Vec<Event> {
    let (session_id, message_id, part_id) = (session_id(), message_id(), part_id());
    vec![
        Event::MessageTextDelta {
            session_id: session_id.clone(),
            message_id: message_id.clone(),
            part_id: part_id.clone(),
            r#gen: 1,
            offset: 42,
            delta: "Hello".to_owned(),
        },
        Event::MessageReasoningDelta {
            session_id: session_id.clone(),
            message_id: message_id.clone(),
            part_id: part_id.clone(),
            r#gen: 1,
            offset: 0,
            delta: "hm".to_owned(),
        },
        Event::MessageToolInputDelta {
            session_id: session_id.clone(),
            message_id: message_id.clone(),
            part_id: part_id.clone(),
            tool_name: "write".to_owned(),
            r#gen: 1,
            offset: 0,
            delta: r#"{"path":"#.to_owned(),
        },
        Event::MessagePartSnapshot {
            session_id: session_id.clone(),
            message_id: message_id.clone(),
            part_id: part_id.clone(),
            kind: SnapshotKind::ToolInput,
            tool_name: Some("write".to_owned()),
            r#gen: 2,
            length: 2,
            text: "hm".to_owned(),
        },
        Event::MessagePartRemoved {
            session_id: session_id.clone(),
            message_id: message_id.clone(),
            part_id,
        },
        Event::MessageToolProgress {
            session_id,
            message_id,
            tool_call_id: tool_call_id(),
            bytes: 7,
            tail: "running".to_owned(),
            position: Some(2),
            reason: Some(QueueReason::Project),
        },
    ]
}

fn run_events() -> Vec<Event> {
    vec![
        Event::RunQueued {
            session_id: session_id(),
            run_id: run_id(),
            position: 3,
            reason: QueueReason::Project,
        },
        Event::RunStarted { run: run() },
        Event::RunCompleted {
            run_id: run_id(),
            session_id: session_id(),
            status: RunStatus::Cancelled,
            usage: usage(),
            error: Some(error()),
        },
        Event::ToolApprovalRequired {
            session_id: session_id(),
            child_session_id: Some(child_id()),
            tool_call_id: tool_call_id(),
            tool_name: "write".to_owned(),
            message: "write `a`".to_owned(),
            approval: Some(Box::new(approval())),
        },
        Event::ToolApprovalResolved {
            session_id: session_id(),
            child_session_id: Some(child_id()),
            approval_id: ApprovalId::from_bits(9),
            tool_call_id: tool_call_id(),
            state: ApprovalState::Rejected,
            by: Some(user_id()),
            reason: Some("no".to_owned()),
            remember: Some(Remember::Once),
            input: Some(json!({ "path": "b" })),
        },
        Event::QuestionAsked {
            session_id: session_id(),
            child_session_id: Some(child_id()),
            question_id: QuestionId::from_bits(13),
            tool_call_id: tool_call_id(),
            message: "which?".to_owned(),
            question: Some(Box::new(question())),
        },
        Event::QuestionResolved {
            session_id: session_id(),
            child_session_id: Some(child_id()),
            question_id: QuestionId::from_bits(13),
            tool_call_id: tool_call_id(),
            state: QuestionState::Rejected,
            by: Some(user_id()),
            reason: Some("no".to_owned()),
            answers: Some(vec![vec!["a".to_owned()]]),
        },
        Event::TodoUpdated { session_id: session_id(), todos: vec![todo()] },
        Event::PermissionUpdated {
            permission_id: PermissionId::from_bits(12),
            rule: Some(Box::new(permission_rule())),
        },
    ]
}

fn file_events() -> Vec<Event> {
    vec![
        Event::FileCreated {
            path: "a/b.txt".to_owned(),
            version: 2,
            by: Some(user_id()),
            session_id: Some(session_id()),
            source: FileSource::Tool,
            despite_lock_of: Some(user_id()),
        },
        Event::FileUpdated {
            path: "a/b.txt".to_owned(),
            version: 2,
            by: Some(user_id()),
            session_id: Some(session_id()),
            source: FileSource::Tool,
            despite_lock_of: Some(user_id()),
        },
        Event::FileDeleted {
            path: "a/b.txt".to_owned(),
            version: 2,
            by: Some(user_id()),
            session_id: Some(session_id()),
            source: FileSource::Tool,
            despite_lock_of: Some(user_id()),
        },
        Event::FileMoved {
            path: "a/b.txt".to_owned(),
            from: "b.txt".to_owned(),
            version: 2,
            by: Some(user_id()),
            session_id: Some(session_id()),
            source: FileSource::Tool,
            despite_lock_of: Some(user_id()),
        },
        Event::FileChanged {
            count: 200,
            by: Some(user_id()),
            session_id: Some(session_id()),
            source: FileSource::External,
        },
        Event::FileLocked {
            lock: FileLock {
                path: "a".to_owned(),
                scope: LockScope::Subtree,
                owner_id: user_id(),
                while_connected: true,
                created_at: 1,
                expires_at: 2,
            },
        },
        Event::FileUnlocked {
            path: "a".to_owned(),
            owner_id: user_id(),
            reason: UnlockReason::TakenOver,
        },
        Event::SnapshotCreated {
            snapshot: Snapshot {
                id: SnapshotId::from_bits(20),
                session_id: Some(session_id()),
                run_id: Some(run_id()),
                message_id: Some(message_id()),
                file_count: 3,
                complete: true,
                by: Some(user_id()),
                at: 1,
            },
        },
        Event::SnapshotRestored {
            snapshot_id: SnapshotId::from_bits(20),
            count: 2,
            by: Some(user_id()),
        },
        Event::RunDiffUpdated {
            session_id: session_id(),
            run_id: run_id(),
            files: vec![ChangedFile {
                path: "a/b.txt".to_owned(),
                change: FileChange::Updated,
                from: Some(1),
                to: Some(4),
                insertions: Some(1),
                deletions: Some(2),
            }],
            cut: true,
        },
    ]
}

fn project_events() -> Vec<Event> {
    vec![
        Event::GitChanged {
            project_id: project_id(),
            action: GitAction::Pushed,
            branch: Some("main".to_owned()),
            commit: Some("0".repeat(40)),
            error: None,
        },
        Event::ProjectUpdated { project_id: project_id(), name: "name".to_owned() },
        Event::ProjectArchived { project_id: project_id() },
        Event::ProjectUnarchived { project_id: project_id() },
        Event::ProjectRestored {
            project_id: project_id(),
            backup_id: BackupId::from_bits(11),
            taken_at: 1,
        },
        Event::MemberAdded { member: member() },
        Event::MemberUpdated { member: member() },
        Event::MemberRemoved { user_id: user_id() },
        Event::SessionUnread {
            project_id: project_id(),
            unread: Unread {
                session_id: session_id(),
                count: 2,
                first_message_id: Some(message_id()),
                read_message_id: Some(MessageId::from_bits(2)),
            },
        },
        Event::ProjectDeleted { project_id: project_id(), name: "iris".to_owned(), by: user_id() },
        Event::InvitationReceived {
            invitation_id: InvitationId::from_bits(16),
            project_id: Some(project_id()),
            role: Some(Role::Member),
            by: user_id(),
            expires_at: 2,
        },
        Event::TokenReused {
            auth_session_id: AuthSessionId::from_bits(17),
            ip: Some("192.0.2.1".to_owned()),
        },
        Event::AgentUpdated { name: "reader".to_owned(), agent: Some(agent()) },
        Event::McpStatusChanged {
            name: "files".to_owned(),
            state: McpState::Failed,
            reason: Some("the server is gone".to_owned()),
            offered_hash: Some("ab".repeat(32)),
            server: Some(mcp_server()),
            deleted: false,
        },
        Event::ToolUpdated {
            tool_id: ToolId::from_bits(12),
            name: "weather".to_owned(),
            tool: Some(Box::new(tool())),
        },
        Event::PresenceSnapshot { users: vec![presence()] },
        Event::PresenceJoined { presence: presence() },
        Event::PresenceUpdated { presence: presence() },
        Event::PresenceLeft {
            presence: Presence { session_id: None, connections: 0, ..presence() },
        },
        Event::TypingUpdated { session_id: session_id(), user_ids: vec![user_id()] },
        Event::RoomReset {
            room: format!("session:{}", session_id()),
            epoch: "another".to_owned(),
            to: 813,
        },
        Event::RoomLeft { room: format!("session:{}", session_id()), code: ErrorCode::Forbidden },
    ]
}
