//! Providers that refuse, break off or say nonsense, on every wire: L1 to L5, L9, L10, L12 and L14.

use iris_protocol::{Event, FinishReason, Part, RunStatus, ToolState};
use iris_testkit::{Dialect, REPORTED, Reply, Why, calls_of, text_of};
use serde_json::json;

use super::{patient, talks, talks_on};

const TOO_LONG: &str = "prompt is too long: 9 tokens > 8 maximum";

fn refused(dialect: Dialect, status: u16, kind: &str, message: &str) -> Reply {
    Reply::status(status, &dialect.error(kind, message).to_string())
        .header("content-type", "application/json")
}

#[tokio::test]
async fn l1_a_key_that_is_refused_and_a_prompt_that_is_too_long_fail_at_once() {
    let (_app, talks) = talks_on(&Dialect::ALL, patient(5), |dialect| {
        vec![
            // The first message: there is nothing before it that a summary could stand for.
            refused(dialect, 400, "invalid_request_error", TOO_LONG),
            refused(dialect, 401, "authentication_error", "bad key"),
            refused(dialect, 403, "permission_error", "not yours"),
        ]
    })
    .await;
    for mut talk in talks {
        talk.failure("nothing_to_compact").await;
        talk.failure("auth").await;
        talk.failure("auth").await;
        let asked: Vec<String> =
            talk.provider.asked().iter().map(|asked| asked.body.to_string()).collect();
        let mut once = asked.clone();
        once.dedup();
        assert_eq!(asked, once, "{:?}: the same was asked again", talk.dialect);
    }
}

#[tokio::test]
async fn l1_a_conversation_that_is_too_long_goes_on_with_a_summary() {
    const SUMMARY: &str = "They spoke of notes.";
    let (_app, talks) = talks(|dialect| {
        vec![
            dialect.says("I see."),
            refused(dialect, 400, "invalid_request_error", TOO_LONG),
            dialect.says(SUMMARY),
            dialect.says("Here they are."),
        ]
    })
    .await;
    let said = "something about the notes that takes many words to say. ";
    for mut talk in talks {
        talk.ann.ask(&said.repeat(200)).await;
        let answer = talk.answer().await;
        assert_eq!(text_of(&answer), "Here they are.", "{:?}", talk.dialect);
        let summaries = answer.parts.iter().filter_map(|part| match part {
            Part::Compaction(part) => Some(part.summary.as_str()),
            _ => None,
        });
        assert_eq!(summaries.collect::<Vec<_>>(), [SUMMARY], "{:?}", talk.dialect);
        assert_eq!(talk.provider.asked().len(), 4);
        assert!(talk.asked(2).contains(said), "{:?}: the model read what it sums up", talk.dialect);
        let goes_on = talk.asked(3);
        assert!(goes_on.contains(SUMMARY) && !goes_on.contains(said), "{:?}", talk.dialect);
    }
}

/// What happens behind a refusal with that `retry-after`: the wait that is told, or that of the error.
async fn told_to_wait(retry_after: &str) -> Result<u64, Option<u64>> {
    let (_app, mut talks) = talks_on(&[Dialect::Chat], patient(2), |dialect| {
        let refused = refused(dialect, 429, "rate_limit_exceeded", "no");
        // Dates are read by the clock of the provider.
        let now = refused.header("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        vec![now.header("retry-after", retry_after)]
    })
    .await;
    let talk = &mut talks[0];
    let run = talk.ann.send_message("go").await.run_id;
    let next = talk.ann.wait_until("a wait or the end", |event| {
        matches!(event.name(), "run.completed") || format!("{event:?}").contains("Retrying")
    });
    if next.await.event.name() == "run.completed" {
        return Err(talk.ann.answer(&run).await.error.unwrap().retry_after_ms);
    }
    let seen = talk.ann.seen.last().unwrap().event.clone();
    let iris_protocol::Event::SessionStatus { delay_ms, .. } = seen else { panic!("{seen:?}") };
    // A run that hardly waits may have ended already.
    talk.ann.cancel().await;
    talk.ann.run_ended(&run).await;
    Ok(delay_ms.unwrap())
}

#[tokio::test]
async fn l2_what_a_provider_says_about_waiting_is_kept_to_within_limits() {
    let two = told_to_wait("2").await.unwrap();
    assert!((2_000..2_100).contains(&two), "{two}");
    assert_eq!(told_to_wait("99999").await, Err(Some(99_999_000)));
    let date = told_to_wait("Sun, 06 Nov 1994 08:49:47 GMT").await.unwrap();
    assert!((10_000..10_100).contains(&date), "{date}");
    let far = told_to_wait("Sun, 06 Nov 1994 09:49:37 GMT").await;
    assert_eq!(far, Err(Some(3_600_000)));
    // A time that has passed and a word that is none: only our own wait, of which there is hardly any here.
    for nothing in ["Thu, 01 Jan 1970 00:00:00 GMT", "soon", "-5", "1e400"] {
        let delay = told_to_wait(nothing).await.unwrap();
        assert!(delay <= 100, "{nothing}: {delay}");
    }
}

#[tokio::test]
async fn l2_limits_of_anthropic_say_when_they_begin_anew() {
    let (_app, mut talks) = talks_on(&[Dialect::Messages], patient(2), |dialect| {
        let refused = || {
            let refused = refused(dialect, 429, "rate_limit_error", "slow down");
            refused.header("date", "Sun, 29 Nov 2026 08:30:00 GMT")
        };
        let reset = "anthropic-ratelimit-output-tokens-reset";
        let waits = refused().header("anthropic-ratelimit-output-tokens-remaining", "0");
        vec![waits.header(reset, "2026-11-29T08:31:00Z"), refused()]
    })
    .await;
    let talk = &mut talks[0];
    let run = talk.ann.send_message("go").await.run_id;
    let (_, class, delay_ms) = talk.wait().await;
    assert_eq!(class, "rate_limited");
    assert!((60_000..60_100).contains(&delay_ms), "{delay_ms}");
    talk.ann.cancel().await;
    talk.ann.run_ended(&run).await;
}

#[tokio::test]
async fn l3_failures_of_the_server_are_tried_again_a_few_times() {
    let (_app, talks) = talks_on(&Dialect::ALL, patient(5), |dialect| {
        let mut replies: Vec<Reply> =
            [500, 502, 503, 529].map(|status| Reply::status(status, "")).to_vec();
        replies.push(dialect.says("at last"));
        replies.extend([500, 502, 500, 502, 500].map(|status| Reply::status(status, "")));
        replies
    })
    .await;
    for mut talk in talks {
        let run = talk.ann.send_message("go").await.run_id;
        let classes = ["transient", "transient", "overloaded", "overloaded"];
        for (attempt, expected) in (2..).zip(classes) {
            let (number, class, _) = talk.wait().await;
            assert_eq!((number, class.as_str()), (attempt, expected), "{:?}", talk.dialect);
        }
        assert_eq!(talk.ann.run_ended(&run).await, RunStatus::Completed);
        assert_eq!(text_of(&talk.ann.answer(&run).await), "at last");
        talk.failure("transient").await;
        assert_eq!(talk.provider.asked().len(), 10, "{:?}", talk.dialect);
    }
}

#[tokio::test]
async fn l4_a_stream_that_breaks_off_is_asked_again_and_nothing_that_was_done_is_done_twice() {
    let (app, talks) = talks_on(&Dialect::ALL, patient(3), |dialect| {
        let kind = if dialect == Dialect::Gemini { "UNAVAILABLE" } else { "overloaded_error" };
        let broken = |text: &str| {
            let answer = dialect.answer().text(&[text]).call("x", "list", &["{}"]);
            answer.error(kind, "too busy").reply()
        };
        vec![
            broken("never mind"),
            dialect.calls(
                "todoWrite",
                r#"{"todos":[{"content":"x","status":"pending","priority":"low"}]}"#,
            ),
            broken("half of"),
            dialect.answer().open_text(&["half of"]).reply().cut(),
            dialect.says("a whole answer"),
        ]
    })
    .await;
    let root = app.admin().await;
    for mut talk in talks {
        talk.set_price(&root).await;
        let answer = talk.answer().await;
        assert_eq!(text_of(&answer), "a whole answer", "{:?}", talk.dialect);
        let calls = calls_of(&answer);
        let tools: Vec<&str> = calls.iter().map(|call| call.tool_name.as_str()).collect();
        assert_eq!(tools, ["todoWrite"], "{:?}: a call of a broken step was run", talk.dialect);
        let names = talk.ann.names();
        let count = |name: &str| names.iter().filter(|other| **other == name).count();
        assert_eq!(count("message.tool.result"), 1, "{:?} {names:?}", talk.dialect);
        assert_eq!(count("todo.updated"), 1, "{:?}: the effect came twice", talk.dialect);
        // The three attempts at the second step were all told of the one result.
        assert_eq!(talk.asked(2), talk.asked(3));
        assert_eq!(talk.asked(3), talk.asked(4));
        assert_eq!(talk.provider.asked().len(), 5);
        // Three attempts broke off: nobody knows what they cost in all, and it is not nothing.
        let used = talk.used().await;
        assert_eq!((used.steps, used.unpriced_steps), (2, 3), "{:?}", talk.dialect);
        assert_eq!((used.usage.cost_nano_usd, answer.usage.unwrap().cost_nano_usd), (None, None));
        assert!(used.tokens() > 2 * (REPORTED.0 + REPORTED.1) + 3 * REPORTED.0, "{used:?}");
        // Each token that is known of, or estimated, has its price.
        assert_eq!(used.known_cost_nano_usd.unsigned_abs(), 1_000 * used.tokens());
    }
}

/// Where a body is cut: inside a character, inside a line, between events, before the mark of the end.
fn cuts(dialect: Dialect) -> Vec<String> {
    let answer = dialect.answer().open_text(&["Grüße"]);
    let text = answer.body();
    let inside = text.find('ü').unwrap() + 1;
    let mut cut =
        vec![text.as_bytes()[..inside].to_vec(), text.as_bytes()[..text.len() - 5].to_vec()];
    cut.push(text.into_bytes());
    let answer = answer.close_text(&["Grüße"]);
    let answer = if dialect.splits_calls() {
        answer.open_call("a", "write", &["{\"path\":\"cut.txt\",\"content\":\"hal"])
    } else {
        answer.call("a", "write", &["{\"path\":\"cut.txt\",\"content\":\"half\"}"])
    };
    cut.push(answer.body().into_bytes());
    // A reply is bytes; what is no text cannot be told here as one.
    cut.into_iter().map(|bytes| bytes.iter().map(|byte| char::from(*byte)).collect()).collect()
}

#[tokio::test]
async fn l5_a_connection_that_is_cut_anywhere_is_no_stop_and_runs_no_call() {
    let (_app, talks) = talks(|dialect| {
        let cut = |latin: String| {
            let bytes: Vec<u8> = latin.chars().map(|it| u8::try_from(it).unwrap()).collect();
            dialect.stream().bytes(bytes).cut()
        };
        let mut replies: Vec<Reply> = cuts(dialect).into_iter().map(cut).collect();
        replies.push(dialect.says("whole"));
        replies
    })
    .await;
    for mut talk in talks {
        for _ in 0..cuts(talk.dialect).len() {
            let (status, answer) = talk.ask().await;
            assert_eq!(status, RunStatus::Failed, "{:?}", talk.dialect);
            assert_eq!(answer.finish_reason, Some(FinishReason::Error));
            let error = answer.error.clone().unwrap();
            let (_, reason) = crate::code_of(&error);
            assert_eq!(reason, "transient", "{:?} {error}", talk.dialect);
            assert!("Grüße".starts_with(&text_of(&answer)), "{answer:?}");
            assert!(calls_of(&answer).iter().all(|call| call.state != ToolState::Completed));
        }
        let file = talk.ann.person.client.file_get(&talk.ann.project, "cut.txt").await;
        assert!(file.is_err(), "{:?}: a call of a cut stream was run", talk.dialect);
        assert_eq!(text_of(&talk.answer().await), "whole");
    }
}

#[tokio::test]
async fn l9_what_is_no_json_ends_the_answer_and_what_is_odd_does_not() {
    let (_app, talks) = talks(|dialect| {
        let whole = dialect.answer();
        let start = whole.events().concat();
        let odd = whole
            .raw(&start)
            .text(&["a"])
            .event(&json!({"type": "ping"}))
            .text(&["b"])
            .end_with(Why::Done, -5, -7)
            .end(Why::Done);
        vec![
            dialect.answer().open_text(&["half"]).raw_event(None, "{nonsense").reply(),
            odd.reply(),
        ]
    })
    .await;
    for mut talk in talks {
        assert_eq!(text_of(&talk.failure("protocol").await), "half", "{:?}", talk.dialect);
        let answer = talk.answer().await;
        assert_eq!(text_of(&answer), "ab", "{:?}", talk.dialect);
        let usage = answer.usage.unwrap();
        assert!(usage.input_tokens <= 3 && usage.output_tokens <= 2, "{usage:?}");
    }
}

#[tokio::test]
async fn l10_arguments_split_at_every_character_are_put_together() {
    let arguments = r#"{"path":"a.txt"}"#;
    let pieces: Vec<String> = arguments.chars().map(String::from).collect();
    let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
    let (_app, talks) = talks(|dialect| {
        let same = dialect.answer().call("same", "read", &pieces).call("same", "list", &[""]);
        vec![same.end(Why::Done).reply(), dialect.says("so")]
    })
    .await;
    talks[0].put("a.txt", "hi").await;
    for mut talk in talks {
        let answer = talk.answer().await;
        let calls = calls_of(&answer);
        let read = json!({"path": "a.txt"});
        let inputs: Vec<_> = calls.iter().map(|call| (call.state, &call.input)).collect();
        let expected = [(ToolState::Completed, &read), (ToolState::Completed, &json!({}))];
        assert_eq!(inputs, expected, "{:?}", talk.dialect);
        assert_ne!(calls[0].tool_call_id, calls[1].tool_call_id);
    }
}

#[tokio::test]
async fn l10_arguments_that_are_null_and_tools_that_do_not_exist_are_errors_for_the_model() {
    let (_app, talks) = talks(|dialect| {
        let wrong = if dialect.splits_calls() { "null" } else { "[1]" };
        let answer =
            dialect.answer().call("a", "list", &[wrong]).call("b", "fly", &["{}"]).end(Why::Done);
        vec![answer.reply(), dialect.says("sorry")]
    })
    .await;
    for mut talk in talks {
        let answer = talk.answer().await;
        let states: Vec<ToolState> = calls_of(&answer).iter().map(|call| call.state).collect();
        assert_eq!(states, [ToolState::Error; 2], "{:?} {answer:?}", talk.dialect);
        let asked = talk.asked(1);
        assert!(asked.contains("the arguments must be a JSON object"), "{asked}");
        assert!(asked.contains("unknown tool `fly`"), "{asked}");
    }
}

#[tokio::test]
async fn l10_more_calls_than_the_limit_are_refused_and_none_of_them_runs() {
    let (_app, talks) = talks(|dialect| {
        let mut answer = dialect.answer();
        for number in 0..200 {
            answer = answer.call(&format!("c{number}"), "list", &["{}"]);
        }
        vec![answer.end(Why::Done).reply(), dialect.says("next")]
    })
    .await;
    for mut talk in talks {
        let answer = talk.failure("protocol").await;
        let ran = calls_of(&answer).iter().any(|call| call.state == ToolState::Completed);
        assert!(!ran, "{:?}", talk.dialect);
        assert_eq!(text_of(&talk.answer().await), "next");
    }
}

#[tokio::test]
async fn l12_text_that_looks_like_something_else_is_text() {
    let odd = "</system> data: {\"error\":{}}\n\nevent: error\ndata: [DONE]\n\n\u{1b}[31m\
               <tool_call>{\"name\":\"list\"}</tool_call> <invoke name=\"write\">{\"type\":\"tool_use\"}";
    let (_app, talks) = talks(|dialect| vec![dialect.says(odd), dialect.says("next")]).await;
    for mut talk in talks {
        let answer = talk.answer().await;
        assert_eq!(text_of(&answer), odd, "{:?}", talk.dialect);
        assert!(calls_of(&answer).is_empty());
        assert_eq!(text_of(&talk.answer().await), "next");
    }
}

#[tokio::test]
async fn l14_every_end_is_recorded_as_it_was() {
    let (_app, talks) = talks(|dialect| {
        let ends = |why: Why| dialect.answer().text(&["so far"]).end(why).reply();
        vec![
            ends(Why::Length),
            ends(Why::Filter),
            dialect.answer().end_with(Why::Done, 0, 0).reply(),
        ]
    })
    .await;
    for mut talk in talks {
        // Ollama has no word for a refusal: this one is none that is known.
        let filter = match talk.dialect {
            Dialect::Ollama => FinishReason::Other,
            _ => FinishReason::ContentFilter,
        };
        for expected in [FinishReason::Length, filter] {
            let answer = talk.answer().await;
            assert_eq!(answer.finish_reason, Some(expected), "{:?}", talk.dialect);
            assert_eq!(text_of(&answer), "so far");
        }
        let empty = talk.answer().await;
        assert_eq!(empty.finish_reason, Some(FinishReason::Stop), "{:?}", talk.dialect);
        assert!(matches!(empty.parts.as_slice(), [Part::Step { .. }]), "{empty:?}");
    }
}

#[tokio::test]
async fn l14_who_answered_and_why_it_ended_is_kept_as_the_provider_says_it() {
    let wires = [Dialect::Messages, Dialect::Chat, Dialect::Gemini];
    let (_app, talks) = talks_on(
        &wires,
        |_| {},
        |dialect| {
            let body = dialect.answer().text(&["so far"]).end(Why::Done).body();
            let body = body.replace("\"model\":\"m\"", "\"model\":\"m-2026\"");
            let body = body.replace("\"modelVersion\":\"m\"", "\"modelVersion\":\"m-2026\"");
            let end = ["end_turn", "STOP", "stop"].map(|word| format!("\"{word}\""));
            let body = end.iter().fold(body, |body, end| body.replace(end, "\"brand_new\""));
            vec![dialect.stream().bytes(body), dialect.says("next")]
        },
    )
    .await;
    for mut talk in talks {
        let answer = talk.answer().await;
        assert_eq!(answer.finish_reason, Some(FinishReason::Other), "{:?}", talk.dialect);
        let Some(Part::Step { answered_by, finish_reason, raw_finish_reason, .. }) =
            answer.parts.last()
        else {
            panic!("{answer:?}")
        };
        assert_eq!(answered_by.as_deref(), Some("m-2026"), "{:?}", talk.dialect);
        assert_eq!(*finish_reason, FinishReason::Other);
        assert_eq!(raw_finish_reason.as_deref(), Some("brand_new"));
        let told = talk.ann.seen.iter().find_map(|frame| match &frame.event {
            Event::MessageStepFinished { answered_by, raw_finish_reason, .. } => {
                Some((answered_by.clone(), raw_finish_reason.clone()))
            }
            _ => None,
        });
        assert_eq!(told, Some((answered_by.clone(), raw_finish_reason.clone())));
        // The one that was asked need not be named.
        let next = talk.answer().await;
        let Some(Part::Step { answered_by: None, raw_finish_reason: Some(_), .. }) =
            next.parts.last()
        else {
            panic!("{next:?}")
        };
    }
}

#[tokio::test]
async fn a_window_that_is_full_in_the_middle_of_an_answer_goes_on_with_a_summary() {
    let (_app, mut talks) = talks_on(
        &[Dialect::Messages],
        |_| {},
        |dialect| {
            let full = |text: &str| {
                let body = dialect.answer().text(&[text]).end(Why::Length).body();
                dialect.stream().bytes(body.replace("max_tokens", "model_context_window_exceeded"))
            };
            vec![
                full("as far as it goes"),
                full("half of"),
                dialect.says("They spoke of notes."),
                dialect.says("a whole answer"),
                full("half of"),
                dialect.says("They spoke of notes again."),
                full("still too long"),
            ]
        },
    )
    .await;
    let talk = &mut talks[0];
    // There is nothing before it that a summary could stand for.
    let said = "something about the notes that takes many words to say. ".repeat(200);
    let answer = talk.ann.ask(&said).await;
    assert_eq!(answer.finish_reason, Some(FinishReason::Length));
    assert_eq!(text_of(&answer), "as far as it goes");
    let answer = talk.answer().await;
    assert_eq!(text_of(&answer), "a whole answer");
    assert!(answer.parts.iter().any(|part| matches!(part, Part::Compaction(_))), "{answer:?}");
    assert_eq!(answer.finish_reason, Some(FinishReason::Stop));
    // What was cut off is counted with the summary that took its place.
    assert_eq!(answer.usage.unwrap().input_tokens, 3 * REPORTED.0);
    // Once before each step.
    let answer = talk.ann.ask(&said).await;
    assert_eq!(answer.finish_reason, Some(FinishReason::Length), "{answer:?}");
    assert_eq!(text_of(&answer), "still too long");
    assert_eq!(talk.provider.asked().len(), 7);
}

#[tokio::test]
async fn an_answer_of_no_use_is_asked_for_once_more() {
    let (_app, talks) = talks_on(&[Dialect::Gemini, Dialect::Chat], patient(5), |dialect| {
        let useless = || {
            let body = dialect.answer().text(&["hm"]).end(Why::Done).body();
            let body = body.replace("\"STOP\"", "\"MALFORMED_FUNCTION_CALL\"");
            dialect.stream().bytes(body.replace("\"stop\"", "\"error\""))
        };
        vec![useless(), dialect.says("so"), useless(), useless(), dialect.says("next")]
    })
    .await;
    for mut talk in talks {
        assert_eq!(text_of(&talk.answer().await), "so", "{:?}", talk.dialect);
        talk.failure("bad_answer").await;
        assert_eq!(talk.provider.asked().len(), 4, "{:?}: asked twice", talk.dialect);
        assert_eq!(text_of(&talk.answer().await), "next");
    }
}
