//! One data directory through its rounds: load, death, start, repeats, comparison.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use iris_client::Client;
use iris_protocol::{
    AuthGrant, AuthRegister, AuthSetup, ProjectCreate, ProjectType, SessionCreate, UserId,
};
use serde_json::Value;
use tokio::sync::Barrier;

use super::check::{self, Stored};
use super::client::{Line, Load, Outcome, Place, ask, may_refuse};
use super::ledger::{Acknowledged, Ledger, digest};
use super::plan::{Deed, Intent, Plan};
use super::start::{Started, start};
use super::{Round, TortureOptions};
use crate::{PASSWORD, PATIENCE, SETUP_TOKEN, ServerProcess, patiently};

/// Sessions that a client hears at home.
const SESSIONS_AT_HOME: usize = 2;
/// People whom clients make members.
const USERS: usize = 3;
/// Requests of the preparation that are under way at a time.
const AT_ONCE: usize = 8;
/// Messages of one page.
const PAGE: usize = 200;
/// How often it is looked again whether a run has found its actor, or the other way round.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A data directory, the server on it, and what its clients know.
pub(super) struct Life {
    path: PathBuf,
    server: ServerProcess,
    client: Client,
    owner: AuthGrant,
    places: Arc<Vec<Place>>,
    loads: Vec<Load>,
    ledger: Ledger,
}

impl Life {
    /// Starts a server on a new directory and makes projects, sessions and people; then starts the one
    /// that is tortured.
    pub(super) async fn begin(options: &TortureOptions, path: &Path) -> Self {
        let well_behaved = TortureOptions { environment: Vec::new(), ..options.clone() };
        let Started { server, .. } = start(&well_behaved, path, None).await;
        let client = server.client();
        let setup = AuthSetup {
            token: SETUP_TOKEN.to_owned(),
            email: "root@example.com".to_owned(),
            username: "root".to_owned(),
            password: PASSWORD.to_owned(),
        };
        let owner = client.setup(&setup).await.unwrap();
        let client = client.with_grant(&owner);
        let mut users = Vec::new();
        for number in 0..USERS {
            users.push(user(&client, number).await);
        }
        let homes = options.clients.min(options.projects);
        let made = stream::iter(0..options.projects).map(|number| {
            let client = client.clone();
            async move {
                let sessions = if number < homes { SESSIONS_AT_HOME } else { 1 };
                place(&client, number, sessions).await
            }
        });
        let places: Arc<Vec<Place>> = Arc::new(made.buffered(AT_ONCE).collect().await);
        assert!(server.terminate().await.success(), "the server did not stop well");
        let Started { server, .. } = start(options, path, None).await;
        let client = server.client().with_grant(&owner);
        let users = Arc::new(users);
        let load = |number| {
            Load::new(number, number % places.len(), Arc::clone(&places), Arc::clone(&users))
        };
        let loads = (0..options.clients).map(load).collect();
        let path = path.to_owned();
        Self { path, server, client, owner, places, loads, ledger: Ledger::default() }
    }

    /// Lets the clients work, kills the server meanwhile, starts it again and compares.
    pub(super) async fn round(
        &mut self,
        options: &TortureOptions,
        seed: u64,
        number: u32,
        killed_after: Duration,
    ) -> Round {
        let (acknowledged, unanswered) = (self.ledger.acknowledged.len(), 0);
        let mut round = Round { number, killed_after, unanswered, ..Round::default() };
        let started = self.load_and_kill(options, seed, number, killed_after).await;
        round.acknowledged = self.ledger.acknowledged.len() - acknowledged;
        round.unanswered = self.ledger.unanswered.len();
        (round.ready, round.answered) = (started.ready, started.answered);
        self.server = started.server;
        self.client = self.server.client().with_grant(&self.owner);

        round.committed_unanswered = self.committed_unanswered();
        self.repeat(number).await;
        round.heard = self.ledger.heard.len();
        round.findings.append(&mut self.ledger.findings);
        if round.ready > options.ready_within {
            round.findings.push(format!("the server was ready after {:?}", round.ready));
        }
        round.findings.extend(self.runs_without_actors().await);
        round.findings.extend(self.compare_files());
        round.findings.extend(self.compare_answers(number).await);
        round
    }

    /// Stops the server as an operator does.
    pub(super) async fn end(self) {
        assert!(self.server.terminate().await.success(), "the server did not stop well");
    }

    async fn load_and_kill(
        &mut self,
        options: &TortureOptions,
        seed: u64,
        number: u32,
        killed_after: Duration,
    ) -> Started {
        let barrier = Arc::new(Barrier::new(self.loads.len() + 1));
        let token = self.client.token().unwrap();
        let line = Line { client: self.client.clone(), token, barrier: Arc::clone(&barrier) };
        let working = std::mem::take(&mut self.loads).into_iter().map(|mut load| {
            let (line, plan) = (line.clone(), Plan::new(seed, number, load.number));
            tokio::spawn(async move {
                let ledger = load.work(line, plan, number).await;
                (load, ledger)
            })
        });
        let working: Vec<_> = working.collect();
        patiently("the clients to be there", barrier.wait()).await;
        tokio::time::sleep(killed_after).await;
        // The next one takes its place; starting it waits for the death of this one.
        self.kill();
        for working in working {
            let (load, ledger) = patiently("a client to notice", working).await.unwrap();
            self.loads.push(load);
            self.ledger.add(ledger);
        }
        let path = format!("/v1/projects/{}/sessions", self.places[0].project);
        start(options, &self.path, Some((path, line.token))).await
    }

    /// Kills the process and waits until it is gone.
    fn kill(&mut self) {
        self.server.kill_now();
    }

    /// How much of what has no answer is in the databases all the same, as far as a text shows it.
    fn committed_unanswered(&self) -> usize {
        let committed = self.places.iter().map(|place| {
            let unanswered = self.ledger.unanswered.iter();
            let mut here = unanswered.filter(|intent| intent.project == place.project).peekable();
            if here.peek().is_none() {
                return 0;
            }
            check::count_done(&self.database(place), here).unwrap_or_default()
        });
        committed.sum()
    }

    /// Repeats what has no answer, with its key.
    async fn repeat(&mut self, round: u32) {
        let token = self.client.token().unwrap();
        for intent in std::mem::take(&mut self.ledger.unanswered) {
            let outcome = patiently("a repeat", ask(&self.client, &token, &intent)).await;
            match outcome {
                Outcome::Done { payload, seq } => {
                    let acknowledged = Acknowledged { intent, answer: payload, seq, round };
                    self.ledger.acknowledged.push(acknowledged);
                }
                Outcome::Refused { code, .. } if may_refuse(code) => {
                    self.ledger.refused.push(intent);
                }
                Outcome::Refused { code, message } => {
                    let what = format!("the repeat of `{}`", intent.key);
                    self.ledger.findings.push(format!("{what} was refused: {code} {message}"));
                }
                Outcome::Silence => {
                    let finding = format!("the repeat of `{}` has no answer", intent.key);
                    self.ledger.findings.push(finding);
                }
            }
        }
    }

    fn database(&self, place: &Place) -> PathBuf {
        self.path.join("projects").join(place.project.as_str()).join("project.db")
    }

    /// Runs that work as the databases say, and that nobody works on. A run begins and ends while it is
    /// looked: only one that stays so counts.
    async fn runs_without_actors(&self) -> Vec<String> {
        let began = Instant::now();
        let mut before = BTreeSet::new();
        loop {
            let without = self.running_without_actor().await;
            let stay: BTreeSet<_> = without.intersection(&before).cloned().collect();
            if without.is_empty() {
                return Vec::new();
            }
            if !stay.is_empty() && began.elapsed() > PATIENCE / 4 {
                return stay.into_iter().map(|run| format!("nobody works on {run}")).collect();
            }
            before = without;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn running_without_actor(&self) -> BTreeSet<String> {
        let mut running = BTreeSet::new();
        for place in self.places.iter() {
            let path = format!("node/directory/project/{}", place.project);
            // One that cannot be read is found by the comparison.
            let found = check::running(&self.database(place)).unwrap_or_default().into_iter();
            let paths =
                found.map(|[session, run]| format!("{path}/session/{session}/orchestrator/{run}"));
            running.extend(paths);
        }
        if running.is_empty() {
            return running;
        }
        let token = self.client.token();
        let route = "/v1/admin/actors?kind=orchestrator";
        let answer = self.client.rest("GET", route, token.as_deref(), None).await.unwrap();
        for actor in answer.json["data"]["actors"].as_array().into_iter().flatten() {
            running.remove(actor["path"].as_str().unwrap_or_default());
        }
        running
    }

    /// Compares what is in the files.
    fn compare_files(&self) -> Vec<String> {
        let by = self.owner.user.id.as_str();
        let mut findings = Vec::new();
        for place in self.places.iter() {
            let project = place.project.as_str();
            let found = match Stored::read(&self.database(place)) {
                Ok(stored) => stored.compare(&self.ledger, project, by),
                Err(error) => vec![format!("cannot be read: {error}")],
            };
            findings.extend(found.into_iter().map(|finding| format!("{project}: {finding}")));
        }
        let root = check::members(&self.path.join("root.db"), &self.ledger);
        findings.extend(root.unwrap_or_else(|error| vec![format!("root.db: {error}")]));
        findings
    }

    /// Compares what the server answers with what was acknowledged in this round.
    async fn compare_answers(&self, round: u32) -> Vec<String> {
        let mut findings = Vec::new();
        let mut pages = BTreeMap::new();
        let mut files = BTreeMap::new();
        for done in self.ledger.acknowledged.iter().filter(|done| done.round == round) {
            let Intent { project, deed, .. } = &done.intent;
            match deed {
                Deed::Say { session, text } => {
                    let route = format!("/v1/projects/{project}/sessions/{session}/messages");
                    let id = done.answer["messageId"].as_str().unwrap_or_default().to_owned();
                    pages.entry(route).or_insert_with(Vec::new).push((id, text));
                }
                Deed::OpenSession { title } => {
                    let id = done.answer["session"]["id"].as_str().unwrap_or_default();
                    let answer = self.get(&format!("/v1/projects/{project}/sessions/{id}")).await;
                    if answer["data"]["session"]["title"] != title.as_str() {
                        findings.push(format!("the session {id} is {answer}"));
                    }
                }
                Deed::WriteFile { path, content } => {
                    files.insert((project, path), content);
                }
                Deed::Approve { .. } | Deed::AddMember { .. } | Deed::ChangeMember { .. } => {}
            }
        }
        for ((project, path), content) in files {
            let bytes = self.client.file_get(project, path).await.unwrap_or_default();
            if digest(&bytes) != digest(content.as_bytes()) {
                findings.push(format!("the file {path} of {project} has another content"));
            }
        }
        for (route, expected) in pages {
            let answered = self.messages(&route).await;
            for (id, text) in expected {
                if answered.get(&id) != Some(text) {
                    findings.push(format!("{route} answers {:?} for {id}", answered.get(&id)));
                }
            }
        }
        findings
    }

    /// The first texts of all messages of a session, page by page.
    async fn messages(&self, route: &str) -> BTreeMap<String, String> {
        let mut messages = BTreeMap::new();
        let mut query = format!("?limit={PAGE}");
        loop {
            let page = self.get(&format!("{route}{query}")).await;
            for message in page["data"].as_array().into_iter().flatten() {
                let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                messages.insert(word(&message["id"]), word(&message["parts"][0]["text"]));
            }
            let Some(cursor) = page["meta"]["nextCursor"].as_str() else { return messages };
            query = format!("?limit={PAGE}&before={cursor}");
        }
    }

    async fn get(&self, route: &str) -> Value {
        let token = self.client.token();
        let answer = self.client.rest("GET", route, token.as_deref(), None);
        patiently(route, answer).await.map(|answer| answer.json).unwrap_or_default()
    }
}

async fn user(client: &Client, number: usize) -> UserId {
    let request = AuthRegister {
        invitation: None,
        email: format!("user{number}@example.com"),
        username: format!("user{number}"),
        password: PASSWORD.to_owned(),
    };
    client.register(&request).await.unwrap().user.id
}

async fn place(client: &Client, number: usize, sessions: usize) -> Place {
    let name = format!("project {number}");
    let create = ProjectCreate {
        name,
        description: None,
        r#type: ProjectType::Local,
        path: None,
        git: None,
    };
    let project = client.call(None, create).await.unwrap().project.id;
    let mut made = Vec::new();
    for _ in 0..sessions {
        let create = SessionCreate { title: None, agent: None, model: None, mode: None };
        made.push(client.call(Some(&project), create).await.unwrap().session.id);
    }
    Place { project, sessions: made }
}
