//! What happens in the story, and what must have come of it when the scripted model told it.

use iris_protocol::{Approval, ApprovalState, Event, ToolState, UserId};

use super::cast::Viewer;
use super::checks::{Check, Evidence};

/// The file that ann puts there.
pub(super) const NOTES_PATH: &str = "notes.md";
/// What is in it.
pub(super) const NOTES: &str = "The party begins on Friday at eight.\n";
/// What the scripted model answers.
pub(super) const SCRIPT: &str = include_str!("script.txt");
/// What ann says to the scripted model.
pub(super) const MESSAGES: [&str; 2] =
    ["Please read notes.md and write us a plan.", "Please write down who comes, too."];
/// What ann says to a real one: small models do what they are told word by word.
pub(super) const REAL_MESSAGES: [&str; 2] =
    ["Use the tool read: notes.md", "Use the tool write: guests.md"];
/// The file that the agent writes and ben approves.
pub(super) const APPROVED_PATH: &str = "plan.md";
/// The file that the agent wants to write and ben rejects.
pub(super) const REJECTED_PATH: &str = "guests.md";
/// Why he does.
pub(super) const REASON: &str = "the guests shall stay a surprise";

/// What must have come of the scripted story.
pub(super) fn checks(evidence: &Evidence) -> Vec<Check> {
    vec![
        quoted(evidence),
        decided(evidence, "ben approved the first file", ApprovalState::Approved, APPROVED_PATH),
        decided(evidence, "ben rejected the second file", ApprovalState::Rejected, REJECTED_PATH),
        approved_is_on_disk(evidence),
        rejected_is_not_there(evidence),
        answer_reacts(evidence),
    ]
}

fn quoted(evidence: &Evidence) -> Check {
    let texts = texts(evidence).join("\n");
    let missing = NOTES.lines().filter(|line| !texts.contains(line));
    let failures = missing.map(|line| format!("the agent never said `{line}`")).collect();
    Check::new(format!("the agent quoted what it read in `{NOTES_PATH}`"), failures)
}

fn decided(evidence: &Evidence, claim: &str, state: ApprovalState, path: &str) -> Check {
    let failure = match decision(evidence, path) {
        None => Some(format!("nobody decided about `{path}`")),
        Some((was, _)) if was != state => Some(format!("it ended as `{was:?}`")),
        Some((_, by)) if by != evidence.ben_id.as_ref() => Some("somebody else decided".to_owned()),
        Some(_) => None,
    };
    Check::new(format!("{claim}, `{path}`"), failure.into_iter().collect())
}

fn approved_is_on_disk(evidence: &Evidence) -> Check {
    let approved =
        asked(evidence, APPROVED_PATH).and_then(|asked| asked.input.get("content")?.as_str());
    let found = evidence.files.get(APPROVED_PATH).and_then(Option::as_deref);
    let failure = match (approved, found) {
        (None, _) => Some("the agent never asked to write it".to_owned()),
        (Some(_), None) => Some("it is not there".to_owned()),
        (Some(approved), Some(found)) if approved != found => Some(format!("it holds `{found}`")),
        (Some(_), Some(_)) => None,
    };
    let claim = format!("`{APPROVED_PATH}` holds what ben approved");
    Check::new(claim, failure.into_iter().collect())
}

fn rejected_is_not_there(evidence: &Evidence) -> Check {
    let failure = match evidence.files.get(REJECTED_PATH) {
        Some(None) => None,
        Some(Some(found)) => Some(format!("it holds `{found}`")),
        None => Some("nobody looked".to_owned()),
    };
    Check::new(format!("`{REJECTED_PATH}` does not exist"), failure.into_iter().collect())
}

fn answer_reacts(evidence: &Evidence) -> Check {
    let denied = evidence.seen_by(Viewer::Ben).iter().any(|frame| {
        matches!(&frame.event, Event::MessageToolError { state: ToolState::Denied, .. })
    });
    let mut failures = Vec::new();
    if !denied {
        failures.push("no tool call was denied".to_owned());
    }
    if !texts(evidence).last().is_some_and(|text| text.contains(REASON)) {
        failures.push(format!("it does not say `{REASON}`"));
    }
    Check::new("the last answer reacts to ben's reason", failures)
}

/// The texts of the agent, as ben saw them.
fn texts(evidence: &Evidence) -> Vec<&str> {
    let frames = evidence.seen_by(Viewer::Ben).iter();
    let texts = frames.filter_map(|frame| {
        let Event::MessageTextComplete { text, .. } = &frame.event else { return None };
        Some(text.as_str())
    });
    texts.collect()
}

/// What the agent asked for when it wanted to write `path`.
fn asked<'a>(evidence: &'a Evidence, path: &str) -> Option<&'a Approval> {
    let mut frames = evidence.seen_by(Viewer::Ben).iter();
    frames.find_map(|frame| {
        let Event::ToolApprovalRequired { approval, .. } = &frame.event else { return None };
        approval.as_deref().filter(|approval| approval.input.get("path").is_some_and(|p| p == path))
    })
}

/// How it ended, and who decided.
fn decision<'a>(evidence: &'a Evidence, path: &str) -> Option<(ApprovalState, Option<&'a UserId>)> {
    let asked = asked(evidence, path)?;
    let mut frames = evidence.seen_by(Viewer::Ben).iter();
    frames.find_map(|frame| {
        let Event::ToolApprovalResolved { approval_id, state, by, .. } = &frame.event else {
            return None;
        };
        (*approval_id == asked.id).then_some((*state, by.as_ref()))
    })
}
