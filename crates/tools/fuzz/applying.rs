//! The tool `applyPatch` in a project.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use iris_agent::permissions::Judge;
use iris_protocol::SessionMode;
use iris_tools::patch::parse;
use iris_tools::{ReadLog, ToolContext, ToolError, ToolOutput, ToolRegistry};
use iris_workspace::{Workspace, content_hash};
use serde_json::{Value, json};

use super::text_and_patch;

/// Files that there are besides `f`.
const OTHERS: [(&str, &str); 4] = [
    ("a", "one\ntwo\nthree\n"),
    ("b", "x\r\ny\r\n"),
    ("dir/c", "class A\n  def f\n    a\n"),
    ("d", ""),
];
/// In memory, where there is such a place: each write waits for its disk.
const MEMORY: &str = "/dev/shm";

/// The input is the text of `f` and a patch. The tool changes nothing and fails; or it says of each file what
/// it did, and does that and nothing else.
pub(crate) fn applies(data: &[u8]) {
    let input = String::from_utf8_lossy(data);
    let (text, patch) = text_and_patch(&input);
    if parse(patch).is_err() {
        return;
    }
    let place = if Path::new(MEMORY).is_dir() { MEMORY.into() } else { std::env::temp_dir() };
    let project = tempfile::tempdir_in(place).expect("a directory");
    for (name, content) in OTHERS.into_iter().chain([("f", text)]) {
        let file = project.path().join(name);
        fs::create_dir_all(file.parent().expect("a parent")).expect("a directory");
        fs::write(file, content).expect("a file");
    }
    let before = files(project.path());
    match apply(project.path(), patch) {
        Err(error) => {
            assert_eq!(files(project.path()), before, "{error}: {patch:?}");
        }
        Ok(done) => as_told(project.path(), before, &done, patch),
    }
}

fn apply(project: &Path, patch: &str) -> Result<ToolOutput, ToolError> {
    let tool = ToolRegistry::builtin()?.get("applyPatch").expect("the tool");
    let input = json!({ "patch": patch });
    let workspace = Workspace::open(project).expect("a project");
    let judge = Arc::new(Judge::new(SessionMode::AcceptEdits, vec![]));
    let context = ToolContext::new(workspace, Arc::new(ReadLog::new()), judge);
    let context = context.with_accesses(tool.accesses(&input));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(tool.run(context, input))
}

/// What is in the project is what was there, but for what the answer says was written or deleted.
fn as_told(project: &Path, before: BTreeMap<String, String>, done: &ToolOutput, patch: &str) {
    let names = |field: &str| -> Vec<Value> {
        done.metadata.get(field).and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let mut expected = before;
    for written in names("written") {
        let part = |field: &str| written.get(field).and_then(Value::as_str).expect("a text");
        expected.insert(part("path").to_owned(), part("hash").to_owned());
    }
    for deleted in names("deleted") {
        let name = deleted.as_str().expect("a path");
        assert!(expected.remove(name).is_some(), "{name} was not there: {patch:?}");
    }
    assert_eq!(files(project), expected, "{} after {patch:?}", done.output);
    let told: Vec<_> = done.changes.iter().map(|change| change.path.as_str()).collect();
    let written: Vec<_> = names("written").iter().map(|it| it["path"].clone()).collect();
    assert_eq!(written, told, "{patch:?}");
}

/// The files of a project by their paths, each as its hash.
fn files(project: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut directories = vec![project.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let name = path.strip_prefix(project).expect("below").to_str().expect("UTF-8");
            found.insert(name.to_owned(), content_hash(&fs::read(&path).expect("a file")));
        }
    }
    found
}
