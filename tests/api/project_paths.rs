//! Projects that live in a directory of their own choice.

use std::path::Path;

use iris_protocol::{ErrorCode, ProjectCreate, ProjectType};
use iris_testkit::{AppOptions, Person, spawn_app, spawn_app_with};

use crate::{code_of, refusal};

fn at(path: &str) -> ProjectCreate {
    ProjectCreate {
        name: "p".to_owned(),
        description: None,
        r#type: ProjectType::Local,
        path: Some(path.to_owned()),
        git: None,
    }
}

#[tokio::test]
async fn a_project_may_live_in_a_directory_under_a_project_root() {
    let root = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let inside = root.path().join("code");
    std::fs::create_dir(&inside).unwrap();
    std::fs::write(inside.join("a.txt"), "already there").unwrap();
    std::os::unix::fs::symlink(outside.path(), root.path().join("link")).unwrap();
    let options =
        AppOptions { project_roots: vec![root.path().to_owned()], ..AppOptions::default() };
    let app = spawn_app_with(options).await;
    let ann = app.user("ann").await;

    let project = ann.client.call(None, at(inside.to_str().unwrap())).await.unwrap().project;
    assert_eq!(
        project.path.as_deref().map(std::path::Path::new),
        Some(inside.canonicalize().unwrap().as_path())
    );
    assert_eq!(ann.client.file_get(&project.id, "a.txt").await.unwrap(), "already there");
    ann.client.file_put(&project.id, "b.txt", "new").await.unwrap();
    assert_eq!(std::fs::read_to_string(inside.join("b.txt")).unwrap(), "new");

    let missing = inside.join("missing");
    let link = root.path().join("link");
    let dotted = inside.join("../..");
    for path in [outside.path(), &missing, &link, &dotted, "/".as_ref(), "code".as_ref()] {
        let refused = refusal(ann.client.call(None, at(path.to_str().unwrap())).await);
        let expected = (ErrorCode::Forbidden, "outside_project_roots");
        assert_eq!(code_of(&refused), expected, "{}", path.display());
    }
    assert!(ann.rest("DELETE", &format!("/v1/projects/{}", project.id), None).await.is_success());
    assert!(inside.join("b.txt").exists(), "files outside the data directory stay");
}

#[tokio::test]
async fn without_project_roots_no_directory_is_allowed() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let refused = refusal(ann.client.call(None, at("/tmp")).await);
    assert_eq!(code_of(&refused), (ErrorCode::Forbidden, "outside_project_roots"));
}

async fn assert_outside(person: &Person, path: &Path) {
    let refused = refusal(person.client.call(None, at(path.to_str().unwrap())).await);
    let expected = (ErrorCode::Forbidden, "outside_project_roots");
    assert_eq!(code_of(&refused), expected, "{}", path.display());
}

#[tokio::test]
async fn the_servers_own_data_and_the_inside_of_a_repository_are_no_project() {
    let temporary = std::env::temp_dir().canonicalize().unwrap();
    let options = AppOptions { project_roots: vec![temporary.clone()], ..AppOptions::default() };
    let app = spawn_app_with(options).await;
    let ann = app.user("ann").await;
    let data = app.data_dir().canonicalize().unwrap();
    ann.project("p").await;
    assert_eq!(data.parent(), Some(temporary.as_path()));
    for path in [&data, &temporary, &data.join("projects")] {
        assert_outside(&ann, path).await;
    }
    let code = tempfile::tempdir().unwrap();
    let code = code.path();
    for protected in [".git", ".iris"] {
        let inside = code.join(protected).join("hooks");
        std::fs::create_dir_all(&inside).unwrap();
        std::os::unix::fs::symlink(&inside, code.join(format!("link{protected}"))).unwrap();
        for path in [inside, code.join(protected), code.join(format!("link{protected}"))] {
            assert_outside(&ann, &path).await;
        }
    }
    ann.client.call(None, at(code.to_str().unwrap())).await.unwrap();
}

#[tokio::test]
async fn no_two_projects_share_a_directory() {
    let root = tempfile::tempdir().unwrap();
    let roots = vec![root.path().to_owned()];
    let app = spawn_app_with(AppOptions { project_roots: roots, ..AppOptions::default() }).await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let taken = root.path().join("a");
    let (inside, beside) = (taken.join("b"), root.path().join("ab"));
    for path in [&inside, &beside] {
        std::fs::create_dir_all(path).unwrap();
    }
    std::os::unix::fs::symlink(&taken, root.path().join("link")).unwrap();
    let create = |path: &Path| bob.client.call(None, at(path.to_str().unwrap()));
    let first = ann.client.call(None, at(taken.to_str().unwrap())).await.unwrap().project.id;
    for path in [&taken, &root.path().join("link"), &inside, root.path()] {
        let refused = refusal(create(path).await);
        assert_eq!(code_of(&refused), (ErrorCode::Conflict, "path_taken"), "{}", path.display());
    }
    create(&beside).await.unwrap();
    assert!(ann.rest("DELETE", &format!("/v1/projects/{first}"), None).await.is_success());
    create(&taken).await.unwrap();
    let kept = std::fs::read_dir(app.data_dir().join("projects")).unwrap().count();
    assert_eq!(kept, 2, "a refused project leaves nothing");
}
