//! Random changes of files, compared with a model that is a map.

use std::collections::BTreeMap;

use iris_protocol::{
    FileDelete, FileEdit, FileMove, FileRead, FileRestore, FileWrite, MessageId, ProjectType,
    RevertOutcome, RunStatus, SessionRevert, SessionUnrevert, SnapshotCreate, SnapshotId,
    SnapshotRestore,
};
use iris_testkit::Conversation;
use serde_json::json;

use super::browsing::scene_of;
use super::history::allow;
use crate::refusal;

const SEEDS: u64 = 4;
const STEPS: usize = 80;
const PATHS: [&str; 5] = ["a", "b", "dir/a", "dir/deep/b", "other/c"];

/// Who made a version.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Maker {
    Person,
    /// The agent, in this turn.
    Turn(usize),
    /// A turn that was undone, or done again.
    Revert,
}

/// A turn that was undone: which ones, and of each file what it held before and after.
type Reverted = (Vec<usize>, Vec<(String, Option<String>, Option<String>)>);

/// What is there, and what was there.
#[derive(Default)]
struct Model {
    files: BTreeMap<String, String>,
    /// By path and version; none for one that is gone.
    versions: BTreeMap<(String, u64), Option<String>>,
    makers: BTreeMap<(String, u64), Maker>,
    snapshots: Vec<(SnapshotId, BTreeMap<String, String>)>,
    /// Each turn's question, and whether it is undone.
    turns: Vec<(MessageId, bool)>,
    /// Reverts that can be undone.
    reverts: Vec<Reverted>,
}

impl Model {
    fn last(&self, path: &str) -> u64 {
        let of_path = self.versions.keys().filter(|(known, _)| known == path);
        of_path.map(|(_, version)| *version).max().unwrap_or(0)
    }

    fn set(&mut self, path: &str, content: Option<String>) {
        self.set_by(Maker::Person, path, content);
    }

    fn set_by(&mut self, maker: Maker, path: &str, content: Option<String>) {
        let version = self.last(path) + 1;
        self.makers.insert((path.to_owned(), version), maker);
        match &content {
            Some(content) => drop(self.files.insert(path.to_owned(), content.clone())),
            None => drop(self.files.remove(path)),
        }
        self.versions.insert((path.to_owned(), version), content);
    }

    fn content(&self, path: &str, version: u64) -> Option<&String> {
        self.versions.get(&(path.to_owned(), version)).and_then(Option::as_ref)
    }

    /// Undoes turns from one on. Answers the files that are different, and those that others changed since.
    fn revert(&mut self, from: usize) -> (Vec<String>, Vec<String>) {
        let (mut undone, mut skipped, mut done) = (Vec::new(), Vec::new(), Vec::new());
        for path in PATHS {
            let is_undone = |version: &u64| match self.makers[&(path.to_owned(), *version)] {
                Maker::Turn(turn) => turn >= from,
                Maker::Person | Maker::Revert => false,
            };
            let last = self.last(path);
            let Some(first) = (1..=last).find(is_undone) else { continue };
            let (then, now) = (self.content(path, first - 1), self.files.get(path));
            if then == now {
                continue;
            }
            let is_foreign = |version: u64| {
                self.makers[&(path.to_owned(), version)] == Maker::Person
                    && self.content(path, version) != self.content(path, version - 1)
            };
            if (first..=last).any(is_foreign) {
                skipped.push(path.to_owned());
                continue;
            }
            done.push((path.to_owned(), now.cloned(), then.cloned()));
            undone.push(path.to_owned());
        }
        for (path, _, then) in &done {
            self.set_by(Maker::Revert, path, then.clone());
        }
        let living = self.turns.iter_mut().enumerate().skip(from).filter(|(_, turn)| !turn.1);
        let turns = living.map(|(turn, (_, is_undone))| {
            *is_undone = true;
            turn
        });
        let turns = turns.collect();
        self.reverts.push((turns, done));
        (undone, skipped)
    }

    /// Undoes the last revert, as `revert`.
    fn unrevert(&mut self) -> Option<(Vec<String>, Vec<String>)> {
        let (turns, files) = self.reverts.pop()?;
        let (mut undone, mut skipped) = (Vec::new(), Vec::new());
        for (path, before, after) in files {
            let now = self.files.get(&path);
            if now == before.as_ref() {
                continue;
            }
            if now != after.as_ref() {
                skipped.push(path);
                continue;
            }
            self.set_by(Maker::Revert, &path, before);
            undone.push(path);
        }
        for turn in turns {
            self.turns[turn].1 = false;
        }
        Some((undone, skipped))
    }
}

/// A turn in which the agent writes a file.
async fn turn(talk: &mut Conversation, path: &str, content: &str) -> MessageId {
    let (read, write) = (json!({ "path": path }), json!({ "path": path, "content": content }));
    let script = format!("call read {read}\nstep\ncall write {write}\nstep\nsay done");
    let sent = talk.send_message(&script).await;
    assert_eq!(talk.run_ended(&sent.run_id).await, RunStatus::Completed);
    sent.message_id
}

/// The files that a revert changed, and those that it left.
fn told(outcome: RevertOutcome) -> (Vec<String>, Vec<String>) {
    let changed = outcome.files.into_iter().map(|file| file.path).collect();
    (changed, outcome.changed_since.into_iter().map(|file| file.path).collect())
}

#[tokio::test]
async fn any_sequence_of_changes_equals_a_simple_model_and_each_version_can_be_read() {
    for seed in 0..SEEDS {
        play(seed, ProjectType::Local).await;
    }
}

#[tokio::test]
async fn any_sequence_of_changes_in_a_database_equals_a_simple_model() {
    for seed in 0..SEEDS {
        play(seed, ProjectType::Remote).await;
    }
}

#[expect(clippy::too_many_lines, reason = "each kind of change has its arm")]
async fn play(seed: u64, r#type: ProjectType) {
    let mut random = fastrand::Rng::with_seed(seed);
    let (_app, ann, project, root) = scene_of(r#type).await;
    let mut talk = ann.conversation_in(&project).await;
    allow(&talk, "edit").await;
    let mut model = Model::default();
    let mut plan = Vec::new();
    for step in 0..STEPS {
        let path = PATHS[random.usize(..PATHS.len())].to_owned();
        let other = PATHS[random.usize(..PATHS.len())].to_owned();
        let content = format!("{step}\n{}", "line\n".repeat(random.usize(..4)));
        let kind = random.u8(..11);
        plan.push((kind, path.clone(), other.clone()));
        let id = Some(&project);
        match kind {
            0 | 1 => {
                let version = random
                    .bool()
                    .then(|| if model.files.contains_key(&path) { model.last(&path) } else { 0 });
                let request = FileWrite {
                    path: path.clone(),
                    content: content.clone(),
                    encoding: None,
                    version,
                };
                ann.client
                    .call(id, request)
                    .await
                    .unwrap_or_else(|e| panic!("{seed} {plan:?} {e}"));
                model.set(&path, Some(content));
            }
            2 => {
                let request = FileEdit {
                    path: path.clone(),
                    old_string: "line\n".to_owned(),
                    new_string: "other\n".to_owned(),
                    replace_all: Some(true),
                    version: None,
                };
                let edited = ann.client.call(id, request).await;
                let text = model.files.get(&path).filter(|text| text.contains("line\n"));
                let text = text.map(|text| text.replace("line\n", "other\n"));
                assert_eq!(edited.is_ok(), text.is_some(), "{seed} {plan:?} {edited:?}");
                if text.is_some() {
                    model.set(&path, text);
                }
            }
            3 => {
                let (from, to) = (path.clone(), other.clone());
                let request = FileMove { from, to, overwrite: Some(true), version: None };
                let moved = ann.client.call(id, request).await;
                let content = model.files.get(&path).cloned().filter(|_| path != other);
                assert_eq!(moved.is_ok(), content.is_some(), "{seed} {plan:?} {moved:?}");
                if content.is_some() {
                    model.set(&other, content);
                    model.set(&path, None);
                }
            }
            4 => {
                let request = FileDelete { path: path.clone(), recursive: None, version: None };
                let deleted = ann.client.call(id, request).await;
                let is_there = model.files.contains_key(&path);
                assert_eq!(deleted.is_ok(), is_there, "{seed} {plan:?} {deleted:?}");
                if is_there {
                    model.set(&path, None);
                }
            }
            5 => {
                let last = model.last(&path);
                let to = random.u64(1..=last.max(1));
                let request = FileRestore { path: path.clone(), to, version: None };
                let restored = ann.client.call(id, request).await;
                let old = model.versions.get(&(path.clone(), to)).cloned();
                let works = match &old {
                    Some(None) => model.files.contains_key(&path),
                    old => old.is_some(),
                };
                assert_eq!(restored.is_ok(), works, "{seed} {plan:?} {restored:?}");
                if let Some(old) = old.filter(|_| works) {
                    model.set(&path, old);
                }
            }
            6 => {
                let created = ann.client.call(id, SnapshotCreate {}).await.unwrap().snapshot;
                model.snapshots.push((created.id, model.files.clone()));
            }
            7 => {
                let message_id = turn(&mut talk, &path, &content).await;
                model.turns.push((message_id, false));
                model.reverts.clear();
                let made = Maker::Turn(model.turns.len() - 1);
                model.set_by(made, &path, Some(content));
            }
            8 => {
                let living: Vec<usize> =
                    (0..model.turns.len()).filter(|turn| !model.turns[*turn].1).collect();
                if living.is_empty() {
                    continue;
                }
                let from = living[random.usize(..living.len())];
                let request = SessionRevert {
                    session_id: talk.session.clone(),
                    message_id: model.turns[from].0.clone(),
                    dry_run: None,
                    skip_changed: Some(true),
                };
                let done =
                    talk.call(request).await.unwrap_or_else(|e| panic!("{seed} {plan:?} {e}"));
                assert_eq!(told(done), model.revert(from), "{seed} {plan:?}");
            }
            9 => {
                let session_id = talk.session.clone();
                let request =
                    SessionUnrevert { session_id, dry_run: None, skip_changed: Some(true) };
                let done = talk.call(request).await;
                match model.unrevert() {
                    Some(expected) => assert_eq!(told(done.unwrap()), expected, "{seed} {plan:?}"),
                    None => assert_eq!(refusal(done).details["reason"], "not_reverted"),
                }
            }
            _ => {
                if model.snapshots.is_empty() {
                    continue;
                }
                let (snapshot_id, files) =
                    model.snapshots[random.usize(..model.snapshots.len())].clone();
                ann.client.call(id, SnapshotRestore { snapshot_id }).await.unwrap();
                for path in PATHS {
                    if model.files.get(path) != files.get(path) {
                        model.set(path, files.get(path).cloned());
                    }
                }
            }
        }
        for path in PATHS {
            let found = match r#type {
                ProjectType::Local | ProjectType::Git => {
                    std::fs::read_to_string(root.join(path)).ok()
                }
                ProjectType::Remote => {
                    let found = ann.client.file_get(&project, path).await.ok();
                    found.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
                }
            };
            assert_eq!(found.as_ref(), model.files.get(path), "{path}: {seed} {plan:?}");
        }
    }
    for ((path, version), content) in &model.versions {
        let request =
            FileRead { path: path.clone(), version: Some(*version), ..FileRead::default() };
        let found = ann.client.call(Some(&project), request).await.ok().map(|found| found.content);
        assert_eq!(&found, content, "`{path}` {version}: {seed} {plan:?}");
    }
}
