//! Lines that are allowed, run for real: only what was judged is executed and written.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use iris_shell::{Piece, read};
use tempfile::TempDir;

use crate::corpus::entries;
use crate::rules::{Rules, Verdict};

/// Programs that the machine may not have, or that would take long; they do nothing.
const STUBS: &[&str] = &["cargo", "rg", "fd", "npm", "make", "go", "python3", "nano"];

/// Programs that run what is judged in their place, by the table of `docs/shell.md`.
const PREFIXES: &[&str] = &[
    "bash", "busybox", "dash", "env", "ionice", "nice", "nohup", "setsid", "sh", "stdbuf",
    "timeout",
];

/// A project to run lines in: a repository with some files, and a home beside it.
struct Project {
    directory: TempDir,
}

impl Project {
    fn new() -> Self {
        let project = Self { directory: tempfile::tempdir().expect("a directory") };
        for (path, text) in [
            ("project/a.txt", "b\na\nfn main\n"),
            ("project/src/main.rs", "fn main() {}\n"),
            ("project/x.sh", "exit 0\n"),
            ("project/x.py", ""),
            ("home/.profile", ""),
        ] {
            project.put(path, text);
        }
        fs::create_dir(project.path("project/target")).expect("a directory");
        for stub in STUBS {
            let path = project.put(&format!("bin/{stub}"), "#!/bin/sh\nexit 0\n");
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a mode");
        }
        let prepared = "git init -q . && git config user.name A && git config user.email a@b.c && \
                        git add . && git commit -qm first && git gc -q";
        let status = project.shell(Command::new("/bin/bash"), prepared);
        assert_eq!(status, Some(0), "the repository is made");
        project
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn put(&self, path: &str, text: &str) -> PathBuf {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(&path, text).expect("a file");
        path
    }

    /// Runs `line` by `program`, which ends in a shell; answers with its exit code.
    fn shell(&self, mut program: Command, line: &str) -> Option<i32> {
        let path = format!("{}:/usr/bin:/bin", self.path("bin").display());
        let status = program
            .args(["--noprofile", "--norc", "-c", line])
            .current_dir(self.path("project"))
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.path("home"))
            .env("LC_ALL", "C.UTF-8")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_OPTIONAL_LOCKS", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        status.expect("the shell starts").code()
    }

    /// The programs that `line` executes, without the shell that reads it.
    fn executed(&self, line: &str) -> BTreeSet<String> {
        let trace = self.path("trace");
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-s", "4096", "-e", "trace=execve,execveat", "-o"]).arg(&trace);
        // A line that hangs would hang the test with it.
        strace.args(["timeout", "-k", "1", "20", "/bin/bash"]);
        let code = self.shell(strace, line);
        assert_ne!(code, Some(124), "`{line}` does not end");
        let trace = fs::read_to_string(trace).expect("a trace");
        // A call that another process interrupts in the log stands in two lines; the first has the
        // path, and whether it worked makes no difference to what was tried.
        let is_done = |call: &&str| call.ends_with("= 0") || call.ends_with("<unfinished ...>");
        let calls = trace.lines().filter(|call| call.contains("execve")).filter(is_done);
        let paths = calls.filter_map(|call| call.split('"').nth(1).map(str::to_owned));
        // The first two are `timeout` and the shell itself.
        paths.skip(2).map(|path| name(&path).to_owned()).collect()
    }

    /// All files but those of git, with what is in them.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(directory).expect("a directory") {
                let path = entry.expect("an entry").path();
                match path.is_dir() {
                    true if path.ends_with(".git") => {}
                    true => walk(&path, found),
                    false => found.push(path),
                }
            }
        }
        let mut found = Vec::new();
        walk(self.directory.path(), &mut found);
        found.retain(|path| !path.ends_with("trace"));
        let content = |path: PathBuf| {
            let relative = path.strip_prefix(self.directory.path()).expect("inside").to_owned();
            (relative.display().to_string(), fs::read(path).expect("a file"))
        };
        found.into_iter().map(content).collect()
    }

    /// Names of files that appeared, changed or went between two looks.
    fn changed(
        before: &BTreeMap<String, Vec<u8>>,
        after: &BTreeMap<String, Vec<u8>>,
    ) -> BTreeSet<String> {
        let names = before.keys().chain(after.keys());
        names.filter(|name| before.get(*name) != after.get(*name)).cloned().collect()
    }
}

fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// Whether there is a tracer; in CI there has to be one.
fn has_tracer() -> bool {
    let probe = Command::new("strace")
        .args(["-qq", "-o", "/dev/null", "true"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let is_there = probe.is_ok_and(|status| status.success());
    let is_ci = std::env::var("CI").as_deref() == Ok("true");
    assert!(is_there || !is_ci, "strace is needed for this test");
    if !is_there {
        println!("skipped: there is no strace, or it may not trace");
    }
    is_there
}

#[test]
fn allowed_lines_execute_and_write_only_what_was_judged() {
    if !has_tracer() {
        return;
    }
    let rules = Rules::example();
    let project = Project::new();
    let mut traced = 0;
    let (mut all_executed, mut all_changed) = (BTreeSet::new(), BTreeSet::new());
    for entry in entries().iter().filter(|entry| entry.verdict == Verdict::Allow) {
        let line = &entry.command;
        let pieces = read(line).pieces;
        assert_eq!(rules.verdict(&read(line)), Verdict::Allow, "{line}");
        let mut programs = BTreeSet::new();
        let mut writes = BTreeSet::new();
        for piece in &pieces {
            match piece {
                Piece::Command { words, .. } => {
                    programs.insert(name(&words[0]).to_owned());
                }
                Piece::Write { path, .. } => {
                    writes.insert(format!("project/{path}"));
                }
                Piece::Read { .. } => {}
                Piece::Opaque { .. } => panic!("`{line}` is allowed with {piece:?}"),
            }
        }
        let words = line.split(|c: char| !c.is_alphanumeric() && !"._-/".contains(c)).map(name);
        programs.extend(words.filter(|word| PREFIXES.contains(word)).map(str::to_owned));
        let before = project.files();
        let executed = project.executed(line);
        let changed = Project::changed(&before, &project.files());
        assert!(executed.is_subset(&programs), "`{line}` executes {executed:?}");
        assert!(changed.is_subset(&writes), "`{line}` changes {changed:?}");
        traced += 1;
        all_executed.extend(executed);
        all_changed.extend(changed);
    }
    assert!(traced >= 100, "{traced} lines");
    assert!(all_executed.len() >= 15, "{all_executed:?}");
    assert!(all_changed.contains("project/out.txt"), "{all_changed:?}");
}

#[test]
fn the_trace_sees_programs_inside_of_programs_and_files_that_change() {
    if !has_tracer() {
        return;
    }
    let project = Project::new();
    let before = project.files();
    let executed = project.executed("echo a.txt | xargs cat; sh -c 'echo x > new; true | head -1'");
    let expected = ["cat", "head", "sh", "xargs"].map(str::to_owned);
    assert_eq!(executed, expected.into_iter().collect());
    let changed = Project::changed(&before, &project.files());
    assert_eq!(changed, BTreeSet::from(["project/new".to_owned()]));
}
