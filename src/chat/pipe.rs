//! A chat without a terminal: one message, and all that comes of it, for people or as lines of JSON.

use std::collections::HashSet;
use std::io::{self, Write};

use iris_client::{Caller, ClientError, Follower, Update};
use iris_protocol::{
    Event, Message, MessageId, Part, RunGet, RunId, RunStatus, SessionGet, SessionId,
};
use serde_json::{Value, json};
use tokio::signal::ctrl_c;
use tokio::sync::mpsc;

use super::hands::{Act, Done, perform};
use super::paper::Paper;
use super::place::Place;
use super::room::{Ask, Room, is_open};
use super::style::Style;
use crate::exit;
use crate::remote::text::json_line;
use crate::remote::{RemoteError, say};

/// Why a call is rejected where nobody can be asked.
const NOBODY: &str = "nobody is there to answer: this client has no terminal";

/// Where what happens is written.
enum Out {
    Json,
    People(Box<Room>, Paper),
}

/// What the run of this chat has set to work.
#[derive(Debug, Default)]
struct Own {
    messages: HashSet<MessageId>,
    /// Sessions of its sub-agents.
    children: HashSet<SessionId>,
}

impl Own {
    /// Takes what an update tells of the run.
    fn learn(&mut self, update: &Update, run: &RunId) {
        if let Update::Reset(snapshot) = update {
            for message in &snapshot.messages {
                self.message(message, run);
            }
        }
        let Update::Event(frame) = update else { return };
        if let Event::MessageCreated { message, .. } | Event::MessageUpdated { message, .. } =
            &frame.event
        {
            self.message(message, run);
        } else if let Event::MessageSubtaskUpdated { message_id, part, .. } = &frame.event
            && self.messages.contains(message_id)
        {
            self.children.insert(part.child_session_id.clone());
        }
    }

    fn message(&mut self, message: &Message, run: &RunId) {
        if message.run_id.as_ref() != Some(run) {
            return;
        }
        self.messages.insert(message.id.clone());
        for part in &message.parts {
            if let Part::Subtask(part) = part {
                self.children.insert(part.child_session_id.clone());
            }
        }
    }
}

/// A chat about one message.
pub(super) struct Pipe {
    caller: Caller,
    session: SessionId,
    out: Out,
    /// Whether questions are left to others.
    leaves_questions: bool,
    own: Own,
    /// Asked by the run, and refused because nobody was there.
    refused: usize,
    /// Ctrl-C was pressed.
    is_interrupted: bool,
}

impl Pipe {
    pub(super) fn json(follower: &Follower, place: &Place) -> Self {
        Self::new(follower, place, Out::Json)
    }

    pub(super) fn people(follower: &Follower, place: &Place, room: Room, style: Style) -> Self {
        let room = Box::new(room.showing_all());
        Self::new(follower, place, Out::People(room, Paper::new(style)))
    }

    fn new(follower: &Follower, place: &Place, out: Out) -> Self {
        let (caller, session) = (follower.caller(), place.session.clone());
        Self {
            caller,
            session,
            out,
            leaves_questions: false,
            own: Own::default(),
            refused: 0,
            is_interrupted: false,
        }
    }

    /// Others answer what is asked, if anybody does.
    pub(super) fn leaving_questions(self, leaves_questions: bool) -> Self {
        Self { leaves_questions, ..self }
    }

    /// Says something, and answers how it ended.
    pub(super) async fn run(
        mut self,
        follower: &mut Follower,
        place: &Place,
        text: &str,
    ) -> Result<u8, RemoteError> {
        self.mark(
            "chat.session",
            &json!({ "projectId": place.project, "sessionId": place.session }),
        )?;
        // What was said before is nothing of this message.
        loop {
            let update = follower.next().await?;
            if update == Update::Connected {
                break;
            }
            self.before(update)?;
        }
        let mut interrupts = interrupts();
        let (caller, session) = (self.caller.clone(), self.session.clone());
        let act = Act::Send(text.to_owned());
        let mut sending = Box::pin(perform(&caller, &session, &act));
        let mut early = Vec::new();
        let run = loop {
            tokio::select! {
                sent = &mut sending => {
                    let Done::Sent { run, .. } = sent? else { return Ok(exit::FAILED) };
                    break run;
                }
                update = follower.next() => {
                    let update = update?;
                    if matches!(update, Update::Reconnecting { .. } | Update::Connected) {
                        self.show(update)?;
                    } else {
                        early.push(update);
                    }
                }
                _ = interrupts.recv() => return Ok(exit::INTERRUPTED),
            }
        };
        for update in early {
            if let Some(status) = self.take(update, &run).await? {
                return self.end(status);
            }
        }
        loop {
            tokio::select! {
                biased;
                _ = interrupts.recv() => {
                    if std::mem::replace(&mut self.is_interrupted, true) {
                        return Ok(exit::INTERRUPTED);
                    }
                    say("chat", "cancelling; again to leave at once");
                    let (caller, session) = (caller.clone(), session.clone());
                    // Its outcome comes as an event.
                    tokio::spawn(async move { drop(perform(&caller, &session, &Act::Cancel).await) });
                }
                update = follower.next() => {
                    if let Some(status) = self.take(update?, &run).await? {
                        return self.end(status);
                    }
                }
            }
        }
    }

    fn end(mut self, status: RunStatus) -> Result<u8, RemoteError> {
        if let Out::People(_, paper) = &mut self.out {
            let lines = paper.end();
            print(&lines)?;
        }
        let code = match status {
            _ if self.is_interrupted => exit::INTERRUPTED,
            RunStatus::Completed if self.refused > 0 => exit::REFUSED,
            RunStatus::Completed => exit::OK,
            RunStatus::Failed
            | RunStatus::Cancelled
            | RunStatus::Interrupted
            | RunStatus::Queued
            | RunStatus::Running
            | RunStatus::Waiting => exit::FAILED,
        };
        self.mark(
            "chat.ended",
            &json!({ "status": status, "refused": self.refused, "exitCode": code }),
        )?;
        if self.refused > 0 {
            let text = "a question was refused because nobody could answer it; run `iris chat` in a \
                        terminal, or make a permission rule for what may be done";
            say("chat", text);
        }
        Ok(code)
    }

    /// A line of this client among those of the server.
    fn mark(&self, name: &str, payload: &Value) -> io::Result<()> {
        match self.out {
            Out::Json => print(&[json_line(&json!({ "type": name, "payload": payload }))?]),
            Out::People(..) => Ok(()),
        }
    }

    /// What happens before anything is said here.
    fn before(&mut self, update: Update) -> io::Result<()> {
        match (&mut self.out, update) {
            (_, lost @ Update::Reconnecting { .. }) => self.show(lost),
            (Out::People(room, _), update) => {
                // Known, and not shown: it was said before.
                drop(room.update(update));
                Ok(())
            }
            (Out::Json, _) => Ok(()),
        }
    }

    /// Shows an update. Answers how the run ended, once it has.
    async fn take(
        &mut self,
        update: Update,
        run: &RunId,
    ) -> Result<Option<RunStatus>, RemoteError> {
        self.own.learn(&update, run);
        let mut ended = None;
        let mut asks = Vec::new();
        match &update {
            #[expect(clippy::wildcard_enum_match_arm, reason = "these are asked or end the run")]
            Update::Event(frame) => match &frame.event {
                Event::RunCompleted { run_id, status, .. } if run_id == run => {
                    ended = Some(*status);
                }
                Event::ToolApprovalRequired { approval: Some(approval), .. } => {
                    asks.push(Ask::Approval(approval.clone()));
                }
                Event::QuestionAsked { question: Some(question), .. } => {
                    asks.push(Ask::Question(question.clone(), Vec::new()));
                }
                _ => {}
            },
            Update::Reset(snapshot) => {
                let approvals = snapshot.approvals.iter().cloned();
                asks.extend(approvals.map(|it| Ask::Approval(Box::new(it))));
                let questions = snapshot.questions.iter().cloned();
                asks.extend(questions.map(|it| Ask::Question(Box::new(it), Vec::new())));
                // Events were missed for good, the end of the run perhaps among them.
                if !snapshot.runs.iter().any(|other| other.id == *run && is_open(other.status)) {
                    ended = self.look(run).await?;
                }
            }
            Update::Reconnecting { .. }
            | Update::Connected
            | Update::Text { .. }
            | Update::Presence(_) => {}
        }
        self.show(update)?;
        if self.leaves_questions {
            asks.clear();
        }
        for ask in asks {
            if self.is_own(&ask, run).await? {
                self.refuse(ask).await?;
            }
        }
        Ok(ended)
    }

    /// Whether the run of this chat asks, or a sub-agent below it: what others began is theirs to answer.
    async fn is_own(&self, ask: &Ask, run: &RunId) -> Result<bool, ClientError> {
        let (by, child) = ask.by();
        let Some(child) = child else { return Ok(by == run) };
        let mut above = child.clone();
        // A sub-agent of a sub-agent is told of in the session between alone.
        while above != self.session {
            if self.own.children.contains(&above) {
                return Ok(true);
            }
            let request = SessionGet { session_id: above, limit: Some(1), before: None };
            above = match self.caller.call(request).await {
                Ok(reply) => match reply.payload.session.parent_id {
                    Some(parent) => parent,
                    None => return Ok(false),
                },
                // Deleted meanwhile, and what it asked with it.
                Err(ClientError::Api(_)) => return Ok(false),
                Err(error) => return Err(error),
            };
        }
        Ok(false)
    }

    /// How a run is of which nothing was heard.
    async fn look(&self, run: &RunId) -> Result<Option<RunStatus>, ClientError> {
        let (session_id, run_id) = (self.session.clone(), run.clone());
        let status = self.caller.call(RunGet { session_id, run_id }).await?.payload.run.status;
        Ok((!is_open(status)).then_some(status))
    }

    fn show(&mut self, update: Update) -> io::Result<()> {
        match &mut self.out {
            Out::Json => match update {
                Update::Event(frame) => print(&[json_line(&*frame)?]),
                Update::Reconnecting { reason, .. } => {
                    say("chat", &format!("disconnected, trying again: {reason}"));
                    Ok(())
                }
                // The end of each text holds all of it.
                Update::Connected
                | Update::Reset(_)
                | Update::Text { .. }
                | Update::Presence(_) => Ok(()),
            },
            Out::People(room, paper) => {
                let shows = room.update(update);
                let lines: Vec<String> = shows.iter().flat_map(|show| paper.put(show)).collect();
                print(&lines)
            }
        }
    }

    /// Says no, so that the run does not wait for somebody who is not there.
    async fn refuse(&mut self, ask: Ask) -> Result<(), ClientError> {
        let reason = Some(NOBODY.to_owned());
        let act = match ask {
            Ask::Approval(approval) => Act::Reject(approval, reason),
            Ask::Question(question, _) => Act::Refuse(question, reason),
        };
        match perform(&self.caller, &self.session, &act).await {
            Ok(_) => {
                self.refused += 1;
                Ok(())
            }
            // Somebody else was first.
            Err(ClientError::Api(error)) => {
                say("chat", &error.to_string());
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// Hears Ctrl-C, each time.
fn interrupts() -> mpsc::Receiver<()> {
    let (interrupts_tx, interrupts) = mpsc::channel(1);
    tokio::spawn(
        async move { while ctrl_c().await.is_ok() && interrupts_tx.send(()).await.is_ok() {} },
    );
    interrupts
}

/// Prints lines at once, whoever reads.
fn print(lines: &[String]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for line in lines {
        writeln!(out, "{line}")?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use iris_protocol::{EventFrame, PartId, ProjectId, ToolCallId};

    use super::*;

    fn event(name: &str, payload: &Value) -> Update {
        let event = serde_json::from_value(json!({ "type": name, "payload": payload })).unwrap();
        let meta = iris_protocol::EventMeta {
            project_id: Some(ProjectId::from_bits(1)),
            room: iris_protocol::Room::Session(SessionId::from_bits(1)),
            seq: None,
            prev: None,
            at: None,
            by: None,
        };
        Update::Event(Box::new(EventFrame { event, meta }))
    }

    fn answer(n: u128) -> Update {
        let session = SessionId::from_bits(1);
        let message = json!({ "id": MessageId::from_bits(n), "sessionId": session,
            "runId": RunId::from_bits(n), "role": "assistant", "agent": "default",
            "state": "streaming", "createdAt": 0, "parts": [] });
        event("message.created", &json!({ "sessionId": session, "message": message }))
    }

    fn task(n: u128) -> Update {
        let part = json!({ "id": PartId::from_bits(n), "toolCallId": ToolCallId::from_bits(n),
            "childSessionId": SessionId::from_bits(10 + n), "childRunId": RunId::from_bits(10 + n),
            "agent": "explore", "description": "look", "state": "running" });
        let payload = json!({ "sessionId": SessionId::from_bits(1),
            "messageId": MessageId::from_bits(n), "part": part });
        event("message.subtask.updated", &payload)
    }

    #[test]
    fn sub_agents_of_other_runs_are_not_of_this_one() {
        let (mut own, run) = (Own::default(), RunId::from_bits(2));
        for update in [answer(1), task(1), answer(2), task(2)] {
            own.learn(&update, &run);
        }
        assert_eq!(own.children, HashSet::from([SessionId::from_bits(12)]));
    }
}
