//! Somebody in a session: says things, and hears all that happens in it.

use iris_client::{ClientError, Socket};
use iris_protocol::{
    Approval, Content, Event, EventFrame, Message, MessageAccepted, MessageRole, MessageSend,
    Position, ProjectId, Question, QuestionAnswer, QuestionId, QuestionReject, Request,
    RoomRequest, RoomSince, RoomStatus, RunCancel, RunId, RunStatus, SessionId, Subscribe,
    ToolApprove, ToolPart, ToolReject, WhenBusy,
};
use iris_protocol::{Part, Room, ToolCallId};

use crate::{Person, patiently};

/// A socket that has joined one session.
#[derive(Debug)]
pub struct Conversation {
    /// Who takes part.
    pub person: Person,
    /// The project.
    pub project: ProjectId,
    /// The session.
    pub session: SessionId,
    /// The connection.
    pub socket: Socket,
    /// Every event that was waited for or came before it, in order.
    pub seen: Vec<EventFrame>,
    /// The last durable event that was seen.
    pub position: Position,
}

/// What goes wrong here is the test's failure.
impl Conversation {
    pub(crate) async fn join(
        person: Person,
        project: ProjectId,
        session: SessionId,
        since: Option<Position>,
    ) -> Self {
        let socket = person.connect().await;
        let room = Room::Session(session.clone()).to_string();
        let expected = if since.is_some() { RoomStatus::Replayed } else { RoomStatus::Live };
        let rooms = vec![RoomRequest::Since(RoomSince { room, since })];
        let request = Subscribe { rooms, deltas: None, presence: None };
        let joined = socket.call(Some(&project), request).await.unwrap().payload;
        let joined = joined.rooms.into_iter().next().unwrap();
        assert_eq!(joined.status, expected);
        let position = Position { epoch: joined.epoch, seq: joined.to };
        Self { person, project, session, socket, seen: Vec::new(), position }
    }

    /// Goes on as this person, at a server that was started again, after what was seen here.
    pub async fn resume(&self, person: Person) -> Self {
        let (project, session) = (self.project.clone(), self.session.clone());
        Self::join(person, project, session, Some(self.position.clone())).await
    }

    /// Opens another socket, which hears the room of the project.
    pub async fn connect_to_project(&self) -> Socket {
        let socket = self.person.connect().await;
        let room = Room::Project(self.project.clone()).to_string();
        let request =
            Subscribe { rooms: vec![RoomRequest::Live(room)], deltas: None, presence: None };
        socket.call(Some(&self.project), request).await.unwrap();
        socket
    }

    /// Runs an operation in the project, over the socket.
    ///
    /// # Errors
    /// The server's.
    pub async fn call<R: Request>(&self, request: R) -> Result<R::Response, ClientError> {
        Ok(self.socket.call(Some(&self.project), request).await?.payload)
    }

    /// Sends a message.
    ///
    /// # Errors
    /// The server's.
    pub async fn try_send(
        &self,
        text: &str,
        when_busy: Option<WhenBusy>,
    ) -> Result<MessageAccepted, ClientError> {
        let content = Content::Text(text.to_owned());
        let session_id = self.session.clone();
        let attachments = Vec::new();
        self.call(MessageSend { session_id, content, when_busy, attachments }).await
    }

    /// Sends a message that the server takes.
    pub async fn send_message(&self, text: &str) -> MessageAccepted {
        self.try_send(text, None).await.unwrap()
    }

    /// The next event, whatever it is.
    pub async fn next(&mut self) -> EventFrame {
        self.wait_until("any event", |_| true).await
    }

    /// The next event with that name.
    pub async fn wait_for(&mut self, name: &str) -> EventFrame {
        self.wait_until(name, |event| event.name() == name).await
    }

    /// The next event that is the right one.
    pub async fn wait_until(
        &mut self,
        what: &str,
        mut is_right: impl FnMut(&Event) -> bool,
    ) -> EventFrame {
        let waiting = async {
            loop {
                let frame = match self.socket.next_event().await {
                    Ok(frame) => frame,
                    Err(error) => panic!("{error} while waiting for {what}: {:?}", self.seen),
                };
                self.position.seq = frame.meta.seq.unwrap_or(self.position.seq);
                self.seen.push(frame.clone());
                if is_right(&frame.event) {
                    return frame;
                }
            }
        };
        patiently(what, waiting).await
    }

    /// Waits for the end of a run.
    pub async fn run_ended(&mut self, run: &RunId) -> RunStatus {
        let is_end = |e: &Event| matches!(e, Event::RunCompleted { run_id, .. } if run_id == run);
        let frame = self.wait_until("run.completed", is_end).await;
        let Event::RunCompleted { status, .. } = frame.event else { panic!("{frame:?}") };
        status
    }

    /// Sends a message, waits for the run that it starts and takes the answer.
    pub async fn ask(&mut self, text: &str) -> Message {
        let run = self.send_message(text).await.run_id;
        self.run_ended(&run).await;
        self.answer(&run).await
    }

    /// The answer of a run as it is stored now.
    pub async fn answer(&self, run: &RunId) -> Message {
        let snapshot = self.person.snapshot(&self.project, &self.session).await;
        let is_answer = |message: &Message| {
            message.role == MessageRole::Assistant && message.run_id.as_ref() == Some(run)
        };
        snapshot.messages.into_iter().find(is_answer).unwrap()
    }

    /// Waits until a tool call asks for a person.
    pub async fn approval(&mut self) -> Approval {
        let frame = self.wait_for("tool.approval.required").await;
        let Event::ToolApprovalRequired { approval: Some(approval), .. } = frame.event else {
            panic!("{frame:?}")
        };
        *approval
    }

    /// Lets a tool call run.
    ///
    /// # Errors
    /// The server's.
    pub async fn approve(&self, call: &ToolCallId) -> Result<Approval, ClientError> {
        let (session_id, tool_call_id) = (self.session.clone(), call.clone());
        let request =
            ToolApprove { session_id, tool_call_id, remember: None, input_hash: None, input: None };
        Ok(self.call(request).await?.approval)
    }

    /// Refuses a tool call.
    ///
    /// # Errors
    /// The server's.
    pub async fn reject(&self, call: &ToolCallId, reason: &str) -> Result<Approval, ClientError> {
        let (session_id, tool_call_id) = (self.session.clone(), call.clone());
        let request = ToolReject { session_id, tool_call_id, reason: Some(reason.to_owned()) };
        Ok(self.call(request).await?.approval)
    }

    /// Waits until the agent asks the people of the session something.
    pub async fn question(&mut self) -> Question {
        let frame = self.wait_for("question.asked").await;
        let Event::QuestionAsked { question: Some(question), .. } = frame.event else {
            panic!("{frame:?}")
        };
        *question
    }

    /// Answers what the agent asked: a list of texts for each question.
    ///
    /// # Errors
    /// The server's.
    pub async fn answer_question(
        &self,
        id: &QuestionId,
        answers: &[&[&str]],
    ) -> Result<Question, ClientError> {
        let texts = answers.iter().map(|texts| texts.iter().map(ToString::to_string).collect());
        let (session_id, question_id) = (self.session.clone(), id.clone());
        let request = QuestionAnswer { session_id, question_id, answers: texts.collect() };
        Ok(self.call(request).await?.question)
    }

    /// Refuses to answer what the agent asked.
    ///
    /// # Errors
    /// The server's.
    pub async fn reject_question(
        &self,
        id: &QuestionId,
        reason: Option<&str>,
    ) -> Result<Question, ClientError> {
        let (session_id, question_id) = (self.session.clone(), id.clone());
        let reason = reason.map(str::to_owned);
        let request = QuestionReject { session_id, question_id, reason };
        Ok(self.call(request).await?.question)
    }

    /// Ends the active run. Says whether there was one.
    pub async fn cancel(&self) -> bool {
        self.call(RunCancel { session_id: self.session.clone() }).await.unwrap().cancelled
    }

    /// The names of the events so far, in order.
    pub fn names(&self) -> Vec<&'static str> {
        self.seen.iter().map(|frame| frame.event.name()).collect()
    }
}

/// All text of a message.
pub fn text_of(message: &Message) -> String {
    let texts = message.parts.iter().filter_map(|part| match part {
        Part::Text { text, .. } => Some(text.as_str()),
        Part::Reasoning { .. }
        | Part::Tool(_)
        | Part::Subtask(_)
        | Part::Compaction(_)
        | Part::AnswerFormat(_)
        | Part::Attachment(_)
        | Part::Step { .. } => None,
    });
    texts.collect()
}

/// All tool calls of a message.
pub fn calls_of(message: &Message) -> Vec<&ToolPart> {
    let calls = message.parts.iter().filter_map(|part| match part {
        Part::Tool(call) => Some(call),
        Part::Text { .. }
        | Part::Reasoning { .. }
        | Part::Subtask(_)
        | Part::Compaction(_)
        | Part::AnswerFormat(_)
        | Part::Attachment(_)
        | Part::Step { .. } => None,
    });
    calls.collect()
}
