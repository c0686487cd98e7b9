//! What a message holds besides its words, as each wire has it: an image, a text, a name.

use iris_protocol::{Content, MessageSend, RunStatus, SentAttachment};
use iris_testkit::{AppOptions, Dialect};
use serde_json::{Value, json};

use super::{Talk, talks_on};
use crate::attachments::{PNG, PNG_BASE64};

/// What a question holds of a message with the words `look`, a picture, a text and a file that is neither.
const TOLD: &str = "look\n\n\
    [attached file \"shots/a.png\": image/png, 70 bytes]\n\n\
    [attached file \"b.md\": text/plain, 8 bytes]\n```\none\ntwo\n```\n\n\
    [attached file \"c.bin\": application/octet-stream, 3 bytes]";

fn sees(options: &mut AppOptions) {
    options.providers.values_mut().for_each(|it| it.images = Some(true));
}

async fn send(talk: &Talk, paths: &[&str]) -> iris_protocol::MessageAccepted {
    let attachments = paths.iter().copied().map(SentAttachment::of_path).collect();
    let (session_id, content) = (talk.ann.session.clone(), Content::Text("look".to_owned()));
    let send = MessageSend { session_id, content, when_busy: None, attachments };
    talk.ann.call(send).await.unwrap()
}

/// The entries of a question that are a user's.
fn said(dialect: Dialect, body: &Value) -> Vec<&Value> {
    let place = match dialect {
        Dialect::Messages | Dialect::Chat | Dialect::Ollama => "messages",
        Dialect::Responses => "input",
        Dialect::Gemini => "contents",
    };
    body[place].as_array().unwrap().iter().filter(|it| it["role"] == "user").collect()
}

/// What such a message is on the wire, with its image or without.
fn expected(dialect: Dialect, text: &str, image: bool) -> Value {
    let url = format!("data:image/png;base64,{PNG_BASE64}");
    let with = |text: Value, shown: Value| {
        let parts = [text].into_iter().chain(image.then_some(shown));
        Value::Array(parts.collect())
    };
    match dialect {
        Dialect::Messages => {
            let source = json!({"type": "base64", "media_type": "image/png", "data": PNG_BASE64});
            let shown = json!({"type": "image", "source": source});
            json!({"role": "user", "content": with(json!({"type": "text", "text": text}), shown)})
        }
        Dialect::Responses => {
            let shown = json!({"type": "input_image", "image_url": url, "detail": "auto"});
            let content = with(json!({"type": "input_text", "text": text}), shown);
            json!({"type": "message", "role": "user", "content": content})
        }
        Dialect::Gemini => {
            let data = json!({"mimeType": "image/png", "data": PNG_BASE64});
            let parts = with(json!({"text": text}), json!({"inlineData": data}));
            json!({"role": "user", "parts": parts})
        }
        Dialect::Ollama if image => {
            json!({"role": "user", "content": text, "images": [PNG_BASE64]})
        }
        Dialect::Chat if image => {
            let shown = json!({"type": "image_url", "image_url": {"url": url}});
            json!({"role": "user", "content": with(json!({"type": "text", "text": text}), shown)})
        }
        Dialect::Ollama | Dialect::Chat => json!({"role": "user", "content": text}),
    }
}

/// A message without what the wire of Messages notes for its cache.
fn unmarked(message: &Value) -> Value {
    let mut message = message.clone();
    let blocks = message.get_mut("content").and_then(Value::as_array_mut);
    for block in blocks.into_iter().flatten() {
        block.as_object_mut().unwrap().remove("cache_control");
    }
    message
}

#[tokio::test]
async fn images_and_texts_reach_the_provider_with_their_message_at_each_step() {
    let (_app, talks) = talks_on(&Dialect::ALL, sees, |dialect| {
        vec![dialect.calls("list", "{}"), dialect.says("a dot"), dialect.says("yes")]
    })
    .await;
    let first = &talks[0].ann;
    let client = &first.person.client;
    client.file_put(&first.project, "shots/a.png", PNG.to_vec()).await.unwrap();
    client.file_put(&first.project, "b.md", "one\ntwo\n").await.unwrap();
    client.file_put(&first.project, "c.bin", vec![0, 1, 2]).await.unwrap();
    for mut talk in talks {
        let run = send(&talk, &["shots/a.png", "b.md", "c.bin"]).await.run_id;
        assert_eq!(talk.ann.run_ended(&run).await, RunStatus::Completed, "{:?}", talk.dialect);
        talk.answer().await;
        let asked = talk.provider.asked();
        assert_eq!(asked.len(), 3);
        for asked in &asked {
            let said = said(talk.dialect, &asked.body);
            let expected = expected(talk.dialect, TOLD, true);
            // Compared as text, because the order of the properties counts.
            assert_eq!(unmarked(said[0]).to_string(), expected.to_string(), "{:?}", talk.dialect);
        }
    }
}
