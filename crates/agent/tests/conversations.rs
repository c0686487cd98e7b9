//! Conversations of any shape are told exactly: each call with its one result, thoughts with what their
//! provider wants back, and summaries in place of what came before them.

use std::collections::{BTreeMap, BTreeSet};

use iris_agent::compaction::{Draft, outputs_to_leave_out};
use iris_agent::tokens::entry_tokens;
use iris_agent::{
    Conversation, Opaque, PromptAttachment, PromptBlock, PromptMessage, TextRoom, said_with,
};
use iris_protocol::{
    AttachmentGiven, AttachmentPart, CompactionPart, FinishReason, Message, MessageId, MessageRole,
    MessageState, Part, PartId, RunId, SessionId, ToolCallId, ToolPart, ToolState, Usage,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;

#[derive(Debug, Clone)]
enum Piece {
    Text(&'static str, bool),
    Thought(&'static str, bool),
    Call(ToolState, usize),
    Ran,
    Step,
    Summary(u32),
}

fn piece() -> impl Strategy<Value = Piece> {
    use ToolState::{
        Cancelled, Completed, Denied, Error, Pending, Running, UnknownOutcome, Waiting,
    };
    let states = vec![
        Completed,
        Completed,
        Completed,
        Completed,
        Error,
        Denied,
        Cancelled,
        Pending,
        Running,
        UnknownOutcome,
        Waiting,
    ];
    prop_oneof![
        3 => (select(vec!["", "a", "long enough"]), prop::bool::weighted(0.1))
            .prop_map(|(text, cut)| Piece::Text(text, cut)),
        2 => (select(vec!["", "hm"]), prop::bool::weighted(0.1))
            .prop_map(|(text, cut)| Piece::Thought(text, cut)),
        4 => (select(states), select(vec![1, 600, 5_000]))
            .prop_map(|(state, bytes)| Piece::Call(state, bytes)),
        1 => Just(Piece::Ran),
        4 => Just(Piece::Step),
        1 => (0..3_u32).prop_map(Piece::Summary),
    ]
}

/// Runs: whether each has a message of a user, and its answer.
fn runs() -> impl Strategy<Value = Vec<(bool, Vec<Piece>)>> {
    vec((prop::bool::weighted(0.9), vec(piece(), 0..10)), 1..5)
}

struct Recorded {
    history: Vec<Message>,
    opaque: BTreeMap<PartId, Opaque>,
}

fn recorded(runs: &[(bool, Vec<Piece>)]) -> Recorded {
    let mut ids = 0;
    let mut next = || {
        ids += 1;
        ids
    };
    let (mut history, mut opaque) = (Vec::new(), BTreeMap::new());
    for (number, (is_asked, pieces)) in runs.iter().enumerate() {
        let run = RunId::from_bits(number as u128 + 1);
        if *is_asked {
            let text = format!("question {number}");
            let part = Part::Text { id: PartId::from_bits(next()), text, interrupted: false };
            history.push(message(MessageRole::User, &run, vec![part]));
        }
        let parts: Vec<Part> = pieces.iter().map(|piece| part(piece, next())).collect();
        for part in &parts {
            if matches!(part, Part::Reasoning { .. } | Part::Tool(_)) {
                let kept = Opaque { kind: "k".into(), json: format!("\"{}\"", part.id()).into() };
                opaque.insert(part.id().clone(), kept);
            }
        }
        history.push(message(MessageRole::Assistant, &run, parts));
    }
    Recorded { history, opaque }
}

fn message(role: MessageRole, run: &RunId, parts: Vec<Part>) -> Message {
    Message {
        id: MessageId::from_bits(1),
        session_id: SessionId::from_bits(1),
        run_id: Some(run.clone()),
        after_step: None,
        role,
        agent: None,
        model: None,
        parts,
        state: MessageState::Complete,
        finish_reason: None,
        error: None,
        usage: None,
        created_by: None,
        created_at: 0,
        completed_at: None,
    }
}

fn part(piece: &Piece, bits: u128) -> Part {
    let id = PartId::from_bits(bits);
    match piece {
        Piece::Text(text, interrupted) => {
            Part::Text { id, text: (*text).to_owned(), interrupted: *interrupted }
        }
        Piece::Thought(text, interrupted) => {
            Part::Reasoning { id, text: (*text).to_owned(), interrupted: *interrupted }
        }
        Piece::Call(state, bytes) => call(bits, *state, *bytes, false),
        Piece::Ran => call(bits, ToolState::Completed, 1, true),
        Piece::Step => Part::Step {
            id,
            index: 0,
            price_version: None,
            usage: Usage { input_tokens: 7, ..Usage::default() },
            answered_by: None,
            finish_reason: FinishReason::Stop,
            raw_finish_reason: None,
        },
        Piece::Summary(kept_steps) => Part::Compaction(CompactionPart {
            id,
            summary: format!("summary {bits}"),
            replaced: 1,
            kept_steps: *kept_steps,
            tokens_before: 2,
            tokens_after: 1,
        }),
    }
}

fn call(bits: u128, state: ToolState, bytes: usize, provider_executed: bool) -> Part {
    let is_done = state == ToolState::Completed;
    Part::Tool(ToolPart {
        id: PartId::from_bits(bits),
        tool_call_id: ToolCallId::from_bits(bits),
        tool_name: "read".to_owned(),
        input: json!({ "path": bits.to_string() }),
        state,
        output: is_done.then(|| "x".repeat(bytes)),
        attachment: None,
        error: (!is_done && state.is_final()).then(|| "why".to_owned()),
        metadata: None,
        provider_executed,
        started_at: None,
        ended_at: None,
    })
}

/// Each call is followed by its one result, in order, before anything else; none comes twice (INV-3).
fn check(messages: &[PromptMessage]) {
    let mut open: Vec<&str> = Vec::new();
    let mut seen = BTreeSet::new();
    for message in messages {
        match message {
            PromptMessage::ToolResult { call_id, .. } => {
                assert!(!open.is_empty(), "a result without a call");
                assert_eq!(open.remove(0), call_id);
            }
            PromptMessage::User { text, .. } => {
                assert!(open.is_empty() && !text.is_empty());
            }
            PromptMessage::Assistant { blocks } => {
                assert!(open.is_empty(), "{open:?} have no result");
                let is_thought =
                    |block: &PromptBlock| matches!(block, PromptBlock::Reasoning { .. });
                assert!(!blocks.iter().all(is_thought), "nothing but thoughts");
                for block in blocks {
                    match block {
                        PromptBlock::Call(call) => {
                            assert!(seen.insert(&call.call_id), "told twice");
                            assert!(call.opaque.is_some());
                            open.push(&call.call_id);
                        }
                        PromptBlock::Reasoning { opaque, .. }
                        | PromptBlock::ProviderTool { opaque, .. } => assert!(opaque.is_some()),
                        PromptBlock::Text { text, .. } => assert!(!text.is_empty()),
                    }
                }
            }
        }
    }
    assert!(open.is_empty(), "{open:?} have no result");
}

fn is_summary(message: &PromptMessage) -> bool {
    matches!(message, PromptMessage::User { text, .. } if text.contains("summary "))
}

proptest! {
    #[test]
    fn any_history_is_told_with_each_call_and_its_result(runs in runs()) {
        let Recorded { history, opaque } = recorded(&runs);
        let told = Conversation::of(&history, &opaque, None);
        check(&told.messages);
        // Of several summaries the last one is told, and it comes first.
        let summaries = told.messages.iter().filter(|it| is_summary(it)).count();
        let has_summary = runs.iter().any(|(_, pieces)| {
            pieces.iter().any(|piece| matches!(piece, Piece::Summary(_)))
        });
        prop_assert_eq!(summaries, usize::from(has_summary));
        prop_assert!(!has_summary || is_summary(&told.messages[0]));
        // The same again, for providers that keep what they were asked.
        prop_assert_eq!(&Conversation::of(&history, &opaque, None), &told);
        if let Some(counted) = &told.counted {
            prop_assert!(counted.entries <= told.messages.len());
        }
    }

    /// What the store would have after a summary is told as the draft of it promised.
    #[test]
    fn a_summary_takes_the_place_of_what_it_was_made_of(runs in runs(), room in 0..20_000_u64) {
        let Recorded { mut history, opaque } = recorded(&runs);
        // The run is in progress.
        history.last_mut().unwrap().state = MessageState::Streaming;
        let before = Conversation::of(&history, &opaque, None);
        let Some(draft) = Draft::of(&before, room, 4_000) else { return Ok(()) };
        prop_assert!(draft.replaced > 0);
        let part = CompactionPart {
            id: PartId::from_bits(1_000_000),
            summary: "summary new".to_owned(),
            replaced: draft.replaced,
            kept_steps: draft.kept_steps,
            tokens_before: 2,
            tokens_after: 1,
        };
        history.last_mut().unwrap().parts.push(Part::Compaction(part));
        let after = Conversation::of(&history, &opaque, None);
        check(&after.messages);
        prop_assert_eq!(
            after.messages.len(),
            before.messages.len() - draft.replaced as usize + 1
        );
        // What stays is told word for word, in its order.
        let kept = &after.messages[1..];
        let mut rest = before.messages.iter();
        prop_assert!(kept.iter().all(|message| rest.any(|other| other == message)));
        let saved = entry_tokens(&before.messages).saturating_sub(entry_tokens(&after.messages));
        prop_assert_eq!(draft.saves("summary new"), saved);
        // Nothing is left to make another one of, unless steps stayed.
        if draft.kept_steps == 0 {
            prop_assert_eq!(Draft::of(&after, room, 4_000), None);
        }
    }

    #[test]
    fn outputs_that_are_left_out_make_it_shorter_and_stay_left_out(
        runs in runs(),
        more in runs(),
        room in 0..20_000_u64,
    ) {
        let Recorded { history, opaque } = recorded(&runs);
        let before = Conversation::of(&history, &opaque, None);
        let Some(mark) = outputs_to_leave_out(&before, room) else { return Ok(()) };
        let after = Conversation::of(&history, &opaque, Some(&mark));
        check(&after.messages);
        prop_assert!(entry_tokens(&after.messages) < entry_tokens(&before.messages));
        prop_assert_eq!(after.messages.len(), before.messages.len());
        let last = before.messages.iter().rposition(|it| !matches!(it, PromptMessage::ToolResult { .. }));
        let last = last.unwrap_or(0);
        prop_assert_eq!(&after.messages[last..], &before.messages[last..], "not read yet");
        // What comes later changes nothing of it.
        let all: Vec<_> = runs.iter().chain(&more).cloned().collect();
        let has_summary = more.iter().any(|(_, pieces)| {
            pieces.iter().any(|piece| matches!(piece, Piece::Summary(_)))
        });
        let later = recorded(&all);
        let later = Conversation::of(&later.history, &later.opaque, Some(&mark));
        if !has_summary {
            prop_assert_eq!(&later.messages[..after.messages.len()], &after.messages[..]);
        }
    }
}

/// What people said while a run worked is told once, whatever was replaced by summaries meanwhile.
#[test]
fn what_joined_a_run_outlives_summaries() {
    use Piece::{Call, Step, Summary};
    let called = || [Call(ToolState::Completed, 1), Step];
    for (first_kept, second_kept, after_step) in
        (0..3).flat_map(|a| (0..3).flat_map(move |b| (0..7).map(move |c| (a, b, c))))
    {
        let mut pieces: Vec<Piece> = called().into_iter().chain(called()).collect();
        pieces.extend([Summary(first_kept), Step]);
        pieces.extend(called());
        pieces.extend([Summary(second_kept), Step]);
        pieces.extend(called());
        let Recorded { mut history, opaque } = recorded(&[(true, pieces)]);
        let run = RunId::from_bits(1);
        let (id, text) = (PartId::from_bits(1_000), "steered".to_owned());
        let said = Part::Text { id, text, interrupted: false };
        let joined = message(MessageRole::User, &run, vec![said]);
        history.push(Message { after_step: Some(after_step), ..joined });
        let told = Conversation::of(&history, &opaque, None).messages;
        check(&told);
        let places = |wanted: &str| -> Vec<usize> {
            let wanted = PromptMessage::asked(wanted);
            (0..told.len()).filter(|index| told[*index] == wanted).collect()
        };
        let (question, steered) = (places("question 0"), places("steered"));
        let case = (first_kept, second_kept, after_step);
        assert_eq!((question.len(), steered.len()), (1, 1), "{case:?} {told:?}");
        assert!(question[0] < steered[0], "{case:?} {told:?}");
    }
}

/// A question with a text and an image.
fn asked_with(number: u128, run: &RunId) -> Message {
    let attached = |bits: u128, given| {
        Part::Attachment(AttachmentPart {
            id: PartId::from_bits(bits),
            name: "a".to_owned(),
            path: None,
            version: None,
            mime_type: "text/plain".to_owned(),
            size: 1,
            hash: String::new(),
            given,
        })
    };
    let text = Part::Text {
        id: PartId::from_bits(number),
        text: format!("question {number}"),
        interrupted: false,
    };
    let files = [
        attached(number + 1, AttachmentGiven::Text),
        attached(number + 2, AttachmentGiven::Image),
        attached(number + 3, AttachmentGiven::Named),
    ];
    message(MessageRole::User, run, [text].into_iter().chain(files).collect())
}

/// Whether what goes with each message is left out.
fn left_out(told: &Conversation) -> Vec<Vec<bool>> {
    let users = told.messages.iter().filter_map(|message| match message {
        PromptMessage::User { attachments, .. } => Some(attachments),
        PromptMessage::Assistant { .. } | PromptMessage::ToolResult { .. } => None,
    });
    users.map(|files| files.iter().map(PromptAttachment::left_out).collect()).collect()
}

#[test]
fn what_goes_with_earlier_messages_is_left_out_with_the_outputs_of_later_turns() {
    let (first, second) = (RunId::from_bits(1), RunId::from_bits(2));
    let answer = |run: &RunId, calls: [(u128, usize); 2]| {
        let done = |bits, bytes| call(bits, ToolState::Completed, bytes, false);
        let parts = calls
            .iter()
            .flat_map(|&(bits, bytes)| [done(bits, bytes), part(&Piece::Step, bits + 50)]);
        message(MessageRole::Assistant, run, parts.collect())
    };
    let joined = Message { after_step: Some(1), ..asked_with(30, &first) };
    let history = [
        asked_with(10, &first),
        answer(&first, [(1, 9), (2, 9)]),
        joined,
        asked_with(20, &second),
        answer(&second, [(3, 600), (4, 4_000)]),
        message(
            MessageRole::User,
            &RunId::from_bits(3),
            vec![part(&Piece::Text("so?", false), 99)],
        ),
    ];
    let told = |mark: Option<u128>| {
        let mark = mark.map(ToolCallId::from_bits);
        let mut told = Conversation::of(&history, &BTreeMap::new(), mark.as_ref());
        for message in &mut told.messages {
            let PromptMessage::User { attachments, .. } = message else { continue };
            for it in attachments.iter_mut().take(1).filter(|it| !it.left_out()) {
                it.tell(&"word ".repeat(4_000), &mut TextRoom::default());
            }
        }
        told
    };
    let (all, gone, plain) = (vec![false; 3], vec![true, true, false], Vec::new());
    let kept = [all.clone(), all.clone(), all.clone(), plain.clone()];
    assert_eq!(left_out(&told(None)), kept);
    // With a call of the first turn its own question stays.
    assert_eq!(left_out(&told(Some(1))), kept);
    let later = told(Some(3));
    assert_eq!(left_out(&later), [gone.clone(), gone, all, plain]);
    let PromptMessage::User { text, attachments } = &later.messages[0] else { unreachable!() };
    let said = said_with(text, attachments);
    assert!(said.starts_with("question 10\n\n[attached file \"a\": text/plain, 1 bytes; left out"));
    let mut whole = told(None);
    assert!(entry_tokens(&later.messages) + 9_000 < entry_tokens(&whole.messages));

    // It counts in whether it is worth it: the output alone is too short.
    assert_eq!(outputs_to_leave_out(&whole, 4_400), Some(ToolCallId::from_bits(3)));
    for message in &mut whole.messages {
        let PromptMessage::User { attachments, .. } = message else { continue };
        attachments.clear();
    }
    assert_eq!(outputs_to_leave_out(&whole, 4_400), None);
}
