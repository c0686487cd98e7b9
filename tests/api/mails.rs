//! Invitations that go out by e-mail: to whom, how often, and who may take them.

use std::sync::Arc;
use std::time::Duration;

use iris_actors::{RateSettings, Registration, SmtpSettings};
use iris_client::RestAnswer;
use iris_protocol::ErrorCode;
use iris_testkit::{
    AppOptions, PASSWORD, Person, TestApp, TestClock, patiently, spawn_app, spawn_app_with,
};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::idempotency::with_key;
use crate::{code_of, rest_refusal};

/// Some day in 2026.
const NOON_MS: i64 = 1_790_000_000_000;

type Mails = mpsc::UnboundedReceiver<String>;

/// A mail server, and the mails that it takes, as people read them.
pub(super) async fn mail_server() -> (SmtpSettings, Mails) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("smtp://{}", listener.local_addr().unwrap());
    let (taken, mails) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(take_mails(stream, taken.clone()));
        }
    });
    (SmtpSettings { url, from: "Iris <iris@example.com>".to_owned() }, mails)
}

async fn take_mails(stream: TcpStream, taken: mpsc::UnboundedSender<String>) {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    write.write_all(b"220 mail.example\r\n").await.unwrap();
    let mut data: Option<String> = None;
    while let Ok(Some(line)) = lines.next_line().await {
        let answer: &[u8] = match &mut data {
            Some(text) if line != "." => {
                text.push_str(&line);
                text.push('\n');
                continue;
            }
            Some(text) => {
                taken.send(readable(text)).ok();
                data = None;
                b"250 taken\r\n"
            }
            None if line == "DATA" => {
                data = Some(String::new());
                b"354 go on\r\n"
            }
            None if line == "QUIT" => return,
            None => b"250 ok\r\n",
        };
        if write.write_all(answer).await.is_err() {
            return;
        }
    }
}

/// A mail without the encoding that breaks long lines and writes other letters as numbers (quoted-printable).
fn readable(mail: &str) -> String {
    let joined = mail.replace("=\n", "");
    let (mut bytes, mut rest) = (Vec::new(), joined.as_bytes());
    while let Some((first, others)) = rest.split_first() {
        let code = others.get(..2).filter(|_| *first == b'=');
        let code = code.and_then(|code| std::str::from_utf8(code).ok());
        let byte = code.and_then(|code| u8::from_str_radix(code, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &others[2..] } else { others };
    }
    String::from_utf8(bytes).unwrap()
}

async fn next(mails: &mut Mails) -> String {
    patiently("a mail", mails.recv()).await.unwrap()
}

/// The secret in the link of a mail.
fn token_in(mail: &str) -> String {
    let (_, token) = mail.split_once("#invitation=").unwrap_or_else(|| panic!("{mail}"));
    token.split_whitespace().next().unwrap().to_owned()
}

async fn register(app: &TestApp, name: &str, token: &str) -> RestAnswer {
    let body = json!({ "email": format!("{name}@example.com"), "username": name,
        "password": PASSWORD, "invitation": token });
    app.client().rest("POST", "/v1/auth/register", None, Some(&body)).await.unwrap()
}

async fn accept(person: &Person, token: &str) -> RestAnswer {
    person.post("/v1/invitations/accept", json!({ "token": token })).await
}

fn invitation(email: &str) -> Value {
    json!({ "role": "member", "email": email })
}

#[tokio::test]
async fn an_invitation_to_an_address_is_mailed_and_taken_by_that_address_alone() {
    let (smtp, mut mails) = mail_server().await;
    let registration = Registration::Invite;
    let options = AppOptions { smtp: Some(smtp), registration, ..AppOptions::default() };
    let app = spawn_app_with(options).await;
    let root = app.admin().await;
    let project = root.project("Grüße").await.id;
    let place = format!("/v1/projects/{project}/invitations");
    let mut body = invitation(" Ann@Example.com ");
    body["expiresInHours"] = json!(48);
    let invited = root.post(&place, body).await;
    assert_eq!(invited.json["data"]["mailed"], true, "{invited:?}");
    let mail = next(&mut mails).await;
    assert!(mail.contains("To: ann@example.com") && mail.contains("From: Iris <iris@example.com>"));
    assert!(mail.contains("root invites you to the project \"Grüße\"."), "{mail}");
    assert!(mail.contains("for 48 hours, and for this address alone"), "{mail}");
    let token = token_in(&mail);
    assert_eq!(invited.json["data"]["token"], token.as_str());
    let url = invited.json["data"]["url"].as_str().unwrap();
    assert!(mail.contains(url), "{mail}");

    let other = register(&app, "eve", &token).await;
    assert_eq!(rest_refusal(&other).code, ErrorCode::NotFound);
    let joined = register(&app, "ann", &token).await;
    assert_eq!(joined.status, 201, "{joined:?}");
    let ann = Person::new(app.client(), joined.data().unwrap());
    assert_eq!(ann.get(&format!("/v1/projects/{project}")).await.json["data"]["role"], "member");
    assert_eq!(rest_refusal(&accept(&ann, &token).await).code, ErrorCode::NotFound, "it is used");

    let to_server = root.post("/v1/admin/invitations", json!({ "email": "ben@example.com" })).await;
    assert_eq!(to_server.json["data"]["mailed"], true);
    let mail = next(&mut mails).await;
    assert!(mail.contains("root invites you to work together on this server."), "{mail}");
    assert!(mail.contains("for 168 hours"), "{mail}");
    let ben = register(&app, "ben", &token_in(&mail)).await;
    let ben = Person::new(app.client(), ben.data().unwrap());

    // Who has an account is invited in the same way, and another account of theirs is not.
    root.post(&place, invitation("ben@example.com")).await;
    let token = token_in(&next(&mut mails).await);
    assert_eq!(rest_refusal(&accept(&ann, &token).await).code, ErrorCode::NotFound);
    assert_eq!(accept(&ben, &token).await.json["data"]["role"], "member");
    // Without an address nobody is written to: the next mail is that of the next address.
    let by_link = root.post(&place, json!({ "role": "viewer" })).await;
    assert_eq!(by_link.json["data"]["mailed"], false);
    root.post(&place, invitation("cas@example.com")).await;
    assert!(next(&mut mails).await.contains("To: cas@example.com"));
}

#[tokio::test]
async fn a_mailed_invitation_ends_in_its_time_or_when_it_is_taken_back() {
    let (smtp, mut mails) = mail_server().await;
    let clock = Arc::new(TestClock::at(NOON_MS));
    let options =
        AppOptions { smtp: Some(smtp), clock: Some(clock.clone()), ..AppOptions::default() };
    let app = spawn_app_with(options).await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    let place = format!("/v1/projects/{project}/invitations");
    let taken_back = ann.post(&place, invitation("ben@example.com")).await;
    let first = token_in(&next(&mut mails).await);
    let id = taken_back.json["data"]["invitation"]["id"].as_str().unwrap();
    assert!(ann.rest("DELETE", &format!("{place}/{id}"), None).await.is_success());
    let mut short = invitation("ben@example.com");
    short["expiresInHours"] = json!(1);
    ann.post(&place, short).await;
    let second = token_in(&next(&mut mails).await);
    ann.post(&place, invitation("ben@example.com")).await;
    let third = token_in(&next(&mut mails).await);
    clock.advance(Duration::from_hours(1));
    let ben = app.user("ben").await;
    for late in [first, second] {
        assert_eq!(rest_refusal(&accept(&ben, &late).await).code, ErrorCode::NotFound);
    }
    assert!(accept(&ben, &third).await.is_success());
}

#[tokio::test]
async fn nobody_fills_a_mailbox_or_writes_to_everybody_with_invitations() {
    let (smtp, mut mails) = mail_server().await;
    let rates = RateSettings {
        login_failures: RateSettings::default().login_failures,
        ..RateSettings::NONE
    };
    let options = AppOptions { smtp: Some(smtp), rates, ..AppOptions::default() };
    let app = spawn_app_with(options).await;
    let (ann, ben) = (app.user("ann").await, app.user("ben").await);
    let place = async |person: &Person| {
        format!("/v1/projects/{}/invitations", person.project("p").await.id)
    };
    let (of_ann, of_ben) = (place(&ann).await, place(&ben).await);
    for _ in 0..3 {
        assert_eq!(ann.post(&of_ann, invitation("cas@example.com")).await.status, 201);
    }
    // To ask again for what was made is no invitation.
    let body = invitation("eve@example.com").to_string();
    for made in [true, false, false, false, false] {
        let answer = with_key(&ann, "POST", &of_ann, &body).await;
        assert_eq!(answer.is_success(), made, "{answer:?}");
        if !made {
            assert_eq!(code_of(&rest_refusal(&answer)), (ErrorCode::Conflict, "shown_once"));
        }
    }
    // Whoever asks, in whichever project.
    for (person, place) in [(&ann, &of_ann), (&ben, &of_ben)] {
        let limited = person.post(place, invitation("Cas@example.com")).await;
        let error = rest_refusal(&limited);
        assert_eq!(code_of(&error), (ErrorCode::RateLimited, "too_many_mails"));
        assert!(limited.headers.contains_key("retry-after"));
    }
    let made = ann.get(&of_ann).await.json["data"].as_array().unwrap().len();
    assert_eq!(made, 4, "what is refused is not made");
    // A link goes by another way, and has no such limit.
    assert_eq!(ann.post(&of_ann, json!({ "role": "member" })).await.status, 201);
    let mut sent = 4;
    let limited = async {
        loop {
            let answer = ann.post(&of_ann, invitation(&format!("u{sent}@example.com"))).await;
            if !answer.is_success() {
                break rest_refusal(&answer);
            }
            sent += 1;
        }
    };
    let error = patiently("the limit", limited).await;
    assert_eq!(code_of(&error), (ErrorCode::RateLimited, "too_many_mails"));
    assert!((20..=40).contains(&sent), "{sent}");
    assert_eq!(ben.post(&of_ben, invitation("dan@example.com")).await.status, 201);
    let last = async {
        while !next(&mut mails).await.contains("To: dan@example.com") {
            sent -= 1;
        }
    };
    patiently("the last mail", last).await;
    assert_eq!(sent, 0, "no mail is lost and none was sent that was refused");
}

#[tokio::test]
async fn without_a_mail_server_an_invitation_to_an_address_is_handed_over_as_a_link() {
    let app = spawn_app().await;
    let (ann, ben, eve) = (app.user("ann").await, app.user("ben").await, app.user("eve").await);
    let project = ann.project("p").await.id;
    let place = format!("/v1/projects/{project}/invitations");
    let invited = ann.post(&place, invitation("ben@example.com")).await;
    assert_eq!(invited.status, 201);
    let grant = &invited.json["data"];
    assert_eq!(grant["mailed"], false);
    let token = grant["token"].as_str().unwrap();
    assert!(grant["url"].as_str().unwrap().ends_with(&format!("#invitation={token}")));
    assert_eq!(rest_refusal(&accept(&eve, token).await).code, ErrorCode::NotFound);
    assert!(accept(&ben, token).await.is_success());
}

#[tokio::test]
async fn what_is_no_address_is_invited_by_no_mail() {
    let (smtp, mut mails) = mail_server().await;
    let app = spawn_app_with(AppOptions { smtp: Some(smtp), ..AppOptions::default() }).await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    let place = format!("/v1/projects/{project}/invitations");
    for email in
        ["", "ben", "@", "ben@", "a b@example.com", "ben@example.com\nBcc: eve@example.com"]
    {
        let error = rest_refusal(&ann.post(&place, invitation(email)).await);
        assert_eq!(code_of(&error), (ErrorCode::InvalidRequest, "invalid_email"), "{email:?}");
    }
    // What looks like one and is none that can be written to says so in the log alone, and holds up no other.
    ann.post(&place, invitation("<ben>@example.com")).await;
    ann.post(&place, invitation("cas@example.com")).await;
    assert!(next(&mut mails).await.contains("To: cas@example.com"));
}
