//! However a stream is cut into pieces, its events are the same.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails like the test itself")]

use bytes::Bytes;
use futures_util::StreamExt;
use iris_llm::{ProviderKind, replay};
use proptest::prelude::*;

use crate::{Answer, call_chunk, chunk, done};

/// One event, of any kind that a stream may hold.
fn any_event() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC{0,12}".prop_map(|text| chunk(&serde_json::json!({"content": text}).to_string(), "")),
        "\\PC{0,12}".prop_map(|text| {
            chunk(&serde_json::json!({"reasoning_content": text}).to_string(), "")
        }),
        ("[a-z]{0,3}", 0..4_u8, "\\PC{0,12}").prop_map(|(name, index, arguments)| {
            let function = serde_json::json!({"name": name, "arguments": arguments});
            call_chunk(&serde_json::json!({"index": index, "function": function}).to_string())
        }),
        Just(": comment\n\n".to_owned()),
        Just(chunk("{}", "stop")),
        Just(done()),
        Just("data: broken\n\n".to_owned()),
    ]
}

fn decode(pieces: Vec<Bytes>) -> Answer {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(replay(ProviderKind::OpenAiCompatible, pieces).unwrap().collect())
}

/// Cuts `body` at `cuts`, each taken modulo its length.
fn cut(body: &Bytes, cuts: &[usize]) -> Vec<Bytes> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut % (body.len() + 1)).collect();
    at.push(body.len());
    at.sort_unstable();
    let starts = std::iter::once(0).chain(at.iter().copied());
    starts.zip(&at).map(|(start, end)| body.slice(start..*end)).collect()
}

proptest! {
    #[test]
    fn events_do_not_depend_on_how_the_bytes_arrive(
        events in prop::collection::vec(any_event(), 0..12),
        line_end in prop_oneof![Just("\n"), Just("\r\n"), Just("\r")],
        cuts in prop::collection::vec(any::<usize>(), 0..40),
    ) {
        let body = Bytes::from(events.concat().replace('\n', line_end));
        let whole = decode(vec![body.clone()]);
        prop_assert_eq!(decode(cut(&body, &cuts)), whole.clone());
        let bytes = (0..body.len()).map(|at| body.slice(at..=at)).collect();
        prop_assert_eq!(decode(bytes), whole);
    }
}
