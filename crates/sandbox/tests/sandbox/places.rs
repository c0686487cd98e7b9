//! Projects, scratch directories and working directories that are not what they should be (C13), and
//! programs that cannot be run.

use std::fs;
use std::os::unix::fs::symlink;

use iris_sandbox::{Command, Request, SandboxError, Status};

use crate::lab::{Lab, is_root, labs, set_mode};

/// The role and reason of the directory that was refused.
async fn refusal(lab: &Lab, change: impl FnOnce(&mut Request)) -> (String, String) {
    let mut request = lab.shell("echo never > ran; echo ran");
    change(&mut request);
    match lab.sandbox.run(request).await {
        Err(SandboxError::Directory { role, reason, .. }) => (role, reason),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_that_cannot_be_used_are_named() {
    for lab in labs().await {
        symlink(lab.path("project"), lab.path("link")).expect("a link");
        symlink(lab.path("outside"), lab.path("project/out")).expect("a link");
        symlink("/proc/self/root", lab.path("project/root")).expect("a link");
        fs::write(lab.path("file"), "").expect("a file");
        fs::write(lab.path("project/file"), "").expect("a file");
        let (link, missing, file) = (lab.path("link"), lab.path("missing"), lab.path("file"));

        let (role, reason) = refusal(&lab, |request| request.project = link.clone()).await;
        assert_eq!((&*role, &*reason), ("project", "it is a symbolic link"));
        let (role, reason) = refusal(&lab, |request| request.project = missing.clone()).await;
        assert!(role == "project" && reason.contains("No such file"), "{role}: {reason}");
        let (role, reason) = refusal(&lab, |request| request.project = file).await;
        assert!(role == "project" && reason.contains("Not a directory"), "{role}: {reason}");
        let (role, reason) = refusal(&lab, |request| request.scratch = missing).await;
        assert!(role == "scratch directory" && reason.contains("No such file"), "{role}: {reason}");
        let (role, reason) = refusal(&lab, |request| request.scratch = link).await;
        assert_eq!((&*role, &*reason), ("scratch directory", "it is a symbolic link"));
        for workdir in ["missing", "file", "out", "root"] {
            let (role, _) = refusal(&lab, |request| request.workdir = workdir.into()).await;
            assert_eq!(role, "working directory", "{workdir}");
        }
        if is_root() {
            set_mode(&lab.path("scratch"), 0o700);
            std::os::unix::fs::chown(lab.path("scratch"), Some(0), Some(0)).expect("an owner");
            let (role, reason) = refusal(&lab, |_| {}).await;
            assert!(role == "scratch directory" && reason.contains("denied"), "{role}: {reason}");
        }
        assert!(!lab.path("project/ran").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_starts_where_it_is_told() {
    for lab in labs().await {
        lab.text("mkdir -p a/b").await;
        for (workdir, end) in [("", "/project"), ("a", "/project/a"), ("./a/b", "/project/a/b")] {
            let mut request = lab.shell("pwd");
            request.workdir = workdir.into();
            let text = lab.sandbox.run(request).await.expect("a run").output.text();
            assert!(text.trim_end().ends_with(end), "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_that_is_replaced_stays_the_one_that_was_opened() {
    for lab in labs().await {
        let mut request = lab.shell(
            "echo begun; until test -e go; do sleep 0.01; done; echo held > result; \
             echo new > $PROJECT/new; true",
        );
        request.env.push(("PROJECT".to_owned(), lab.path("project").display().to_string()));
        let (progress, mut pieces) = tokio::sync::mpsc::channel(4);
        request.progress = Some(progress);
        let replacing = async {
            pieces.recv().await.expect("a line");
            fs::rename(lab.path("project"), lab.path("old")).expect("a move");
            symlink(lab.path("outside"), lab.path("project")).expect("a link");
            fs::write(lab.path("old/go"), "").expect("a file");
        };
        let (finished, ()) = tokio::join!(lab.sandbox.run(request), replacing);
        assert_eq!(finished.expect("a run").status, Status::Exited(0));
        assert_eq!(fs::read_to_string(lab.path("old/result")).expect("a file"), "held\n");
        assert!(!lab.path("outside/new").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn protected_paths_that_are_links_are_refused() {
    let Some(lab) = Lab::new().await else { return };
    if !lab.is_isolated() {
        return;
    }
    symlink(".", lab.path("project/.git")).expect("a link");
    let (role, reason) = refusal(&lab, |_| {}).await;
    assert_eq!((&*role, &*reason), ("protected path", "it is a symbolic link"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_can_be_made_though_the_repository_is_protected() {
    let Some(lab) = Lab::new().await else { return };
    let git = "git -c user.name=a -c user.email=a@b";
    let made =
        lab.outside(&format!("{git} init -q . && {git} commit -q --allow-empty -m first"), true);
    if !made.status.success() {
        // Without git for everybody there is nothing to show.
        return;
    }
    let line =
        format!("echo x > f && git add f && {git} commit -q -m second && git log --format=%s");
    assert_eq!(lab.text(&line).await, "second\nfirst");
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_that_cannot_be_run_are_named() {
    for lab in labs().await {
        fs::write(lab.path("project/plain"), "no program").expect("a file");
        for program in ["no-such-program", "/nowhere/at/all", "./plain"] {
            let mut request = lab.shell("");
            request.command = Command::Arguments(vec![program.to_owned()]);
            match lab.sandbox.run(request).await {
                Err(SandboxError::Program { program: named, .. }) => assert_eq!(named, program),
                other => panic!("{program}: {other:?}"),
            }
        }
        // The shell says it itself.
        assert_eq!(lab.run("no-such-program").await.status, Status::Exited(127));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_without_sense_are_refused() {
    let Some(lab) = Lab::new().await else { return };
    let mut request = lab.shell("true");
    request.workdir = "..".into();
    let refused = lab.sandbox.run(request).await;
    assert!(matches!(refused, Err(SandboxError::InvalidRequest { .. })), "{refused:?}");
}

#[tokio::test]
async fn commands_that_begin_together_in_a_new_project_do_not_trip_over_each_other() {
    for _ in 0..5 {
        let Some(lab) = Lab::new().await else { return };
        let runs = tokio::join!(lab.run("true"), lab.run("true"), lab.run("true"), lab.run("true"));
        for finished in [runs.0, runs.1, runs.2, runs.3] {
            assert_eq!(finished.status, Status::Exited(0));
        }
    }
}
