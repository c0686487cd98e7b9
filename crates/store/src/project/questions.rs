//! What agents ask people: the first answer counts. A call of the tool `question` waits for it, and it is the
//! result; another call may ask while it runs, and goes on with the answers.

use iris_protocol::{
    Event, Message, MessageId, Question, QuestionId, QuestionItem, QuestionPage, QuestionState,
    Run, RunId, SessionId, ToolCallId, ToolPart, ToolState, UserId, limits::PAGE_MAX,
};
use rusqlite::{Connection, Row, params};

use super::ending::{fail_call, publish_result};
use super::steps::{OpenAnswer, refuse_final};
use super::{family, log, pages, queries, records, resuming};
use crate::column::{json, optional_json, optional_word, to_json, to_optional_json, to_word, word};
use crate::{Command, StoreError, WhenFull, WriteTx};

/// The questions of a run that nobody answered.
const PENDING_OF_RUN: &str = "SELECT * FROM questions
     WHERE session_id = ?1 AND run_id = ?2 AND state = 'pending' ORDER BY id";
/// Those of them for which a call waits.
const WAITING_OF_RUN: &str = "SELECT * FROM questions
     WHERE session_id = ?1 AND run_id = ?2 AND state = 'pending' AND during_call = 0 ORDER BY id";
/// Those of them whose calls run meanwhile.
const DURING_CALLS_OF_RUN: &str = "SELECT * FROM questions
     WHERE session_id = ?1 AND run_id = ?2 AND state = 'pending' AND during_call = 1 ORDER BY id";
const PENDING: &str =
    "SELECT * FROM questions WHERE session_id = ?1 AND state = 'pending' ORDER BY id";
const QUESTIONS: &str =
    "SELECT * FROM questions WHERE state = ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3";
const QUESTIONS_OF_SESSION: &str = "SELECT * FROM questions
     WHERE state = ?1 AND id < ?2 AND session_id = ?4 ORDER BY id DESC LIMIT ?3";

/// What a question has that may be long.
const TEXTS: [&str; 3] = ["questions", "answers", "reason"];

/// What a call of the same step asks people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewQuestion {
    /// A new id.
    pub id: QuestionId,
    /// The call, which waits.
    pub tool_call_id: ToolCallId,
    /// What is asked, at least one.
    pub questions: Vec<QuestionItem>,
    /// Milliseconds since 1970 UTC.
    pub expires_at: i64,
}

/// What becomes of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// For each question the texts that were chosen or written.
    Answer(Vec<Vec<String>>),
    /// Nobody is to answer.
    Reject {
        /// Why; the model reads it.
        reason: Option<String>,
    },
    /// Nobody answered in time.
    Expire,
    /// Whoever asked does not need to know any more.
    Withdraw,
}

/// Asks people what a call needs to know that runs and goes on running. Answers the question.
///
/// Fails with `NotFound`, with `Gone` when the run is to end, and with `Conflict` (`not_running`) for a call
/// that does not run.
#[derive(Debug, Clone)]
pub struct AskDuringCall {
    /// The session.
    pub session_id: SessionId,
    /// The run, which works.
    pub run_id: RunId,
    /// The answer that holds the call.
    pub message_id: MessageId,
    /// What is asked, and by which call.
    pub question: NewQuestion,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for AskDuringCall {
    type Output = Question;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Question, StoreError> {
        let open = OpenAnswer::find(tx, &self.session_id, &self.run_id, &self.message_id)?;
        if open.cancel_requested {
            return Err(StoreError::Gone { what: "run" });
        }
        let call = &self.question.tool_call_id;
        let call = queries::existing_call(tx.conn(), &open.message.id, call)?;
        if call.state != ToolState::Running {
            return Err(StoreError::conflict("not_running", "the call does not run"));
        }
        record(tx, &open, self.question, self.at, true)
    }
}

/// Answers what a call asked, and so gives the call its result. Answers the question as it is then.
///
/// Fails with `NotFound`, `Conflict`: `already_decided`, or `Gone` for a question that expired or was
/// cancelled, and for a person's reply after its time.
#[derive(Debug, Clone)]
pub struct ResolveQuestion {
    /// The session.
    pub session_id: SessionId,
    /// What was asked.
    pub question_id: QuestionId,
    /// What becomes of it; answers fit the questions.
    pub reply: Reply,
    /// The user who replies; none when it expires.
    pub by: Option<UserId>,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for ResolveQuestion {
    type Output = Question;

    /// A refusal ends something, an answer lets it go on.
    fn when_full(&self) -> WhenFull {
        match self.reply {
            Reply::Answer(_) => WhenFull::Refuse,
            Reply::Reject { .. } | Reply::Expire | Reply::Withdraw => WhenFull::Allow,
        }
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Question, StoreError> {
        let found = one(tx.conn(), &self.session_id, &self.question_id)?;
        let mut question = found.ok_or(StoreError::NotFound { what: "question" })?;
        self.refuse_unless_pending(&question)?;
        question.by.clone_from(&self.by);
        question.state = match &self.reply {
            Reply::Answer(answers) => {
                question.answers = Some(answers.clone());
                QuestionState::Answered
            }
            Reply::Reject { reason } => {
                question.reason.clone_from(reason);
                QuestionState::Rejected
            }
            Reply::Expire => QuestionState::Expired,
            Reply::Withdraw => QuestionState::Cancelled,
        };
        let is_during_call = is_during_call(tx.conn(), &question.id)?;
        if !is_during_call {
            self.end_call(tx, &question)?;
        }
        end(tx, &question, self.at)?;
        if is_during_call {
            return Ok(question);
        }
        let (session_id, run_id) = (&question.session_id, &question.run_id);
        resuming::go_on_when_settled(tx, session_id, run_id, self.at, self.by.as_ref())?;
        Ok(question)
    }
}

impl ResolveQuestion {
    fn refuse_unless_pending(&self, question: &Question) -> Result<(), StoreError> {
        let is_of_person = matches!(self.reply, Reply::Answer(_) | Reply::Reject { .. });
        let is_late = is_of_person && self.at > question.expires_at;
        match question.state {
            QuestionState::Pending if !is_late => Ok(()),
            QuestionState::Pending | QuestionState::Expired | QuestionState::Cancelled => {
                Err(StoreError::Gone { what: "question" })
            }
            QuestionState::Answered | QuestionState::Rejected => {
                Err(StoreError::conflict("already_decided", "somebody answered already"))
            }
        }
    }

    /// Gives the call its one result: it never runs.
    fn end_call(&self, tx: &mut WriteTx<'_>, question: &Question) -> Result<(), StoreError> {
        let message = queries::bare_message(tx.conn(), &self.session_id, &question.message_id)?;
        let message = message.ok_or(StoreError::NotFound { what: "message" })?;
        let mut call = queries::existing_call(tx.conn(), &message.id, &question.tool_call_id)?;
        refuse_final(&call)?;
        let error = match &self.reply {
            Reply::Answer(answers) => {
                let output = as_text(&question.questions, answers);
                return self.complete(tx, &message, call, output);
            }
            Reply::Reject { reason: None } => "the user refused to answer".to_owned(),
            Reply::Reject { reason: Some(reason) } => {
                format!("the user refused to answer: {reason}")
            }
            Reply::Expire | Reply::Withdraw => "nobody answered in time".to_owned(),
        };
        let by = self.by.as_ref();
        fail_call(tx, &message, &mut call, ToolState::Denied, error, self.at, by)
    }

    fn complete(
        &self,
        tx: &mut WriteTx<'_>,
        message: &Message,
        mut call: ToolPart,
        output: String,
    ) -> Result<(), StoreError> {
        call.state = ToolState::Completed;
        call.output = Some(output);
        call.ended_at = Some(self.at);
        records::save_call(tx.conn(), &call)?;
        publish_result(tx, message, &call, self.at, self.by.as_ref())
    }
}

/// Questions and their answers as the model reads them.
fn as_text(questions: &[QuestionItem], answers: &[Vec<String>]) -> String {
    let pairs = questions.iter().zip(answers);
    let texts = pairs.map(|(question, answers)| {
        let chosen = match answers.as_slice() {
            [] => "- (none)".to_owned(),
            some => some.iter().map(|text| format!("- {text}")).collect::<Vec<_>>().join("\n"),
        };
        format!("{}\n{chosen}", question.text)
    });
    texts.collect::<Vec<_>>().join("\n\n")
}

/// Asks people what a call asks: all of it in the session's room, a notice in the project's.
pub(super) fn ask(
    tx: &mut WriteTx<'_>,
    open: &OpenAnswer,
    new: NewQuestion,
    at: i64,
) -> Result<(), StoreError> {
    queries::existing_call(tx.conn(), &open.message.id, &new.tool_call_id)?;
    record(tx, open, new, at, false).map(drop)
}

fn record(
    tx: &mut WriteTx<'_>,
    open: &OpenAnswer,
    new: NewQuestion,
    at: i64,
    is_during_call: bool,
) -> Result<Question, StoreError> {
    let question = Question {
        id: new.id,
        session_id: open.session.id.clone(),
        child_session_id: None,
        run_id: open.run.id.clone(),
        message_id: open.message.id.clone(),
        tool_call_id: new.tool_call_id,
        questions: new.questions,
        answers: None,
        state: QuestionState::Pending,
        by: None,
        reason: None,
        created_at: at,
        expires_at: new.expires_at,
    };
    insert(tx.conn(), &question, is_during_call)?;
    let first = question.questions.first().map(|first| first.text.clone()).unwrap_or_default();
    let notice = |seen: &Question, whole: Option<Box<Question>>| Event::QuestionAsked {
        session_id: seen.session_id.clone(),
        child_session_id: seen.child_session_id.clone(),
        question_id: seen.id.clone(),
        tool_call_id: seen.tool_call_id.clone(),
        message: first.clone(),
        question: whole,
    };
    let by = Some(&open.run.started_by);
    let whole = notice(&question, Some(Box::new(question.clone())));
    log::in_session(tx, &open.session.id, at, by, &whole)?;
    family::tell_above(tx, &open.session.id, at, by, |above| {
        let seen = family::question_seen_from(above, &question);
        notice(&seen, Some(Box::new(seen.clone())))
    })?;
    log::in_project(tx, at, by, &notice(&question, None))?;
    Ok(question)
}

/// Ends the questions of a run that nobody answered.
pub(super) fn cancel_all(tx: &mut WriteTx<'_>, run: &Run, at: i64) -> Result<(), StoreError> {
    cancel(tx, run, PENDING_OF_RUN, at)
}

/// Ends the questions of a run whose calls do not run any more.
pub(super) fn cancel_during_calls(
    tx: &mut WriteTx<'_>,
    run: &Run,
    at: i64,
) -> Result<(), StoreError> {
    cancel(tx, run, DURING_CALLS_OF_RUN, at)
}

fn cancel(tx: &mut WriteTx<'_>, run: &Run, sql: &str, at: i64) -> Result<(), StoreError> {
    let key = [run.session_id.as_str(), run.id.as_str()];
    for mut question in queries::all(tx.conn(), sql, key, question)? {
        question.state = QuestionState::Cancelled;
        end(tx, &question, at)?;
    }
    Ok(())
}

/// One list of texts for each question.
type Answers = Option<Vec<Vec<String>>>;

/// Writes a question that is not pending any more, and says so in both rooms.
fn end(tx: &mut WriteTx<'_>, question: &Question, at: i64) -> Result<(), StoreError> {
    let sql = "UPDATE questions SET state = ?2, answered_by = ?3, reason = ?4, answers = ?5
               WHERE id = ?1";
    tx.conn().prepare_cached(sql)?.execute(params![
        question.id.as_str(),
        to_word(&question.state)?,
        question.by.as_ref().map(UserId::as_str),
        question.reason,
        to_optional_json(question.answers.as_ref())?,
    ])?;
    let by = question.by.as_ref();
    let event = |session_id: &SessionId, answers: Answers| Event::QuestionResolved {
        session_id: session_id.clone(),
        child_session_id: Some(&question.session_id).filter(|own| *own != session_id).cloned(),
        question_id: question.id.clone(),
        tool_call_id: question.tool_call_id.clone(),
        state: question.state,
        by: question.by.clone(),
        reason: question.reason.clone(),
        answers,
    };
    // What was answered may be long, and is a matter of those who look at the session.
    let (own, answers) = (&question.session_id, &question.answers);
    log::in_session(tx, own, at, by, &event(own, answers.clone()))?;
    family::tell_above(tx, own, at, by, |above| event(&above, answers.clone()))?;
    log::in_project(tx, at, by, &event(own, None))
}

fn insert(conn: &Connection, question: &Question, is_during_call: bool) -> Result<(), StoreError> {
    let sql = "INSERT INTO questions (id, session_id, run_id, message_id, tool_call_id, questions,
                 state, created_at, expires_at, during_call)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    conn.prepare_cached(sql)?.execute(params![
        question.id.as_str(),
        question.session_id.as_str(),
        question.run_id.as_str(),
        question.message_id.as_str(),
        question.tool_call_id.as_str(),
        to_json(&question.questions)?,
        to_word(&question.state)?,
        question.created_at,
        question.expires_at,
        is_during_call,
    ])?;
    Ok(())
}

fn is_during_call(conn: &Connection, id: &QuestionId) -> Result<bool, StoreError> {
    let sql = "SELECT during_call FROM questions WHERE id = ?1";
    queries::one(conn, sql, [id.as_str()], |row| row.get(0))
}

pub(super) fn question(row: &Row<'_>) -> rusqlite::Result<Question> {
    Ok(Question {
        id: word(row, "id")?,
        session_id: word(row, "session_id")?,
        child_session_id: None,
        run_id: word(row, "run_id")?,
        message_id: word(row, "message_id")?,
        tool_call_id: word(row, "tool_call_id")?,
        questions: json(row, "questions")?,
        answers: optional_json(row, "answers")?,
        state: word(row, "state")?,
        by: optional_word(row, "answered_by")?,
        reason: row.get("reason")?,
        created_at: row.get("created_at")?,
        expires_at: row.get("expires_at")?,
    })
}

pub(super) fn one(
    conn: &Connection,
    session_id: &SessionId,
    id: &QuestionId,
) -> Result<Option<Question>, StoreError> {
    let sql = "SELECT * FROM questions WHERE id = ?1 AND session_id = ?2";
    queries::first(conn, sql, [id.as_str(), session_id.as_str()], question)
}

/// The questions of a run for which its calls wait.
pub(super) fn waiting_of_run(conn: &Connection, run: &Run) -> Result<Vec<Question>, StoreError> {
    queries::all(conn, WAITING_OF_RUN, [run.session_id.as_str(), run.id.as_str()], question)
}

pub(super) fn pending(
    conn: &Connection,
    session_id: &SessionId,
) -> Result<Vec<Question>, StoreError> {
    queries::all(conn, PENDING, [session_id.as_str()], question)
}

/// A page of the questions in one state, of one session or of all, newest first.
pub(super) fn page(
    conn: &Connection,
    session_id: Option<&SessionId>,
    state: QuestionState,
    limit: u32,
    cursor: Option<&str>,
) -> Result<QuestionPage, StoreError> {
    let limit = limit.clamp(1, PAGE_MAX);
    let (before, state) = (pages::before::<QuestionId>(cursor)?, to_word(&state)?);
    let (mut questions, has_more) = if let Some(id) = session_id {
        queries::existing_session(conn, id)?;
        let key = params![state, before, limit + 1, id.as_str()];
        pages::fitting(conn, QUESTIONS_OF_SESSION, key, &TEXTS, question)?
    } else {
        let key = params![state, before, limit + 1];
        pages::fitting(conn, QUESTIONS, key, &TEXTS, question)?
    };
    let has_more = pages::cut(&mut questions, limit) || has_more;
    let last = questions.last().map(|question: &Question| question.id.to_string());
    Ok(QuestionPage { questions, next_cursor: last.filter(|_| has_more), has_more })
}
