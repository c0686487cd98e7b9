//! Answers in JSON: the schema that comes with a message reaches the provider, for as long as its run lasts.

use iris_protocol::{
    AnswerFormatPart, Content, ContentPart, ErrorCode, Message, MessageAccepted, MessageRole,
    MessageSend, Part, RunStatus, WhenBusy,
};
use iris_testkit::{Dialect, Gate, Reply, Why, chat, text_of};
use serde_json::{Value, json};

use super::{Talk, talks, talks_on};
use crate::{code_of, refusal};

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": { "z": { "type": "string" }, "a": { "type": "integer" } },
        "required": ["z", "a"],
        "additionalProperties": false,
    })
}

fn text(text: &str) -> ContentPart {
    ContentPart::Text { text: text.to_owned() }
}

fn format(schema: Value) -> ContentPart {
    ContentPart::AnswerFormat { name: None, schema, strict: None }
}

fn message(talk: &Talk, parts: Vec<ContentPart>) -> MessageSend {
    let session_id = talk.ann.session.clone();
    MessageSend {
        session_id,
        content: Content::Parts(parts),
        when_busy: None,
        attachments: Vec::new(),
    }
}

async fn send(talk: &Talk, parts: Vec<ContentPart>) -> MessageAccepted {
    talk.ann.call(message(talk, parts)).await.unwrap()
}

/// What the provider was told of the answer.
fn told(dialect: Dialect, body: &Value) -> Value {
    let place = match dialect {
        Dialect::Messages => "/output_config/format",
        Dialect::Responses => "/text/format",
        Dialect::Gemini => "/generationConfig/responseJsonSchema",
        Dialect::Ollama => "/format",
        Dialect::Chat => "/response_format",
    };
    body.pointer(place).cloned().unwrap_or_default()
}

fn expected(dialect: Dialect, name: &str, strict: bool) -> Value {
    let schema = schema();
    match dialect {
        Dialect::Messages => json!({"type": "json_schema", "schema": schema}),
        Dialect::Responses => {
            json!({"type": "json_schema", "name": name, "schema": schema, "strict": strict})
        }
        Dialect::Gemini | Dialect::Ollama => schema,
        Dialect::Chat => {
            let schema = json!({"name": name, "schema": schema, "strict": strict});
            json!({"type": "json_schema", "json_schema": schema})
        }
    }
}

/// The newest message of a user.
async fn asked_by_user(talk: &Talk) -> Message {
    let snapshot = talk.ann.person.snapshot(&talk.ann.project, &talk.ann.session).await;
    snapshot.messages.into_iter().rfind(|message| message.role == MessageRole::User).unwrap()
}

#[tokio::test]
async fn a_schema_reaches_the_provider_at_each_step_of_its_run_and_not_later() {
    let answer = r#"{"z":"é","a":1}"#;
    let (_app, talks) = talks(|dialect| {
        let whole = dialect.answer().text(&[&answer[..9], &answer[9..]]).end(Why::Done);
        vec![dialect.calls("list", "{}"), whole.reply(), dialect.says("free again")]
    })
    .await;
    for mut talk in talks {
        let run = send(&talk, vec![text("who?"), format(schema())]).await.run_id;
        assert_eq!(talk.ann.run_ended(&run).await, RunStatus::Completed);
        let said = talk.ann.answer(&run).await;
        let parsed: Value = serde_json::from_str(&text_of(&said)).unwrap();
        assert_eq!(parsed, json!({"z": "é", "a": 1}), "{:?}", talk.dialect);
        assert_eq!(text_of(&talk.answer().await), "free again");
        let asked = talk.provider.asked();
        for asked in &asked[..2] {
            let told = told(talk.dialect, &asked.body);
            // Compared as text, because the order of the properties counts.
            let expected = expected(talk.dialect, "answer", true);
            assert_eq!(told.to_string(), expected.to_string(), "{:?}", talk.dialect);
        }
        assert_eq!(told(talk.dialect, &asked[2].body), Value::Null, "{:?}", talk.dialect);
        if talk.dialect == Dialect::Gemini {
            let mime = &asked[0].body["generationConfig"]["responseMimeType"];
            assert_eq!(mime, "application/json");
        }
    }
}

#[tokio::test]
async fn a_format_is_a_part_of_its_message_that_everybody_sees_and_no_model_reads() {
    let (_app, mut talks) =
        talks_on(&[Dialect::Chat], |_| {}, |dialect| vec![dialect.says("{}"), dialect.says("{}")])
            .await;
    let talk = &mut talks[0];
    let named = ContentPart::AnswerFormat {
        name: Some("person-1".to_owned()),
        schema: schema(),
        strict: Some(false),
    };
    let run = send(talk, vec![named, text("who?"), text("really?")]).await.run_id;
    let created = talk.ann.wait_for("message.created").await;
    talk.ann.run_ended(&run).await;
    let said = asked_by_user(talk).await;
    let [Part::Text { text, .. }, Part::AnswerFormat(format)] = said.parts.as_slice() else {
        panic!("{said:?}")
    };
    assert_eq!(text, "who?\nreally?");
    let AnswerFormatPart { name, schema: kept, strict, .. } = format;
    assert_eq!((name.as_str(), kept, *strict), ("person-1", &schema(), false));
    let told_of = serde_json::to_value(&created.event).unwrap().to_string();
    assert!(told_of.contains("\"type\":\"answerFormat\""), "{told_of}");
    let body = &talk.provider.asked()[0].body;
    assert_eq!(told(talk.dialect, body), expected(talk.dialect, "person-1", false));
    assert!(!body["messages"].to_string().contains("properties"), "{body}");
}

#[tokio::test]
async fn a_format_that_is_wrong_is_refused_and_nothing_is_kept_of_its_message() {
    let (_app, talks) =
        talks_on(&[Dialect::Chat], |_| {}, |dialect| vec![dialect.says("so")]).await;
    let talk = &talks[0];
    let format_of = |name: &str| ContentPart::AnswerFormat {
        name: Some(name.to_owned()),
        schema: schema(),
        strict: None,
    };
    let deep = (0..40).fold(json!({}), |inner, _| json!({ "a": inner }));
    let wrong = [
        (vec![format(schema()), format(schema())], "more than one part"),
        (vec![format(json!([]))], "\"type\": \"object\""),
        (vec![format(json!({"type": "array"}))], "\"type\": \"object\""),
        (vec![format(json!({"type": "object", "properties": 7}))], "`schema.properties`"),
        (vec![format(json!({"type": "object", "required": "z"}))], "`schema` is no JSON Schema"),
        (vec![format(json!({"type": "object", "x": "x".repeat(40_000)}))], "32768 bytes"),
        (vec![format(json!({"type": "object", "x": deep}))], "nests deeper"),
        (
            vec![format(json!({"type": "object", "$ref": "https://example.com/x"}))],
            "nothing is fetched",
        ),
        (vec![format(json!({"type": "object", "a": {"$ref": "#"}}))], "in a circle"),
        (vec![format_of("")], "`name` of `answerFormat`"),
        (vec![format_of("a b")], "`name` of `answerFormat`"),
        (vec![format_of(&"x".repeat(65))], "`name` of `answerFormat`"),
    ];
    for (mut parts, problem) in wrong {
        parts.insert(0, text("who?"));
        let refused = refusal(talk.ann.call(message(talk, parts)).await);
        let code = (ErrorCode::InvalidRequest, "invalid_answer_format");
        assert_eq!(code_of(&refused), code, "{refused}");
        assert!(refused.message.contains(problem), "{problem}: {}", refused.message);
    }
    let refused = refusal(talk.ann.call(message(talk, vec![format(schema())])).await);
    assert_eq!(code_of(&refused), (ErrorCode::InvalidRequest, "empty_content"));
    let snapshot = talk.ann.person.snapshot(&talk.ann.project, &talk.ann.session).await;
    assert!(snapshot.messages.is_empty() && talk.provider.asked().is_empty());
}

#[tokio::test]
async fn a_format_waits_with_its_message_and_outlives_the_server() {
    let gate = Gate::default();
    let (app, mut talks) = talks_on(
        &[Dialect::Chat],
        |_| {},
        |_| {
            vec![
                Reply::stream().bytes(chat::text("half")).until_left(&gate),
                chat::says("{\"z\":\"\",\"a\":1}"),
            ]
        },
    )
    .await;
    let mut talk = talks.remove(0);
    talk.ann.send_message("first").await;
    talk.ann.wait_for("message.text.delta").await;
    let waiting = send(&talk, vec![text("who?"), format(schema())]).await;
    assert!(waiting.queued);
    let app = app.restart().await;
    let mut ann = talk.ann.resume(app.again(&talk.ann.person)).await;
    assert_eq!(ann.run_ended(&waiting.run_id).await, RunStatus::Completed);
    let asked = talk.provider.asked();
    assert_eq!(told(talk.dialect, &asked[0].body), Value::Null);
    assert_eq!(told(talk.dialect, &asked[1].body), expected(talk.dialect, "answer", true));
}

#[tokio::test]
async fn the_format_of_a_message_that_joins_counts_from_then_on_in_its_run_alone() {
    let write = json!({ "path": "a.txt", "content": "x" }).to_string();
    let (_app, mut talks) = talks_on(
        &[Dialect::Chat],
        |_| {},
        |dialect| {
            let round = || [dialect.calls("write", &write), dialect.says("{}")];
            round().into_iter().chain(round()).chain([dialect.says("free again")]).collect()
        },
    )
    .await;
    let talk = &mut talks[0];
    let format_of = |name: &str| ContentPart::AnswerFormat {
        name: Some(name.to_owned()),
        schema: schema(),
        strict: None,
    };
    for round in ["1", "2"] {
        let (first, joins) = (format!("first{round}"), format!("joins{round}"));
        let run = send(talk, vec![text("who?"), format_of(&first)]).await.run_id;
        let call = talk.ann.approval().await.tool_call_id;
        let joining = MessageSend {
            when_busy: Some(WhenBusy::Steer),
            ..message(talk, vec![text("and who else?"), format_of(&joins)])
        };
        assert_eq!(talk.ann.call(joining).await.unwrap().run_id, run);
        let plain = talk.ann.try_send("in short", Some(WhenBusy::Steer)).await.unwrap();
        assert_eq!(plain.run_id, run);
        talk.ann.approve(&call).await.unwrap();
        assert_eq!(talk.ann.run_ended(&run).await, RunStatus::Completed);
    }
    talk.answer().await;
    let asked = talk.provider.asked();
    let names = asked.iter().map(|asked| {
        told(Dialect::Chat, &asked.body)["json_schema"]["name"].as_str().map(str::to_owned)
    });
    let expected = ["first1", "joins1", "first2", "joins2"].map(|name| Some(name.to_owned()));
    assert_eq!(names.collect::<Vec<_>>(), [&expected[..], &[None]].concat());
}

#[tokio::test]
async fn a_format_comes_over_rest_too_and_is_kept_once_under_one_key() {
    let (_app, mut talks) = talks_on(
        &[Dialect::Chat],
        |_| {},
        |dialect| vec![dialect.says("{}"), dialect.says("never asked")],
    )
    .await;
    let talk = &mut talks[0];
    let path = format!("/v1/projects/{}/sessions/{}/messages", talk.ann.project, talk.ann.session);
    let format = json!({"type": "answerFormat", "schema": schema()});
    let body = json!({"content": [{"type": "text", "text": "who?"}, format]});
    let person = &talk.ann.person;
    let headers = [("content-type", "application/json"), ("idempotency-key", "key-1")];
    let mut accepted = Vec::new();
    for _ in 0..2 {
        let body = body.to_string().into();
        let sent = person.client.raw("POST", &path, Some(person.token()), &headers, body);
        accepted.push(sent.await.unwrap().data::<MessageAccepted>().unwrap());
    }
    assert_eq!(accepted[0], accepted[1]);
    talk.ann.run_ended(&accepted[0].run_id).await;
    assert_eq!(talk.provider.asked().len(), 1);
    let told = told(talk.dialect, &talk.provider.asked()[0].body);
    assert_eq!(told, expected(talk.dialect, "answer", true));
    assert_eq!(asked_by_user(talk).await.parts.len(), 2);
}
