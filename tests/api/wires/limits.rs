//! Providers that say nothing, too much or in an odd way, and models that go round in circles: L6, L7, L8
//! and L11.

use std::time::Duration;

use iris_llm::Limits;
use iris_protocol::{Event, FinishReason, RunStatus, ToolState};
use iris_testkit::{AppOptions, Dialect, Gate, Reply, Why, calls_of, text_of};
use serde_json::json;

use super::{patient, talks, talks_on};

/// Short enough for a test that waits until it has passed.
const SHORT: Duration = Duration::from_millis(100);

/// Gives all providers the same limits.
fn limited(limits: Limits) -> impl FnOnce(&mut AppOptions) {
    move |options| {
        for provider in options.providers.values_mut() {
            provider.limits = limits;
        }
    }
}

/// A gate for each wire.
struct Gates([(Dialect, Gate); 5]);

impl Gates {
    fn new() -> Self {
        Self(Dialect::ALL.map(|dialect| (dialect, Gate::default())))
    }

    fn of(&self, dialect: Dialect) -> &Gate {
        self.0.iter().find(|(of, _)| *of == dialect).map(|(_, gate)| gate).unwrap()
    }
}

#[tokio::test]
async fn l6_no_first_byte_within_its_time() {
    let gates = Gates::new();
    let limits = Limits { first_byte: SHORT, ..Limits::default() };
    let (_app, talks) = talks_on(&Dialect::ALL, limited(limits), |dialect| {
        vec![dialect.stream().until_left(gates.of(dialect)), dialect.says("next")]
    })
    .await;
    for mut talk in talks {
        let answer = talk.failure("transient").await;
        assert!(answer.error.unwrap().message.contains("sent nothing for `100` ms"));
        gates.of(talk.dialect).reached().await;
        assert_eq!(text_of(&talk.answer().await), "next", "{:?}", talk.dialect);
    }
}

#[tokio::test]
async fn l6_no_byte_in_the_middle_is_tried_again() {
    let gates = Gates::new();
    let limits = Limits { idle: SHORT, ..Limits::default() };
    let change = |options: &mut AppOptions| {
        limited(limits)(options);
        patient(2)(options);
    };
    let (_app, talks) = talks_on(&Dialect::ALL, change, |dialect| {
        let begun = dialect.answer().open_text(&["half"]).reply();
        vec![begun.until_left(gates.of(dialect)), dialect.says("whole")]
    })
    .await;
    for mut talk in talks {
        assert_eq!(text_of(&talk.answer().await), "whole", "{:?}", talk.dialect);
        gates.of(talk.dialect).reached().await;
        assert!(talk.ann.names().contains(&"message.part.removed"));
    }
}

#[tokio::test]
async fn l6_comments_alone_are_no_progress_though_they_keep_the_connection() {
    let gates = Gates::new();
    let limits = Limits { progress: 2 * SHORT, ..Limits::default() };
    let wires: Vec<Dialect> =
        Dialect::ALL.into_iter().filter(|dialect| dialect.has_comments()).collect();
    let (_app, talks) = talks_on(&wires, limited(limits), |dialect| {
        let begun = dialect.answer().open_text(&["half"]).reply();
        vec![begun.repeat_until_left(gates.of(dialect), ": alive\n\n")]
    })
    .await;
    for mut talk in talks {
        let answer = talk.failure("transient").await;
        assert_eq!(text_of(&answer), "half", "{:?}", talk.dialect);
        assert!(answer.error.unwrap().message.contains("sent nothing for `200` ms"));
        gates.of(talk.dialect).reached().await;
    }
}

/// An event that says nothing.
fn ping(dialect: Dialect) -> String {
    let ping = match dialect {
        Dialect::Messages => json!({"type": "ping"}),
        Dialect::Responses => json!({"type": "response.in_progress", "response": {"id": "resp"}}),
        Dialect::Gemini => {
            json!({"candidates": [{"content": {"role": "model"}}], "modelVersion": "m"})
        }
        Dialect::Ollama => {
            json!({"model": "m", "message": {"role": "assistant", "content": ""}, "done": false})
        }
        Dialect::Chat => json!({"id": "chat", "model": "m", "choices": [{"index": 0,
            "delta": {"role": "assistant", "content": ""}, "finish_reason": null}]}),
    };
    dialect.answer().event(&ping).events().last().unwrap().clone()
}

#[tokio::test]
async fn l6_pings_alone_are_no_progress_though_they_keep_the_connection() {
    let gates = Gates::new();
    let limits = Limits { progress: 2 * SHORT, ..Limits::default() };
    let (_app, talks) = talks_on(&Dialect::ALL, limited(limits), |dialect| {
        let begun = dialect.answer().open_text(&["half"]).reply();
        vec![begun.repeat_until_left(gates.of(dialect), ping(dialect)), dialect.says("next")]
    })
    .await;
    for mut talk in talks {
        let answer = talk.failure("transient").await;
        assert_eq!(text_of(&answer), "half", "{:?}", talk.dialect);
        assert!(answer.error.unwrap().message.contains("sent nothing for `200` ms"));
        gates.of(talk.dialect).reached().await;
        assert_eq!(text_of(&talk.answer().await), "next", "{:?}", talk.dialect);
    }
}

/// Makes the budget of a model 4.8 s.
const HASTE: u32 = 50;

#[tokio::test]
async fn l6_who_lets_something_be_heard_is_left_to_the_limits_of_its_provider() {
    let gates = Gates::new();
    let limits = Limits { progress: 60 * SHORT, ..Limits::default() };
    let change = |options: &mut AppOptions| {
        limited(limits)(options);
        options.watchdog.tick = Duration::from_millis(20);
    };
    let (app, mut talks) = talks_on(&[Dialect::Messages], change, |dialect| {
        let begun = dialect.answer().open_text(&["half"]).reply();
        vec![begun.repeat_until_left(gates.of(dialect), ping(dialect))]
    })
    .await;
    let talk = &mut talks[0];
    app.supervision().faults().shorten_budgets(HASTE);
    let run = talk.ann.send_message("go").await.run_id;
    talk.ann.wait_for("message.text.delta").await;
    app.supervision().faults().shorten_budgets(1);
    assert_eq!(talk.ann.run_ended(&run).await, RunStatus::Failed);
    let error = talk.ann.answer(&run).await.error.unwrap();
    assert!(error.message.contains("sent nothing for `6000` ms"), "{error}");
    gates.of(talk.dialect).reached().await;
}

/// An answer of text that never ends.
fn endless(dialect: Dialect, gate: &Gate) -> Reply {
    let begun = dialect.answer().open_text(&["x"]);
    let more = begun.clone().open_text(&[&"x".repeat(2_000)]);
    let more = more.events().last().unwrap().clone();
    begun.reply().repeat_until_left(gate, more)
}

#[tokio::test]
async fn l7_an_endless_stream_is_left_at_the_limit_of_bytes() {
    let gates = Gates::new();
    let limits = Limits { stream_bytes_max: 100_000, ..Limits::default() };
    let (_app, talks) = talks_on(&Dialect::ALL, limited(limits), |dialect| {
        vec![endless(dialect, gates.of(dialect)), dialect.says("next")]
    })
    .await;
    for mut talk in talks {
        let answer = talk.failure("protocol").await;
        assert!(answer.error.as_ref().unwrap().message.contains("over `100000` bytes"));
        assert!(text_of(&answer).len() < 100_000);
        gates.of(talk.dialect).reached().await;
        assert_eq!(text_of(&talk.answer().await), "next", "{:?}", talk.dialect);
    }
}

#[tokio::test]
async fn l7_an_endless_text_is_left_at_the_limit_of_a_step() {
    let gates = Gates::new();
    let change = |options: &mut AppOptions| options.turn.step_text_bytes_max = 50_000;
    let (_app, talks) = talks_on(&Dialect::ALL, change, |dialect| {
        vec![endless(dialect, gates.of(dialect)), dialect.says("next")]
    })
    .await;
    for mut talk in talks {
        let answer = talk.failure("output_limit").await;
        assert!(text_of(&answer).len() <= 50_000);
        gates.of(talk.dialect).reached().await;
        assert_eq!(text_of(&talk.answer().await), "next", "{:?}", talk.dialect);
    }
}

#[tokio::test]
async fn l8_one_delta_of_ten_megabytes_is_refused() {
    let long = "x".repeat(10_000_000);
    let (_app, talks) = talks(|dialect| {
        vec![dialect.answer().open_text(&["a", &long]).reply(), dialect.says("next")]
    })
    .await;
    for mut talk in talks {
        let answer = talk.failure("protocol").await;
        assert_eq!(text_of(&answer), "a", "{:?}", talk.dialect);
        assert_eq!(text_of(&talk.answer().await), "next");
    }
}

#[tokio::test]
async fn l8_deltas_of_one_byte_are_joined_before_clients_are_told() {
    const DELTAS: usize = 5_000;
    let pieces = vec!["x"; DELTAS];
    let (_app, talks) = talks(|dialect| {
        vec![dialect.stream().bytes(dialect.answer().text(&pieces).end(Why::Done).body())]
    })
    .await;
    for mut talk in talks {
        assert_eq!(text_of(&talk.answer().await), "x".repeat(DELTAS), "{:?}", talk.dialect);
        let told = talk.ann.names().iter().filter(|name| **name == "message.text.delta").count();
        assert!((1..DELTAS / 10).contains(&told), "{:?}: {told} deltas were told", talk.dialect);
    }
}

#[tokio::test]
async fn l8_every_way_to_write_an_event_is_read() {
    let wires: Vec<Dialect> =
        Dialect::ALL.into_iter().filter(|dialect| dialect.has_comments()).collect();
    let odd: [fn(&str) -> String; 5] = [
        |body| format!("\u{feff}{body}"),
        |body| body.replace("data: ", "data:"),
        |body| body.replace('\n', "\r\n"),
        |body| body.replace('\n', "\r"),
        // JSON over two lines of `data`.
        |body| body.replace("data: {", "data: {\ndata: "),
    ];
    let (_app, talks) = talks_on(
        &wires,
        |_| {},
        |dialect| {
            let body = dialect.answer().text(&["one ", "two"]).end(Why::Done).body();
            odd.iter().map(|write| dialect.stream().bytes(write(&body))).collect()
        },
    )
    .await;
    for mut talk in talks {
        for _ in &odd {
            assert_eq!(text_of(&talk.answer().await), "one two", "{:?}", talk.dialect);
        }
    }
}

#[tokio::test]
async fn l11_the_same_call_three_times_and_two_calls_in_turns_end_the_run() {
    let (_app, talks) = talks(|dialect| {
        let read = |path: &str| dialect.calls("read", &json!({ "path": path }).to_string());
        vec![
            read("a.txt"),
            read("a.txt"),
            read("a.txt"),
            read("a.txt"),
            read("b.txt"),
            read("a.txt"),
            read("b.txt"),
        ]
    })
    .await;
    talks[0].put("a.txt", "one").await;
    talks[0].put("b.txt", "two").await;
    for mut talk in talks {
        assert_eq!(calls_of(&talk.failure("loop").await).len(), 3, "{:?}", talk.dialect);
        assert_eq!(calls_of(&talk.failure("loop").await).len(), 4, "{:?}", talk.dialect);
    }
}

#[tokio::test]
async fn l11_the_same_call_again_and_again_ends_the_run_whatever_it_answers() {
    let asked = Gate::default();
    let (_app, mut talks) = talks_on(
        &[Dialect::Chat],
        |_| {},
        |dialect| {
            let call = dialect.answer().call("a", "read", &[r#"{"path":"a.txt"}"#]).end(Why::Done);
            let call = || dialect.stream().wait(&asked).bytes(call.body());
            std::iter::repeat_with(call).take(9).collect()
        },
    )
    .await;
    let talk = &mut talks[0];
    let run = talk.ann.send_message("go").await.run_id;
    for number in 0..8 {
        asked.reached().await;
        talk.put("a.txt", &format!("number {number}")).await;
        asked.open();
    }
    assert_eq!(talk.ann.run_ended(&run).await, RunStatus::Failed);
    let answer = talk.ann.answer(&run).await;
    let error = answer.error.as_ref().unwrap();
    assert_eq!(crate::code_of(error).1, "loop");
    assert!(error.message.contains("whatever comes of them"), "{error}");
    let mut read: Vec<_> = calls_of(&answer).iter().map(|call| call.output.clone()).collect();
    read.dedup();
    assert_eq!(read.len(), 8, "each one said something else");
    assert_eq!(talk.provider.asked().len(), 8);
}

#[tokio::test]
async fn l11_a_run_has_so_many_steps_and_not_one_more() {
    let change = |options: &mut AppOptions| options.turn.steps_max = 3;
    let (_app, talks) = talks_on(&Dialect::ALL, change, |dialect| {
        let read = |path: &str| dialect.calls("read", &json!({ "path": path }).to_string());
        vec![read("a.txt"), read("b.txt"), read("c.txt"), dialect.says("never asked")]
    })
    .await;
    for mut talk in talks {
        let answer = talk.answer().await;
        assert_eq!(answer.finish_reason, Some(FinishReason::Steps), "{:?}", talk.dialect);
        assert_eq!(talk.provider.asked().len(), 3);
        assert!(calls_of(&answer).iter().all(|call| call.state.is_final()));
    }
}

#[tokio::test]
async fn l11_an_agent_that_sets_itself_to_work_does_so_to_a_depth() {
    let task = json!({"description": "more", "prompt": "go deeper", "agent": "general"});
    let (_app, talks) = talks(|dialect| {
        let deeper = || dialect.calls("task", &task.to_string());
        vec![
            deeper(),
            deeper(),
            deeper(),
            dialect.says("the bottom"),
            dialect.says("the middle"),
            dialect.says("the top"),
        ]
    })
    .await;
    for mut talk in talks {
        let answer = talk.answer().await;
        assert_eq!(text_of(&answer), "the top", "{:?}", talk.dialect);
        assert_eq!(calls_of(&answer)[0].state, ToolState::Completed);
        // The one at the bottom was not told of the tool, and its call was refused.
        let asked = talk.asked(3);
        assert!(
            asked.contains("sub-agents are at most 2 sessions deep"),
            "{:?} {asked}",
            talk.dialect
        );
        let subtasks = talk
            .ann
            .seen
            .iter()
            .filter(|frame| matches!(frame.event, Event::MessageSubtaskUpdated { .. }));
        assert!(subtasks.count() > 0);
        assert_eq!(talk.provider.asked().len(), 6);
    }
}
