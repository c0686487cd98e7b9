//! What becomes of each file that a patch names; nothing is changed here.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use iris_protocol::limits::FILE_BYTES_MAX;
use iris_workspace::{RelPath, WorkspaceError, content_hash};

use super::check_cancelled;
use crate::context::ToolContext;
use crate::error::ToolError;
use crate::patch::{Applying, Change, FilePatch, Hunk, Patch};

/// Most bytes of all files together that a patch leaves.
const BYTES_MAX: usize = 4 * FILE_BYTES_MAX;

/// One thing to be done to the disk.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Content where there is no file.
    Create { path: String, content: Vec<u8>, like: Option<String> },
    /// Content for a file that has the content with this hash.
    Replace { path: String, content: Vec<u8>, known_hash: String },
    /// The end of a file that has the content with this hash.
    Remove { path: String, known_hash: String },
}

impl Step {
    pub(super) fn path(&self) -> &str {
        match self {
            Self::Create { path, .. } | Self::Replace { path, .. } | Self::Remove { path, .. } => {
                path
            }
        }
    }
}

/// Works out what has to be done, removals last, so that a failure on the way loses no content.
///
/// # Errors
///
/// Whatever can be known to be in the way before anything is written.
pub(super) fn plan(ctx: &ToolContext, patch: &Patch<'_>) -> Result<Vec<Step>, ToolError> {
    let mut stage = Stage { ctx, files: BTreeMap::new() };
    for file in &patch.files {
        stage.apply(file)?;
        stage.check_size()?;
    }
    stage.check_directories()?;
    let mut steps: Vec<Step> = stage.files.into_values().filter_map(Staged::step).collect();
    steps.sort_by_key(|step| matches!(step, Step::Remove { .. }));
    for step in &steps {
        match step {
            Step::Create { path, .. } | Step::Replace { path, .. } => {
                ctx.workspace.check_write(path)?;
            }
            Step::Remove { path, .. } => ctx.workspace.check_remove(path)?,
        }
    }
    Ok(steps)
}

/// The files of a patch as the part of it that has been read leaves them.
struct Stage<'a> {
    ctx: &'a ToolContext,
    /// By where their paths lead: two names of one file are one file.
    files: BTreeMap<String, Staged>,
}

struct Staged {
    /// As the patch names it, without `.` and doubled slashes.
    path: String,
    /// Hash of what is on the disk; none when there is no file.
    known_hash: Option<String>,
    /// What it becomes; none when there is to be no file.
    now: Option<Vec<u8>>,
    /// The file that it was before it moved.
    like: Option<String>,
}

impl Staged {
    fn step(self) -> Option<Step> {
        let Self { path, known_hash, now, like } = self;
        match (known_hash, now) {
            (None, None) => None,
            (None, Some(content)) => Some(Step::Create { path, content, like }),
            (Some(known_hash), None) => Some(Step::Remove { path, known_hash }),
            (Some(known_hash), Some(content)) if content_hash(&content) == known_hash => None,
            (Some(known_hash), Some(content)) => Some(Step::Replace { path, content, known_hash }),
        }
    }

    fn load(ctx: &ToolContext, path: &str) -> Result<Self, ToolError> {
        let file = match ctx.workspace.read_bytes(path, FILE_BYTES_MAX as u64) {
            Ok(file) => file,
            Err(WorkspaceError::NotFound { .. }) => {
                let path = RelPath::file(path)?.to_string();
                return Ok(Self { path, known_hash: None, now: None, like: None });
            }
            Err(error) => return Err(error.into()),
        };
        let path = file.info.path;
        if ctx.read_log.hash(&path).is_some_and(|known| file.info.hash.as_ref() != Some(&known)) {
            return Err(ToolError::ChangedSinceRead { path });
        }
        Ok(Self { path, known_hash: file.info.hash, now: Some(file.bytes), like: None })
    }
}

impl Stage<'_> {
    fn apply(&mut self, file: &FilePatch<'_>) -> Result<(), ToolError> {
        let ctx = self.ctx;
        match &file.change {
            Change::Create { content } => self.create(file.path, content.clone().into(), None),
            Change::Delete { hunks } => {
                let staged = self.present(file.path)?;
                let left = edited(ctx, staged, hunks)?;
                if !hunks.is_empty() && !left.is_empty() {
                    let line = hunks.first().map_or(file.line, |hunk| hunk.line);
                    let problem =
                        "the file is to be deleted and has more lines than these".to_owned();
                    let source = crate::patch::PatchError { line, problem };
                    return Err(ToolError::PatchMismatch { path: staged.path.clone(), source });
                }
                staged.now = None;
                Ok(())
            }
            Change::Update { move_to, hunks } => {
                let staged = self.present(file.path)?;
                let content = edited(ctx, staged, hunks)?;
                let Some(to) = move_to else {
                    staged.now = Some(content);
                    return Ok(());
                };
                staged.now = None;
                let from = staged.path.clone();
                self.create(to, content, Some(from))
            }
        }
    }

    fn create(
        &mut self,
        path: &str,
        content: Vec<u8>,
        like: Option<String>,
    ) -> Result<(), ToolError> {
        let staged = self.file(path)?;
        if staged.now.is_some() {
            return Err(ToolError::PatchTargetExists { path: staged.path.clone() });
        }
        staged.now = Some(content);
        staged.like = like;
        Ok(())
    }

    fn present(&mut self, path: &str) -> Result<&mut Staged, ToolError> {
        let staged = self.file(path)?;
        if staged.now.is_none() {
            return Err(WorkspaceError::NotFound { path: staged.path.clone() }.into());
        }
        Ok(staged)
    }

    fn file(&mut self, path: &str) -> Result<&mut Staged, ToolError> {
        check_cancelled(self.ctx)?;
        match self.files.entry(self.ctx.workspace.real_path(path)?) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => Ok(entry.insert(Staged::load(self.ctx, path)?)),
        }
    }

    fn check_size(&self) -> Result<(), ToolError> {
        let sizes = self.files.values().map(|file| file.now.as_ref().map_or(0, Vec::len));
        if sizes.sum::<usize>() > BYTES_MAX {
            return Err(ToolError::PatchTooLarge { size_max: BYTES_MAX });
        }
        Ok(())
    }

    /// A patch must not make a file of what it needs as a directory.
    fn check_directories(&self) -> Result<(), ToolError> {
        let present = |path: &str| self.files.get(path).is_some_and(|file| file.now.is_some());
        for path in self.files.keys().filter(|path| present(path)) {
            let above = path.match_indices('/').filter_map(|(end, _)| path.get(..end));
            if let Some(file) = above.into_iter().find(|above| present(above)) {
                return Err(WorkspaceError::NotADirectory { path: file.to_owned() }.into());
            }
        }
        Ok(())
    }
}

/// The content of a file with `hunks` in it.
fn edited(ctx: &ToolContext, staged: &Staged, hunks: &[Hunk<'_>]) -> Result<Vec<u8>, ToolError> {
    let bytes = staged.now.as_deref().unwrap_or_default();
    if hunks.is_empty() {
        return Ok(bytes.to_vec());
    }
    let path = || staged.path.clone();
    let text = std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'));
    let text = text.ok_or_else(|| WorkspaceError::IsBinary { path: path() })?;
    let mismatch = |source| ToolError::PatchMismatch { path: path(), source };
    let mut applying = Applying::new(text, hunks).map_err(mismatch)?;
    for hunk in hunks {
        check_cancelled(ctx)?;
        applying.hunk(hunk).map_err(mismatch)?;
    }
    let text = applying.finish();
    let (size, size_max) = (text.len() as u64, FILE_BYTES_MAX as u64);
    if size > size_max {
        return Err(WorkspaceError::TooLarge { path: path(), size, size_max }.into());
    }
    Ok(text.into_bytes())
}
