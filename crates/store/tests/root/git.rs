//! Projects that are cloned: how far they are, and their credentials.

use iris_protocol::{CloneState, Event, GitAction, ProjectType, Role};
use iris_store::root::{
    Access, BeginClone, BeginGitWork, CreateProject, DeleteProject, EndClone, EndGitWork, GitPart,
    GitWork, GitWorkKind, NewGit, SealGitAgain, SetGitCredentials, TryGitWork,
};

use crate::{NOW, Root, conflict, create_project, missing, project_id, user_id};

fn source() -> NewGit {
    NewGit {
        url: "https://example.com/a.git".to_owned(),
        branch: Some("main".to_owned()),
        username: None,
        sealed: Some("sealed".to_owned()),
    }
}

fn cloned(n: u128) -> CreateProject {
    CreateProject { r#type: ProjectType::Git, git: Some(source()), ..create_project(n, 1) }
}

fn end(n: u128, error: Option<&str>) -> EndClone {
    EndClone { project_id: project_id(n), error: error.map(str::to_owned), at: NOW }
}

fn begin(n: u128) -> BeginClone {
    BeginClone { project_id: project_id(n), by: user_id(1), at: NOW }
}

async fn told(root: &Root, n: u128) -> Vec<GitAction> {
    let entries = root.reader.outbox(&project_id(n)).await.unwrap();
    let actions = entries.into_iter().filter_map(|entry| {
        let Event::GitChanged { action, .. } = entry.event else { return None };
        Some(action)
    });
    actions.collect()
}

#[tokio::test]
async fn a_clone_ends_once_and_begins_anew_only_after_it_failed() {
    let root = Root::new();
    root.user(1).await;
    let made = root.run(cloned(1)).await.unwrap();
    let git = made.git.unwrap();
    assert_eq!((made.r#type, git.state, git.error), (ProjectType::Git, CloneState::Cloning, None));
    assert_eq!(git.url, source().url);
    root.run(create_project(2, 1)).await.unwrap();
    assert_eq!(root.reader.cloning().await.unwrap(), [project_id(1)]);
    assert_eq!(conflict(root.run(begin(1)).await), "clone_not_failed");
    root.run(end(1, Some("why"))).await.unwrap();
    assert!(root.reader.cloning().await.unwrap().is_empty());
    let failed = root.reader.project(&user_id(1), &project_id(1)).await.unwrap().unwrap();
    assert_eq!(failed.git.unwrap().error.as_deref(), Some("why"));
    // It has ended: what comes later changes nothing.
    root.run(end(1, None)).await.unwrap();
    assert_eq!(root.run(begin(1)).await.unwrap().git.unwrap().state, CloneState::Cloning);
    root.run(end(1, None)).await.unwrap();
    assert_eq!(conflict(root.run(begin(1)).await), "clone_not_failed");
    let expected = [GitAction::CloneFailed, GitAction::Cloning, GitAction::Cloned];
    assert_eq!(told(&root, 1).await, expected);
    assert_eq!(conflict(root.run(begin(2)).await), "not_git");
    assert_eq!(missing(root.run(begin(3)).await), "project");
    assert_eq!(missing(root.run(end(3, None)).await), "project");
}

#[tokio::test]
async fn whoever_asks_for_files_that_are_not_cloned_is_known_by_the_rights() {
    let root = Root::new();
    root.user(1).await;
    root.begin_login(1, 1, 1).await;
    root.run(cloned(1)).await.unwrap();
    let access = async || {
        let id = project_id(1);
        let found = root.reader.access(&user_id(1), &crate::login_id(1), Some(&id)).await;
        let Access { role, project_uncloned, .. } = found.unwrap().unwrap();
        (role, project_uncloned)
    };
    assert_eq!(access().await, (Some(Role::Owner), true));
    root.run(end(1, None)).await.unwrap();
    assert_eq!(access().await, (Some(Role::Owner), false));
}

#[tokio::test]
async fn credentials_are_replaced_and_sealed_anew_and_go_with_the_project() {
    let root = Root::new();
    root.user(1).await;
    root.run(cloned(1)).await.unwrap();
    let sealed = async || root.reader.git(&project_id(1)).await.unwrap().unwrap().source.sealed;
    let again = |before: &str| SealGitAgain {
        project_id: project_id(1),
        before: before.to_owned(),
        sealed: "again".to_owned(),
    };
    assert!(!root.run(again("other")).await.unwrap());
    assert!(root.run(again("sealed")).await.unwrap());
    assert_eq!(sealed().await.as_deref(), Some("again"));
    let set = SetGitCredentials {
        project_id: project_id(1),
        username: Some("ann".to_owned()),
        sealed: None,
        by: user_id(1),
        at: NOW,
    };
    root.run(set).await.unwrap();
    assert_eq!(sealed().await, None);
    assert_eq!(told(&root, 1).await, [GitAction::Credentials]);
    root.run(DeleteProject { id: project_id(1), keep_backups: false, at: NOW }).await.unwrap();
    assert_eq!(root.reader.git(&project_id(1)).await.unwrap(), None);
}

#[tokio::test]
async fn what_git_was_about_to_do_is_not_forgotten_for_what_comes_later() {
    let root = Root::new();
    root.user(1).await;
    root.run(create_project(1, 1)).await.unwrap();
    let work = |kind| GitWork {
        project_id: project_id(1),
        kind,
        locks: vec![".git/index.lock".to_owned()],
        key: None,
        by: user_id(1),
        at: NOW,
    };
    let first = work(GitWorkKind::Merge { before: None, other: "a".repeat(40) });
    let later = work(GitWorkKind::Commit { before: None, email: "a@b.c".to_owned(), at: 1 });
    let beside = work(GitWorkKind::Track);
    root.run(BeginGitWork(first.clone())).await.unwrap();
    assert_eq!(conflict(root.run(BeginGitWork(later.clone())).await), "git_busy");
    root.run(BeginGitWork(beside.clone())).await.unwrap();
    assert_eq!(root.reader.git_work(&project_id(1)).await.unwrap(), [beside.clone(), first]);
    root.run(EndGitWork { project_id: project_id(1), part: GitPart::Files }).await.unwrap();
    root.run(BeginGitWork(later.clone())).await.unwrap();
    assert_eq!(root.reader.git_work(&project_id(1)).await.unwrap(), [beside, later]);
}

#[tokio::test]
async fn each_try_to_settle_what_git_left_is_counted() {
    let root = Root::new();
    root.user(1).await;
    root.run(create_project(1, 1)).await.unwrap();
    let work = |kind| GitWork {
        project_id: project_id(1),
        kind,
        locks: Vec::new(),
        key: None,
        by: user_id(1),
        at: NOW,
    };
    let of_files = work(GitWorkKind::Merge { before: None, other: "a".repeat(40) });
    let works = [work(GitWorkKind::Track), of_files];
    for work in works.clone() {
        root.run(BeginGitWork(work)).await.unwrap();
    }
    let attempt =
        async |part| root.run(TryGitWork { project_id: project_id(1), part }).await.unwrap();
    assert_eq!(attempt(GitPart::Files).await, 1);
    assert_eq!((attempt(GitPart::Files).await, attempt(GitPart::Branches).await), (2, 1));
    assert_eq!(root.reader.git_work(&project_id(1)).await.unwrap(), works);
}
