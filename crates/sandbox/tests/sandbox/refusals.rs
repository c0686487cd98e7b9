//! No sandbox, no command (C11); and directories that are shared.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};

use iris_sandbox::{Config, Sandbox, SandboxError, Tier, hide_memory, share_directory};

use crate::lab::{Lab, UID, config, is_root, set_mode};

#[tokio::test(flavor = "multi_thread")]
async fn root_without_a_user_for_commands_runs_none() {
    if !is_root() {
        return;
    }
    let lab = Lab::new().await;
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
    assert_eq!(sandbox.tier(), Tier::S2);
    let lab = Lab::new().await;
    let refused = sandbox.run(lab.shell("true")).await.expect_err("no run");
    let SandboxError::Unavailable { missing } = &refused else { panic!("{refused:?}") };
    let features: Vec<&str> = missing.iter().map(|missing| missing.feature.as_str()).collect();
    assert!(features.contains(&"namespaces"), "{features:?}");
    assert!(features.contains(&"protection of .git and .iris"), "{features:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lower_minimum_is_no_way_around_the_sandbox() {
    let launcher = Some("/nowhere/at/all".into());
    let sandbox = Sandbox::start(Config { minimum: Tier::S0, launcher, ..config() }).await;
    assert!(sandbox.tier() < Tier::S2);
    let lab = Lab::new().await;
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
    let lab = Lab::new().await;
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
