//! What a model said in one call, against what the machine made of it.

use iris_agent::{Input, StepPart, TurnLimits, Verdict};
use iris_protocol::{FinishReason, PartId, StreamKind, ToolState, Usage};
use serde_json::Value;

/// What the model said in one call, and what of it was shown.
#[derive(Default)]
pub(crate) struct ModelCall {
    said: Vec<(StreamKind, u32, String)>,
    pub(crate) shown: Vec<StepPart>,
    pub(crate) called: Vec<(String, Value, Verdict)>,
    pub(crate) usage: Usage,
    pub(crate) finished: Option<FinishReason>,
    pub(crate) is_aborted: bool,
    /// Whether a summary is asked for, not an answer.
    pub(crate) is_summary: bool,
}

impl ModelCall {
    pub(crate) fn hear(&mut self, (kind, index, piece): (StreamKind, u32, String)) {
        let open = self.said.iter_mut().find(|(k, i, _)| (*k, *i) == (kind, index));
        if let Some((_, _, text)) = open {
            text.push_str(&piece);
        } else if !piece.is_empty() {
            self.said.push((kind, index, piece));
        }
    }

    /// Pieces of one part follow each other without a gap or an overlap.
    pub(crate) fn show(
        &mut self,
        part_id: PartId,
        piece_kind: StreamKind,
        offset: u64,
        piece: &str,
    ) {
        for part in &mut self.shown {
            if let StepPart::Text { id, kind, text, .. } = part
                && *id == part_id
            {
                assert_eq!((*kind, text.len() as u64), (piece_kind, offset));
                text.push_str(piece);
                return;
            }
        }
        assert_eq!(offset, 0);
        let text = piece.to_owned();
        self.shown.push(StepPart::Text { id: part_id, kind: piece_kind, text, opaque: None });
    }

    /// What was shown is what was said: nothing is lost, doubled or mixed up.
    pub(crate) fn check_shown(&self) {
        let shown = self.shown.iter().map(|part| match part {
            StepPart::Text { kind, text, .. } => Some((*kind, text.as_str())),
            StepPart::Call { .. } | StepPart::Compaction(_) => None,
        });
        let said = self.said.iter().map(|(kind, _, text)| Some((*kind, text.as_str())));
        assert!(shown.eq(said), "said {:?}, shown {:?}", self.said, self.shown);
    }

    /// What is recorded is what was shown, and every call with what became of it.
    pub(crate) fn check_parts(&self, parts: &[StepPart], limits: &TurnLimits) {
        let is_text = |part: &&StepPart| matches!(part, StepPart::Text { .. });
        assert!(parts.iter().filter(is_text).eq(&self.shown), "recorded is not what was shown");
        let bytes: usize = self.said.iter().map(|(_, _, text)| text.len()).sum();
        assert!(bytes <= limits.step_text_bytes_max);

        let calls: Vec<_> = parts.iter().filter(|part| !is_text(part)).collect();
        assert_eq!(calls.len(), self.called.len());
        for (index, (part, called)) in calls.into_iter().zip(&self.called).enumerate() {
            check_call(part, called, index < limits.calls_per_step_max);
        }
    }
}

fn check_call(part: &StepPart, called: &(String, Value, Verdict), is_within_limit: bool) {
    let StepPart::Call { part, wait, .. } = part else { return };
    let (tool_name, input, verdict) = called;
    assert_eq!((&part.tool_name, &part.input), (tool_name, input));
    assert_eq!((&part.output, part.started_at, part.ended_at), (&None, None, None));
    let recorded = (part.state, wait.as_ref(), part.error.as_deref());
    match verdict {
        Verdict::Refuse(error) if is_within_limit => {
            assert_eq!(recorded, (ToolState::Error, None, Some(error.as_str())));
        }
        Verdict::Deny(error) if is_within_limit => {
            assert_eq!(recorded, (ToolState::Denied, None, Some(error.as_str())));
        }
        Verdict::Run if is_within_limit => assert_eq!(recorded, (ToolState::Running, None, None)),
        Verdict::Ask(asked) if is_within_limit => {
            assert_eq!(recorded, (ToolState::Waiting, Some(asked), None));
        }
        Verdict::Run | Verdict::Ask(_) | Verdict::Deny(_) | Verdict::Refuse(_) => {
            assert_eq!((part.state, wait), (ToolState::Error, &None));
            assert!(part.error.as_ref().is_some_and(|error| error.starts_with("at most")));
        }
    }
}

/// The piece of text in an input.
pub(crate) fn spoken(input: &Input) -> Option<(StreamKind, u32, String)> {
    if let Input::TextArrived { kind, index, text } = input {
        return Some((*kind, *index, text.clone()));
    }
    None
}
