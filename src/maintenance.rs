//! Commands for operators that work on the data directory itself, with or without a server on it:
//! backups, moves, checks.
//!
//! What only reads works beside a running server. What changes something takes the lock of the data
//! directory and does nothing while a server holds it.

mod audit;
mod bar;
mod data;
mod database;
mod doctor;
mod keys;
mod output;
mod project;
mod server;
mod user;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use iris_backup::BackupError;
use iris_protocol::ProjectId;
use iris_store::StoreError;
use zeroize::Zeroizing;

use crate::config::{ConfigError, Flags};
use crate::exit;
use crate::remote::{Remote, say};

pub use output::Manner;
pub use project::{IdChoice, ImportOptions, MembersChoice};

/// Which data directory, and how to answer.
#[derive(Clone, clap::Args)]
pub struct Place {
    /// TOML file with settings [env: `IRIS_CONFIG`]
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<String>,
    /// Directory for everything the server keeps [env: `IRIS_DATA_DIR`]
    #[arg(long, value_name = "DIR", global = true)]
    pub data_dir: Option<String>,
    /// How to answer.
    #[command(flatten)]
    pub manner: Manner,
}

impl Place {
    fn flags(&self) -> Flags {
        let (config, data_dir) = (self.config.clone(), self.data_dir.clone());
        Flags { config, data_dir, ..Flags::default() }
    }
}

/// `iris project`.
#[derive(Clone, clap::Args)]
pub struct ProjectOptions {
    #[command(subcommand)]
    verb: ProjectVerb,
    #[command(flatten)]
    place: Place,
}

#[derive(Clone, Subcommand)]
enum ProjectVerb {
    /// List the projects of the server
    List,
    /// Back up projects into the data directory, also while the server runs
    Backup {
        /// The projects
        #[arg(value_name = "PROJECT", required_unless_present = "all")]
        ids: Vec<ProjectId>,
        /// Every project
        #[arg(long, conflicts_with = "ids")]
        all: bool,
    },
    /// Put a project back to what it was in one of its archives; the server must not run
    Restore {
        /// The project
        #[arg(value_name = "PROJECT")]
        id: ProjectId,
        /// A backup or an export of this project
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
    },
    /// Write a project to one file, for another server or for safekeeping, also while the server runs
    Export {
        /// The project
        #[arg(value_name = "PROJECT")]
        id: ProjectId,
        /// The new file, usually called `NAME.tar.zst`
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
    /// Make a project of this server out of an archive; the server must not run
    Import(ImportOptions),
    /// Read projects or archives whole and say whether they are sound, also while the server runs
    Verify {
        /// The projects; without any, all
        #[arg(value_name = "PROJECT", conflicts_with = "archives")]
        ids: Vec<ProjectId>,
        /// An archive in place of projects
        #[arg(long = "archive", value_name = "FILE")]
        archives: Vec<PathBuf>,
    },
    /// Delete a project with its files and backups; the server must not run
    Delete {
        /// The project
        #[arg(value_name = "PROJECT")]
        id: ProjectId,
        /// It is meant
        #[arg(long)]
        yes: bool,
        /// Leave its backups where they are
        #[arg(long)]
        keep_backups: bool,
    },
}

/// `iris db`.
#[derive(Clone, clap::Args)]
pub struct DatabaseOptions {
    #[command(subcommand)]
    verb: DatabaseVerb,
    /// Only the database of this project
    #[arg(long, value_name = "PROJECT", global = true)]
    project: Option<ProjectId>,
    #[command(flatten)]
    place: Place,
}

#[derive(Clone, Copy, Subcommand)]
enum DatabaseVerb {
    /// Bring databases to the newest schema; the server must not run
    Migrate,
    /// Read databases whole and say whether they are sound, also while the server runs
    Check,
    /// Give the space of what was deleted back to the disk; the server must not run
    Vacuum,
}

/// `iris audit`.
#[derive(Clone, clap::Args)]
pub struct AuditOptions {
    #[command(subcommand)]
    verb: AuditVerb,
    #[command(flatten)]
    place: Place,
}

#[derive(Clone, Subcommand)]
enum AuditVerb {
    /// Read the audit whole and say whether it is what it was, also while the server runs
    Verify {
        /// The head that was kept from an earlier time: shows whether the end is missing
        #[arg(long, value_name = "ID:HASH")]
        head: Option<String>,
    },
    /// Print the audit as lines of JSON, oldest first, also while the server runs
    Export {
        /// Only records behind this number
        #[arg(long, value_name = "ID", default_value_t = 0)]
        after: u64,
    },
}

/// `iris user create`.
#[derive(Clone, clap::Args)]
pub struct UserCreation {
    /// The address that they log in with
    #[arg(long, value_name = "EMAIL")]
    pub(crate) email: String,
    /// The name that others see
    #[arg(long, value_name = "NAME")]
    pub(crate) username: String,
    /// They may manage the server, and have programs run on it
    #[arg(long)]
    pub(crate) admin: bool,
    /// Take the first line of this file as the password, `-` for standard input; without it, a random
    /// password is made and printed once
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Ask the server that runs there, as the administrator of `IRIS_TOKEN` or `iris login`
    #[arg(long, conflicts_with_all = ["config", "data_dir"])]
    url: Option<String>,
    #[command(flatten)]
    place: Place,
}

impl UserCreation {
    /// Whether a server is to do it.
    pub(crate) fn is_online(&self) -> bool {
        self.url.is_some()
    }

    /// The server that is to do it.
    pub(crate) fn remote(&self) -> Remote {
        let token = std::env::var("IRIS_TOKEN").ok();
        Remote { url: self.url.clone().unwrap_or_default(), token, email: None, password: None }
    }

    /// How to answer.
    pub(crate) fn manner(&self) -> Manner {
        self.place.manner
    }
}

/// `iris backup`.
#[derive(Clone, clap::Args)]
pub struct BackupOptions {
    /// Where the new directory of the backup is made
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Put the key that signs access tokens into it too
    #[arg(long)]
    with_keys: bool,
    #[command(flatten)]
    place: Place,
}

/// `iris restore`.
#[derive(Clone, clap::Args)]
pub struct RestoreOptions {
    /// The directory of the backup
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// The new data directory; must not be there, or be empty
    #[arg(long, value_name = "DIR", required_unless_present = "verify")]
    data_dir: Option<PathBuf>,
    /// Leave directories of projects outside of the data directory as they are, in place of collecting
    /// their files in it
    #[arg(long)]
    keep_directories: bool,
    /// Only read the backup whole and say whether it is sound
    #[arg(long, conflicts_with = "data_dir")]
    verify: bool,
    #[command(flatten)]
    manner: Manner,
}

/// Why a command did not do what it should.
#[derive(Debug, thiserror::Error)]
enum MaintenanceError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A server is running.
    #[error("a server is running on the data directory `{}`: stop it first", .0.display())]
    Locked(PathBuf),
    /// There is no server's data.
    #[error("`{}` is no data directory: it has no `root.db`", .0.display())]
    NoData(PathBuf),
    /// It was asked for what cannot be.
    #[error("{0}")]
    Usage(String),
    /// The state of things does not allow it.
    #[error("{0}")]
    Refused(String),
    /// Some of several things failed, and each was told.
    #[error("{failed} of {all} failed")]
    Some { failed: usize, all: usize },
    /// An archive, or what was to become one.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// A database.
    #[error("`{}`: {source}", path.display())]
    Database { path: PathBuf, source: StoreError },
    /// A file or directory.
    #[error("`{}`: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// Nobody reads the output, or it has no room.
    #[error("output: {0}")]
    Output(io::Error),
}

impl MaintenanceError {
    fn exit(&self) -> u8 {
        match self {
            Self::Config(_) => exit::CONFIG,
            Self::Locked(_) => exit::LOCKED,
            Self::Usage(_) => exit::USAGE,
            Self::NoData(_)
            | Self::Refused(_)
            | Self::Some { .. }
            | Self::Backup(_)
            | Self::Database { .. }
            | Self::Io { .. }
            | Self::Output(_) => exit::FAILED,
        }
    }

    /// What to do about it; nothing where the failure says so itself.
    fn next_step(&self) -> Option<&'static str> {
        match self {
            Self::NoData(_) => {
                Some("name the data directory of a server with `--data-dir` or `IRIS_DATA_DIR`")
            }
            Self::Some { .. } => Some("the lines above say which and why"),
            Self::Backup(BackupError::StorageFull) => Some("make room on the disk"),
            Self::Backup(BackupError::Exists { .. }) => {
                Some("choose another name, or move it away")
            }
            Self::Backup(BackupError::Newer { .. }) => Some("use a newer version of iris"),
            Self::Backup(BackupError::Corrupt { .. }) => {
                Some("use another archive, or another backup")
            }
            Self::Database { .. } => Some(
                "`iris db check` says which databases are sound, `iris project restore` puts one back",
            ),
            Self::Config(_)
            | Self::Locked(_)
            | Self::Usage(_)
            | Self::Refused(_)
            | Self::Backup(_)
            | Self::Io { .. }
            | Self::Output(_) => None,
        }
    }
}

/// Runs `iris project`.
pub fn project(options: ProjectOptions) -> ExitCode {
    end("project", project::run(options.verb, &options.place))
}

/// Runs `iris db`.
pub fn database(options: &DatabaseOptions) -> ExitCode {
    end("db", database::run(options.verb, options.project.as_ref(), &options.place))
}

/// Runs `iris audit`.
pub fn audit(options: &AuditOptions) -> ExitCode {
    end("audit", audit::run(&options.verb, &options.place))
}

/// Runs `iris user create` without a server.
pub(crate) fn create_user(creation: &UserCreation) -> ExitCode {
    end("user", user::run(creation))
}

/// The password that was given for a new account; none where one is to be made.
pub(crate) fn given_password(
    creation: &UserCreation,
) -> Result<Option<Zeroizing<String>>, impl std::error::Error> {
    creation.password_file.as_deref().map(user::read_password).transpose()
}

/// Runs `iris keys rotate-offline`.
pub fn rotate_offline(place: &Place) -> ExitCode {
    end("keys", keys::rotate(place))
}

/// Runs `iris doctor`.
pub fn doctor(place: &Place) -> ExitCode {
    end("doctor", doctor::run(place))
}

/// Runs `iris backup`.
pub fn backup(options: &BackupOptions) -> ExitCode {
    end("backup", server::back_up(options))
}

/// Runs `iris restore`.
pub fn restore(options: &RestoreOptions) -> ExitCode {
    end("restore", server::restore(options))
}

fn end(verb: &str, outcome: Result<(), MaintenanceError>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let next = error.next_step().map(|next| format!("; {next}")).unwrap_or_default();
            say(verb, &format!("{error}{next}"));
            ExitCode::from(error.exit())
        }
    }
}
