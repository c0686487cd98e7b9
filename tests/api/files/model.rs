//! Random changes of files, compared with a model that is a map.
//!
//! `IRIS_FILES_MODEL_SEED` plays one sequence again.

use std::collections::BTreeMap;
use std::path::Path;

use iris_protocol::{
    FileDelete, FileEdit, FileMove, FileRead, FileRestore, FileWrite, MessageId, ProjectId,
    ProjectType, RevertOutcome, RunStatus, SessionRevert, SessionUnrevert, SnapshotCreate,
    SnapshotId, SnapshotRestore,
};
use iris_testkit::{Conversation, Person, TestApp};
use serde_json::json;

use super::browsing::scene_of;
use super::history::allow;
use crate::refusal;

const SEEDS: u64 = 4;
const STEPS: usize = 100;
const PATHS: [&str; 6] = ["a", "b", "dir/a", "dir/deep/b", "other/a", "other/deep/b"];
const DIRECTORIES: [&str; 2] = ["dir", "other"];
/// What `.gitignore` leaves out in each of them: it never has a version.
const IGNORED: &str = "x.log";
/// Of which no content is kept.
const LARGE: &str = "large.bin";
const LARGE_BYTES: u64 = 17 * 1024 * 1024;

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
    /// What is in the directories without a version.
    ignored: BTreeMap<String, String>,
    /// How large the large file is; no size comes twice.
    large: Option<u64>,
    /// By path and version; none for one that is gone.
    versions: BTreeMap<(String, u64), Option<String>>,
    makers: BTreeMap<(String, u64), Maker>,
    snapshots: Vec<(SnapshotId, BTreeMap<String, String>, Option<u64>)>,
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

    /// The paths of files that are below a directory.
    fn below(&self, directory: &str) -> Vec<String> {
        let is_below = |path: &&String| path.starts_with(&format!("{directory}/"));
        self.files.keys().filter(is_below).cloned().collect()
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

/// Where a sequence is played.
struct Scene {
    app: TestApp,
    ann: Person,
    project: ProjectId,
    root: std::path::PathBuf,
    /// Whether the files are in a directory, where others than Iris may change them.
    is_local: bool,
}

impl Scene {
    async fn keep(&self, model: &mut Model) {
        let created = self.ann.client.call(Some(&self.project), SnapshotCreate {}).await.unwrap();
        model.snapshots.push((created.snapshot.id, model.files.clone(), model.large));
    }

    fn is_directory(&self, model: &Model, path: &str) -> bool {
        if self.is_local { self.root.join(path).is_dir() } else { !model.below(path).is_empty() }
    }

    /// Puts a file in its place from outside, at once: no look sees half of it.
    fn place(&self, path: &str, fill: impl FnOnce(&Path)) {
        let (beside, path) = (self.app.data_dir().join("beside"), self.root.join(path));
        fill(&beside);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::rename(beside, path).unwrap();
    }

    /// Somebody else writes a file, or removes it.
    async fn outside(&self, model: &mut Model, path: &str, content: Option<String>) {
        match &content {
            Some(content) => self.place(path, |beside| std::fs::write(beside, content).unwrap()),
            None if !model.files.contains_key(path) => return,
            None => std::fs::remove_file(self.root.join(path)).unwrap(),
        }
        model.set(path, content);
        self.keep(model).await;
    }

    /// Somebody else makes a large file, or it is deleted.
    async fn change_large(&self, model: &mut Model, size: Option<u64>) {
        match size {
            Some(size) => {
                let fill = |beside: &Path| std::fs::File::create(beside).unwrap().set_len(size);
                self.place(LARGE, |beside| fill(beside).unwrap());
            }
            None if model.large.is_none() => return,
            None => {
                let (path, recursive) = (LARGE.to_owned(), None);
                let request = FileDelete { path, recursive, unversioned: None, version: None };
                self.ann.client.call(Some(&self.project), request).await.unwrap();
            }
        }
        model.large = size;
        self.keep(model).await;
    }

    async fn move_directory(&self, model: &mut Model, from: &str, to: &str) {
        let works = self.is_directory(model, from) && !self.is_directory(model, to);
        let (path, place) = (from.to_owned(), to.to_owned());
        let request = FileMove { from: path, to: place, overwrite: None, version: None };
        let moved = self.ann.client.call(Some(&self.project), request).await;
        assert_eq!(moved.is_ok(), works, "{from} to {to}: {moved:?}");
        if !works {
            return;
        }
        for path in model.below(from) {
            let content = model.files.get(&path).cloned();
            model.set(&path.replacen(from, to, 1), content);
            model.set(&path, None);
        }
        if let Some(content) = model.ignored.remove(from) {
            model.ignored.insert(to.to_owned(), content);
        }
    }

    async fn delete_directory(&self, model: &mut Model, path: &str, unversioned: bool) {
        let is_there = self.is_directory(model, path);
        let works = is_there && (unversioned || !model.ignored.contains_key(path));
        let request = FileDelete {
            path: path.to_owned(),
            recursive: Some(true),
            unversioned: Some(unversioned),
            version: None,
        };
        let deleted = self.ann.client.call(Some(&self.project), request).await;
        assert_eq!(deleted.is_ok(), works, "{path}: {deleted:?}");
        if !works {
            if is_there {
                assert_eq!(refusal(deleted).details["reason"], "unversioned_files");
            }
            return;
        }
        for path in model.below(path) {
            model.set(&path, None);
        }
        model.ignored.remove(path);
    }

    async fn restore(&self, model: &mut Model, snapshot: usize) {
        let (snapshot_id, files, large) = model.snapshots[snapshot].clone();
        let restore = async |skip_unkept| {
            let request = SnapshotRestore { snapshot_id: snapshot_id.clone(), skip_unkept };
            self.ann.client.call(Some(&self.project), request).await
        };
        let mut skipped = Vec::new();
        if model.large == large {
            restore(None).await.unwrap();
        } else {
            let refused = refusal(restore(None).await);
            assert_eq!(refused.details["reason"], "content_not_kept");
            assert_eq!(refused.details["paths"], json!([LARGE]));
            skipped = restore(Some(true)).await.unwrap().skipped;
        }
        let skipped: Vec<&str> = skipped.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(skipped, if model.large == large { vec![] } else { vec![LARGE] });
        for path in PATHS {
            if model.files.get(path) != files.get(path) {
                model.set(path, files.get(path).cloned());
            }
        }
    }
}

async fn play_all(r#type: ProjectType) {
    let given = std::env::var("IRIS_FILES_MODEL_SEED").ok();
    let seeds = match given.and_then(|seed| seed.parse().ok()) {
        Some(seed) => vec![seed],
        // One more, that nobody knows before.
        None => (0..SEEDS).chain([fastrand::u64(..)]).collect(),
    };
    for seed in seeds {
        eprintln!("in a project of the type {type:?}: IRIS_FILES_MODEL_SEED={seed}");
        play(seed, r#type).await;
    }
}

#[tokio::test]
async fn any_sequence_of_changes_equals_a_simple_model_and_each_version_can_be_read() {
    play_all(ProjectType::Local).await;
}

#[tokio::test]
async fn any_sequence_of_changes_in_a_database_equals_a_simple_model() {
    play_all(ProjectType::Remote).await;
}

#[expect(clippy::too_many_lines, reason = "each kind of change has its arm")]
async fn play(seed: u64, r#type: ProjectType) {
    let mut random = fastrand::Rng::with_seed(seed);
    let (app, ann, project, root) = scene_of(r#type).await;
    let is_local = r#type == ProjectType::Local;
    let scene = Scene { app, ann, project, root, is_local };
    let Scene { ann, project, root, .. } = &scene;
    ann.client.file_put(project, ".gitignore", "*.log\n").await.unwrap();
    let mut talk = ann.conversation_in(project).await;
    allow(&talk, "edit").await;
    let mut model = Model::default();
    let mut plan = Vec::new();
    for step in 0..STEPS {
        let path = PATHS[random.usize(..PATHS.len())].to_owned();
        let other = PATHS[random.usize(..PATHS.len())].to_owned();
        let content = format!("{step}\n{}", "line\n".repeat(random.usize(..4)));
        let kind = random.u8(..17);
        plan.push((kind, path.clone(), other.clone()));
        let id = Some(project);
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
                let request = FileDelete {
                    path: path.clone(),
                    recursive: None,
                    unversioned: None,
                    version: None,
                };
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
            6 => scene.keep(&mut model).await,
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
            10 => {
                let at = random.usize(..2);
                let (from, to) = (DIRECTORIES[at], DIRECTORIES[1 - at]);
                scene.move_directory(&mut model, from, to).await;
            }
            11 => {
                let directory = DIRECTORIES[random.usize(..2)];
                scene.delete_directory(&mut model, directory, random.bool()).await;
            }
            // Nobody but Iris changes files in a database.
            12..=14 if !is_local => {}
            12 => {
                let content = (random.u8(..3) > 0).then_some(content);
                scene.outside(&mut model, &path, content).await;
            }
            13 => {
                let directory = DIRECTORIES[random.usize(..2)].to_owned();
                let write = |beside: &Path| std::fs::write(beside, &content).unwrap();
                scene.place(&format!("{directory}/{IGNORED}"), write);
                model.ignored.insert(directory, content);
            }
            14 => {
                let size = random.bool().then_some(LARGE_BYTES + step as u64);
                scene.change_large(&mut model, size).await;
            }
            _ => {
                if model.snapshots.is_empty() {
                    continue;
                }
                let snapshot = random.usize(..model.snapshots.len());
                scene.restore(&mut model, snapshot).await;
            }
        }
        for path in PATHS {
            let found = match r#type {
                ProjectType::Local | ProjectType::Git => {
                    std::fs::read_to_string(root.join(path)).ok()
                }
                ProjectType::Remote => {
                    let found = ann.client.file_get(project, path).await.ok();
                    found.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
                }
            };
            assert_eq!(found.as_ref(), model.files.get(path), "{path}: {seed} {plan:?}");
        }
        for directory in DIRECTORIES {
            let found = std::fs::read_to_string(root.join(directory).join(IGNORED)).ok();
            assert_eq!(found.as_ref(), model.ignored.get(directory), "{seed} {plan:?}");
        }
        let large = std::fs::metadata(root.join(LARGE)).ok().map(|found| found.len());
        assert_eq!(large, model.large, "{seed} {plan:?}");
    }
    for ((path, version), content) in &model.versions {
        let request =
            FileRead { path: path.clone(), version: Some(*version), ..FileRead::default() };
        let found = ann.client.call(Some(project), request).await.ok().map(|found| found.content);
        assert_eq!(&found, content, "`{path}` {version}: {seed} {plan:?}");
    }
}
