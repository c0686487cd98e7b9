//! Random changes of files, compared with a model that is a map.

use std::collections::BTreeMap;

use iris_protocol::{
    FileDelete, FileEdit, FileMove, FileRead, FileRestore, FileWrite, SnapshotCreate, SnapshotId,
    SnapshotRestore,
};

use super::browsing::scene;

const SEEDS: u64 = 4;
const STEPS: usize = 60;
const PATHS: [&str; 5] = ["a", "b", "dir/a", "dir/deep/b", "other/c"];

/// What is there, and what was there.
#[derive(Default)]
struct Model {
    files: BTreeMap<String, String>,
    /// By path and version; none for one that is gone.
    versions: BTreeMap<(String, u64), Option<String>>,
    snapshots: Vec<(SnapshotId, BTreeMap<String, String>)>,
}

impl Model {
    fn last(&self, path: &str) -> u64 {
        let of_path = self.versions.keys().filter(|(known, _)| known == path);
        of_path.map(|(_, version)| *version).max().unwrap_or(0)
    }

    fn set(&mut self, path: &str, content: Option<String>) {
        let version = self.last(path) + 1;
        match &content {
            Some(content) => drop(self.files.insert(path.to_owned(), content.clone())),
            None => drop(self.files.remove(path)),
        }
        self.versions.insert((path.to_owned(), version), content);
    }
}

#[tokio::test]
async fn any_sequence_of_changes_equals_a_simple_model_and_each_version_can_be_read() {
    for seed in 0..SEEDS {
        play(seed).await;
    }
}

#[expect(clippy::too_many_lines, reason = "each kind of change has its arm")]
async fn play(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let (_app, ann, project, root) = scene().await;
    let mut model = Model::default();
    let mut plan = Vec::new();
    for step in 0..STEPS {
        let path = PATHS[random.usize(..PATHS.len())].to_owned();
        let other = PATHS[random.usize(..PATHS.len())].to_owned();
        let content = format!("{step}\n{}", "line\n".repeat(random.usize(..4)));
        let kind = random.u8(..8);
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
            let found = std::fs::read_to_string(root.join(path)).ok();
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
