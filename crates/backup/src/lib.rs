//! Archives: a project or a whole server in files that prove themselves.
//!
//! Read in this order: [`Manifest`] (what an archive says of itself), [`write_project`] (how one is
//! made), [`verify`] and [`unpack`] (how one is believed), [`adopt`] and [`replace`] (how it becomes a
//! project again), then [`server`], which does it for all projects at once. The format is documented
//! in docs/backup.md. Deliberately absent: clocks, rights, schedules, and any SQL, which is in
//! `iris_store::maintenance`. Everything here waits for the disk: call it off the async threads.

mod error;
mod hashing;
mod manifest;
mod master_keys;
mod name;

mod archive;
mod contents;
mod disk;
mod place;
mod progress;
mod unpack;
mod write;

pub mod server;

pub use archive::{read_manifest, verify};
pub use disk::{TEMP_PREFIX, make_directories, make_private_directories, remove_leftovers};
pub use error::BackupError;
pub use manifest::{
    ArchiveInfo, ArchivedDirectory, ArchivedGit, ArchivedMember, FORMAT, FORMAT_VERSION, Manifest,
    MemberFile, ProjectAbout, Skipped, SkippedReason,
};
pub use name::{ArchivedPath, backup_name};
pub use place::{
    Identity, Kept, adopt, backups_of, new_backup_path, new_kept_path, random_epoch, replace,
    replace_kept, unpacking_path,
};
pub use progress::{Progress, Stage, watched};
pub use unpack::{Bounds, Unpacked, unpack};
pub use write::{ProjectSource, write_project};
