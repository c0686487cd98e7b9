//! Files that go with messages: what becomes of them, who gets them, what is refused.

use iris_client::RestAnswer;
use iris_protocol::{
    AttachmentGiven, AttachmentPart, Content, ErrorCode, ExportFormat, Message, MessageAccepted,
    MessageAttachment, MessageEdit, MessageId, MessageRetry, MessageSend, ModelRef, Part, Role,
    RunStatus, SentAttachment, SessionExport, SessionFork, SessionId, SessionRevert,
    SessionUnrevert, SessionUpdate, WhenBusy,
    limits::{ATTACHED_IMAGES_MAX, ATTACHED_TEXT_BYTES_MAX, ATTACHMENTS_MAX, IMAGE_BYTES_MAX},
};
use iris_testkit::{
    AppOptions, Conversation, FakeProvider, Person, TestApp, chat, spawn_app_with, text_of,
};
use serde_json::{Value, json};

use crate::{code_of, refusal, rest_refusal};

/// An image of one pixel.
pub(crate) const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0\
    \x1f\x15\xc4\x89\0\0\0\rIDATx\xda\x63\xf8\xcf\xc0\xf0\x1f\0\x05\0\x01\xff\x56\xc7\x2f\x0d\0\0\0\0\
    IEND\xaeB`\x82";
/// The same in base64.
pub(crate) const PNG_BASE64: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP4z8DwHwAFAAH/\
                                     VscvDQAAAABJRU5ErkJggg==";
/// Keeps a run waiting for a person.
const HOLD: &str = r#"{"path": "held.txt", "content": "x"}"#;

const READ: &str = r#"{"path": "a.png"}"#;

/// A server whose model `fake/m` is shown images and `blind/m` is not, each with a provider of its own that
/// answers as long as it is asked.
struct World {
    app: TestApp,
    ann: Conversation,
    sees: FakeProvider,
    blind: FakeProvider,
}

async fn world(replies: impl IntoIterator<Item = iris_testkit::Reply>) -> World {
    let sees = FakeProvider::start(replies).await;
    let blind = FakeProvider::start(vec![chat::says("dark"); 4]).await;
    let mut options = AppOptions::with_provider(sees.base_url());
    let known = options.providers["fake"].clone();
    options.providers.get_mut("fake").unwrap().images = Some(true);
    let base_url = Some(blind.base_url());
    let other = iris_llm::ProviderConfig { base_url, images: Some(false), ..known };
    options.providers.insert("blind".to_owned(), other);
    let app = spawn_app_with(options).await;
    let ann = app.user("ann").await.conversation().await;
    World { app, ann, sees, blind }
}

async fn put(talk: &Conversation, path: &str, content: impl Into<Vec<u8>>) {
    talk.person.client.file_put(&talk.project, path, content.into()).await.unwrap();
}

fn of_paths(paths: &[&str]) -> Vec<SentAttachment> {
    paths.iter().copied().map(SentAttachment::of_path).collect()
}

fn pasted(name: &str, data: &str) -> SentAttachment {
    let (name, data) = (Some(name.to_owned()), Some(data.to_owned()));
    SentAttachment { name, data, ..SentAttachment::default() }
}

fn message(talk: &Conversation, text: &str, attachments: Vec<SentAttachment>) -> MessageSend {
    let (session_id, content) = (talk.session.clone(), Content::Text(text.to_owned()));
    MessageSend { session_id, content, when_busy: None, attachments }
}

async fn send(
    talk: &Conversation,
    text: &str,
    attachments: Vec<SentAttachment>,
) -> MessageAccepted {
    talk.call(message(talk, text, attachments)).await.unwrap()
}

/// Sends and waits for the answer.
async fn ask(talk: &mut Conversation, text: &str, attachments: Vec<SentAttachment>) -> MessageId {
    let MessageAccepted { message_id, run_id, .. } = send(talk, text, attachments).await;
    assert_eq!(talk.run_ended(&run_id).await, RunStatus::Completed);
    message_id
}

async fn messages(person: &Person, talk: &Conversation, session: &SessionId) -> Vec<Message> {
    person.snapshot(&talk.project, session).await.messages
}

fn attached(message: &Message) -> Vec<AttachmentPart> {
    let parts = message.parts.iter().filter_map(|part| match part {
        Part::Attachment(part) => Some(part.clone()),
        _ => None,
    });
    parts.collect()
}

async fn attached_to(talk: &Conversation, id: &MessageId) -> Vec<AttachmentPart> {
    let all = messages(&talk.person, talk, &talk.session).await;
    attached(all.iter().find(|message| message.id == *id).unwrap())
}

fn route(talk: &Conversation, id: &MessageId, index: &str) -> String {
    let (project, session) = (&talk.project, &talk.session);
    format!("/v1/projects/{project}/sessions/{session}/messages/{id}/attachments/{index}")
}

fn header<'a>(answer: &'a RestAnswer, name: &str) -> &'a str {
    answer.headers[name].to_str().unwrap()
}

/// What the users of a conversation said, as the model of a question reads it.
fn said(body: &Value) -> Vec<String> {
    let messages = body["messages"].as_array().unwrap().iter();
    let messages = messages.filter(|message| message["role"] == "user");
    let texts = messages.map(|message| match &message["content"] {
        Value::String(text) => text.clone(),
        parts => {
            let count = parts.as_array().unwrap().len() - 1;
            format!("{} +{count}", parts[0]["text"].as_str().unwrap())
        }
    });
    texts.collect()
}

async fn choose_model(talk: &Conversation, provider: &str) {
    let (provider_id, model_id) = (provider.to_owned(), "m".to_owned());
    let update = SessionUpdate {
        session_id: talk.session.clone(),
        model: Some(ModelRef { provider_id, model_id }),
        title: None,
        agent: None,
        mode: None,
    };
    talk.call(update).await.unwrap();
}

#[tokio::test]
async fn what_goes_with_a_message_is_part_of_it_and_whoever_reads_that_gets_the_bytes() {
    use AttachmentGiven::{Image, Named, Text};
    let World { app, mut ann, sees, .. } = world([chat::says("a dot")]).await;
    put(&ann, "shots/dot.txt", PNG).await;
    put(&ann, "b.html", "<b>é</b>").await;
    put(&ann, "c.pdf", b"%PDF-1.7\0".to_vec()).await;
    let mut attachments = of_paths(&["shots/dot.txt", "./b.html", "c.pdf"]);
    attachments.push(pasted("ü \".png", PNG_BASE64));
    let id = ask(&mut ann, "look", attachments).await;

    let parts = attached_to(&ann, &id).await;
    let gist = parts.iter().map(|part| {
        let AttachmentPart { name, path, version, mime_type, size, given, .. } = part;
        (name.as_str(), path.as_deref(), *version, mime_type.as_str(), *size, *given)
    });
    let expected = [
        ("dot.txt", Some("shots/dot.txt"), Some(1), "image/png", 70, Image),
        ("b.html", Some("b.html"), Some(1), "text/plain", 9, Text),
        ("c.pdf", Some("c.pdf"), Some(1), "application/octet-stream", 9, Named),
        ("ü \".png", None, None, "image/png", 70, Image),
    ];
    assert_eq!(gist.collect::<Vec<_>>(), expected);
    let created = ann.person.get(&route(&ann, &id, "0")).await;
    assert_eq!(created.body, PNG);
    let told = "look\n\n[attached file \"shots/dot.txt\": image/png, 70 bytes]\n\n\
                [attached file \"b.html\": text/plain, 9 bytes]\n```\n<b>é</b>\n```\n\n\
                [attached file \"c.pdf\": application/octet-stream, 9 bytes]\n\n\
                [attached file \"ü \\\".png\": image/png, 70 bytes] +2";
    assert_eq!(said(&sees.asked()[0].body), [told]);

    let (bob, eve) = (app.user("bob").await, app.user("eve").await);
    ann.person.add_member(&ann.project, &bob, Role::Viewer).await;
    let types = ["image/png", "text/plain; charset=utf-8", "application/octet-stream", "image/png"];
    for (index, (part, content_type)) in parts.iter().zip(types).enumerate() {
        let answer = bob.get(&route(&ann, &id, &index.to_string())).await;
        assert_eq!((answer.status, answer.body.len() as u64), (200, part.size));
        assert_eq!(header(&answer, "content-type"), content_type);
        assert_eq!(header(&answer, "x-content-type-options"), "nosniff");
        let etag = header(&answer, "etag");
        assert_eq!(etag, format!("\"{}\"", part.hash));
        let path = route(&ann, &id, &index.to_string());
        let headers = [("if-none-match", etag)];
        let known = bob.client.raw("GET", &path, Some(bob.token()), &headers, "".into()).await;
        let known = known.unwrap();
        assert_eq!((known.status, known.body.len()), (304, 0));
    }
    let answer = bob.get(&route(&ann, &id, "3")).await;
    let disposition = header(&answer, "content-disposition");
    assert_eq!(disposition, "attachment; filename*=UTF-8''%C3%BC%20%22.png");

    for index in ["4", "-1", "x"] {
        let refused = rest_refusal(&bob.get(&route(&ann, &id, index)).await);
        assert_eq!(refused.code, ErrorCode::NotFound, "{index}");
    }
    let other = route(&ann, &MessageId::from_bits(1), "0");
    assert_eq!(rest_refusal(&bob.get(&other).await).code, ErrorCode::NotFound);
    assert_eq!(rest_refusal(&eve.get(&route(&ann, &id, "0")).await).code, ErrorCode::NotFound);

    // Over a socket it comes piece by piece.
    let piece = |offset, limit| MessageAttachment {
        session_id: ann.session.clone(),
        message_id: id.clone(),
        index: 1,
        offset: Some(offset),
        limit: Some(limit),
    };
    let first = ann.call(piece(0, 4)).await.unwrap();
    assert_eq!((first.content.as_str(), first.size, first.next_offset), ("<b>", 9, Some(3)));
    let rest = ann.call(piece(3, 100)).await.unwrap();
    assert_eq!((rest.content.as_str(), rest.next_offset), ("é</b>", None));
}

#[tokio::test]
async fn what_a_file_held_stays_with_its_message_whatever_becomes_of_the_file() {
    let replies = [chat::says("one"), chat::says("two"), chat::says("three")];
    let World { app, mut ann, sees, .. } = world(replies).await;
    put(&ann, "a.txt", "old").await;
    put(&ann, "a.txt", "newer").await;
    let version = SentAttachment { version: Some(1), ..SentAttachment::of_path("a.txt") };
    let mut attachments = of_paths(&["a.txt"]);
    attachments.push(version);
    let id = ask(&mut ann, "first", attachments).await;
    let parts = attached_to(&ann, &id).await;
    assert_eq!([parts[0].version, parts[1].version], [Some(2), Some(1)]);

    put(&ann, "a.txt", "newest").await;
    let files = format!("/v1/projects/{}/files?path=a.txt", ann.project);
    assert!(ann.person.rest("DELETE", &files, None).await.is_success());
    ask(&mut ann, "second", Vec::new()).await;
    let app = app.restart().await;
    let mut ann = ann.resume(app.again(&ann.person)).await;
    ask(&mut ann, "third", Vec::new()).await;

    let first = "first\n\n[attached file \"a.txt\": text/plain, 5 bytes]\n```\nnewer\n```\n\n\
                 [attached file \"a.txt\": text/plain, 3 bytes]\n```\nold\n```";
    for asked in sees.asked() {
        assert_eq!(said(&asked.body)[0], first);
    }
    assert_eq!(sees.asked().len(), 3);
    for (index, content) in [("0", "newer"), ("1", "old")] {
        assert_eq!(ann.person.get(&route(&ann, &id, index)).await.body, content);
    }
}

#[tokio::test]
async fn an_image_for_a_model_that_is_shown_none_is_refused_and_an_older_one_is_named() {
    let World { app: _app, mut ann, blind, .. } = world([chat::says("a dot")]).await;
    put(&ann, "a.png", PNG).await;
    let first = ask(&mut ann, "look", of_paths(&["a.png"])).await;
    choose_model(&ann, "blind").await;
    let refused = refusal(ann.call(message(&ann, "look again", of_paths(&["a.png"]))).await);
    let code = (ErrorCode::ModelUnavailable, "images_unsupported");
    assert_eq!(code_of(&refused), code, "{refused}");
    assert!(refused.message.contains("`blind/m`") && refused.message.contains("`a.png`"));
    let (session_id, content) = (ann.session.clone(), Content::Text("again".to_owned()));
    let attachments = of_paths(&["a.png"]);
    let edit = MessageEdit { session_id, message_id: first, content, attachments };
    assert_eq!(code_of(&refusal(ann.call(edit).await)), code);
    assert_eq!(messages(&ann.person, &ann, &ann.session).await.len(), 2);

    ask(&mut ann, "so?", Vec::new()).await;
    let told =
        "look\n\n[attached file \"a.png\": image/png, 70 bytes; this model is shown no images]";
    assert_eq!(said(&blind.asked()[0].body), [told, "so?"]);
}

#[tokio::test]
async fn what_cannot_go_with_a_message_is_refused_and_nothing_is_kept_of_it() {
    let World { app, ann, sees, .. } = world([]).await;
    put(&ann, "a.txt", "a").await;
    put(&ann, "a.png", PNG).await;
    put(&ann, "fake.png", PNG[..12].to_vec()).await;
    let mut wide = PNG.to_vec();
    wide[16..20].copy_from_slice(&8_001_u32.to_be_bytes());
    put(&ann, "wide.png", wide).await;
    let mut large = PNG.to_vec();
    large.resize(usize::try_from(IMAGE_BYTES_MAX).unwrap() + 1, 0);
    put(&ann, "large.png", large).await;
    put(&ann, "half.bin", vec![0; 9 * 1024 * 1024]).await;
    let of_path = SentAttachment::of_path("a.txt");
    let both = SentAttachment { data: Some(String::new()), ..of_path.clone() };
    let named = SentAttachment { name: Some("b.txt".to_owned()), ..of_path.clone() };
    let old = SentAttachment { version: Some(7), ..of_path };
    let invalid = (ErrorCode::InvalidRequest, "invalid_attachment");
    let too_large = |reason| (ErrorCode::PayloadTooLarge, reason);
    let cases = [
        (vec![SentAttachment::default()], invalid),
        (vec![both], invalid),
        (vec![named], invalid),
        (vec![pasted("a.png", "***")], invalid),
        (vec![pasted("a\nb", "")], (ErrorCode::InvalidRequest, "invalid_name")),
        (of_paths(&["none.txt"]), (ErrorCode::NotFound, "")),
        (of_paths(&["../a.txt"]), (ErrorCode::InvalidRequest, "invalid_path")),
        (vec![old], (ErrorCode::NotFound, "")),
        (of_paths(&["fake.png"]), (ErrorCode::UnsupportedMediaType, "invalid_image")),
        (of_paths(&["wide.png"]), too_large("image_too_large")),
        (of_paths(&["large.png"]), too_large("image_too_large")),
        (of_paths(&["half.bin", "half.bin"]), too_large("attachments_too_large")),
        (of_paths(&["a.png"; ATTACHED_IMAGES_MAX + 1]), too_large("too_many_images")),
        (of_paths(&["a.txt"; ATTACHMENTS_MAX + 1]), too_large("too_many_attachments")),
    ];
    for (attachments, expected) in cases {
        let refused = refusal(ann.call(message(&ann, "look", attachments)).await);
        assert_eq!(code_of(&refused), expected, "{refused}");
    }
    let bob = app.user("bob").await;
    ann.person.add_member(&ann.project, &bob, Role::Viewer).await;
    let path = format!("/v1/projects/{}/sessions/{}/messages", ann.project, ann.session);
    let body = json!({ "content": "look", "attachments": [{ "path": "a.txt" }] });
    assert_eq!(rest_refusal(&bob.post(&path, body).await).code, ErrorCode::Forbidden);
    assert_eq!(messages(&ann.person, &ann, &ann.session).await.len(), 0);
    assert_eq!(sees.asked().len(), 0);
}

#[tokio::test]
async fn a_repeat_answers_what_the_first_one_did_though_the_file_is_gone() {
    let World { app: _app, mut ann, .. } = world([chat::says("one")]).await;
    put(&ann, "a.txt", "a").await;
    let path = format!("/v1/projects/{}/sessions/{}/messages", ann.project, ann.session);
    let person = ann.person.clone();
    let post = async |attachments: Value| {
        let headers = [("content-type", "application/json"), ("idempotency-key", "k")];
        let body = json!({ "content": "look", "attachments": attachments }).to_string();
        let sent = person.client.raw("POST", &path, Some(person.token()), &headers, body.into());
        sent.await.unwrap()
    };
    let first: MessageAccepted = post(json!([{ "path": "a.txt" }])).await.data().unwrap();
    ann.run_ended(&first.run_id).await;
    let files = format!("/v1/projects/{}/files?path=a.txt", ann.project);
    assert!(ann.person.rest("DELETE", &files, None).await.is_success());
    let again = post(json!([{ "path": "a.txt" }])).await;
    assert_eq!(header(&again, "idempotent-replay"), "true");
    assert_eq!(again.data::<MessageAccepted>().unwrap(), first);
    let other = rest_refusal(&post(json!([{ "path": "a.txt", "version": 1 }])).await);
    assert_eq!(other.code, ErrorCode::IdempotencyConflict);
}

#[tokio::test]
async fn messages_that_wait_or_join_or_are_said_anew_keep_what_goes_with_them() {
    let replies = [
        chat::calls("write", HOLD),
        chat::says("first"),
        chat::says("second"),
        chat::says("edited"),
        chat::says("retried"),
        chat::says("forked"),
    ];
    let World { app: _app, mut ann, sees, .. } = world(replies).await;
    for name in ["a", "b", "c", "d"] {
        put(&ann, &format!("{name}.txt"), name).await;
    }
    let told = |text: &str, name: &str| {
        let head = format!("[attached file \"{name}.txt\": text/plain, 1 bytes]");
        format!("{text}\n\n{head}\n```\n{name}\n```")
    };
    let first = send(&ann, "one", of_paths(&["a.txt"])).await;
    let call = ann.approval().await.tool_call_id;
    let steer = message(&ann, "two", of_paths(&["b.txt"]));
    let steer = MessageSend { when_busy: Some(WhenBusy::Steer), ..steer };
    assert_eq!(ann.call(steer).await.unwrap().run_id, first.run_id);
    let queued = send(&ann, "three", of_paths(&["c.txt"])).await;
    assert!(queued.queued);
    put(&ann, "c.txt", "other").await;
    ann.approve(&call).await.unwrap();
    ann.run_ended(&queued.run_id).await;
    let mut expected = vec![told("one", "a"), told("two", "b"), told("three", "c")];
    assert_eq!(said(&sees.asked()[1].body), expected[..2]);
    assert_eq!(said(&sees.asked()[2].body), expected);

    let (session_id, content) = (ann.session.clone(), Content::Text("four".to_owned()));
    let (message_id, attachments) = (queued.message_id, of_paths(&["d.txt"]));
    let edit = MessageEdit { session_id: session_id.clone(), message_id, content, attachments };
    let edited = ann.call(edit).await.unwrap();
    ann.run_ended(&edited.run_id).await;
    expected[2] = told("four", "d");
    assert_eq!(said(&sees.asked()[3].body), expected);
    let message_id = edited.message_id.clone();
    let retry = MessageRetry { session_id: session_id.clone(), message_id };
    let retried = ann.call(retry).await.unwrap();
    ann.run_ended(&retried.run_id).await;
    assert_eq!(said(&sees.asked()[4].body), expected);

    // Undone and done again.
    let (message_id, dry_run, skip_changed) = (edited.message_id.clone(), None, None);
    let revert =
        SessionRevert { session_id: session_id.clone(), message_id, dry_run, skip_changed };
    ann.call(revert).await.unwrap();
    ann.call(SessionUnrevert { session_id: session_id.clone(), dry_run, skip_changed })
        .await
        .unwrap();
    assert_eq!(attached_to(&ann, &edited.message_id).await[0].name, "d.txt");

    let fork = SessionFork { session_id: session_id.clone(), message_id: None, title: None };
    let fork = ann.call(fork).await.unwrap().session.id;
    let mut there = ann.person.join(&ann.project, &fork).await;
    ask(&mut there, "five", Vec::new()).await;
    expected.push("five".to_owned());
    assert_eq!(said(&sees.asked()[5].body), expected);
    let copied = messages(&ann.person, &ann, &fork).await;
    let copied = copied.iter().find(|message| text_of(message) == "four").unwrap();
    assert_eq!(ann.person.get(&route(&there, &copied.id, "0")).await.body, "d");

    let export = |format| SessionExport { session_id: session_id.clone(), format: Some(format) };
    let markdown = ann.call(export(ExportFormat::Markdown)).await.unwrap().content;
    assert!(markdown.contains("\n*Attached: `d.txt`, text/plain, 1 bytes*\n"), "{markdown}");
    let json = ann.call(export(ExportFormat::Json)).await.unwrap().content;
    assert!(json.contains("\"type\":\"attachment\"") && json.contains("\"d.txt\""), "{json}");
}

#[tokio::test]
async fn of_many_images_those_of_the_question_and_the_newest_others_are_shown() {
    let replies = [chat::says("many"), chat::calls("read", READ), chat::says("two more")];
    let World { app: _app, mut ann, sees, .. } = world(replies).await;
    for name in ["a.png", "b.png"] {
        put(&ann, name, PNG).await;
    }
    let mut first = of_paths(&["a.png"; ATTACHED_IMAGES_MAX - 1]);
    first.insert(0, pasted("p.png", PNG_BASE64));
    ask(&mut ann, "many", first).await;
    ask(&mut ann, "more", of_paths(&["b.png", "b.png"])).await;
    let asked = sees.asked();
    let shown = |body: &Value| {
        let users = said(body).into_iter();
        let gist = users.map(|text| {
            let (text, count) = text.rsplit_once(" +").unwrap();
            (text.matches("; it is not shown any more").count(), count.to_owned())
        });
        gist.collect::<Vec<_>>()
    };
    let expected = |all: &[(usize, &str)]| {
        all.iter().map(|(named, count)| (*named, (*count).to_owned())).collect::<Vec<_>>()
    };
    assert_eq!(shown(&asked[0].body), expected(&[(0, "8")]));
    assert_eq!(shown(&asked[1].body), expected(&[(2, "6"), (0, "2")]));
    let named = said(&asked[1].body).remove(0);
    assert!(named.contains("\"p.png\": image/png, 70 bytes; it is not shown any more]"), "{named}");
    let again =
        "\"a.png\": image/png, 70 bytes; it is not shown any more: read it again to see it]";
    assert!(named.contains(again), "{named}");
    // What a tool read since counts too, and takes nothing from the question.
    assert_eq!(shown(&asked[2].body), expected(&[(3, "5"), (0, "2"), (0, "1")]));
}

#[tokio::test]
async fn long_texts_are_cut_and_longer_ones_are_named() {
    let World { app: _app, mut ann, sees, .. } = world([chat::says("long")]).await;
    put(&ann, "a.txt", "x".repeat(70_000)).await;
    put(&ann, "b.txt", "x".repeat(ATTACHED_TEXT_BYTES_MAX + 1)).await;
    ask(&mut ann, "look", of_paths(&["a.txt", "b.txt"])).await;
    let told = said(&sees.asked()[0].body).remove(0);
    let rest = "x\n```\n[4464 bytes more of \"a.txt\" are left out; the tool `read` shows them]\n\n\
                [attached file \"b.txt\": text/plain, 1048577 bytes]";
    assert!(told.ends_with(rest), "{}", &told[told.len() - 300..]);
    assert_eq!(told.matches("xx").count(), 65_536 / 2);
}

#[tokio::test]
async fn secrets_in_files_are_hidden_and_what_people_paste_stays_as_it_is() {
    const KEY: &str = "ghp_0123456789abcdefghijklmnopqrstuvwxyz";
    let World { app: _app, mut ann, sees, .. } = world([chat::says("so")]).await;
    put(&ann, ".env", format!("KEY={KEY}\n")).await;
    let mut attachments = of_paths(&[".env"]);
    // The same text, pasted.
    attachments.push(pasted("env", "S0VZPWdocF8wMTIzNDU2Nzg5YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXoK"));
    let id = ask(&mut ann, "look", attachments).await;
    let told = said(&sees.asked()[0].body).remove(0);
    let (file, text) = told.split_once("\"env\"").unwrap();
    assert!(file.contains("KEY=[redacted secret]\n```") && !file.contains(KEY), "{file}");
    assert!(text.contains(KEY), "{text}");
    let kept = ann.person.get(&route(&ann, &id, "0")).await;
    assert_eq!(kept.body, "KEY=[redacted secret]\n");
}
