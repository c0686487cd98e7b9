//! INV-9: whatever paths say and links do, nothing outside the project's directory is touched.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use iris_protocol::ErrorCode;
use iris_workspace::{Cancel, GrepQuery, SearchLimits, Workspace, WorkspaceError};
use tempfile::TempDir;

const SIZE_MAX: u64 = 1024;
/// Opens in the race tests.
const RACE_READS: usize = 100_000;
/// Writes in the race test; each waits for the disk.
const RACE_WRITES: usize = 500;

/// The most attempts until both sides of a race were seen: the other thread may not run for a while.
const RACE_ATTEMPTS_MAX: usize = 200_000;

/// A project in `inside` next to a directory that is none of its business.
struct Fixture {
    temp: TempDir,
    workspace: Workspace,
}

impl Fixture {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(temp.path().join("inside")).unwrap();
        fs::create_dir(temp.path().join("inside-evil")).unwrap();
        fs::write(temp.path().join("inside-evil/secret"), "secret").unwrap();
        let workspace = Workspace::open(&temp.path().join("inside")).unwrap();
        Self { temp, workspace }
    }

    fn inside(&self, path: &str) -> PathBuf {
        self.temp.path().join("inside").join(path)
    }

    fn outside(&self, path: &str) -> PathBuf {
        self.temp.path().join("inside-evil").join(path)
    }

    fn read(&self, path: &str) -> Result<Vec<u8>, WorkspaceError> {
        self.workspace.read_bytes(path, SIZE_MAX).map(|content| content.bytes)
    }

    fn assert_outside_is_untouched(&self) {
        assert_eq!(fs::read_to_string(self.outside("secret")).unwrap(), "secret");
        assert_eq!(fs::read_dir(self.temp.path().join("inside-evil")).unwrap().count(), 1);
    }
}

fn link(target: impl AsRef<Path>, name: &Path) {
    symlink(target, name).unwrap();
}

fn assert_escape<T>(result: Result<T, WorkspaceError>) {
    let Err(error) = result else { panic!("a link led outside") };
    assert_eq!((error.code(), error.reason()), (ErrorCode::Forbidden, Some("path_escape")));
}

/// Attempts at least `count` times, and on until both a good outcome and a refusal were seen.
fn race<T>(
    count: usize,
    attempt: impl Fn() -> Result<T, WorkspaceError>,
) -> Vec<Result<T, WorkspaceError>> {
    let (mut outcomes, mut was_good, mut was_refused) = (Vec::new(), false, false);
    while outcomes.len() < count
        || (!(was_good && was_refused) && outcomes.len() < RACE_ATTEMPTS_MAX)
    {
        let outcome = attempt();
        was_good |= outcome.is_ok();
        was_refused |= matches!(outcome, Err(WorkspaceError::PathEscape { .. }));
        outcomes.push(outcome);
    }
    outcomes
}

/// Every outcome is a good one or a refusal, and both occur.
fn assert_raced<T>(outcomes: Vec<Result<T, WorkspaceError>>, check: fn(T)) {
    let (mut good, mut refused) = (0, 0);
    for outcome in outcomes {
        match outcome {
            Ok(value) => {
                check(value);
                good += 1;
            }
            Err(WorkspaceError::PathEscape { .. }) => refused += 1,
            Err(WorkspaceError::NotFound { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(good > 0 && refused > 0, "the race did not take place: {good} {refused}");
}

#[test]
fn paths_that_leave_are_refused_by_every_operation() {
    let fixture = Fixture::new();
    let workspace = &fixture.workspace;
    let (limits, cancel) = (SearchLimits::default(), Cancel::new());
    for path in ["../inside-evil/secret", "/etc/passwd", "a/../../x", "a\0b", ""] {
        let query = GrepQuery { pattern: "x".into(), path: path.into(), ..GrepQuery::default() };
        let reasons = [
            workspace.read_bytes(path, SIZE_MAX).unwrap_err().reason(),
            workspace.write(path, b"x").unwrap_err().reason(),
            workspace.stat(path).unwrap_err().reason(),
            workspace.list(path, 1, &limits, &cancel).unwrap_err().reason(),
            workspace.glob("*", path, &limits, &cancel).unwrap_err().reason(),
            workspace.grep(&query, &|_| true, &limits, &cancel).unwrap_err().reason(),
        ];
        assert_eq!(reasons, [Some("invalid_path"); 6], "{path:?}");
    }
    fixture.assert_outside_is_untouched();
}

#[test]
fn a_link_inside_the_project_is_followed() {
    let fixture = Fixture::new();
    fs::create_dir_all(fixture.inside("a/b")).unwrap();
    fs::write(fixture.inside("a/file"), "old").unwrap();
    link("a", &fixture.inside("to-dir"));
    link("../a/file", &fixture.inside("a/to-file"));
    link("b/../../a/./file", &fixture.inside("a/winding"));
    for path in ["to-dir/file", "a/to-file", "to-dir/to-file", "a/winding"] {
        assert_eq!(fixture.read(path).unwrap(), b"old", "{path}");
        let outcome = fixture.workspace.write(path, b"new").unwrap();
        assert!(!outcome.created, "{path}");
        assert_eq!(fs::read_to_string(fixture.inside("a/file")).unwrap(), "new", "{path}");
        fs::write(fixture.inside("a/file"), "old").unwrap();
    }
    assert!(fs::symlink_metadata(fixture.inside("a/to-file")).unwrap().is_symlink());
}

#[test]
fn a_link_that_leads_out_or_in_a_circle_is_refused() {
    let fixture = Fixture::new();
    link("../inside-evil/secret", &fixture.inside("relative"));
    link(fixture.outside("secret"), &fixture.inside("absolute"));
    link(fixture.inside("file"), &fixture.inside("absolute-inside"));
    link("../inside-evil", &fixture.inside("dir"));
    link("loop-b", &fixture.inside("loop-a"));
    link("loop-a", &fixture.inside("loop-b"));
    link("/proc/self/root", &fixture.inside("magic"));
    link("/dev/zero", &fixture.inside("zero"));
    let paths = ["relative", "absolute", "absolute-inside", "dir/secret", "loop-a", "zero"];
    for path in paths.into_iter().chain(["magic/etc/passwd", "loop-a/x"]) {
        assert_escape(fixture.read(path));
        assert_escape(fixture.workspace.write(path, b"x"));
        assert_escape(fixture.workspace.stat(path));
    }
    assert_escape(fixture.workspace.list("dir", 1, &SearchLimits::default(), &Cancel::new()));
    fixture.assert_outside_is_untouched();
}

#[test]
fn a_chain_of_links_longer_than_the_bound_is_refused() {
    let fixture = Fixture::new();
    fs::write(fixture.inside("l0"), "x").unwrap();
    for number in 1..=41 {
        link(format!("l{}", number - 1), &fixture.inside(&format!("l{number}")));
    }
    assert!(fixture.workspace.write("l40", b"y").is_ok());
    assert_escape(fixture.workspace.write("l41", b"y"));
}

#[test]
fn search_does_not_follow_links() {
    let fixture = Fixture::new();
    link("../inside-evil", &fixture.inside("dir"));
    link("../inside-evil/secret", &fixture.inside("file"));
    link(".", &fixture.inside("loop"));
    let (limits, cancel) = (SearchLimits::default(), Cancel::new());
    let listing = fixture.workspace.list(".", 9, &limits, &cancel).unwrap();
    let paths: Vec<_> = listing.entries.iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(paths, ["dir", "file", "loop"]);
    assert!(fixture.workspace.glob("**", ".", &limits, &cancel).unwrap().entries.is_empty());
    let query = GrepQuery { pattern: "secret".into(), path: ".".into(), ..GrepQuery::default() };
    assert_eq!(fixture.workspace.grep(&query, &|_| true, &limits, &cancel).unwrap().match_count, 0);
}

#[test]
fn pipes_sockets_and_directories_are_no_files_and_nobody_waits_for_them() {
    let fixture = Fixture::new();
    let made = Command::new("mkfifo").arg(fixture.inside("pipe")).status().unwrap();
    assert!(made.success());
    let _listener = UnixListener::bind(fixture.inside("socket")).unwrap();
    fs::create_dir(fixture.inside("dir")).unwrap();
    for path in ["pipe", "socket", "dir"] {
        let errors =
            [fixture.read(path).unwrap_err(), fixture.workspace.write(path, b"x").unwrap_err()];
        for error in errors {
            assert_eq!(error.reason(), Some("not_regular_file"), "{path}: {error}");
        }
    }
    let query = GrepQuery { pattern: "x".into(), path: ".".into(), ..GrepQuery::default() };
    let found = fixture
        .workspace
        .grep(&query, &|_| true, &SearchLimits::default(), &Cancel::new())
        .unwrap();
    assert_eq!(found.files, []);
}

#[test]
fn a_huge_sparse_file_is_refused_before_it_is_read() {
    let fixture = Fixture::new();
    let file = fs::File::create(fixture.inside("huge")).unwrap();
    file.set_len(10 * 1024 * 1024 * 1024).unwrap();
    let error = fixture.read("huge").unwrap_err();
    assert_eq!(error.code(), ErrorCode::PayloadTooLarge);
    assert_eq!(fixture.workspace.stat("huge").unwrap().hash, None);
    let query = GrepQuery { pattern: "x".into(), path: ".".into(), ..GrepQuery::default() };
    let found = fixture
        .workspace
        .grep(&query, &|_| true, &SearchLimits::default(), &Cancel::new())
        .unwrap();
    assert_eq!(found.skipped_count, 1);
}

#[test]
fn a_file_with_a_second_hard_link_is_not_written() {
    let fixture = Fixture::new();
    fs::hard_link(fixture.outside("secret"), fixture.inside("hard")).unwrap();
    let error = fixture.workspace.write("hard", b"x").unwrap_err();
    assert_eq!((error.code(), error.reason()), (ErrorCode::Forbidden, Some("hard_linked")));
    fixture.assert_outside_is_untouched();
}

#[test]
fn protected_directories_are_not_written_even_through_links() {
    let fixture = Fixture::new();
    fs::create_dir_all(fixture.inside(".git/hooks")).unwrap();
    link(".git", &fixture.inside("innocent"));
    link(".git/config", &fixture.inside("settings"));
    let direct =
        [".git/config", ".git", ".GIT/hooks/pre-commit", ".iris/agents/x.md", "sub/.git/x"];
    for path in direct.into_iter().chain(["innocent/config", "innocent/hooks/x", "settings"]) {
        let error = fixture.workspace.write(path, b"x").unwrap_err();
        let facts = (error.code(), error.reason());
        assert_eq!(facts, (ErrorCode::Forbidden, Some("protected_path")), "{path}");
    }
    assert_eq!(fs::read_dir(fixture.inside(".git/hooks")).unwrap().count(), 0);
    assert!(fixture.workspace.write(".gitignore", b"x").is_ok());
}

#[test]
fn f4_a_directory_swapped_for_a_link_leads_none_of_100_000_opens_outside() {
    let fixture = Fixture::new();
    let (dir, aside) = (fixture.inside("d"), fixture.inside("aside"));
    let parked = fixture.inside("parked");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("secret"), "inside").unwrap();
    link("../inside-evil", &parked);
    let is_done = AtomicBool::new(false);
    let outcomes: Vec<_> = thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                fs::rename(&dir, &aside).unwrap();
                fs::rename(&parked, &dir).unwrap();
                fs::rename(&dir, &parked).unwrap();
                fs::rename(&aside, &dir).unwrap();
            }
        });
        let outcomes = race(RACE_READS, || fixture.read("d/secret"));
        is_done.store(true, Ordering::Relaxed);
        outcomes
    });
    assert_raced(outcomes, |bytes| assert_eq!(bytes, b"inside"));
}

#[test]
fn a_link_swapped_under_a_write_never_leads_it_outside() {
    let fixture = Fixture::new();
    fs::create_dir(fixture.inside("real")).unwrap();
    link("real", &fixture.inside("d"));
    let is_done = AtomicBool::new(false);
    let outcomes: Vec<_> = thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                for target in ["../inside-evil", "real"] {
                    link(target, &fixture.inside("next"));
                    fs::rename(fixture.inside("next"), fixture.inside("d")).unwrap();
                }
            }
        });
        let outcomes = race(RACE_WRITES, || fixture.workspace.write("d/secret", b"overwritten"));
        is_done.store(true, Ordering::Relaxed);
        outcomes
    });
    fixture.assert_outside_is_untouched();
    assert_raced(outcomes, |_| ());
}

#[test]
fn the_directory_that_was_opened_stays_the_project() {
    let fixture = Fixture::new();
    fs::rename(fixture.inside(""), fixture.temp.path().join("moved")).unwrap();
    link(fixture.temp.path().join("inside-evil"), &fixture.temp.path().join("inside"));
    fixture.workspace.write("file", b"x").unwrap();
    assert!(fixture.temp.path().join("moved/file").exists());
    fixture.assert_outside_is_untouched();
}

#[test]
fn a_root_that_is_missing_or_a_file_is_refused() {
    let fixture = Fixture::new();
    for path in [fixture.outside("none"), fixture.outside("secret")] {
        let error = Workspace::open(&path).unwrap_err();
        assert_eq!(error.reason(), Some("root_unavailable"));
    }
}

#[test]
fn a_path_leads_where_its_links_lead() {
    let fixture = Fixture::new();
    fs::create_dir_all(fixture.inside("a/b")).unwrap();
    fs::write(fixture.inside("a/b/file"), "").unwrap();
    link("a/b", &fixture.inside("short"));
    link("short/file", &fixture.inside("name"));
    link("nowhere", &fixture.inside("dangling"));
    link(fixture.outside("secret"), &fixture.inside("out"));
    let real = |path: &str| fixture.workspace.real_path(path);
    for (path, expected) in [
        (".", "."),
        ("a/b/file", "a/b/file"),
        ("short/file", "a/b/file"),
        ("name", "a/b/file"),
        ("short", "a/b"),
        ("short/new/file", "a/b/new/file"),
        ("new", "new"),
    ] {
        assert_eq!(real(path).unwrap(), expected, "{path}");
    }
    for path in ["dangling", "dangling/x", "out", "../x"] {
        assert!(real(path).is_err(), "{path}");
    }
}
