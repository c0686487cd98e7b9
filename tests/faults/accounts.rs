//! The process ends while somebody accepts an invitation or sets a new password: either happened whole, or
//! not at all and the link is still good.

use std::path::Path;

use iris_client::{Client, RestAnswer};
use iris_protocol::{AuthRegister, AuthSetup, ErrorCode, ProjectId};
use iris_store::CrashPoint;
use iris_testkit::{EventStream, PASSWORD, Person, SETUP_TOKEN, ServerProcess};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Deaths at one moment after another.
const ROUNDS: usize = 6;

/// A server that comes and goes on one directory, with people whose tokens outlive it.
struct Place {
    directory: TempDir,
    root: Person,
    ann: Person,
    project: ProjectId,
    /// The last event of the project.
    since: String,
}

fn command(directory: &Path) -> std::process::Command {
    ServerProcess::command(env!("CARGO_BIN_EXE_iris"), directory)
}

impl Place {
    async fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let server = ServerProcess::start(command(directory.path())).await;
        let client = server.client();
        let account = |name: &str| (format!("{name}@example.com"), name.to_owned());
        let (email, username) = account("root");
        let (token, password) = (SETUP_TOKEN.to_owned(), PASSWORD.to_owned());
        let setup = AuthSetup { token, email, username, password };
        let root = Person::new(&client, client.setup(&setup).await.unwrap());
        let (email, username) = account("ann");
        let (password, invitation) = (PASSWORD.to_owned(), None);
        let register = AuthRegister { email, username, password, invitation };
        let ann = Person::new(&client, client.register(&register).await.unwrap());
        let project = root.project("p").await.id;
        let place = format!("/v1/projects/{project}/sessions");
        let as_of = root.get(&place).await.json["meta"]["asOf"].clone();
        let since = format!("{}.{}", as_of["epoch"].as_str().unwrap(), as_of["seq"]);
        // Nothing is unfinished: the next server writes only what it is told to.
        assert!(server.terminate().await.success());
        Self { directory, root, ann, project, since }
    }

    async fn start(&self) -> ServerProcess {
        ServerProcess::start(command(self.directory.path())).await
    }

    /// A server that ends right behind the next commit, once `arm` was called.
    async fn start_doomed(&self) -> ServerProcess {
        let mut doomed = command(self.directory.path());
        let point = CrashPoint::AfterCommitBeforeFanout.as_str();
        doomed.env("IRIS_CRASH_AT", point).env("IRIS_CRASH_WHEN", self.armed());
        ServerProcess::start(doomed).await
    }

    fn arm(&self) {
        std::fs::write(self.armed(), "").unwrap();
    }

    fn disarm(&self) {
        std::fs::remove_file(self.armed()).unwrap();
    }

    fn armed(&self) -> std::path::PathBuf {
        self.directory.path().join("armed")
    }

    fn invitations(&self) -> String {
        format!("/v1/projects/{}/invitations", self.project)
    }

    async fn invite(&self, client: &Client) -> Value {
        let root = at(client, &self.root);
        let made = root.post(&self.invitations(), json!({ "role": "member" })).await;
        assert_eq!(made.status, 201, "{made:?}");
        made.json["data"].clone()
    }

    /// Whether the invitation says that it was accepted, and whether the guest is a member: both, or
    /// neither.
    async fn is_accepted(&self, client: &Client, id: &Value) -> bool {
        let list = at(client, &self.root).get(&self.invitations()).await;
        let list = list.json["data"].as_array().unwrap();
        let state = &list.iter().find(|invitation| invitation["id"] == *id).unwrap()["state"];
        let place = format!("/v1/projects/{}", self.project);
        let is_member = at(client, &self.ann).get(&place).await.is_success();
        assert_eq!(state == "accepted", is_member, "{state}");
        is_member
    }

    /// How often the project's log tells that somebody was added.
    async fn times_added(&self, server: &ServerProcess) -> usize {
        let since = &self.since;
        let root = at(&server.client(), &self.root);
        let url = format!("/v1/projects/{0}/events?rooms=project:{0}&since={since}", self.project);
        let mut stream =
            EventStream::open(&server.url, &url, Some(root.token()), &[]).await.unwrap();
        let place = format!("/v1/projects/{}", self.project);
        root.rest("PATCH", &place, Some(json!({ "name": "the end" }))).await;
        let mut added = 0;
        loop {
            let event = stream.next_event().await;
            if event["type"] == "project.updated" {
                return added;
            }
            added += usize::from(event["type"] == "member.added");
        }
    }

    async fn reset_link(&self, client: &Client) -> Value {
        let place = format!("/v1/admin/users/{}/password-reset", self.ann.id());
        let made = at(client, &self.root).post(&place, json!({})).await;
        assert_eq!(made.status, 201, "{made:?}");
        made.json["data"]["token"].clone()
    }
}

/// The same person at a server that was started again.
fn at(client: &Client, person: &Person) -> Person {
    Person::new(client, person.grant.clone())
}

async fn accept(ann: &Person, token: &Value) -> RestAnswer {
    ann.post("/v1/invitations/accept", json!({ "token": token })).await
}

fn reset_body(token: &Value, password: &str) -> Value {
    json!({ "token": token, "newPassword": password })
}

async fn reset(client: &Client, token: &Value, password: &str) -> RestAnswer {
    let body = reset_body(token, password);
    client.rest("POST", "/v1/auth/password/reset", None, Some(&body)).await.unwrap()
}

async fn logs_in(client: &Client, password: &str) -> bool {
    client.login("ann@example.com", password).await.is_ok()
}

#[tokio::test]
async fn an_invitation_whose_acceptance_nobody_was_told_is_accepted_once() {
    let place = Place::new().await;
    let server = place.start_doomed().await;
    let invitation = place.invite(&server.client()).await;
    place.arm();
    let ann = at(&server.client(), &place.ann);
    let body = json!({ "token": invitation["token"] });
    // The answer does not come.
    let lost = ann.client.rest("POST", "/v1/invitations/accept", Some(ann.token()), Some(&body));
    assert!(lost.await.is_err());
    assert!(!server.exited().await.success());
    place.disarm();

    let server = place.start().await;
    let client = server.client();
    assert!(place.is_accepted(&client, &invitation["invitation"]["id"]).await);
    let again = accept(&at(&client, &place.ann), &invitation["token"]).await;
    assert_eq!(again.error().unwrap().code, ErrorCode::NotFound);
    assert_eq!(place.times_added(&server).await, 1);
    let audit = at(&client, &place.root).get("/v1/admin/audit?action=invitation.accept").await;
    let results: Vec<&Value> =
        audit.json["data"].as_array().unwrap().iter().map(|record| &record["result"]).collect();
    // The newest is the second attempt.
    assert_eq!(results.last().unwrap(), &"done");
    assert_eq!(results.iter().filter(|result| **result == "done").count(), 1);
}

#[tokio::test]
async fn an_acceptance_that_is_cut_off_anywhere_happened_whole_or_not_at_all() {
    let place = Place::new().await;
    for round in 0..ROUNDS {
        let server = place.start().await;
        let invitation = place.invite(&server.client()).await;
        let (ann, root) = (at(&server.client(), &place.ann), at(&server.client(), &place.root));
        let body = json!({ "token": invitation["token"] });
        let sent = tokio::spawn(async move {
            let path = "/v1/invitations/accept";
            drop(ann.client.rest("POST", path, Some(ann.token()), Some(&body)).await);
        });
        // Each time a little later.
        for _ in 0..round {
            root.get("/v1/me").await;
        }
        server.kill();
        sent.await.unwrap();

        let server = place.start().await;
        let client = server.client();
        if !place.is_accepted(&client, &invitation["invitation"]["id"]).await {
            let again = accept(&at(&client, &place.ann), &invitation["token"]).await;
            assert!(again.is_success(), "{again:?}");
        }
        let member = format!("/v1/projects/{}/members/{}", place.project, place.ann.id());
        let removed = at(&client, &place.root).rest("DELETE", &member, None).await;
        assert!(removed.is_success(), "{removed:?}");
        server.kill();
    }
}

#[tokio::test]
async fn a_new_password_that_nobody_was_told_is_set_and_its_link_used_up() {
    let place = Place::new().await;
    let server = place.start_doomed().await;
    let token = place.reset_link(&server.client()).await;
    place.arm();
    let (client, body) = (server.client(), reset_body(&token, "vk8!tq2m new"));
    let lost = client.rest("POST", "/v1/auth/password/reset", None, Some(&body)).await;
    assert!(lost.is_err());
    assert!(!server.exited().await.success());
    place.disarm();

    let server = place.start().await;
    let client = server.client();
    assert!(logs_in(&client, "vk8!tq2m new").await);
    assert!(!logs_in(&client, PASSWORD).await);
    assert_eq!(at(&client, &place.ann).get("/v1/me").await.status, 401);
    let again = reset(&client, &token, "vk8!tq2m other").await;
    assert_eq!(again.error().unwrap().code, ErrorCode::InvalidRequest);
}

#[tokio::test]
async fn a_new_password_that_is_cut_off_anywhere_is_set_whole_or_not_at_all() {
    let place = Place::new().await;
    let mut current = PASSWORD.to_owned();
    for round in 0..ROUNDS {
        let new = format!("vk8!tq2m {round}");
        let server = place.start().await;
        let token = place.reset_link(&server.client()).await;
        let (client, root) = (server.client(), at(&server.client(), &place.root));
        let before = client.login("ann@example.com", &current).await.unwrap();
        let body = reset_body(&token, &new);
        let sent = tokio::spawn(async move {
            drop(client.rest("POST", "/v1/auth/password/reset", None, Some(&body)).await);
        });
        // It takes as long as a hash.
        for _ in 0..round * 4 {
            root.get("/v1/me").await;
        }
        server.kill();
        sent.await.unwrap();

        let server = place.start().await;
        let client = server.client();
        let is_set = logs_in(&client, &new).await;
        assert_ne!(logs_in(&client, &current).await, is_set);
        // Whoever was logged in is not any more, exactly if it is.
        let who = Person::new(&client, before).get("/v1/me").await;
        assert_eq!(who.status, if is_set { 401 } else { 200 });
        let again = reset(&client, &token, &new).await;
        assert_eq!(again.is_success(), !is_set, "{again:?}");
        current = new;
        server.kill();
    }
}
