//! What must hold of what two people saw of one session, whichever model answered.
//!
//! Pure: takes what was gathered while the story was told, and says what is wrong with it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use iris_client::{PartChange, PartTracker};
use iris_protocol::{
    Event, EventFrame, Message, Part, PartId, Room, RunId, RunStatus, SessionSnapshot, ToolCallId,
    UserId,
};

use super::cast::Viewer;

/// Messages of ann in the story; each starts a run.
const RUNS: usize = 2;

/// What was gathered while the story was told.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    ann: Vec<EventFrame>,
    ben: Vec<EventFrame>,
    /// Who ben is, once he is there.
    pub(super) ben_id: Option<UserId>,
    /// The runs that ann's messages started.
    pub(super) runs: Vec<RunId>,
    /// Those that ann cancelled because they took too long.
    pub(super) cancelled: Vec<RunId>,
    /// The session as the server has recorded it, after the last run.
    pub(super) stored: Option<SessionSnapshot>,
    /// Files that were looked for afterwards, by path; `None` for one that is not there.
    pub(super) files: BTreeMap<&'static str, Option<String>>,
}

impl Evidence {
    /// Every event that reached one of the two, in order of arrival.
    pub(super) fn seen_by(&self, viewer: Viewer) -> &[EventFrame] {
        match viewer {
            Viewer::Ann => &self.ann,
            Viewer::Ben => &self.ben,
        }
    }

    /// Whether each number up to `last` has reached one of the two. Every numbered event of the project
    /// is in one of the rooms that both have joined.
    pub(super) fn has_all(&self, viewer: Viewer, last: u64) -> bool {
        let numbers: BTreeSet<_> =
            self.seen_by(viewer).iter().filter_map(|frame| frame.meta.seq).collect();
        (1..=last).all(|seq| numbers.contains(&seq))
    }

    /// Notes that an event has reached one of the two.
    pub(super) fn keep(&mut self, viewer: Viewer, frame: EventFrame) {
        match viewer {
            Viewer::Ann => self.ann.push(frame),
            Viewer::Ben => self.ben.push(frame),
        }
    }
}

/// One claim, and all that speaks against it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Check {
    /// What should be so, as a sentence without its full stop.
    pub(super) claim: String,
    /// What was found instead; empty when it is so.
    pub(super) failures: Vec<String>,
}

impl Check {
    pub(super) fn new(claim: impl Into<String>, failures: Vec<String>) -> Self {
        Self { claim: claim.into(), failures }
    }

    pub(super) fn holds(&self) -> bool {
        self.failures.is_empty()
    }

    pub(super) fn json(&self) -> serde_json::Value {
        let status = if self.holds() { "ok" } else { "failed" };
        serde_json::json!({ "claim": self.claim, "status": status, "failures": self.failures })
    }
}

/// What must hold for any model.
pub(super) fn hold_for_any_model(evidence: &Evidence) -> Vec<Check> {
    vec![
        same_events(evidence),
        whole_chains(evidence),
        whole_texts(evidence),
        stored_texts(evidence),
        one_result_each(evidence),
        runs_completed(evidence),
    ]
}

/// The numbered events of each room, in order of arrival.
fn rooms(frames: &[EventFrame]) -> BTreeMap<&Room, Vec<&EventFrame>> {
    let mut rooms: BTreeMap<&Room, Vec<&EventFrame>> = BTreeMap::new();
    for frame in frames.iter().filter(|frame| frame.meta.seq.is_some()) {
        rooms.entry(&frame.meta.room).or_default().push(frame);
    }
    rooms
}

fn same_events(evidence: &Evidence) -> Check {
    let (ann, ben) = (rooms(&evidence.ann), rooms(&evidence.ben));
    let mut failures = Vec::new();
    if ann.is_empty() {
        failures.push("ann saw none".to_owned());
    }
    for room in ann.keys().chain(ben.keys().filter(|room| !ann.contains_key(*room))) {
        let ann = ann.get(room).map_or(&[][..], Vec::as_slice);
        let ben = ben.get(room).map_or(&[][..], Vec::as_slice);
        if let Some(at) = (0..ann.len().max(ben.len())).find(|at| ann.get(*at) != ben.get(*at)) {
            let (ann, ben) = (named(ann.get(at)), named(ben.get(at)));
            failures.push(format!("event {} of `{room}`: ann saw {ann}, ben {ben}", at + 1));
        }
    }
    Check::new("both saw the same durable events in the same order", failures)
}

fn named(frame: Option<&&EventFrame>) -> String {
    let Some(frame) = frame else { return "nothing".to_owned() };
    format!("`{}` with seq {}", frame.event.name(), frame.meta.seq.unwrap_or(0))
}

fn whole_chains(evidence: &Evidence) -> Check {
    let mut failures = Vec::new();
    for viewer in Viewer::BOTH {
        for (room, frames) in rooms(evidence.seen_by(viewer)) {
            let mut last = 0;
            for meta in frames.iter().map(|frame| &frame.meta) {
                let (seq, prev) = (meta.seq.unwrap_or(0), meta.prev.unwrap_or(0));
                let place = format!("{} in `{room}`: seq {seq}", viewer.name());
                if seq <= last {
                    failures.push(format!("{place} came after seq {last}"));
                } else if prev != last {
                    failures.push(format!("{place} follows seq {prev}, but {last} was the last"));
                }
                last = last.max(seq);
            }
        }
    }
    Check::new("no gap and no duplicate: each event names the one before it", failures)
}

/// Joins the pieces as any client does, then compares with the whole text that ends a part.
fn whole_texts(evidence: &Evidence) -> Check {
    let mut failures = Vec::new();
    for viewer in Viewer::BOTH {
        let (mut pieces, mut parts) = (PartTracker::default(), 0);
        for frame in evidence.seen_by(viewer) {
            let change = pieces.apply(&frame.event);
            let Some((part_id, _)) = whole_text(&frame.event) else { continue };
            parts += 1;
            // Had the pieces been the whole text, there would be nothing left to change.
            if change != PartChange::Nothing {
                failures.push(format!("{}: the pieces of `{part_id}` differ", viewer.name()));
            }
        }
        if parts == 0 {
            failures.push(format!("{} saw no text", viewer.name()));
        }
    }
    Check::new("the pieces that streamed in are the final texts, on both sides", failures)
}

fn stored_texts(evidence: &Evidence) -> Check {
    let claim = "the final texts are the ones that the server has stored";
    let Some(snapshot) = &evidence.stored else {
        return Check::new(claim, vec!["nobody looked".to_owned()]);
    };
    let stored: HashMap<_, _> = snapshot.messages.iter().flat_map(texts).collect();
    let seen = evidence.ben.iter().filter_map(|frame| whole_text(&frame.event));
    let wrong = seen.filter(|(part_id, text)| stored.get(part_id) != Some(text));
    let failures = wrong.map(|(part_id, _)| format!("`{part_id}` differs")).collect();
    Check::new(claim, failures)
}

fn texts(message: &Message) -> impl Iterator<Item = (&PartId, &str)> {
    message.parts.iter().filter_map(|part| match part {
        Part::Text { id, text, .. } | Part::Reasoning { id, text, .. } => Some((id, text.as_str())),
        Part::Tool(_)
        | Part::Subtask(_)
        | Part::Compaction(_)
        | Part::AnswerFormat(_)
        | Part::Attachment(_)
        | Part::Step { .. } => None,
    })
}

fn whole_text(event: &Event) -> Option<(&PartId, &str)> {
    if let Event::MessageTextComplete { part_id, text, .. }
    | Event::MessageReasoningComplete { part_id, text, .. } = event
    {
        return Some((part_id, text));
    }
    None
}

fn one_result_each(evidence: &Evidence) -> Check {
    let mut failures = Vec::new();
    for viewer in Viewer::BOTH {
        let mut results: BTreeMap<&ToolCallId, (u32, u32)> = BTreeMap::new();
        for frame in evidence.seen_by(viewer) {
            if let Event::MessageToolCall { tool_call_id, .. } = &frame.event {
                results.entry(tool_call_id).or_default().0 += 1;
            } else if let Event::MessageToolResult { tool_call_id, .. }
            | Event::MessageToolError { tool_call_id, .. } = &frame.event
            {
                results.entry(tool_call_id).or_default().1 += 1;
            }
        }
        let wrong = results.into_iter().filter(|(_, counts)| *counts != (1, 1));
        failures.extend(wrong.map(|(call, (calls, results))| {
            format!("{}: `{call}` was called {calls} times, answered {results}", viewer.name())
        }));
    }
    Check::new("each tool call has exactly one result", failures)
}

fn runs_completed(evidence: &Evidence) -> Check {
    let mut failures = Vec::new();
    if evidence.runs.len() != RUNS {
        failures.push(format!("{} of {RUNS} runs were started", evidence.runs.len()));
    }
    if evidence.cancelled.len() == RUNS {
        failures.push("ann had to cancel all of them".to_owned());
    }
    for viewer in Viewer::BOTH {
        for run in &evidence.runs {
            let end = evidence.seen_by(viewer).iter().find_map(|frame| end_of(&frame.event, run));
            let problem = match end {
                Some((RunStatus::Completed, _)) => continue,
                Some((RunStatus::Cancelled, _)) if evidence.cancelled.contains(run) => continue,
                Some((status, Some(why))) => format!("ended as `{status:?}`: {why}"),
                Some((status, None)) => format!("ended as `{status:?}`"),
                None => "did not end".to_owned(),
            };
            failures.push(format!("{}: `{run}` {problem}", viewer.name()));
        }
    }
    let completed = RUNS - evidence.cancelled.len().min(RUNS);
    let claim = match RUNS - completed {
        0 => format!("all {RUNS} runs completed"),
        cancelled => format!("{completed} of {RUNS} runs completed, ann cancelled {cancelled}"),
    };
    Check::new(claim, failures)
}

fn end_of(event: &Event, run: &RunId) -> Option<(RunStatus, Option<String>)> {
    let Event::RunCompleted { run_id, status, error, .. } = event else { return None };
    (run_id == run).then(|| (*status, error.as_ref().map(ToString::to_string)))
}

#[cfg(test)]
#[path = "checks_tests.rs"]
mod tests;
