//! What people do with a repository.

use std::os::unix::fs::PermissionsExt;

use iris_protocol::{
    ErrorCode, Event, FileSource, FileVersions, GitAction, GitBranches, GitCommit,
    GitCredentialsSet, GitDiff, GitFetch, GitFileState, GitLog, GitPull, GitPush, GitSource,
    GitStatus, GitSwitch, ProjectCreate, ProjectType, Role,
};
use iris_testkit::{AppOptions, patiently};

use super::serving::{Manner, Server};
use super::{Origin, failure, files_of, from, git, hear, options, ready, scene, state};
use crate::idempotency::with_key;
use crate::{code_of, refusal};

fn switch(branch: &str, create: bool) -> GitSwitch {
    GitSwitch { branch: branch.to_owned(), create, from: None }
}

fn message(message: &str) -> GitCommit {
    GitCommit { message: message.to_owned(), paths: None }
}

const DIFF: GitDiff = GitDiff { path: None, from: None, to: None };
const LOG: GitLog = GitLog { from: None, path: None, limit: None, cursor: None };

#[tokio::test]
async fn a_merge_that_somebody_else_began_is_neither_committed_nor_taken_back() {
    let origin = Origin::new();
    let Some((app, ann)) = scene(options(&[origin.top()])).await else { return };
    let id = ready(&ann, from(origin.bare().display().to_string())).await;
    ann.client.file_put(&id, "a.txt", "here\n").await.unwrap();
    ann.client.call(Some(&id), message("Here")).await.unwrap();
    let files = files_of(&app, &id);
    let merging = std::process::Command::new("git")
        .env("GIT_CONFIG_GLOBAL", origin.top().join("gitconfig"))
        .args(["-c", "user.name=Eve", "-c", "user.email=eve@example.com", "merge", "-q"])
        .arg("origin/feature")
        .current_dir(&files)
        .output()
        .unwrap();
    assert!(!merging.status.success(), "{merging:?}");
    let held = std::fs::read_to_string(files.join("a.txt")).unwrap();
    assert!(held.contains("<<<<<<<"), "{held}");
    let error = refusal(ann.client.call(Some(&id), message("All")).await);
    assert_eq!(code_of(&error), (ErrorCode::Conflict, "merge_conflict"));
    let error = refusal(ann.client.call(Some(&id), GitPull { merge: true }).await);
    assert_eq!(code_of(&error), (ErrorCode::Conflict, "merge_under_way"));
    assert_eq!(std::fs::read_to_string(files.join("a.txt")).unwrap(), held);
}

#[tokio::test]
async fn the_directory_of_another_project_is_not_cloned() {
    let origin = Origin::new();
    let Some((app, ann)) = scene(options(&[origin.top()])).await else { return };
    let (bob, work) = (app.user("bob").await, origin.work().canonicalize().unwrap());
    let path = Some(work.to_str().unwrap().to_owned());
    let (name, r#type) = ("work".to_owned(), ProjectType::Local);
    let local = ProjectCreate { name, description: None, r#type, path, git: None };
    bob.client.call(None, local).await.unwrap();
    for (place, reason) in
        [("", "path_taken"), ("/b", "path_taken"), ("/.git", "outside_project_roots")]
    {
        let git = Some(from(format!("file://{}{place}", work.display())));
        let (name, r#type) = ("stolen".to_owned(), ProjectType::Git);
        let stolen = ProjectCreate { name, description: None, r#type, path: None, git };
        assert_eq!(code_of(&refusal(ann.client.call(None, stolen).await)).1, reason, "{place}");
    }
}

#[tokio::test]
async fn a_repository_of_this_machine_is_cloned_worked_with_and_sent_back() {
    let origin = Origin::new();
    let Some((app, ann)) = scene(options(&[origin.top()])).await else { return };
    let local = format!("file://{}", origin.bare().display());
    let id = ready(&ann, from(local.clone())).await;
    assert_eq!(state(&ann, &id).await.url, local);
    let files = files_of(&app, &id);
    assert_eq!(std::fs::read_to_string(files.join("b/c.txt")).unwrap(), "two\n");

    let status = ann.client.call(Some(&id), GitStatus {}).await.unwrap();
    assert_eq!(
        (status.branch.as_deref(), status.ahead, status.behind),
        (Some("main"), Some(0), Some(0))
    );
    assert!(status.files.is_empty(), "{status:?}");
    let branches = ann.client.call(Some(&id), GitBranches {}).await.unwrap().branches;
    let names: Vec<_> =
        branches.iter().map(|it| (it.name.as_str(), it.remote, it.current)).collect();
    assert_eq!(names, [("main", false, true), ("feature", true, false), ("main", true, false)]);

    // What git changes are versions, by who had it done.
    let head = ann.client.call(Some(&id), switch("feature", false)).await.unwrap();
    assert_eq!(head.branch.as_deref(), Some("feature"));
    assert_eq!(std::fs::read_to_string(files.join("a.txt")).unwrap(), "of the feature\n");
    let of = FileVersions { path: "a.txt".to_owned(), limit: None, cursor: None };
    let versions = ann.client.call(Some(&id), of).await.unwrap().versions;
    assert_eq!((versions[0].by.as_ref(), versions[0].source), (Some(ann.id()), FileSource::Api));
    ann.client.call(Some(&id), switch("main", false)).await.unwrap();
    ann.client.call(Some(&id), switch("mine", true)).await.unwrap();
    let again = refusal(ann.client.call(Some(&id), switch("mine", true)).await);
    assert_eq!(code_of(&again), (ErrorCode::Conflict, "branch_exists"));
    let none = refusal(ann.client.call(Some(&id), switch("none", false)).await);
    assert_eq!(none.code, ErrorCode::NotFound);

    ann.client.file_put(&id, "new.txt", "new\n").await.unwrap();
    ann.client.file_put(&id, "a.txt", "one and more\n").await.unwrap();
    let status = ann.client.call(Some(&id), GitStatus {}).await.unwrap();
    let found: Vec<_> = status.files.iter().map(|it| (it.path.as_str(), it.state)).collect();
    let expected = [("a.txt", GitFileState::Modified), ("new.txt", GitFileState::Untracked)];
    assert_eq!(found, expected);
    let diff = ann.client.call(Some(&id), DIFF).await.unwrap();
    assert!(diff.text.contains("-one\n+one and more\n") && !diff.truncated, "{diff:?}");
    assert_eq!(diff.files[0].insertions, Some(1));
    let in_the_way = refusal(ann.client.call(Some(&id), switch("feature", false)).await);
    assert_eq!(code_of(&in_the_way), (ErrorCode::Conflict, "local_changes"));

    let socket = hear(&ann, &id).await;
    let made = ann.client.call(Some(&id), message("--amend\n\nBody")).await.unwrap().commit;
    assert_eq!((made.message.as_str(), made.parents.len()), ("--amend\n\nBody", 1));
    let told = patiently("an event", async {
        loop {
            let told = socket.next_event().await.unwrap();
            if let Event::GitChanged { action, branch, commit, .. } = told.event {
                return (action, branch, commit);
            }
        }
    });
    let told = told.await;
    assert_eq!(told, (GitAction::Committed, Some("mine".to_owned()), Some(made.id.clone())));
    let nothing = refusal(ann.client.call(Some(&id), message("Nothing")).await);
    assert_eq!(code_of(&nothing), (ErrorCode::Conflict, "nothing_to_commit"));

    let first = GitLog { limit: Some(2), ..LOG };
    let page = ann.client.call(Some(&id), first.clone()).await.unwrap();
    assert_eq!((page.commits[0].id.as_str(), page.has_more), (made.id.as_str(), true));
    let next = GitLog { cursor: page.next_cursor, ..first };
    let page = ann.client.call(Some(&id), next).await.unwrap();
    assert_eq!((page.commits[0].message.as_str(), page.has_more), ("First", false));
    for bad in ["--all", "-p", "a..b", "HEAD:a.txt", "@{u}"] {
        let log = GitLog { from: Some(bad.to_owned()), ..LOG };
        let error = refusal(ann.client.call(Some(&id), log).await);
        assert_eq!(error.code, ErrorCode::InvalidRequest, "{bad}");
    }

    // What the other side would run here is not run.
    let hook = origin.bare().join("hooks/pre-receive");
    std::fs::create_dir_all(hook.parent().unwrap()).unwrap();
    std::fs::write(&hook, "#!/bin/sh\nexit 1\n").unwrap();
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    let files_at = files.to_str().unwrap();
    git(&origin.work(), &["-C", files_at, "tag", "made-here"]);
    ann.client.call(Some(&id), GitFetch {}).await.unwrap();
    assert_eq!(git(&origin.work(), &["-C", files_at, "tag"]), "made-here");
    let path = format!("/v1/projects/{id}/git/push");
    for is_replay in [false, true] {
        let sent = with_key(&ann, "POST", &path, "{}").await;
        assert_eq!(sent.json["data"]["commit"], made.id.as_str(), "{sent:?}");
        assert_eq!(sent.headers.contains_key("idempotent-replay"), is_replay);
    }
    assert_eq!(origin.says(&["rev-parse", "mine"]), made.id);
    let audit = ann.get("/v1/admin/audit?action=git.push").await;
    assert_eq!(audit.json["data"].as_array().unwrap().len(), 2, "begun and done: {audit:?}");
    let me = ann.get("/v1/me").await.json["data"].clone();
    let (name, email) = (me["username"].as_str().unwrap(), me["email"].as_str().unwrap());
    let who = origin.says(&["log", "-1", "--format=%an %ae %cn %ce", "mine"]);
    assert_eq!(who, format!("{name} {email} {name} {email}"));
}

#[tokio::test]
async fn what_others_send_is_pulled_and_what_cannot_be_merged_is_left_alone() {
    let origin = Origin::new();
    let server = Server::start(origin.top(), Manner::Well).await;
    let egress_allow = vec![server.address.to_string().parse().unwrap()];
    let options = AppOptions { egress_allow, ..options(&[]) };
    let Some((app, ann)) = scene(options).await else { return };
    let id = ready(&ann, from(server.url())).await;
    let files = files_of(&app, &id);
    origin.commit("a.txt", "from elsewhere\n", "Elsewhere");
    origin.send();
    let branches = ann.client.call(Some(&id), GitFetch {}).await.unwrap().branches;
    let theirs = git(&origin.work(), &["rev-parse", "main"]);
    assert!(branches.iter().any(|it| it.remote && it.name == "main" && it.commit == theirs));
    let status = ann.client.call(Some(&id), GitStatus {}).await.unwrap();
    assert_eq!((status.ahead, status.behind), (Some(0), Some(1)));
    ann.client.call(Some(&id), GitPull { merge: false }).await.unwrap();
    assert_eq!(std::fs::read_to_string(files.join("a.txt")).unwrap(), "from elsewhere\n");

    // Both sides go on, in different files: only a merge brings them together.
    origin.commit("b/c.txt", "theirs\n", "Theirs");
    origin.send();
    ann.client.file_put(&id, "a.txt", "ours\n").await.unwrap();
    ann.client.call(Some(&id), message("Ours")).await.unwrap();
    let behind = refusal(ann.client.call(Some(&id), GitPush { branch: None }).await);
    assert_eq!(code_of(&behind), (ErrorCode::Conflict, "push_rejected"), "{behind:?}");
    let diverged = refusal(ann.client.call(Some(&id), GitPull { merge: false }).await);
    assert_eq!(code_of(&diverged), (ErrorCode::Conflict, "diverged"), "{diverged:?}");
    let merged = ann.client.call(Some(&id), GitPull { merge: true }).await.unwrap();
    assert_eq!(std::fs::read_to_string(files.join("b/c.txt")).unwrap(), "theirs\n");
    let path = format!("/v1/projects/{id}/git/push");
    let pushed = ann.post(&path, serde_json::json!({})).await;
    assert!(pushed.is_success(), "{pushed:?}");
    assert_eq!(Some(origin.says(&["rev-parse", "main"])), merged.commit);

    // The same line on both sides.
    git(&origin.work(), &["pull", "-q", "--ff-only", "../origin.git", "main"]);
    origin.commit("a.txt", "theirs again\n", "Theirs again");
    origin.send();
    ann.client.file_put(&id, "a.txt", "ours again\n").await.unwrap();
    let ours = ann.client.call(Some(&id), message("Ours again")).await.unwrap().commit;
    let conflict = refusal(ann.client.call(Some(&id), GitPull { merge: true }).await);
    assert_eq!(code_of(&conflict), (ErrorCode::Conflict, "merge_conflict"), "{conflict:?}");
    assert_eq!(conflict.details["paths"], serde_json::json!(["a.txt"]));
    let status = ann.client.call(Some(&id), GitStatus {}).await.unwrap();
    assert_eq!((status.commit, status.files.len()), (Some(ours.id), 0));
    assert_eq!(std::fs::read_to_string(files.join("a.txt")).unwrap(), "ours again\n");
}

#[tokio::test]
async fn a_plain_server_of_files_will_do_and_viewers_look_only() {
    let origin = Origin::new();
    let server = Server::start(origin.top(), Manner::Files).await;
    let egress_allow = vec!["127.0.0.1/32".parse().unwrap()];
    let options = AppOptions { egress_allow, ..options(&[]) };
    let Some((app, ann)) = scene(options).await else { return };
    let id =
        ready(&ann, GitSource { branch: Some("feature".to_owned()), ..from(server.url()) }).await;
    assert_eq!(
        std::fs::read_to_string(files_of(&app, &id).join("a.txt")).unwrap(),
        "of the feature\n"
    );
    let vic = app.user("vic").await;
    ann.add_member(&id, &vic, Role::Viewer).await;
    assert!(vic.client.call(Some(&id), GitStatus {}).await.is_ok());
    for error in [
        refusal(vic.client.call(Some(&id), GitPush { branch: None }).await),
        refusal(vic.client.call(Some(&id), message("x")).await),
        refusal(vic.client.call(Some(&id), switch("main", false)).await),
        refusal(vic.client.call(Some(&id), GitFetch {}).await),
    ] {
        assert_eq!(error.code, ErrorCode::Forbidden);
    }
    let missing = GitSource { branch: Some("none".to_owned()), ..from(server.url()) };
    let (_, error) = failure(&ann, missing).await;
    assert!(error.contains("no such branch"), "{error}");
}

#[tokio::test]
async fn a_project_without_a_repository_says_so() {
    let Some((_app, ann)) = scene(options(&[])).await else { return };
    let id = ann.project("p").await.id;
    let error = refusal(ann.client.call(Some(&id), GitStatus {}).await);
    assert_eq!(code_of(&error), (ErrorCode::Conflict, "not_a_repository"));
    let credentials = GitCredentialsSet { username: None, token: None };
    let error = refusal(ann.client.call(Some(&id), credentials).await);
    assert_eq!(code_of(&error), (ErrorCode::Conflict, "not_git"));
}
