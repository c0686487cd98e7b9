//! Where an agent works, as its model is told: facts that stay the same for all steps of a run, so that its
//! requests begin alike and providers find what they cached.

use std::env::consts::{ARCH, OS};
use std::path::Path;
use std::sync::Arc;

use iris_store::StoreError;
use iris_workspace::Workspace;
use time::OffsetDateTime;
use tokio::sync::OnceCell;

use crate::session::SessionPlace;

/// Where git says what is checked out.
const HEAD: &str = ".git/HEAD";
/// What stands before the name of a branch there.
const BRANCH: &str = "ref: refs/heads/";
/// Most bytes of it, and of each name that a model is told.
const NAME_BYTES_MAX: usize = 200;

/// The facts of one run, found out with its first step.
#[derive(Debug, Default)]
pub(super) struct Environment {
    facts: OnceCell<String>,
}

impl Environment {
    /// # Errors
    /// As the reads of the root database.
    pub(super) async fn facts(&self, place: &SessionPlace) -> Result<&str, StoreError> {
        self.facts.get_or_try_init(|| find_out(place)).await.map(String::as_str)
    }
}

async fn find_out(place: &SessionPlace) -> Result<String, StoreError> {
    let (project, services) = (&place.project, &place.services);
    // A link might lead out of what the agent may read.
    let workspace = project.workspace.clone().guarded(Arc::new(|_, _| false));
    let branch = tokio::task::spawn_blocking(move || branch(&workspace));
    let listed = project.root.listed_project(&project.id).await?;
    let (name, path) = listed.map(|listed| (listed.name, listed.path)).unwrap_or_default();
    let path = path.as_deref().and_then(|path| Path::new(path).file_name()?.to_str());
    let directory = one_line(path.unwrap_or(&name));
    let branch = branch.await.map_err(StoreError::internal)?;
    let sandbox = services.sandbox.as_ref().filter(|_| !project.workspace.is_stored());
    let commands = match sandbox {
        Some(sandbox) => format!("run in a sandbox ({})", sandbox.tier()),
        None => "cannot be run".to_owned(),
    };
    let mut facts = format!(
        "# Environment\n\n- Platform: {OS} {ARCH}\n- Directory: `{directory}`; paths are relative to it\n\
         - Date: {}\n- Commands: {commands}",
        date(services.clock.now_ms())
    );
    if let Some(branch) = branch {
        facts.extend(["\n- Git branch: `", &branch, "`"]);
    }
    Ok(facts)
}

fn branch(workspace: &Workspace) -> Option<String> {
    let head = workspace.read_bytes(HEAD, 2 * NAME_BYTES_MAX as u64).ok()?;
    let head = String::from_utf8(head.bytes).ok()?;
    let branch = one_line(head.trim_end().strip_prefix(BRANCH)?);
    (!branch.is_empty()).then_some(branch)
}

/// A name that ends no line and no quotation.
fn one_line(name: &str) -> String {
    let name = name.get(..name.floor_char_boundary(NAME_BYTES_MAX)).unwrap_or_default();
    name.chars().filter(|c| !c.is_control() && *c != '`').collect()
}

/// The day, like `2026-03-01`, of milliseconds since 1970 UTC.
fn date(at: i64) -> String {
    let day = OffsetDateTime::from_unix_timestamp(at.div_euclid(1000));
    day.map_or_else(|_| "unknown".to_owned(), |day| day.date().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_from_1970_also_through_leap_years() {
        for (at, expected) in [
            (0, "1970-01-01"),
            (-1, "1969-12-31"),
            (951_782_400_000, "2000-02-29"),
            (951_868_800_000, "2000-03-01"),
            (1_798_761_599_999, "2026-12-31"),
            (1_798_761_600_000, "2027-01-01"),
        ] {
            assert_eq!(date(at), expected, "{at}");
        }
    }

    #[test]
    fn a_branch_is_told_where_one_is_checked_out() {
        let directory = tempfile::tempdir().unwrap();
        let workspace = Workspace::open(directory.path()).unwrap();
        assert_eq!(branch(&workspace), None);
        std::fs::create_dir(directory.path().join(".git")).unwrap();
        for (head, expected) in [
            ("ref: refs/heads/feature/one\n", Some("feature/one")),
            ("ref: refs/heads/a`b\x1bc\n", Some("abc")),
            ("ref: refs/heads/", None),
            ("0123456789abcdef\n", None),
        ] {
            std::fs::write(directory.path().join(".git/HEAD"), head).unwrap();
            assert_eq!(branch(&workspace).as_deref(), expected, "{head:?}");
        }
        std::fs::write(directory.path().join(".git/HEAD"), "x".repeat(1000)).unwrap();
        assert_eq!(branch(&workspace), None);
    }
}
