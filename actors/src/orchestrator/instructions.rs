//! What a project tells every agent that works in it: the file `AGENTS.md` at its top, else `CLAUDE.md`.

use std::sync::Arc;

use iris_agent::permissions::{Access, Target};
use iris_protocol::PermissionAction;
use iris_store::StoreError;
use iris_workspace::Workspace;

use super::model::Caller;

/// The first one that is there counts.
pub(super) const NAMES: [&str; 2] = ["AGENTS.md", "CLAUDE.md"];
/// Most bytes that models are told of it; the rest is for agents to read.
const BYTES_MAX: usize = 32 * 1024;
/// A larger file is none.
const SIZE_MAX: u64 = 1024 * 1024;

/// What stands behind the prompt of an agent: the instructions of the project as they are now, where the agent
/// may read them without a question.
///
/// # Errors
/// As the reads of the project's database.
pub(super) async fn instructions_of_project(caller: &Caller) -> Result<Option<String>, StoreError> {
    // A link might lead to what the agent may not read.
    let workspace = caller.workspace().guarded(Arc::new(|_, _| false));
    let found = tokio::task::spawn_blocking(move || {
        let found = |name| Some((name, instructions(&workspace, name, BYTES_MAX)?));
        NAMES.into_iter().filter_map(found).collect::<Vec<_>>()
    });
    let found = found.await.map_err(StoreError::internal)?;
    if found.is_empty() {
        return Ok(None);
    }
    let judge = caller.judge().await?;
    let may_read = |name: &str| {
        let access = Access::read("read", Target::Path(name.to_owned()));
        judge.judge(&[access]).action == PermissionAction::Allow
    };
    let told = found.into_iter().find(|(name, _)| may_read(name));
    Ok(told.map(|(name, text)| format!("\n\n# Instructions of the project (`{name}`)\n\n{text}")))
}

/// What a file says, if it is one of text: its beginning.
pub(super) fn instructions(workspace: &Workspace, path: &str, bytes_max: usize) -> Option<String> {
    let found = workspace.read_beginning(path, SIZE_MAX, bytes_max as u64).ok()?;
    let is_cut = found.info.size > bytes_max as u64;
    let text = match String::from_utf8(found.bytes) {
        Ok(text) => text,
        // The cut may be inside of a character.
        Err(error) if is_cut && error.utf8_error().error_len().is_none() => {
            let end = error.utf8_error().valid_up_to();
            String::from_utf8(error.into_bytes().get(..end)?.to_vec()).ok()?
        }
        Err(_) => return None,
    };
    if text.trim().is_empty() || text.contains('\0') {
        return None;
    }
    let rest = if is_cut { "\n[cut here: the file says more]" } else { "" };
    Some(format!("{}{rest}", text.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(bytes: &[u8]) -> Option<String> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("AGENTS.md"), bytes).unwrap();
        instructions(&Workspace::open(directory.path()).unwrap(), "AGENTS.md", BYTES_MAX)
    }

    #[test]
    fn only_text_is_told_and_of_a_long_one_the_beginning() {
        assert_eq!(told(b"Be brief.\n\n").as_deref(), Some("Be brief."));
        for nothing in [&b""[..], b" \n", b"a\0b", b"\xff\xfe"] {
            assert_eq!(told(nothing), None, "{nothing:?}");
        }
        let long = told(&"é".repeat(BYTES_MAX).into_bytes()).unwrap();
        let (kept, rest) = long.split_once('\n').unwrap();
        assert_eq!((kept.len(), rest), (BYTES_MAX, "[cut here: the file says more]"));
        let odd = told(format!("a{}", "é".repeat(BYTES_MAX)).as_bytes()).unwrap();
        assert_eq!(odd.split_once('\n').unwrap().0.len(), BYTES_MAX - 1);
        assert_eq!(told(&vec![b'a'; 1024 * 1024 + 1]), None);
    }
}
