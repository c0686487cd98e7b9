//! No sandbox, no command (C11); and directories that are shared.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};

use iris_sandbox::{Config, Sandbox, SandboxError, Tier, hide_memory, share_directory};

use crate::lab::{Lab, UID, config, example, is_root, set_mode};

#[tokio::test(flavor = "multi_thread")]
async fn root_without_a_user_for_commands_runs_none() {
    if !is_root() {
        return;
    }
    let Some(lab) = Lab::new().await else { return };
    let sandbox = Sandbox::start(Config { uid: None, ..config() }).await;
    assert_eq!(sandbox.tier(), Tier::S0);
    let refused = sandbox.run(lab.shell("true")).await.expect_err("no run");
    let expected = "the sandbox is unavailable: unprivileged uid: the server was started as root and no \
                    user is configured that commands run as";
    assert_eq!(refused.to_string(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn below_the_minimum_nothing_runs_and_what_is_missing_is_named() {
    let sandbox = Sandbox::start(Config { minimum: Tier::S3, namespaces: false, ..config() }).await;
    let Some(lab) = Lab::new().await else { return };
    assert_eq!(sandbox.tier(), Tier::S2);
    let refused = sandbox.run(lab.shell("true")).await.expect_err("no run");
    let SandboxError::Unavailable { missing } = &refused else { panic!("{refused:?}") };
    let features: Vec<&str> = missing.iter().map(|missing| missing.feature.as_str()).collect();
    assert!(features.contains(&"namespaces"), "{features:?}");
    assert!(features.contains(&"protection of .git and .iris"), "{features:?}");
    // A command of another user than the server's has no file to change there.
    let modes = features.contains(&"protection of the modes of files outside");
    assert_eq!(modes, !is_root(), "{features:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_kernel_lacks_is_noticed_and_named() {
    let Some(lab) = Lab::new().await else { return };
    let tools = tempfile::tempdir().expect("a directory");
    set_mode(tools.path(), 0o755);
    let best = lab.sandbox.tier();
    for (part, tier, expected) in [
        ("landlock", Tier::S0, "landlock of S2"),
        ("seccomp", Tier::S0, "seccomp of S2"),
        ("namespaces", Tier::S2, "namespaces of S3"),
        ("mounts", Tier::S2, "of S3"),
    ] {
        let launcher = tools.path().join(format!("launcher-{part}"));
        fs::copy(example("old_kernel"), &launcher).expect("a copy");
        let sandbox = Sandbox::start(Config { launcher: Some(launcher), ..config() }).await;
        let features: Vec<&str> =
            sandbox.missing().iter().map(|missing| missing.feature.as_str()).collect();
        // Bubblewrap would make it a little better.
        let found = if sandbox.tier() == Tier::S1 { Tier::S0 } else { sandbox.tier() };
        assert_eq!(found, tier.min(best), "without {part}: {features:?}");
        assert!(features.iter().any(|feature| feature.ends_with(expected)), "{features:?}");
        let ran = sandbox.run(lab.shell("true")).await;
        let is_refused = matches!(ran, Err(SandboxError::Unavailable { .. }));
        assert_eq!(is_refused, tier < Tier::S2, "without {part}: {ran:?}");
    }
}

#[test]
fn a_launcher_that_is_started_by_hand_does_nothing() {
    for arguments in [&["__sandbox"][..], &["__sandbox", "probe"], &["__sandbox", "other"]] {
        let mut launcher = std::process::Command::new(example("launcher"));
        let output = launcher.args(arguments).stdin(std::process::Stdio::null()).output();
        let output = output.expect("a process");
        assert!(!output.status.success() && output.stdout.is_empty(), "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lower_minimum_is_no_way_around_the_sandbox() {
    let launcher = Some("/nowhere/at/all".into());
    let sandbox = Sandbox::start(Config { minimum: Tier::S0, launcher, ..config() }).await;
    assert!(sandbox.tier() < Tier::S2);
    let Some(lab) = Lab::new().await else { return };
    let refused = sandbox.run(lab.shell("true")).await;
    assert!(matches!(refused, Err(SandboxError::Unavailable { .. })), "{refused:?}");
}

#[test]
fn memory_is_hidden() {
    use rustix::process::{DumpableBehavior, dumpable_behavior, set_dumpable_behavior};
    hide_memory().expect("it can be hidden");
    assert_eq!(dumpable_behavior().expect("an answer"), DumpableBehavior::NotDumpable);
    // Other tests of this process look at it.
    set_dumpable_behavior(DumpableBehavior::Dumpable).expect("it can be shown");
}

#[tokio::test(flavor = "multi_thread")]
async fn server_and_commands_can_write_what_the_other_has_made() {
    let Some(lab) = Lab::new().await else { return };
    let project = lab.path("project");
    fs::create_dir_all(project.join("ours/deep")).expect("a directory");
    fs::write(project.join("ours/deep/file"), "server\n").expect("a file");
    let line = "echo command >> ours/deep/file && mkdir theirs && echo command > theirs/file && \
                rm -r ours/deep && mkdir ours/deep && echo again > ours/deep/file && cat ours/deep/file";
    assert_eq!(lab.text(line).await, "again");
    fs::write(project.join("theirs/file"), "server").expect("the server may write");
    fs::write(project.join("theirs/new"), "server\n").expect("the server may make files");
    assert_eq!(lab.text("echo more >> theirs/new && cat theirs/new").await, "server\nmore");
}

#[test]
fn what_is_in_a_directory_is_shared_and_links_are_not_followed() {
    if !is_root() {
        return;
    }
    let base = tempfile::tempdir().expect("a directory");
    let (shared, outside) = (base.path().join("shared"), base.path().join("outside"));
    fs::create_dir_all(shared.join("a/b")).expect("a directory");
    fs::create_dir(&outside).expect("a directory");
    fs::write(shared.join("a/b/file"), "").expect("a file");
    symlink(&outside, shared.join("a/link")).expect("a link");
    set_mode(&outside, 0o700);
    share_directory(&shared, UID, UID).expect("a shared directory");
    let owner = |path: &std::path::Path| path.symlink_metadata().expect("a file").uid();
    for path in ["a", "a/b", "a/b/file", "a/link"] {
        assert_eq!(owner(&shared.join(path)), UID, "{path}");
    }
    assert_eq!(owner(&outside), 0);
    assert!(share_directory(&shared.join("a/link"), UID, UID).is_err());
    assert_eq!(owner(&outside), 0);
}
