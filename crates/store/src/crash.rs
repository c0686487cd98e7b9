//! The points at which a process may be cut off, for tests of what is left then. Without the feature
//! `faults` they are nothing.

/// A moment of a turn, or of another work in several steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashPoint {
    /// Messages that waited have joined the run, and its model is not asked yet.
    AfterJoin,
    /// A step is about to be recorded: nobody knows of its calls yet.
    BeforeIntent,
    /// A step and its calls are recorded, and no tool of it has started.
    AfterIntent,
    /// A tool is about to begin its work.
    ToolStart,
    /// A tool has done its work, and its result is not recorded.
    ToolEnd,
    /// A checkpoint of streaming text is recorded.
    Checkpoint,
    /// The end of a run is about to be recorded.
    Finish,
    /// A file is written beside the place that it is for.
    FileHalf,
    /// A file is written, and its version is not recorded.
    FileWritten,
    /// Several files are about to be put back, and it is recorded which.
    RestoreBegun,
    /// The first of several files is put back, and the others are not.
    RestoreHalf,
    /// Our own repository of a project is there, and its files are not.
    CloneHalf,
    /// Git has worked among the files of a project, and what became of it is not noted.
    GitWorked,
    /// There is a new master key, and nothing is sealed with it.
    KeyChanged,
    /// The keys for model providers are sealed with the new master key, and what projects have is not.
    CredentialsSealed,
    /// A transaction is committed, and nobody was told: neither those who asked for it nor those who
    /// hear its events. In every database.
    AfterCommitBeforeFanout,
}

impl CrashPoint {
    /// Every point, in the order in which a turn comes to them.
    pub const ALL: [Self; 16] = [
        Self::AfterJoin,
        Self::BeforeIntent,
        Self::AfterIntent,
        Self::ToolStart,
        Self::ToolEnd,
        Self::Checkpoint,
        Self::Finish,
        Self::FileHalf,
        Self::FileWritten,
        Self::RestoreBegun,
        Self::RestoreHalf,
        Self::CloneHalf,
        Self::GitWorked,
        Self::KeyChanged,
        Self::CredentialsSealed,
        Self::AfterCommitBeforeFanout,
    ];

    /// How the point is called in `IRIS_CRASH_AT`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AfterJoin => "after_join",
            Self::BeforeIntent => "before_intent",
            Self::AfterIntent => "after_intent",
            Self::ToolStart => "tool_start",
            Self::ToolEnd => "tool_end",
            Self::Checkpoint => "checkpoint",
            Self::Finish => "finish",
            Self::FileHalf => "file_half",
            Self::FileWritten => "file_written",
            Self::RestoreBegun => "restore_begun",
            Self::RestoreHalf => "restore_half",
            Self::CloneHalf => "clone_half",
            Self::GitWorked => "git_worked",
            Self::KeyChanged => "key_changed",
            Self::CredentialsSealed => "credentials_sealed",
            Self::AfterCommitBeforeFanout => "after_commit_before_fanout",
        }
    }
}

/// Aborts the process when `IRIS_CRASH_AT` names this point and, where `IRIS_CRASH_WHEN` names a file,
/// once that file is there. Looks at the disk then.
#[cfg(feature = "faults")]
pub fn crash_point(point: CrashPoint) {
    use std::ffi::OsString;
    use std::path::Path;
    use std::sync::LazyLock;

    // Read here and not in the configuration: no release knows these variables.
    static WHERE: LazyLock<Option<OsString>> = LazyLock::new(|| std::env::var_os("IRIS_CRASH_AT"));
    static WHEN: LazyLock<Option<OsString>> = LazyLock::new(|| std::env::var_os("IRIS_CRASH_WHEN"));

    let is_here = WHERE.as_deref().is_some_and(|name| name == point.as_str());
    if is_here && WHEN.as_deref().is_none_or(|file| Path::new(file).exists()) {
        std::process::abort();
    }
}

/// Does nothing.
#[cfg(not(feature = "faults"))]
pub const fn crash_point(_: CrashPoint) {}
