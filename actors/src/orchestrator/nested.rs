//! Instructions for directories below the top of a project: an agent is told those of a directory with the
//! result of the first call that reads or changes something there.
//!
//! They stand in the result, not in the prompt, so that what a model was asked before stays as it was.

use std::collections::BTreeMap;
use std::sync::Arc;

use iris_agent::permissions::{Access, Judge, Target};
use iris_protocol::PermissionAction;
use iris_workspace::{Workspace, content_hash};
use parking_lot::Mutex;

use super::instructions::{NAMES, instructions};

/// Most bytes that models are told of one file.
const BYTES_MAX: usize = 16 * 1024;
/// Most files that one result tells of, and directories that are looked at for it.
const FILES_MAX: usize = 4;
const DIRECTORIES_MAX: usize = 64;
/// Most files of which is known that they were told; those of a session that has more are told again.
const TOLD_MAX: usize = 256;

/// What the model of a session was told of the instructions in its project's directories, in this life of the
/// session's actor, since the last summary, and since something of the conversation was left out or superseded.
#[derive(Debug, Default)]
pub(crate) struct ToldInstructions(Mutex<BTreeMap<String, String>>);

impl ToldInstructions {
    /// Of nothing of it is known that it stands in the conversation still.
    pub(crate) fn forget(&self) {
        self.0.lock().clear();
    }

    /// Notes that a model is told a file as it is; says whether that is news.
    fn tell(&self, path: &str, text: &str) -> bool {
        let mut told = self.0.lock();
        if told.len() >= TOLD_MAX && !told.contains_key(path) {
            told.clear();
        }
        let hash = content_hash(text.as_bytes());
        told.insert(path.to_owned(), hash.clone()) != Some(hash)
    }
}

/// What a result says behind its output of the instructions for where its call was, as far as the agent may
/// read them without a question and was not told of them as they are. Empty for nothing. Reads files.
pub(super) fn below(
    workspace: &Workspace,
    judge: &Judge,
    told: &ToldInstructions,
    accesses: &[Access],
) -> String {
    // A link might lead to what the agent may not read.
    let workspace = workspace.clone().guarded(Arc::new(|_, _| false));
    let mut text = String::new();
    let found = directories(accesses).into_iter().filter_map(|directory| {
        let may_read = |path: &String| {
            let access = Access::read("read", Target::Path(path.clone()));
            judge.judge(&[access]).action == PermissionAction::Allow
        };
        let paths = NAMES.iter().map(|name| format!("{directory}/{name}")).filter(may_read);
        let (path, said) = paths.into_iter().find_map(|path| {
            let said = instructions(&workspace, &path, BYTES_MAX)?;
            Some((path, said))
        })?;
        // One that the call itself was about stands in its output, or as much of it as was asked for.
        let is_shown =
            accesses.iter().any(|it| matches!(&it.target, Target::Path(own) if *own == path));
        (!is_shown && told.tell(&path, &said)).then_some((directory, path, said))
    });
    for (directory, path, said) in found.take(FILES_MAX) {
        text.extend([
            "\n\n[Instructions of the project for `",
            &directory,
            "`: `",
            &path,
            "`]\n",
            &said,
        ]);
    }
    text
}

/// The directories below the top in which calls with these accesses were, each before those in it.
fn directories(accesses: &[Access]) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for access in accesses {
        let Target::Path(path) = &access.target else { continue };
        let ends = path.match_indices('/').map(|(end, _)| end).chain([path.len()]);
        for directory in ends.filter_map(|end| path.get(..end)) {
            let is_below = !directory.is_empty() && directory != ".";
            if is_below && !found.iter().any(|it| it == directory) {
                found.push(directory.to_owned());
            }
        }
    }
    found.truncate(DIRECTORIES_MAX);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(paths: &[&str]) -> Vec<Access> {
        let access = |path: &&str| Access::read("read", Target::Path((*path).to_owned()));
        paths.iter().map(access).collect()
    }

    #[test]
    fn directories_of_a_call_come_from_the_top_down_and_once() {
        assert_eq!(directories(&at(&["a/b/c.rs", "a/d", "."])), ["a", "a/b", "a/b/c.rs", "a/d"]);
        assert_eq!(directories(&at(&["."])), Vec::<String>::new());
        let deep = "x/".repeat(200);
        assert_eq!(directories(&at(&[&deep])).len(), DIRECTORIES_MAX);
    }

    #[test]
    fn a_file_is_news_until_it_was_told_as_it_is() {
        let told = ToldInstructions::default();
        assert!(told.tell("a/AGENTS.md", "one"));
        assert!(!told.tell("a/AGENTS.md", "one"));
        assert!(told.tell("a/AGENTS.md", "two"));
        told.forget();
        assert!(told.tell("a/AGENTS.md", "two"));
        for n in 0..2 * TOLD_MAX {
            told.tell(&n.to_string(), "text");
        }
        assert!(told.0.lock().len() <= TOLD_MAX);
    }
}
