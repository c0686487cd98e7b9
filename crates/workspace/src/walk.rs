//! Walking a directory tree through open handles, in a fixed order, without following links.

use std::time::{Duration, Instant};

use crate::Workspace;
use crate::cancel::Cancel;
use crate::error::WorkspaceError;
use crate::folder::{Facts, Folder, Named};
use crate::ignores::{IGNORE_FILE, Ignores};
use crate::path::{PATH_COMPONENTS_MAX, RelPath};
use crate::place::{Spot, look_up};
use crate::read::EntryKind;
use crate::write::TEMP_PREFIX;

/// The directory that is never walked.
const GIT_DIR: &str = ".git";

/// How far a listing or a search may go. Whichever bound is reached first ends it with a [`Cut`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchLimits {
    /// Directory entries looked at, ignored ones included.
    pub entries_max: usize,
    /// Entries listed, or matching lines found.
    pub results_max: usize,
    /// Sum of the paths and lines in the result, in bytes.
    pub result_bytes_max: usize,
    /// Time from the start of the operation.
    pub time_max: Duration,
}

impl Default for SearchLimits {
    fn default() -> Self {
        Self {
            entries_max: 100_000,
            results_max: 1_000,
            result_bytes_max: 256 * 1024,
            time_max: Duration::from_secs(10),
        }
    }
}

/// Why a result is not complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// [`SearchLimits::entries_max`].
    Entries,
    /// [`SearchLimits::results_max`].
    Results,
    /// [`SearchLimits::result_bytes_max`].
    Bytes,
    /// [`SearchLimits::time_max`].
    Time,
}

/// Why a walk ends early.
pub(crate) enum Stop {
    /// With what was found so far.
    Cut(Cut),
    /// Without a result.
    Failed(WorkspaceError),
}

/// When a search has to end.
#[derive(Clone, Copy)]
pub(crate) struct Time<'a> {
    cancel: &'a Cancel,
    deadline: Instant,
}

impl Time<'_> {
    /// Fails when the caller asked to stop or the time is over.
    pub(crate) fn check(self) -> Result<(), Stop> {
        if self.cancel.is_cancelled() {
            return Err(Stop::Failed(WorkspaceError::Cancelled));
        }
        if Instant::now() >= self.deadline {
            return Err(Stop::Cut(Cut::Time));
        }
        Ok(())
    }
}

/// What a search has left of its limits.
pub(crate) struct Budget<'a> {
    pub(crate) time: Time<'a>,
    entries_left: usize,
    results_left: usize,
    bytes_left: usize,
}

impl<'a> Budget<'a> {
    pub(crate) fn new(limits: &SearchLimits, cancel: &'a Cancel) -> Self {
        Self {
            time: Time { cancel, deadline: Instant::now() + limits.time_max },
            entries_left: limits.entries_max,
            results_left: limits.results_max,
            bytes_left: limits.result_bytes_max,
        }
    }

    /// Takes one result.
    pub(crate) fn take_result(&mut self) -> Result<(), Cut> {
        self.results_left = self.results_left.checked_sub(1).ok_or(Cut::Results)?;
        Ok(())
    }

    /// Takes room for text in the result.
    pub(crate) fn take_bytes(&mut self, bytes: usize) -> Result<(), Cut> {
        self.bytes_left = self.bytes_left.checked_sub(bytes).ok_or(Cut::Bytes)?;
        Ok(())
    }

    fn take_entry(&mut self) -> Result<(), Stop> {
        self.time.check()?;
        self.entries_left = self.entries_left.checked_sub(1).ok_or(Stop::Cut(Cut::Entries))?;
        Ok(())
    }
}

/// One thing met on a walk.
pub(crate) struct Found<'a> {
    /// The directory that holds it.
    pub(crate) dir: &'a Folder,
    /// Its name there.
    pub(crate) name: &'a str,
    /// Relative to the project's directory.
    pub(crate) path: &'a RelPath,
    pub(crate) kind: EntryKind,
    /// Whether the name is not UTF-8, and escaped here.
    pub(crate) is_unreachable: bool,
    /// Where they came along with the name.
    known: Option<&'a Facts>,
}

impl Found<'_> {
    /// Facts about it; none where it is gone.
    pub(crate) fn facts(&self) -> Option<Facts> {
        self.known.cloned().or_else(|| self.dir.facts(self.path, self.name).ok())
    }
}

/// What is done with each entry.
pub(crate) type Visit<'a> = dyn FnMut(&mut Budget<'_>, &Found<'_>) -> Result<(), Stop> + 'a;

/// The directory that a walk begins in.
pub(crate) struct Base {
    dir: Folder,
    /// Without links: paths of what is below it begin so.
    pub(crate) path: RelPath,
}

impl Base {
    /// Opens the directory `path`.
    ///
    /// # Errors
    ///
    /// As [`look_up`], and `NotADirectory`.
    pub(crate) fn open(workspace: &Workspace, path: &RelPath) -> Result<Self, WorkspaceError> {
        Self::at(look_up(workspace, path)?, path)
    }

    /// Opens the directory where `path` was found to lead.
    ///
    /// # Errors
    ///
    /// As [`Spot::directory`].
    pub(crate) fn at(spot: Spot, path: &RelPath) -> Result<Self, WorkspaceError> {
        let real = spot.real.clone();
        Ok(Self { dir: spot.directory(path)?, path: real })
    }
}

/// Calls `visit` for everything below the directory `base`, sorted by name within each directory, a
/// directory before what is in it.
///
/// Left out: `.git`, what `.gitignore` files say, files that are being written, names that are not
/// UTF-8. Directories that cannot be read are skipped. `depth_max` 1 means the entries of `base` only.
/// The answer says why the walk ended early, if it did.
pub(crate) fn walk(
    workspace: &Workspace,
    base: &Base,
    depth_max: usize,
    budget: &mut Budget<'_>,
    visit: &mut Visit<'_>,
) -> Result<Option<Cut>, WorkspaceError> {
    let ignores = Some(ignores_above(workspace, &base.path));
    let depth_max = depth_max.min(PATH_COMPONENTS_MAX);
    let walk = Walk { depth_max, ignores, after: None, shows_unreachable: false, unfinished: None };
    begin(base, walk, budget, visit)
}

/// As [`walk`], through everything, and adds the paths of files that are being written to `unfinished`.
pub(crate) fn walk_noting(
    workspace: &Workspace,
    base: &Base,
    unfinished: &mut Vec<String>,
    budget: &mut Budget<'_>,
    visit: &mut Visit<'_>,
) -> Result<Option<Cut>, WorkspaceError> {
    let ignores = Some(ignores_above(workspace, &base.path));
    let walk = Walk {
        depth_max: PATH_COMPONENTS_MAX,
        ignores,
        after: None,
        shows_unreachable: false,
        unfinished: Some(unfinished),
    };
    begin(base, walk, budget, visit)
}

/// As [`walk`], for people to see: with names that are not UTF-8, and perhaps with what `.gitignore` files say.
/// Of what comes before the path with the names `after` not everything is visited.
pub(crate) fn walk_shown(
    workspace: &Workspace,
    base: &Base,
    (depth_max, with_ignored): (usize, bool),
    after: Option<&[&str]>,
    budget: &mut Budget<'_>,
    visit: &mut Visit<'_>,
) -> Result<Option<Cut>, WorkspaceError> {
    let ignores = (!with_ignored).then(|| ignores_above(workspace, &base.path));
    let (depth_max, shows_unreachable) = (depth_max.min(PATH_COMPONENTS_MAX), true);
    let walk = Walk { depth_max, ignores, after, shows_unreachable, unfinished: None };
    begin(base, walk, budget, visit)
}

fn begin(
    base: &Base,
    mut walk: Walk<'_>,
    budget: &mut Budget<'_>,
    visit: &mut Visit<'_>,
) -> Result<Option<Cut>, WorkspaceError> {
    match walk.directory(&base.dir, &base.path, 1, budget, visit) {
        Ok(()) => Ok(None),
        Err(Stop::Cut(cut)) => Ok(Some(cut)),
        Err(Stop::Failed(error)) => Err(error),
    }
}

struct Walk<'a> {
    depth_max: usize,
    /// None where they do not count.
    ignores: Option<Ignores>,
    /// Names of a path before which nothing is wanted.
    after: Option<&'a [&'a str]>,
    /// Whether names that are not UTF-8 are visited; nothing goes into them.
    shows_unreachable: bool,
    /// Where files that are being written are noted.
    unfinished: Option<&'a mut Vec<String>>,
}

impl Walk<'_> {
    fn directory(
        &mut self,
        dir: &Folder,
        path: &RelPath,
        depth: usize,
        budget: &mut Budget<'_>,
        visit: &mut Visit<'_>,
    ) -> Result<(), Stop> {
        let (entries, listed) = sorted_entries(dir, budget);
        if let Some(ignores) = &mut self.ignores {
            let has_rules = entries.iter().any(|entry| entry.name == IGNORE_FILE);
            if has_rules { ignores.enter(dir, path) } else { ignores.enter_without() }
        }
        let unwanted = self.unwanted(path, &entries);
        for Named { name, is_unreachable, kind, facts } in entries.into_iter().skip(unwanted) {
            let path = path.child(&name);
            if is_unreachable && !self.shows_unreachable {
                continue;
            }
            if name.starts_with(TEMP_PREFIX) {
                if let (EntryKind::File, Some(unfinished)) = (kind, &mut self.unfinished) {
                    unfinished.push(path.to_string());
                }
                continue;
            }
            let is_dir = kind == EntryKind::Directory;
            if self.ignores.as_ref().is_some_and(|ignores| ignores.contains(&path, is_dir)) {
                continue;
            }
            let known = facts.as_ref();
            visit(budget, &Found { dir, name: &name, path: &path, kind, is_unreachable, known })?;
            if !is_unreachable
                && kind == EntryKind::Directory
                && depth < self.depth_max
                && let Ok(child) = dir.child(&path, &name)
            {
                self.directory(&child, &path, depth + 1, budget, visit)?;
            }
        }
        if let Some(ignores) = &mut self.ignores {
            ignores.leave();
        }
        listed
    }

    /// How many of the entries of a directory, which are sorted, come with all that is in them before what is
    /// wanted.
    fn unwanted(&self, path: &RelPath, entries: &[Named]) -> usize {
        let Some(mut after) = self.after.map(|names| names.iter().copied()) else { return 0 };
        if !path.names().all(|name| after.next() == Some(name)) {
            return 0;
        }
        let first = after.next().unwrap_or_default();
        entries.partition_point(|entry| entry.name.as_str() < first)
    }
}

/// The entries of `dir` in order, and whether the budget allowed to look at all of them.
fn sorted_entries(dir: &Folder, budget: &mut Budget<'_>) -> (Vec<Named>, Result<(), Stop>) {
    let mut entries = Vec::new();
    let mut listed = Ok(());
    let in_dir = match dir.entries(budget.entries_left.saturating_add(1)) {
        Ok(in_dir) => in_dir,
        Err(error) => return (entries, Err(Stop::Failed(error))),
    };
    for entry in in_dir {
        listed = budget.take_entry();
        if listed.is_err() {
            break;
        }
        entries.extend(entry.filter(|entry| entry.name != GIT_DIR));
    }
    entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    (entries, listed)
}

/// The ignore files of the directories above `base`.
pub(crate) fn ignores_above(workspace: &Workspace, base: &RelPath) -> Ignores {
    let mut ignores = Ignores::default();
    let mut above = RelPath::ROOT;
    for name in base.names() {
        if let Ok(folder) = look_up(workspace, &above).and_then(|spot| spot.directory(&above)) {
            ignores.enter(&folder, &above);
        }
        above = above.child(name);
    }
    ignores
}
