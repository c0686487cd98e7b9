//! What providers send, F1 to F22: each on every wire that has it.

use std::time::Duration;

use iris_llm::Limits;
use iris_protocol::{FinishReason, Part, RunStatus, ToolState};
use iris_testkit::{Dialect, Gate, REPORTED, Reply, Why, calls_of, text_of};
use serde_json::{Value, json};

use super::{patient, talks, talks_on};

/// What only the provider may see again.
const SECRET: &str = "canary+/==";

fn reasoning(parts: &[Part]) -> String {
    let texts = parts.iter().filter_map(|part| match part {
        Part::Reasoning { text, .. } => Some(text.as_str()),
        _ => None,
    });
    texts.collect()
}

#[tokio::test]
async fn f1_a_text_alone() {
    let text = "Grüße, 🌱";
    let (_app, talks) =
        talks(|dialect| vec![dialect.answer().text(&["Grü", "ße, ", "🌱"]).end(Why::Done).reply()])
            .await;
    for mut talk in talks {
        let answer = talk.answer().await;
        assert_eq!(
            (text_of(&answer).as_str(), answer.finish_reason),
            (text, Some(FinishReason::Stop))
        );
        let usage = answer.usage.unwrap();
        assert_eq!((usage.input_tokens, usage.output_tokens), REPORTED, "{:?}", talk.dialect);
        let head = &talk.provider.asked()[0].head;
        let line = format!("POST {} HTTP/1.1\r\n", talk.dialect.path());
        assert!(head.starts_with(&line), "{head}");
    }
}

#[tokio::test]
async fn f2_a_text_and_two_parallel_calls_split_at_every_byte() {
    let (_app, talks) = talks(|dialect| {
        let answer = dialect
            .answer()
            .text(&["Grüße \u{1f331} "])
            .call("a", "read", &["{\"path\":\"a\\u", "00e9.txt\"}"])
            .call("b", "read", &["{\"path\":", "\"ü.txt\"}"])
            .end(Why::Done);
        vec![answer.reply_in_bytes(), dialect.says("Both.")]
    })
    .await;
    talks[0].put("aé.txt", "first word").await;
    talks[0].put("ü.txt", "second word").await;
    for mut talk in talks {
        let answer = talk.answer().await;
        assert_eq!(text_of(&answer), "Grüße 🌱 Both.", "{:?}", talk.dialect);
        let inputs: Vec<_> =
            calls_of(&answer).iter().map(|call| (call.state, call.input.clone())).collect();
        let read = |path: &str| (ToolState::Completed, json!({ "path": path }));
        assert_eq!(inputs, [read("aé.txt"), read("ü.txt")], "{:?}", talk.dialect);
        // Each call has its one result, in order.
        let asked = talk.asked(1);
        let places = ["first word", "second word"].map(|word| asked.find(word).unwrap());
        assert!(places[0] < places[1], "{asked}");
        assert_eq!(asked.matches("first word").count(), 1);
    }
}

#[tokio::test]
async fn f3_a_thought_with_its_signature_and_a_call() {
    let (_app, talks) = talks(|dialect| {
        let answer = dialect
            .answer()
            .thought("Let me see.", SECRET)
            .call("a", "read", &["{\"path\":\"a.txt\"}"])
            .end(Why::Done);
        vec![answer.reply(), dialect.says("So it is.")]
    })
    .await;
    talks[0].put("a.txt", "hi").await;
    for mut talk in talks {
        let answer = talk.answer().await;
        assert_eq!(reasoning(&answer.parts), "Let me see.", "{:?}", talk.dialect);
        assert_eq!(text_of(&answer), "So it is.");
        let is_back = talk.asked(1).contains(SECRET);
        assert_eq!(is_back, talk.dialect.signs_thoughts(), "{:?}", talk.dialect);
        let told = serde_json::to_string(&(&talk.ann.seen, &answer)).unwrap();
        assert!(!told.contains("canary"), "{told}");
    }
}

#[tokio::test]
async fn f4_a_hidden_thought() {
    let block = json!({"type": "redacted_thinking", "data": SECRET});
    let start = json!({"type": "content_block_start", "index": 9, "content_block": block});
    let (_app, mut talks) = talks_on(
        &[Dialect::Messages],
        |_| {},
        |dialect| {
            let answer = dialect
                .answer()
                .event(&start)
                .event(&json!({"type": "content_block_stop", "index": 9}))
                .call("a", "read", &["{\"path\":\"a.txt\"}"])
                .end(Why::Done);
            vec![answer.reply(), dialect.says("So it is.")]
        },
    )
    .await;
    let talk = &mut talks[0];
    talk.put("a.txt", "hi").await;
    let answer = talk.answer().await;
    assert!(matches!(&answer.parts[0], Part::Reasoning { text, .. } if text.is_empty()));
    let sent = talk.provider.asked()[1].body["messages"][1]["content"][0].clone();
    assert_eq!(sent, block);
    let told = serde_json::to_string(&(&talk.ann.seen, &answer)).unwrap();
    assert!(!told.contains("canary"), "{told}");
}

#[tokio::test]
async fn f5_a_call_with_empty_input() {
    let (_app, talks) = talks(|dialect| {
        let answer = dialect.answer().call("a", "list", &[""]).end(Why::Done);
        vec![answer.reply(), dialect.says("Listed.")]
    })
    .await;
    for mut talk in talks {
        let answer = talk.answer().await;
        let call = calls_of(&answer)[0];
        assert_eq!((call.state, &call.input), (ToolState::Completed, &json!({})), "{call:?}");
        assert_eq!(text_of(&answer), "Listed.");
    }
}

#[tokio::test]
async fn f6_the_output_limit_inside_the_input_of_a_call() {
    let (_app, talks) = talks(|dialect| {
        let answer = dialect.answer().call("a", "list", &["{}"]);
        let answer = if dialect.splits_calls() {
            answer.open_call("b", "write", &["{\"path\":\"cut.txt\",\"content\":\"half"])
        } else {
            answer
        };
        vec![answer.end(Why::Length).reply(), dialect.says("I was cut off.")]
    })
    .await;
    for mut talk in talks {
        let answer = talk.answer().await;
        let calls = calls_of(&answer);
        assert_eq!(calls[0].state, ToolState::Completed, "{:?}", talk.dialect);
        if talk.dialect.splits_calls() {
            assert_eq!(calls[1].state, ToolState::Error, "{:?} {:?}", talk.dialect, calls[1]);
            let told = "the call was cut off before its arguments were whole";
            assert!(talk.asked(1).contains(told), "{}", talk.asked(1));
        }
        assert_eq!(calls.len(), 1 + usize::from(talk.dialect.splits_calls()));
        let file = talk.ann.person.client.file_get(&talk.ann.project, "cut.txt").await;
        assert!(file.is_err(), "what was cut off was run");
    }
}

#[tokio::test]
async fn f7_an_error_inside_a_stream_with_status_200() {
    let (_app, talks) = talks(|dialect| {
        let kind = if dialect == Dialect::Gemini { "UNAVAILABLE" } else { "overloaded_error" };
        let answer = dialect.answer().open_text(&["half"]).error(kind, "too busy");
        // What comes behind it is not looked at.
        vec![answer.end(Why::Done).reply()]
    })
    .await;
    for mut talk in talks {
        let reason = if talk.dialect == Dialect::Ollama { "transient" } else { "overloaded" };
        let answer = talk.failure(reason).await;
        assert_eq!(text_of(&answer), "half", "{:?}", talk.dialect);
        assert_eq!(answer.finish_reason, Some(FinishReason::Error));
    }
}

#[tokio::test]
async fn f8_the_end_of_the_body_before_the_mark_of_the_end_is_never_a_stop() {
    let (_app, talks) =
        talks(|dialect| vec![dialect.answer().text(&["all, it seems"]).reply()]).await;
    for mut talk in talks {
        let answer = talk.failure("transient").await;
        assert_eq!(text_of(&answer), "all, it seems", "{:?}", talk.dialect);
        assert_eq!(answer.finish_reason, Some(FinishReason::Error));
    }
}

fn refused(dialect: Dialect, status: u16, kind: &str, message: &str) -> Reply {
    Reply::status(status, &dialect.error(kind, message).to_string())
        .header("content-type", "application/json")
}

#[tokio::test]
async fn f9_status_429_with_a_time_and_then_an_answer() {
    let (_app, talks) = talks_on(&Dialect::ALL, patient(2), |dialect| {
        let busy = refused(dialect, 429, "rate_limit_exceeded", "slow down");
        vec![busy.header("retry-after-ms", "50"), dialect.says("at last")]
    })
    .await;
    for mut talk in talks {
        let run = talk.ann.send_message("go").await.run_id;
        let (attempt, class, delay_ms) = talk.wait().await;
        assert_eq!((attempt, class.as_str()), (2, "rate_limited"), "{:?}", talk.dialect);
        assert!(delay_ms >= 50, "{delay_ms}");
        assert_eq!(talk.ann.run_ended(&run).await, RunStatus::Completed);
        assert_eq!(text_of(&talk.ann.answer(&run).await), "at last");
        assert_eq!(talk.asked(0), talk.asked(1), "the same is asked again");
    }
}

#[tokio::test]
async fn f10_status_429_for_money_is_not_asked_again() {
    let (_app, talks) = talks_on(&Dialect::ALL, patient(5), |dialect| {
        vec![match dialect {
            Dialect::Messages => {
                let details = json!({"error_code": "enforced_spend_limit_reached"});
                let mut error = dialect.error("rate_limit_error", "the limit is reached");
                error["error"]["details"] = details;
                Reply::status(429, &error.to_string()).header("retry-after", "1")
            }
            Dialect::Gemini => {
                let message = "You exceeded your current quota, please check your plan and billing";
                refused(dialect, 429, "RESOURCE_EXHAUSTED", message)
            }
            Dialect::Responses | Dialect::Chat => {
                refused(dialect, 429, "insufficient_quota", "no credit").header("retry-after", "1")
            }
            Dialect::Ollama => refused(dialect, 402, "", "no credit"),
        }]
    })
    .await;
    for mut talk in talks {
        talk.failure("quota").await;
        assert_eq!(talk.provider.asked().len(), 1, "{:?}", talk.dialect);
    }
}

#[tokio::test]
async fn f11_status_529_and_then_an_answer() {
    let (_app, talks) = talks_on(&Dialect::ALL, patient(2), |dialect| {
        vec![refused(dialect, 529, "overloaded_error", "Overloaded"), dialect.says("at last")]
    })
    .await;
    for mut talk in talks {
        let run = talk.ann.send_message("go").await.run_id;
        let (attempt, class, _) = talk.wait().await;
        assert_eq!((attempt, class.as_str()), (2, "overloaded"), "{:?}", talk.dialect);
        assert_eq!(talk.ann.run_ended(&run).await, RunStatus::Completed);
    }
}

#[tokio::test]
async fn f12_events_and_fields_that_nobody_knows_yet() {
    let new = json!({"type": "something.new", "detail": {"x": [1]}, "done": false});
    let (_app, talks) = talks(|dialect| {
        let mut answer = dialect.answer().event(&new).text(&["so"]).event(&new);
        answer = answer.event(&json!({"novelty": 1, "done": false}));
        vec![answer.end(Why::Done).event(&new).reply()]
    })
    .await;
    for mut talk in talks {
        assert_eq!(text_of(&talk.answer().await), "so", "{:?}", talk.dialect);
    }
}

#[tokio::test]
async fn f13_lines_that_end_in_crlf_and_comments() {
    let (_app, talks) = talks(|dialect| {
        let answer = dialect.answer().text(&["one ", "two"]).end(Why::Done);
        let between = if dialect.has_comments() { ": alive\n\n" } else { "\n\n" };
        let body: Vec<String> =
            answer.events().iter().map(|event| format!("{between}{event}{between}")).collect();
        let body = body.concat().replace('\n', "\r\n");
        vec![dialect.stream().bytes(body)]
    })
    .await;
    for mut talk in talks {
        assert_eq!(text_of(&talk.answer().await), "one two", "{:?}", talk.dialect);
    }
}

#[tokio::test]
async fn f14_usage_in_a_chunk_behind_the_finish() {
    let (_app, mut talks) = talks_on(
        &[Dialect::Chat],
        |_| {},
        |dialect| {
            let answer = dialect.answer().text(&["so"]).end(Why::Done);
            assert!(
                answer.events()[2].contains("\"choices\":[],\"usage\""),
                "{:?}",
                answer.events()
            );
            vec![answer.reply()]
        },
    )
    .await;
    let usage = talks[0].answer().await.usage.unwrap();
    assert_eq!((usage.input_tokens, usage.output_tokens), REPORTED);
}

#[tokio::test]
async fn f15_no_word_on_usage() {
    let (app, talks) =
        talks(|dialect| vec![dialect.answer().text(&["so"]).end_without_usage(Why::Done).reply()])
            .await;
    let root = app.admin().await;
    for mut talk in talks {
        talk.set_price(&root).await;
        let answer = talk.answer().await;
        assert_eq!(text_of(&answer), "so", "{:?}", talk.dialect);
        assert_eq!(answer.finish_reason, Some(FinishReason::Stop));
        let (usage, used) = (answer.usage.unwrap(), talk.used().await);
        if talk.dialect == Dialect::Messages {
            // It said all of it at the beginning.
            assert_eq!((usage.incomplete, usage.input_tokens), (false, REPORTED.0));
            assert_eq!((usage.cost_nano_usd, used.unpriced_steps), (Some(4_000), 0));
            continue;
        }
        // What is not known is estimated, and its cost is null and not nothing.
        assert!(usage.incomplete && usage.input_tokens > 100, "{:?} {usage:?}", talk.dialect);
        assert_eq!((usage.output_tokens, usage.cost_nano_usd), (1, None));
        assert_eq!((used.steps, used.unpriced_steps), (1, 1));
        assert_eq!(used.known_cost_nano_usd.unsigned_abs(), 1_000 * used.tokens());
    }
}

fn gemini_part(part: &Value) -> Value {
    json!({"candidates": [{"content": {"role": "model", "parts": [part]}}]})
}

#[tokio::test]
async fn f16_a_signature_in_an_empty_part() {
    let signed = json!({"text": "", "thoughtSignature": SECRET});
    let (_app, mut talks) = talks_on(
        &[Dialect::Gemini],
        |_| {},
        |dialect| {
            let answer = dialect
                .answer()
                .call("a", "list", &["{}"])
                .text(&["so"])
                .event(&gemini_part(&signed))
                .end(Why::Done);
            vec![answer.reply(), dialect.says("Listed.")]
        },
    )
    .await;
    assert_eq!(text_of(&talks[0].answer().await), "soListed.");
    let parts = talks[0].provider.asked()[1].body["contents"][1]["parts"].clone();
    let kept: Vec<&Value> = parts
        .as_array()
        .unwrap()
        .iter()
        .filter(|part| part["thoughtSignature"] == SECRET)
        .collect();
    assert_eq!(kept.len(), 1, "{parts}");
    assert!(kept[0]["text"].is_string(), "{parts}");
}

#[tokio::test]
async fn f17_an_error_in_a_list() {
    let (_app, mut talks) = talks_on(
        &[Dialect::Gemini],
        |_| {},
        |dialect| {
            let error = |status: &str| dialect.error(status, "no");
            let mut later = error("RESOURCE_EXHAUSTED");
            let info =
                json!({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34s"});
            later["error"]["details"] = json!([info]);
            vec![
                Reply::status(503, &json!([error("UNAVAILABLE")]).to_string()),
                dialect.answer().text(&["so"]).event(&json!([error("UNAVAILABLE")])).reply(),
                Reply::status(429, &json!([later]).to_string()),
            ]
        },
    )
    .await;
    talks[0].failure("overloaded").await;
    assert_eq!(text_of(&talks[0].failure("overloaded").await), "so");
    let error = talks[0].failure("rate_limited").await.error.unwrap();
    assert_eq!(error.retry_after_ms, Some(34_000));
}

#[tokio::test]
async fn f18_encrypted_reasoning_goes_back_before_its_call() {
    let (_app, mut talks) = talks_on(
        &[Dialect::Responses],
        |_| {},
        |dialect| {
            let answer =
                dialect.answer().thought("hm", SECRET).call("a", "list", &["{}"]).end(Why::Done);
            vec![answer.reply(), dialect.says("Listed.")]
        },
    )
    .await;
    talks[0].answer().await;
    let asked = talks[0].provider.asked();
    assert_eq!(asked[0].body["store"], false);
    assert_eq!(asked[0].body["include"], json!(["reasoning.encrypted_content"]));
    let input = asked[1].body["input"].as_array().unwrap();
    let at = input.iter().position(|item| item["type"] == "reasoning").unwrap();
    assert_eq!(input[at]["encrypted_content"], SECRET);
    let kinds: Vec<&Value> = input[at..].iter().map(|item| &item["type"]).collect();
    assert_eq!(kinds, ["reasoning", "function_call", "function_call_output"]);
}

#[tokio::test]
async fn f19_calls_without_an_index_and_without_an_id() {
    let (_app, mut talks) = talks_on(
        &[Dialect::Chat],
        |_| {},
        |dialect| {
            let call = |path: &str| {
                let arguments = json!({ "path": path }).to_string();
                let call = json!({"function": {"name": "read", "arguments": arguments}});
                json!({"choices": [{"delta": {"tool_calls": [call]}, "finish_reason": null}]})
            };
            let answer = dialect.answer().event(&call("a.txt")).event(&call("b.txt"));
            // `stop` in place of `tool_calls` is as odd.
            vec![answer.end(Why::Done).reply(), dialect.says("Both.")]
        },
    )
    .await;
    talks[0].put("a.txt", "one").await;
    talks[0].put("b.txt", "two").await;
    let answer = talks[0].answer().await;
    let states: Vec<ToolState> = calls_of(&answer).iter().map(|call| call.state).collect();
    assert_eq!(states, [ToolState::Completed; 2]);
    let messages = talks[0].provider.asked()[1].body["messages"].clone();
    let ids = [&messages[2]["tool_calls"][0]["id"], &messages[2]["tool_calls"][1]["id"]];
    assert!(ids[0] != ids[1] && ids[0].is_string(), "{messages}");
    assert_eq!(ids, [&messages[3]["tool_call_id"], &messages[4]["tool_call_id"]]);
}

#[tokio::test]
async fn f20_a_line_with_an_error() {
    let (_app, mut talks) = talks_on(
        &[Dialect::Ollama],
        |_| {},
        |dialect| {
            vec![
                dialect.answer().text(&["half"]).error("", "out of memory").reply(),
                refused(dialect, 404, "", "model 'm' not found"),
            ]
        },
    )
    .await;
    let answer = talks[0].failure("transient").await;
    assert_eq!(text_of(&answer), "half");
    assert!(answer.error.unwrap().message.contains("out of memory"));
    let error = talks[0].failure("invalid").await.error.unwrap();
    assert!(error.message.contains("model 'm' not found"), "{error}");
}

#[tokio::test]
async fn f21_a_stream_that_falls_silent() {
    let gates = Dialect::ALL.map(|dialect| (dialect, Gate::default()));
    let gate = |dialect| gates.iter().find(|(of, _)| *of == dialect).map(|(_, gate)| gate);
    let short = |options: &mut iris_testkit::AppOptions| {
        let idle = Duration::from_millis(100);
        for provider in options.providers.values_mut() {
            provider.limits = Limits { idle, ..Limits::default() };
        }
    };
    let (_app, talks) = talks_on(&Dialect::ALL, short, |dialect| {
        let begun = dialect.answer().open_text(&["half"]).reply();
        vec![begun.until_left(gate(dialect).unwrap())]
    })
    .await;
    for mut talk in talks {
        let answer = talk.failure("transient").await;
        assert_eq!(text_of(&answer), "half", "{:?}", talk.dialect);
        assert!(answer.error.unwrap().message.contains("sent nothing for `100` ms"));
        gate(talk.dialect).unwrap().reached().await;
    }
}

#[tokio::test]
async fn f22_a_cancel_inside_the_input_of_a_call() {
    let gates = Dialect::ALL.map(|dialect| (dialect, Gate::default()));
    let gate = |dialect| gates.iter().find(|(of, _)| *of == dialect).map(|(_, gate)| gate);
    let (_app, talks) = talks(|dialect| {
        let answer = dialect.answer().text(&["I write."]);
        let pieces = ["{\"path\":\"cancelled.txt\",", "\"content\":\"ha"];
        let answer =
            if dialect.splits_calls() { answer.open_call("a", "write", &pieces) } else { answer };
        vec![answer.reply().until_left(gate(dialect).unwrap()), dialect.says("next")]
    })
    .await;
    for mut talk in talks {
        let run = talk.ann.send_message("go").await.run_id;
        talk.ann.wait_for("message.text.delta").await;
        assert!(talk.ann.cancel().await);
        assert_eq!(talk.ann.run_ended(&run).await, RunStatus::Cancelled);
        gate(talk.dialect).unwrap().reached().await;
        let answer = talk.ann.answer(&run).await;
        assert_eq!(text_of(&answer), "I write.", "{:?}", talk.dialect);
        assert!(calls_of(&answer).iter().all(|call| call.state.is_final()), "{answer:?}");
        let file = talk.ann.person.client.file_get(&talk.ann.project, "cancelled.txt").await;
        assert!(file.is_err());
        assert_eq!(text_of(&talk.answer().await), "next");
    }
}
