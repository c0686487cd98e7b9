//! A session whose mailbox fills because it takes no messages.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use iris_actors::supervision::RecordFilter;
use iris_actors::supervision::faults::{Armed, Fault};
use iris_client::{ClientError, Socket};
use iris_protocol::{
    ApprovalState, Content, ErrorCode, Event, MessageAccepted, MessageSend, RunStatus,
    SupervisionKind,
    limits::{QUEUED_MESSAGES_MAX, REQUESTS_IN_FLIGHT_MAX},
};
use iris_testkit::{AppOptions, Conversation, moment, patiently, text_of};

use crate::player::project_path;
use crate::stage::Stage;

/// From this depth on a session's callers are refused.
const MAILBOX_LIMIT: usize = 256;
/// Enough sockets to fill the mailbox and be refused.
const SOCKETS: usize = MAILBOX_LIMIT / REQUESTS_IN_FLIGHT_MAX + 1;
const REFUSED: usize = SOCKETS * REQUESTS_IN_FLIGHT_MAX - MAILBOX_LIMIT;

/// Makes a session take no messages any more.
async fn freeze(stage: &Stage, path: &str) {
    let (kind, message) = ("session", "Observe".to_owned());
    let armed = Armed { kind, message, fault: Fault::Freeze, times: 1 };
    stage.app.supervision().faults().arm_under(path, armed);
    stage.operator.client.actor(path).await.unwrap();
    assert!(stage.app.supervision().faults().armed().is_empty());
}

async fn send(socket: &Socket, talk: &Conversation) -> Result<MessageAccepted, ClientError> {
    let (session_id, content) = (talk.session.clone(), Content::Text("say ok".to_owned()));
    let request = MessageSend { session_id, content, when_busy: None, attachments: Vec::new() };
    Ok(socket.call(Some(&talk.project), request).await?.payload)
}

/// Sends more messages to a frozen session than its mailbox takes, until `REFUSED` of them were refused.
/// Gives those that wait.
async fn fill<'a>(
    sockets: &'a [Socket],
    talk: &'a Conversation,
) -> FuturesUnordered<impl Future<Output = Result<MessageAccepted, ClientError>> + 'a> {
    let sent =
        sockets.iter().flat_map(|socket| std::iter::repeat_n(socket, REQUESTS_IN_FLIGHT_MAX));
    let mut sent: FuturesUnordered<_> = sent.map(|socket| send(socket, talk)).collect();
    for _ in 0..REFUSED {
        let answer = patiently("a refusal", sent.next()).await.unwrap();
        let Err(ClientError::Api(error)) = answer else { panic!("{answer:?}") };
        assert_eq!(error.code, ErrorCode::Overloaded);
        assert!(error.retryable && error.retry_after_ms.is_some(), "{error:?}");
    }
    sent
}

/// Restarts a session once one message more waits for it than callers may send.
async fn restart_once_one_more_waits(stage: &Stage, path: &str) {
    let waits = MAILBOX_LIMIT as u64 + 1;
    let it_waits = async {
        while stage.operator.client.actor(path).await.unwrap().actor.mailbox_depth < waits {
            moment().await;
        }
    };
    patiently("one more to wait", it_waits).await;
    stage.operator.client.restart_actor(path).await.unwrap();
}

#[tokio::test]
async fn a_full_mailbox_refuses_callers_while_what_ends_something_gets_through() {
    let stage = Stage::set(AppOptions::default()).await;
    let mut talk = stage.person.conversation().await;
    talk.send_message("call write {\"path\": \"a\", \"content\": \"\"}").await;
    let call = talk.approval().await.tool_call_id;
    let path = format!("{}/session/{}", project_path(&talk.project), talk.session);
    freeze(&stage, &path).await;

    let sockets = join_all((0..SOCKETS).map(|_| stage.person.connect())).await;
    let mut sent = fill(&sockets, &talk).await;
    let full = stage.operator.client.actor(&path).await.unwrap().actor;
    let counts = (full.mailbox_depth, full.mailbox_limit, full.refused);
    assert_eq!(counts, (MAILBOX_LIMIT as u64, MAILBOX_LIMIT as u64, REFUSED as u64));

    // It is not refused, and the restart need not wait for the mailbox.
    let restart = restart_once_one_more_waits(&stage, &path);
    let (approved, ()) = tokio::join!(talk.approve(&call), restart);

    // What waited is handled by the new life, in which the run goes on.
    assert_eq!(approved.unwrap().state, ApprovalState::Approved);
    let (mut accepted, mut refused) = (Vec::new(), BTreeMap::new());
    while let Some(answer) = patiently("an answer", sent.next()).await {
        match answer {
            Ok(message) => accepted.push(message),
            Err(ClientError::Api(error)) => *refused.entry(error.code.as_str()).or_insert(0) += 1,
            Err(error) => panic!("{error}"),
        }
    }
    drop(sent);
    assert_eq!(accepted.len() + refused.values().sum::<usize>(), MAILBOX_LIMIT);
    assert!(accepted.len() >= QUEUED_MESSAGES_MAX, "{refused:?}");
    let mut waiting: BTreeSet<String> =
        accepted.into_iter().map(|m| m.run_id.to_string()).collect();
    while !waiting.is_empty() {
        let frame = talk.wait_for("run.completed").await;
        let Event::RunCompleted { run_id, status, .. } = frame.event else { panic!("{frame:?}") };
        assert!(!waiting.remove(run_id.as_str()) || status == RunStatus::Completed);
    }
    let kind = Some(SupervisionKind::Overloaded);
    let filter = RecordFilter { since: None, kind, path: Some(path.clone()) };
    let told = stage.app.supervision().log().records(&filter);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0].counts["depth"], told[0].counts["limit"]), (256, 256));

    // A stop gets through as well; the next message starts the session anew.
    freeze(&stage, &path).await;
    stage.operator.client.stop_actor(&path).await.unwrap();
    assert_eq!(text_of(&talk.ask("say anew").await), "anew");
}

#[tokio::test]
async fn a_cancel_gets_through_a_full_mailbox_and_holds_through_a_restart() {
    let stage = Stage::set(AppOptions::default()).await;
    let mut talk = stage.person.conversation().await;
    let run = talk.send_message("call write {\"path\": \"a\", \"content\": \"\"}").await.run_id;
    let call = talk.approval().await.tool_call_id;
    let path = format!("{}/session/{}", project_path(&talk.project), talk.session);
    freeze(&stage, &path).await;
    let sockets = join_all((0..SOCKETS).map(|_| stage.person.connect())).await;
    let sent = fill(&sockets, &talk).await;
    let restart = restart_once_one_more_waits(&stage, &path);
    let (cancelled, ()) = tokio::join!(talk.cancel(), restart);
    assert!(cancelled);
    drop(sent);
    assert_eq!(talk.run_ended(&run).await, RunStatus::Cancelled);
    let Err(ClientError::Api(error)) = talk.approve(&call).await else { panic!("approved") };
    assert_eq!(error.code, ErrorCode::Gone);
}
