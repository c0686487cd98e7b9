//! A session and two who follow it, through whatever happens.

use iris_client::{Backoff, FollowOptions, Follower, Update};
use iris_protocol::{
    Content, Event, MessageSend, ProjectId, QuestionAnswer, QuestionId, Request, RunCancel, RunId,
    RunStatus, Session, SessionGet, SessionId, SessionList, SessionState, SubtaskState,
    ToolApprove, ToolCallId, ToolReject,
};
use iris_testkit::Person;
use std::time::Duration;

use crate::player::{Player, Trouble};

/// What is done about a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    Watch,
    Approve,
    Reject,
    /// As soon as it says something.
    Cancel,
}

/// A session that is followed by its owner and a friend.
pub(crate) struct Talk<'a> {
    player: &'a Player<'a>,
    session: SessionId,
    owner: Follower,
    friend: Follower,
}

fn follow(person: &Person, project: &ProjectId, session: &SessionId) -> Follower {
    let backoff = Backoff { first: Duration::from_millis(2), max: Duration::from_millis(50) };
    let options = FollowOptions { backoff, failures_max: 100, ..FollowOptions::default() };
    Follower::start(person.client.clone(), project.clone(), session.clone(), options)
}

impl<'a> Talk<'a> {
    pub(crate) fn follow(player: &'a Player<'_>, project: &ProjectId, session: SessionId) -> Self {
        let owner = follow(player.person, project, &session);
        let friend = follow(player.operator, project, &session);
        Self { player, session, owner, friend }
    }

    pub(crate) fn session(&self) -> &SessionId {
        &self.session
    }

    /// Sends a message until its run ends as it should.
    pub(crate) async fn run(&mut self, what: &'static str, script: &str, how: How) {
        let expected = if how == How::Cancel { RunStatus::Cancelled } else { RunStatus::Completed };
        let player = self.player;
        let attempt = async || {
            let run = self.try_send(script).await?;
            let status = self.ended(&run, how).await;
            if status == expected { Ok(()) } else { Err(Trouble::RunEnded(status)) }
        };
        player.insist(what, attempt).await;
    }

    /// Sends a message, once.
    pub(crate) async fn try_send(&self, script: &str) -> Result<RunId, Trouble> {
        let (session_id, content) = (self.session.clone(), Content::Text(script.to_owned()));
        let request = MessageSend { session_id, content, when_busy: None, attachments: Vec::new() };
        Ok(self.owner.call(request).await?.payload.run_id)
    }

    /// Runs an operation as the owner, once.
    pub(crate) async fn call<R: Request>(&self, request: R) -> Result<R::Response, Trouble> {
        Ok(self.owner.call(request).await?.payload)
    }

    /// Waits for the end of a run, which both hear.
    pub(crate) async fn ended(&mut self, run: &RunId, how: How) -> RunStatus {
        // What was asked before is of an earlier attempt, and is over.
        let (mut has_started, mut is_cancelled) = (false, false);
        let status = loop {
            match next(self.player, &mut self.owner).await {
                Update::Text { .. } if how == How::Cancel && !is_cancelled => {
                    is_cancelled = true;
                    self.cancel().await;
                }
                Update::Event(frame) => match frame.event {
                    Event::RunStarted { run: started } => has_started |= started.id == *run,
                    Event::ToolApprovalRequired { tool_call_id, .. }
                        if has_started && matches!(how, How::Approve | How::Reject) =>
                    {
                        self.decide(tool_call_id, how).await;
                    }
                    Event::QuestionAsked { question_id, .. }
                        if has_started && how == How::Approve =>
                    {
                        self.reply(question_id).await;
                    }
                    Event::RunCompleted { run_id, status, .. } if run_id == *run => break status,
                    _ => {}
                },
                _ => {}
            }
        };
        loop {
            if let Update::Event(frame) = next(self.player, &mut self.friend).await
                && let Event::RunCompleted { run_id, status: heard, .. } = frame.event
                && run_id == *run
            {
                assert_eq!(heard, status);
                return status;
            }
        }
    }

    /// Ends the run that is active.
    pub(crate) async fn cancel(&self) {
        let cancel = async || {
            self.owner.call(RunCancel { session_id: self.session.clone() }).await?;
            Ok(())
        };
        self.player.insist_done("cancel", cancel).await;
    }

    async fn reply(&self, question_id: QuestionId) {
        let reply = async || {
            let (session_id, question_id) = (self.session.clone(), question_id.clone());
            let answers = vec![vec!["this one".to_owned()]];
            self.owner.call(QuestionAnswer { session_id, question_id, answers }).await?;
            Ok(())
        };
        self.player.insist_done("answer", reply).await;
    }

    async fn decide(&self, tool_call_id: ToolCallId, how: How) {
        let decide = async || {
            let (session_id, tool_call_id) = (self.session.clone(), tool_call_id.clone());
            if how == How::Reject {
                let request = ToolReject { session_id, tool_call_id, reason: None };
                self.owner.call(request).await?;
            } else {
                let request = ToolApprove {
                    session_id,
                    tool_call_id,
                    remember: None,
                    input_hash: None,
                    input: None,
                };
                self.owner.call(request).await?;
            }
            Ok(())
        };
        self.player.insist_done("decide", decide).await;
    }

    /// Waits until a run says something; gives its end when that came first.
    pub(crate) async fn said(&mut self, run: &RunId) -> Option<RunStatus> {
        let mut has_started = false;
        loop {
            match next(self.player, &mut self.owner).await {
                Update::Text { .. } if has_started => return None,
                Update::Event(frame) => match frame.event {
                    Event::RunStarted { run: started } => has_started |= started.id == *run,
                    Event::RunCompleted { run_id, status, .. } if run_id == *run => {
                        return Some(status);
                    }
                    _ => {}
                },
                _ => {}
            }
        }
    }

    /// Whether neither the session nor its sub-agents do anything.
    pub(crate) async fn rests(&self) -> Result<bool, Trouble> {
        let children = self.sub_agents().await?;
        let session_id = self.session.clone();
        let get = SessionGet { session_id, limit: Some(1), before: None };
        let own = self.owner.call(get).await?.payload.session;
        let rests = |state| matches!(state, SessionState::Idle | SessionState::Interrupted);
        Ok(children.iter().all(|child| rests(child.state)) && rests(own.state))
    }

    async fn sub_agents(&self) -> Result<Vec<Session>, Trouble> {
        let parent_id = Some(self.session.clone());
        let list = SessionList { limit: None, cursor: None, include_archived: None, parent_id };
        Ok(self.owner.call(list).await?.payload.sessions)
    }

    /// Sends a message to the sub-agent that works.
    pub(crate) async fn say_to_sub_agent(&self, script: &str) -> Result<(), Trouble> {
        let children = self.sub_agents().await?.into_iter();
        let Some(at_work) = children.max_by(|a, b| a.id.cmp(&b.id)) else { return Ok(()) };
        let content = Content::Text(script.to_owned());
        let send = MessageSend {
            session_id: at_work.id,
            content,
            when_busy: None,
            attachments: Vec::new(),
        };
        self.owner.call(send).await?;
        Ok(())
    }

    /// Waits until a run has set a sub-agent to work; gives its end when that came first.
    pub(crate) async fn set_to_work(&mut self, run: &RunId) -> Option<RunStatus> {
        let works = |event: &Event| {
            let Event::MessageSubtaskUpdated { part, .. } = event else { return false };
            part.state == SubtaskState::Running
        };
        self.comes(run, works).await
    }

    /// Waits until a tool call of a run asks for a person; gives its end when that came first.
    pub(crate) async fn asks(&mut self, run: &RunId) -> Option<RunStatus> {
        self.comes(run, |event| matches!(event, Event::ToolApprovalRequired { .. })).await
    }

    /// Waits for an event of a run; gives its end when that came first.
    async fn comes(&mut self, run: &RunId, is_it: impl Fn(&Event) -> bool) -> Option<RunStatus> {
        let mut has_started = false;
        loop {
            let Update::Event(frame) = next(self.player, &mut self.owner).await else { continue };
            match frame.event {
                Event::RunStarted { run: started } => has_started |= started.id == *run,
                Event::RunCompleted { run_id, status, .. } if run_id == *run => {
                    return Some(status);
                }
                event if has_started && is_it(&event) => return None,
                _ => {}
            }
        }
    }

    /// Waits until a tool call asks for a person.
    pub(crate) async fn asked(&mut self) {
        loop {
            if let Update::Event(frame) = next(self.player, &mut self.owner).await
                && let Event::ToolApprovalRequired { .. } = frame.event
            {
                return;
            }
        }
    }
}

/// What a follower hears next; a lost connection is noted.
async fn next(player: &Player<'_>, follower: &mut Follower) -> Update {
    let update = follower.next().await.unwrap_or_else(|error| panic!("following: {error}"));
    if let Update::Reconnecting { reason, .. } = &update {
        // Either the socket was closed, or joining the room again was refused.
        assert!(!reason.contains("closed with code") || reason.contains("`1011`"), "{reason}");
        player.note("follow", Trouble::Closed(1011));
    }
    update
}
