//! What people do with a repository.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use iris_protocol::{
    CloneState, ErrorCode, Event, FileSource, FileVersions, GitAction, GitBranches, GitCommit,
    GitCredentialsSet, GitDiff, GitFetch, GitFileState, GitLog, GitPull, GitPush, GitSource,
    GitStatus, GitSwitch, Project, ProjectCreate, ProjectDelete, ProjectExport, ProjectType, Role,
    SecretText,
};
use iris_sandbox::share_directory;
use iris_testkit::{AppOptions, Person, WireSocket, patiently};
use serde_json::json;

use super::serving::{Manner, Server};
use super::{
    Origin, clone, ended, failure, files_of, from, git, hear, options, ready, scene, state,
    with_token,
};
use crate::bash::sandbox;
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
async fn a_merge_of_very_many_files_that_do_not_fit_is_taken_back_whole() {
    let origin = Origin::new();
    let many = |directory: &std::path::Path, text: &str| {
        for n in 0..400 {
            std::fs::write(directory.join(format!("{n}-{}", "x".repeat(150))), text).unwrap();
        }
    };
    many(&origin.work(), "both\n");
    origin.commit("a.txt", "both\n", "Both");
    origin.send();
    let Some((app, ann)) = scene(options(&[origin.top()])).await else { return };
    let id = ready(&ann, from(origin.bare().display().to_string())).await;
    many(&origin.work(), "theirs\n");
    origin.commit("a.txt", "theirs\n", "Theirs");
    origin.send();
    many(&files_of(&app, &id), "ours\n");
    let ours = ann.client.call(Some(&id), message("Ours")).await.unwrap().commit;
    // Git says more of it than is read of a short answer.
    let error = refusal(ann.client.call(Some(&id), GitPull { merge: true }).await);
    assert_eq!(code_of(&error), (ErrorCode::Conflict, "merge_conflict"));
    let status = ann.client.call(Some(&id), GitStatus {}).await.unwrap();
    assert_eq!((status.commit, status.files.len()), (Some(ours.id), 0));
}

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
async fn no_project_is_made_where_another_one_is_cloned_from() {
    let origin = Origin::new();
    let Some((app, ann)) = scene(options(&[origin.top()])).await else { return };
    let bob = app.user("bob").await;
    let (bare, top) = (origin.bare(), origin.top().canonicalize().unwrap());
    std::os::unix::fs::symlink(&bare, origin.top().join("link")).unwrap();
    let local = |path: &Path| {
        let (name, path) = ("local".to_owned(), Some(path.to_str().unwrap().to_owned()));
        let r#type = ProjectType::Local;
        bob.client.call(None, ProjectCreate { name, description: None, r#type, path, git: None })
    };
    let id = clone(&ann, from(bare.display().to_string())).await.id;
    for is_ready in [false, true] {
        for path in [&bare, &top, &bare.join("objects"), &top.join("link")] {
            let error = code_of(&refusal(local(path).await)).1.to_owned();
            assert_eq!(error, "path_taken", "{} {is_ready}", path.display());
        }
        if !is_ready {
            assert_eq!(ended(&ann, &id).await.state, CloneState::Ready);
        }
    }
    // What only begins the same, and what nobody clones from any more.
    std::fs::create_dir(origin.top().join("origin.git2")).unwrap();
    local(&top.join("origin.git2")).await.unwrap();
    ann.client.call(Some(&id), ProjectDelete {}).await.unwrap();
    local(&bare).await.unwrap();
}

#[tokio::test]
async fn an_imported_project_has_its_other_side_again_and_no_credentials() {
    let origin = Origin::new();
    let server = Server::start(origin.top(), Manner::WithToken("correct-horse")).await;
    let egress_allow = vec!["127.0.0.1/32".parse().unwrap()];
    let open = || AppOptions { egress_allow: egress_allow.clone(), ..options(&[origin.top()]) };
    let Some((_app, ann)) = scene(open()).await else { return };
    let (Some((_there, dan)), Some((_closed, eve))) =
        (scene(open()).await, scene(options(&[])).await)
    else {
        return;
    };
    let source = GitSource {
        branch: Some("feature".to_owned()),
        ..with_token(server.url(), "correct-horse")
    };
    let id = ready(&ann, source).await;
    let backup = ann.client.call(Some(&id), ProjectExport {}).await.unwrap().backup;
    let path = format!("/v1/projects/{id}/backups/{}/content", backup.id);
    let archive = ann.get(&path).await;
    let import = async |person: &Person| -> Project {
        let (path, body) = ("/v1/projects/import", archive.body.clone());
        let made = person.client.raw("POST", path, Some(person.token()), &[], body).await;
        made.unwrap().data().unwrap()
    };
    let project = import(&dan).await;
    let git = project.git.unwrap();
    assert_eq!(
        (project.r#type, git.state, git.url, git.branch.as_deref()),
        (ProjectType::Git, CloneState::Ready, server.url(), Some("feature"))
    );
    let head = dan.client.call(Some(&project.id), GitStatus {}).await.unwrap();
    assert_eq!(head.branch.as_deref(), Some("feature"));
    let refused = refusal(dan.client.call(Some(&project.id), GitFetch {}).await);
    assert_eq!(code_of(&refused), (ErrorCode::Conflict, "git_credentials"));
    let (username, token) =
        (Some("ann".to_owned()), Some(SecretText::new("correct-horse".to_owned())));
    let credentials = GitCredentialsSet { username, token };
    dan.client.call(Some(&project.id), credentials).await.unwrap();
    dan.client.call(Some(&project.id), GitFetch {}).await.unwrap();
    // Where nobody may go there it is a directory with a repository.
    let project = import(&eve).await;
    assert_eq!((project.r#type, project.git), (ProjectType::Local, None));
    let head = eve.client.call(Some(&project.id), GitStatus {}).await.unwrap();
    assert_eq!(head.branch.as_deref(), Some("feature"));
}

/// What a file holds, if there is one.
fn held(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// Nothing that runs where somebody else wrote the configuration reaches what git reads where it has a token.
#[tokio::test]
async fn what_a_repository_has_run_reaches_no_configuration_of_ours() {
    let origin = Origin::new();
    let Some((app, ann)) = scene(options(&[origin.top()])).await else { return };
    let id = ready(&ann, from(origin.bare().display().to_string())).await;
    let files = files_of(&app, &id);
    let place = files.parent().unwrap().canonicalize().unwrap();
    let ours = [
        place.join("git-settings/config"),
        place.join("git-settings/bridge/objects/info/alternates"),
        place.join("git/mirror.git/config"),
    ];
    let before = ours.each_ref().map(|path| held(path).unwrap());
    let attack = |marker: &Path| {
        let former = place.join("git/config");
        let each = ours.iter().chain([&former]).map(|path| {
            let path = path.display();
            format!("rm -f {path}; echo x >> {path}; ")
        });
        let all: String = each.collect();
        format!("{all} echo $HOME >> {}; ", marker.display())
    };
    // A command of an agent, and a filter of the repository.
    let mut talk = ann.conversation_in(&id).await;
    crate::bash::allow(&talk, "bash", "*").await;
    let script = attack(&files.join("by-agent"));
    ann.client.file_put(&id, "attack.sh", script).await.unwrap();
    talk.ask("call bash {\"command\": \"sh attack.sh\"}\nstep\nsay done").await;
    assert!(held(&files.join("by-agent")).is_some(), "nothing was tried");
    let filter =
        format!("[filter \"x\"]\n\tclean = \"{} cat\"\n", attack(&files.join(".git/by-filter")));
    let config = files.join(".git/config");
    std::fs::write(&config, held(&config).unwrap() + &filter).unwrap();
    ann.client.file_put(&id, ".gitattributes", "*.txt filter=x\n").await.unwrap();
    ann.client.file_put(&id, "a.txt", "new\n").await.unwrap();
    ann.client.call(Some(&id), message("New")).await.unwrap();
    assert!(held(&files.join(".git/by-filter")).is_some(), "nothing was tried");
    // What the repository that is sent to would run here.
    let (inner, marker) = (origin.bare().join("inner.git"), origin.bare().join("by-other-side"));
    git(origin.top(), &["clone", "-q", "--bare", "work", inner.to_str().unwrap()]);
    let alternates = origin.bare().join("objects/info/alternates");
    std::fs::write(alternates, format!("{}\n", inner.join("objects").display())).unwrap();
    let command = format!("{} true #", attack(&marker));
    origin.send();
    origin.says(&["config", "core.alternateRefsCommand", &command]);
    ann.client.call(Some(&id), GitPush { branch: None }).await.unwrap();
    assert_eq!(held(&marker), None);
    assert_eq!(ours.each_ref().map(|path| held(path).unwrap()), before);
    assert_eq!(held(&place.join("git/config")), None);
}

/// What is sent is read as objects: the configuration of the repository among the files decides nothing.
#[tokio::test]
async fn the_configuration_among_the_files_is_not_read_where_the_other_side_is_reached() {
    let origin = Origin::new();
    let Some((app, ann)) = scene(options(&[origin.top()])).await else { return };
    let id = ready(&ann, from(origin.bare().display().to_string())).await;
    let config = files_of(&app, &id).join(".git/config");
    // Whoever hides branches, and packs as nobody can.
    let hides = "[uploadpack]\n\thideRefs = refs/heads\n[pack]\n\twindow = none\n";
    std::fs::write(&config, held(&config).unwrap() + hides).unwrap();
    ann.client.file_put(&id, "a.txt", "new\n").await.unwrap();
    let made = ann.client.call(Some(&id), message("New")).await.unwrap().commit;
    ann.client.call(Some(&id), GitPush { branch: None }).await.unwrap();
    assert_eq!(origin.says(&["rev-parse", "main"]), made.id);
    // Again, over what the first time left.
    ann.client.file_put(&id, "a.txt", "newer\n").await.unwrap();
    let made = ann.client.call(Some(&id), message("Newer")).await.unwrap().commit;
    ann.client.call(Some(&id), GitPush { branch: None }).await.unwrap();
    assert_eq!(origin.says(&["rev-parse", "main"]), made.id);
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
async fn commits_are_told_whatever_encoding_the_repository_has_set() {
    let origin = Origin::new();
    let Some((app, ann)) = scene(options(&[origin.top()])).await else { return };
    let id = ready(&ann, from(origin.bare().display().to_string())).await;
    let config = files_of(&app, &id).join(".git/config");
    let encodings = "[i18n]\n\tlogOutputEncoding = UTF-16\n\tcommitEncoding = UTF-16\n";
    std::fs::write(&config, held(&config).unwrap() + encodings).unwrap();
    ann.client.file_put(&id, "a.txt", "new\n").await.unwrap();
    let made = ann.client.call(Some(&id), message("Größe")).await.unwrap().commit;
    assert_eq!(made.message, "Größe");
    assert_eq!(ann.client.call(Some(&id), LOG).await.unwrap().commits[0], made);
}

#[tokio::test]
async fn a_tag_with_the_name_of_a_branch_is_not_taken_for_it() {
    let origin = Origin::new();
    git(&origin.work(), &["tag", "main", "feature"]);
    git(&origin.work(), &["push", "-q", "../origin.git", "refs/tags/main"]);
    origin.send();
    let Some((app, ann)) = scene(options(&[origin.top()])).await else { return };
    let id = ready(&ann, from(origin.bare().display().to_string())).await;
    assert_eq!(held(&files_of(&app, &id).join("a.txt")).as_deref(), Some("one\n"));
    ann.client.file_put(&id, "a.txt", "new\n").await.unwrap();
    let made = ann.client.call(Some(&id), message("New")).await.unwrap().commit;
    let sent = ann.client.call(Some(&id), GitPush { branch: None }).await.unwrap();
    assert_eq!(sent.branch.as_deref(), Some("main"));
    assert_eq!(origin.says(&["rev-parse", "refs/heads/main"]), made.id);
}

/// Nobody's files change because somebody sends commits, and nothing runs to change them.
#[tokio::test]
async fn what_the_other_side_has_checked_out_is_not_sent_to() {
    let origin = Origin::new();
    let work = origin.work().canonicalize().unwrap();
    git(&work, &["config", "receive.denyCurrentBranch", "updateInstead"]);
    if let Some(uid) = sandbox().uid {
        share_directory(&work, uid, uid).unwrap();
    }
    let Some((_app, ann)) = scene(options(&[origin.top()])).await else { return };
    let id = ready(&ann, from(work.display().to_string())).await;
    ann.client.file_put(&id, "a.txt", "new\n").await.unwrap();
    let made = ann.client.call(Some(&id), message("New")).await.unwrap().commit;
    let error = refusal(ann.client.call(Some(&id), GitPush { branch: None }).await);
    assert_eq!(code_of(&error), (ErrorCode::Conflict, "git_failed"));
    assert_eq!(held(&work.join("a.txt")).as_deref(), Some("one\n"));
    ann.client.call(Some(&id), switch("mine", true)).await.unwrap();
    ann.client.call(Some(&id), GitPush { branch: None }).await.unwrap();
    assert_eq!(git(&work, &["rev-parse", "mine"]), made.id);
}

/// A repository without some of its objects names the program that brings them.
#[tokio::test]
async fn the_other_side_gets_no_objects_that_it_lacks_when_it_is_sent_to() {
    let origin = Origin::new();
    let long = (0..5_000).map(|n| n.to_string()).collect::<Vec<_>>().join("\n");
    origin.commit("long.txt", &long, "Long");
    origin.send();
    let Some((_app, ann)) = scene(options(&[origin.top()])).await else { return };
    let id = ready(&ann, from(origin.bare().display().to_string())).await;
    let marker = origin.bare().join("by-other-side");
    let program = format!("touch {}; git-upload-pack", marker.display());
    for (name, value) in [
        ("core.repositoryformatversion", "1"),
        ("extensions.partialClone", "origin"),
        ("remote.origin.promisor", "true"),
        ("remote.origin.url", origin.work().to_str().unwrap()),
        ("remote.origin.uploadpack", &program),
    ] {
        origin.says(&["config", name, value]);
    }
    let object = origin.says(&["rev-parse", "main:long.txt"]);
    let (directory, file) = object.split_at(2);
    std::fs::remove_file(origin.bare().join("objects").join(directory).join(file)).unwrap();
    // What is sent says only what differs from that.
    ann.client.file_put(&id, "long.txt", long + "one more\n").await.unwrap();
    ann.client.call(Some(&id), message("Longer")).await.unwrap();
    let error = refusal(ann.client.call(Some(&id), GitPush { branch: None }).await);
    assert_eq!(code_of(&error), (ErrorCode::Conflict, "git_failed"));
    assert_eq!(held(&marker), None);
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

/// Neither what is on its way nor what a crash left of a write, whatever the repository says of it.
#[tokio::test]
async fn files_that_are_being_received_or_written_are_neither_told_nor_committed() {
    let origin = Origin::new();
    let Some((app, ann)) = scene(options(&[origin.top()])).await else { return };
    let id = ready(&ann, from(origin.bare().display().to_string())).await;
    let bob = app.user("bob").await;
    ann.add_member(&id, &bob, Role::Member).await;
    let mut socket = WireSocket::open(&app.url, Some(bob.token())).await.unwrap();
    let bytes = b"not for everybody, and not whole";
    let sha256 = iris_workspace::content_hash(bytes);
    let upload = json!({ "path": "bobs.bin", "size": bytes.len(), "sha256": sha256 });
    socket.ask("1", "upload.begin", Some(id.as_str()), upload).await;
    assert_eq!(socket.response("1").await["success"], true);
    let files = files_of(&app, &id);
    assert_eq!(std::fs::read_dir(files.join(".iris-tmp-uploads")).unwrap().count(), 1);
    std::fs::write(files.join("b/.iris-tmp-0123456789abcdef"), "half").unwrap();
    // A git of an agent leaves them out as well, but where the repository says otherwise.
    assert_eq!(git(&origin.work(), &["-C", files.to_str().unwrap(), "status", "--short"]), "");
    ann.client.file_put(&id, ".gitignore", "!.iris-tmp-*\n").await.unwrap();
    ann.client.file_put(&id, "b/new.txt", "new\n").await.unwrap();

    let status = ann.client.call(Some(&id), GitStatus {}).await.unwrap();
    let told: Vec<_> = status.files.iter().map(|it| it.path.as_str()).collect();
    assert_eq!(told, [".gitignore", "b/new.txt"]);
    let paths = Some(vec![".iris-tmp-uploads".to_owned()]);
    let named = GitCommit { message: "Named".to_owned(), paths };
    let refused = refusal(ann.client.call(Some(&id), named).await);
    assert_eq!(code_of(&refused), (ErrorCode::Conflict, "nothing_to_commit"));
    let below = GitCommit { message: "Below".to_owned(), paths: Some(vec!["b".to_owned()]) };
    let mut made = vec![ann.client.call(Some(&id), below).await.unwrap().commit];
    made.push(ann.client.call(Some(&id), message("All")).await.unwrap().commit);
    for (commit, new) in made.iter().zip(["b/new.txt", ".gitignore"]) {
        let shown = ["-C", files.to_str().unwrap(), "show", "--format=", "--name-only", &commit.id];
        assert_eq!(git(&origin.work(), &shown), new);
    }
    let nothing = refusal(ann.client.call(Some(&id), message("Nothing")).await);
    assert_eq!(code_of(&nothing), (ErrorCode::Conflict, "nothing_to_commit"));
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
