//! Which answers were asked for.

use std::collections::{HashSet, VecDeque};

use rmcp::model::{
    ClientJsonRpcMessage, ClientNotification, JsonRpcMessage, RequestId, ServerJsonRpcMessage,
};

/// Requests that ended and are remembered, to tell a second answer from one that nobody asked for.
const ENDED_MAX: usize = 256;
/// Requests of the server that may wait for their answers.
const THEIRS_MAX: usize = 8;

/// What becomes of a message of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It is passed on.
    Taken,
    /// An answer to what was never asked.
    Unknown,
    /// An answer to what was answered already, or is not waited for any more.
    Repeated,
    /// One request more than may wait, or one with the id of another that waits.
    Surplus,
}

/// The requests of both sides that are not answered yet.
#[derive(Debug, Default)]
pub(crate) struct Correlation {
    ours: HashSet<RequestId>,
    ended: VecDeque<RequestId>,
    theirs: HashSet<RequestId>,
}

impl Correlation {
    /// A message is about to be sent.
    pub(crate) fn sent(&mut self, message: &ClientJsonRpcMessage) {
        match message {
            JsonRpcMessage::Request(request) => {
                self.ours.insert(request.id.clone());
            }
            JsonRpcMessage::Response(response) => {
                self.theirs.remove(&response.id);
            }
            JsonRpcMessage::Error(error) => {
                if let Some(id) = &error.id {
                    self.theirs.remove(id);
                }
            }
            JsonRpcMessage::Notification(notification) => {
                if let ClientNotification::CancelledNotification(cancelled) =
                    &notification.notification
                    && let Some(id) = &cancelled.params.request_id
                {
                    self.end(&id.clone());
                }
            }
        }
    }

    /// A request is not waited for any more.
    pub(crate) fn end(&mut self, id: &RequestId) -> bool {
        if !self.ours.remove(id) {
            return false;
        }
        self.ended.push_back(id.clone());
        if self.ended.len() > ENDED_MAX {
            self.ended.pop_front();
        }
        true
    }

    /// Whether the answer to `id` has not come yet and is waited for.
    pub(crate) fn waits_for(&self, id: &RequestId) -> bool {
        self.ours.contains(id)
    }

    /// A message of the server came.
    pub(crate) fn came(&mut self, message: &ServerJsonRpcMessage) -> Admission {
        match message {
            JsonRpcMessage::Notification(_) => Admission::Taken,
            JsonRpcMessage::Request(request) => {
                let has_room = self.theirs.len() < THEIRS_MAX;
                if has_room && self.theirs.insert(request.id.clone()) {
                    return Admission::Taken;
                }
                Admission::Surplus
            }
            JsonRpcMessage::Response(response) => self.answered(&response.id),
            JsonRpcMessage::Error(error) => {
                error.id.as_ref().map_or(Admission::Unknown, |id| self.answered(id))
            }
        }
    }

    fn answered(&mut self, id: &RequestId) -> Admission {
        let id = as_number(id);
        if self.end(&id) {
            return Admission::Taken;
        }
        if self.ended.contains(&id) { Admission::Repeated } else { Admission::Unknown }
    }
}

/// Our ids are numbers; some servers give them back as text.
fn as_number(id: &RequestId) -> RequestId {
    match id {
        RequestId::Number(_) => id.clone(),
        RequestId::String(text) => text.parse().map_or_else(|_| id.clone(), RequestId::Number),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn request(id: i64) -> ClientJsonRpcMessage {
        let message = json!({"jsonrpc": "2.0", "id": id, "method": "ping"});
        serde_json::from_value(message).unwrap()
    }

    fn came(correlation: &mut Correlation, message: Value) -> Admission {
        correlation.came(&serde_json::from_value(message).unwrap())
    }

    #[test]
    fn m3_answers_with_wrong_ids_and_second_answers_are_told_apart() {
        let mut correlation = Correlation::default();
        correlation.sent(&request(1));
        correlation.sent(&request(2));
        let answer = |id: Value| json!({"jsonrpc": "2.0", "id": id, "result": {}});
        assert_eq!(came(&mut correlation, answer(json!(7))), Admission::Unknown);
        assert_eq!(came(&mut correlation, answer(json!("x"))), Admission::Unknown);
        assert_eq!(came(&mut correlation, answer(json!(1))), Admission::Taken);
        assert_eq!(came(&mut correlation, answer(json!(1))), Admission::Repeated);
        assert_eq!(came(&mut correlation, answer(json!("2"))), Admission::Taken);
        let error = json!({"jsonrpc": "2.0", "id": 2, "error": {"code": 1, "message": "no"}});
        assert_eq!(came(&mut correlation, error), Admission::Repeated);
    }

    #[test]
    fn an_answer_after_the_end_of_the_wait_is_late() {
        let mut correlation = Correlation::default();
        correlation.sent(&request(1));
        let cancelled = json!({"jsonrpc": "2.0", "method": "notifications/cancelled",
            "params": {"requestId": 1}});
        correlation.sent(&serde_json::from_value(cancelled).unwrap());
        let answer = json!({"jsonrpc": "2.0", "id": 1, "result": {}});
        assert_eq!(came(&mut correlation, answer), Admission::Repeated);
    }

    #[test]
    fn a_server_has_few_requests_that_wait() {
        let mut correlation = Correlation::default();
        let ask = |id: usize| json!({"jsonrpc": "2.0", "id": id, "method": "ping"});
        for id in 0..THEIRS_MAX {
            assert_eq!(came(&mut correlation, ask(id)), Admission::Taken);
        }
        assert_eq!(came(&mut correlation, ask(THEIRS_MAX)), Admission::Surplus);
        let answer = json!({"jsonrpc": "2.0", "id": 0, "result": {}});
        correlation.sent(&serde_json::from_value(answer).unwrap());
        assert_eq!(came(&mut correlation, ask(1)), Admission::Surplus, "its id waits");
        assert_eq!(came(&mut correlation, ask(THEIRS_MAX)), Admission::Taken);
    }

    #[test]
    fn what_ended_is_remembered_within_bounds() {
        let mut correlation = Correlation::default();
        for id in 0..1000 {
            correlation.sent(&request(id));
            correlation.end(&RequestId::Number(id));
        }
        assert_eq!((correlation.ours.len(), correlation.ended.len()), (0, ENDED_MAX));
    }
}
