//! Looking around: lists, facts, searches, parts of files; and what cannot be a file.

use std::os::unix::fs::symlink;

use iris_protocol::{
    ErrorCode, FileDelete, FileEncoding, FileEntryType, FileList, FileRead, FileSearch,
    FileSearchKind, FileStat, FileType, FileWrite, ProjectId, ProjectType,
};
use iris_testkit::{Person, TestApp, spawn_app};

use crate::{code_of, refusal};

/// A person with a project, and where its files are.
pub(super) async fn scene() -> (TestApp, Person, ProjectId, std::path::PathBuf) {
    scene_of(ProjectType::Local).await
}

/// As [`scene`], in a project of a type.
pub(super) async fn scene_of(
    r#type: ProjectType,
) -> (TestApp, Person, ProjectId, std::path::PathBuf) {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let project = ann.project_of("p", r#type).await.id;
    let files = app.data_dir().join("projects").join(project.as_str()).join("files");
    (app, ann, project, files)
}

/// The types of projects whose files behave alike.
pub(super) const TYPES: [ProjectType; 2] = [ProjectType::Local, ProjectType::Remote];

/// Plays a test in a project of each of them.
pub(super) async fn in_each_type(play: impl AsyncFn(TestApp, Person, ProjectId)) {
    for r#type in TYPES {
        eprintln!("in a project of the type {type:?}");
        let (app, ann, project, _) = scene_of(r#type).await;
        play(app, ann, project).await;
    }
}

fn list(path: Option<&str>, depth: u32) -> FileList {
    FileList { path: path.map(str::to_owned), depth: Some(depth), ..FileList::default() }
}

#[tokio::test]
async fn a_directory_is_listed_in_pages_without_what_is_ignored() {
    let (_app, ann, project, files) = scene().await;
    std::fs::create_dir_all(files.join("src/deep")).unwrap();
    std::fs::write(files.join(".gitignore"), "*.log\n").unwrap();
    for name in ["src/deep/x.rs", "src/a.rs", "b.log", "c.txt"] {
        std::fs::write(files.join(name), name).unwrap();
    }
    let paths = async |request: FileList| {
        let (mut paths, mut request) = (Vec::new(), request);
        loop {
            let page = ann.client.call(Some(&project), request.clone()).await.unwrap();
            paths.extend(page.entries.into_iter().map(|entry| entry.path));
            let Some(cursor) = page.next_cursor else { return paths };
            request.cursor = Some(cursor);
        }
    };
    assert_eq!(paths(list(None, 1)).await, [".gitignore", "c.txt", "src"]);
    let all = [".gitignore", "c.txt", "src", "src/a.rs", "src/deep", "src/deep/x.rs"];
    for limit in [1, 2, 1000] {
        assert_eq!(paths(FileList { limit: Some(limit), ..list(None, 9) }).await, all);
    }
    let ignored = FileList { ignored: Some(true), ..list(None, 1) };
    assert_eq!(paths(ignored).await, [".gitignore", "b.log", "c.txt", "src"]);
    assert_eq!(paths(list(Some("src"), 1)).await, ["src/a.rs", "src/deep"]);

    let rest = ann.get(&format!("/v1/projects/{project}/files?path=src&limit=1")).await;
    assert_eq!(rest.json["data"][0]["path"], "src/a.rs", "{rest:?}");
    assert_eq!(rest.json["data"][0]["size"], 8);
    assert_eq!(rest.json["meta"]["nextCursor"], "src/a.rs");
    let zero = FileList { limit: Some(0), ..FileList::default() };
    let refused = refusal(ann.client.call(Some(&project), zero).await);
    assert_eq!(refused.code, ErrorCode::InvalidRequest);
    let file = refusal(ann.client.call(Some(&project), list(Some("c.txt"), 1)).await);
    assert_eq!(code_of(&file), (ErrorCode::InvalidRequest, "not_directory"));
}

#[tokio::test]
async fn files_are_found_by_name_and_by_what_stands_in_them() {
    in_each_type(async |_app, ann, project| {
        ann.client.file_put(&project, "src/a.rs", "fn Main() {}\nother\n").await.unwrap();
        ann.client.file_put(&project, "b.txt", "main\n").await.unwrap();
        let search = async |query: &str, kind, ignore_case| {
            let query = query.to_owned();
            let request = FileSearch {
                query,
                kind: Some(kind),
                path: None,
                include: None,
                ignore_case: Some(ignore_case),
                limit: None,
            };
            ann.client.call(Some(&project), request).await
        };
        let found = search("main", FileSearchKind::Content, true).await.unwrap();
        let lines: Vec<_> = found.matches.iter().map(|it| (it.path.as_str(), it.line)).collect();
        assert_eq!(lines, [("b.txt", Some(1)), ("src/a.rs", Some(1))]);
        assert_eq!(search("main", FileSearchKind::Content, false).await.unwrap().matches.len(), 1);
        let named = search("**/*.rs", FileSearchKind::Name, false).await.unwrap();
        assert_eq!(named.matches[0].path, "src/a.rs");
        let broken = refusal(search("(", FileSearchKind::Content, false).await);
        assert_eq!(code_of(&broken), (ErrorCode::InvalidRequest, "invalid_pattern"));
    })
    .await;
}

/// The engine takes linear time for a pattern that takes others for ever.
#[tokio::test]
async fn f11_a_pattern_that_looks_harmless_takes_no_time() {
    in_each_type(async |_app, ann, project| {
        ann.client.file_put(&project, "a.txt", "a".repeat(100_000)).await.unwrap();
        let request = FileSearch {
            query: "(a+)+$b".to_owned(),
            kind: None,
            path: None,
            include: None,
            ignore_case: None,
            limit: None,
        };
        assert!(ann.client.call(Some(&project), request).await.unwrap().matches.is_empty());
    })
    .await;
}

#[tokio::test]
async fn parts_versions_and_images_are_read() {
    in_each_type(async |_app, ann, project| {
        ann.client.file_put(&project, "a.txt", "0123456789").await.unwrap();
        ann.client.file_put(&project, "a.txt", "now").await.unwrap();
        let read = async |request: FileRead| ann.client.call(Some(&project), request).await;
        let path = || "a.txt".to_owned();
        let part = FileRead {
            path: path(),
            version: Some(1),
            offset: Some(2),
            limit: Some(3),
            ..FileRead::default()
        };
        let found = read(part).await.unwrap();
        assert_eq!((found.content.as_str(), found.file.version, found.file.size), ("234", 1, 10));
        let png = b"\x89PNG\r\n\x1a\n\0\0".to_vec();
        ann.client.file_put(&project, "a.png", png).await.unwrap();
        let image = FileRead {
            path: "a.png".to_owned(),
            encoding: Some(FileEncoding::Base64),
            ..FileRead::default()
        };
        let found = read(image).await.unwrap();
        assert_eq!(found.file.mime_type.as_deref(), Some("image/png"));
        assert_eq!(found.content, "iVBORw0KGgoAAA==");
        let content = found.content;
        let write = FileWrite {
            path: "b.png".to_owned(),
            content,
            encoding: Some(FileEncoding::Base64),
            version: None,
        };
        let written = ann.client.call(Some(&project), write.clone()).await.unwrap().file;
        assert_eq!(written.hash, found.file.hash);
        let write = FileWrite { content: "%".to_owned(), ..write };
        let refused = refusal(ann.client.call(Some(&project), write).await);
        assert_eq!(code_of(&refused), (ErrorCode::InvalidRequest, "invalid_encoding"));
        let none = FileRead { path: path(), version: Some(9), ..FileRead::default() };
        assert_eq!(refusal(read(none).await).code, ErrorCode::NotFound);
    })
    .await;
}

#[tokio::test]
async fn facts_are_told_of_files_and_directories() {
    let (_app, ann, project, files) = scene().await;
    ann.client.file_put(&project, "dir/a.txt", "a").await.unwrap();
    std::fs::write(files.join("outside.txt"), "from outside").unwrap();
    let stat = async |path: &str| {
        let request = FileStat { path: path.to_owned() };
        ann.client.call(Some(&project), request).await.map(|found| found.file)
    };
    let file = stat("dir/a.txt").await.unwrap();
    assert_eq!(
        (file.version, file.r#type, file.updated_by.as_ref()),
        (1, FileType::File, Some(ann.id()))
    );
    assert_eq!(stat("dir").await.unwrap().r#type, FileType::Directory);
    assert_eq!(stat("outside.txt").await.unwrap().version, 0);
    assert_eq!(refusal(stat("none").await).code, ErrorCode::NotFound);
}

/// Rows F1, F2, F3 and F5 of what attackers try, over every operation that takes a path.
#[tokio::test]
async fn f1_f2_f3_f5_paths_that_are_none_or_lead_out_are_refused_by_every_operation() {
    let (_app, ann, project, files) = scene().await;
    let sibling = files.parent().unwrap().join("files-evil");
    std::fs::create_dir(&sibling).unwrap();
    std::fs::write(sibling.join("f"), "secret").unwrap();
    symlink(&sibling, files.join("link")).unwrap();
    symlink("loop", files.join("loop")).unwrap();
    symlink("/proc/self/root", files.join("magic")).unwrap();
    symlink("/dev/zero", files.join("zero")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(files.join("pipe")).status();
    assert!(made.unwrap().success());
    let (long, deep) = ("x".repeat(5_000), "d/".repeat(300));
    let paths = [
        "../files-evil/f",
        "/etc/passwd",
        "a/../../x",
        "a\0b",
        ".",
        "",
        &long,
        &deep,
        "link/f",
        "loop",
        "magic/etc/passwd",
        "zero",
        "pipe",
    ];
    let route = format!("/v1/projects/{project}/files");
    for path in paths {
        let body = serde_json::json!({
            "path": path, "from": path, "to": "moved", "oldString": "a", "newString": "b",
        });
        let restore = serde_json::json!({ "path": path, "to": 1 });
        let escaped: String = url::form_urlencoded::byte_serialize(path.as_bytes()).collect();
        let mut answers = vec![
            ann.post(&format!("{route}/edit"), body.clone()).await,
            ann.post(&format!("{route}/restore"), restore).await,
            ann.get(&format!("{route}/content?path={escaped}")).await,
            ann.rest("PUT", &format!("{route}/content?path={escaped}"), None).await,
        ];
        // A link itself can be moved and deleted as little as what is no file.
        answers.push(ann.post(&format!("{route}/move"), body).await);
        answers.push(ann.rest("DELETE", &format!("{route}?path={escaped}"), None).await);
        for answer in answers {
            let code = answer.json["error"]["code"].as_str().unwrap_or_default().to_owned();
            let refusals = ["INVALID_REQUEST", "FORBIDDEN", "NOT_FOUND"];
            assert!(refusals.contains(&code.as_str()), "{path:?}: {answer:?}");
            assert!(!answer.json.to_string().contains("secret"));
        }
    }
    assert_eq!(std::fs::read_to_string(sibling.join("f")).unwrap(), "secret");
    assert_eq!(std::fs::read_dir(&sibling).unwrap().count(), 1);
}

/// Rows F6 and F7: second names and protected names are not written, moved or deleted.
#[tokio::test]
async fn f6_f7_second_names_and_protected_names_are_left_alone() {
    let (_app, ann, project, files) = scene().await;
    let outside = files.parent().unwrap().join("outside");
    std::fs::write(&outside, "mine").unwrap();
    std::fs::hard_link(&outside, files.join("hard")).unwrap();
    std::fs::create_dir_all(files.join("dir/.git/hooks")).unwrap();
    std::fs::write(files.join("dir/.git/config"), "config").unwrap();
    let route = format!("/v1/projects/{project}/files");
    for path in ["hard", "dir/.git/config", ".git/hooks/x", ".iris/agents/a.md", "dir/.GIT/x"] {
        let put = refusal(ann.client.file_put(&project, path, "x").await);
        assert_eq!(put.code, ErrorCode::Forbidden, "{path}");
        let delete = ann.rest("DELETE", &format!("{route}?path={path}"), None).await;
        assert!([403, 404].contains(&delete.status), "{path}: {delete:?}");
    }
    let tree = ann.rest("DELETE", &format!("{route}?path=dir&recursive=true"), None).await;
    assert_eq!(tree.json["error"]["details"]["reason"], "protected_path", "{tree:?}");
    assert!(files.join("dir/.git/config").exists());
    assert_eq!(std::fs::read_to_string(outside).unwrap(), "mine");
}

#[tokio::test]
async fn a_name_that_is_not_utf_8_is_listed_and_goes_with_its_directory() {
    use std::os::unix::ffi::OsStrExt;

    let (_app, ann, project, files) = scene().await;
    std::fs::create_dir(files.join("dir")).unwrap();
    let odd = files.join("dir").join(std::ffi::OsStr::from_bytes(b"a\xff.txt"));
    std::fs::write(odd, "x").unwrap();
    let page = ann.client.call(Some(&project), list(None, 2)).await.unwrap();
    let found: Vec<_> =
        page.entries.iter().map(|it| (it.path.as_str(), it.r#type, it.unreachable)).collect();
    let directory = ("dir", FileEntryType::Directory, false);
    assert_eq!(found, [directory, ("dir/a\\x{ff}.txt", FileEntryType::File, true)]);
    let read = ann.client.file_get(&project, "dir/a\\x{ff}.txt").await;
    assert_eq!(refusal(read).code, ErrorCode::NotFound);
    let delete = |unversioned| {
        let (path, recursive) = ("dir".to_owned(), Some(true));
        FileDelete { path, recursive, unversioned, version: None }
    };
    let refused = refusal(ann.client.call(Some(&project), delete(None)).await);
    assert_eq!(refused.details["reason"], "unversioned_files");
    ann.client.call(Some(&project), delete(Some(true))).await.unwrap();
    assert!(!files.join("dir").exists());
}

/// Row F8: names are kept byte by byte, and shown so that none looks like another.
#[tokio::test]
async fn f8_names_that_look_alike_are_kept_apart_and_shown_escaped() {
    in_each_type(async |_app, ann, project| {
        let names = ["a.txt", "A.txt", "\u{e9}", "e\u{301}", "x\u{202e}txt.exe", "dot.", "space "];
        for (index, name) in names.iter().enumerate() {
            ann.client.file_put(&project, name, index.to_string()).await.unwrap();
        }
        let page = ann.client.call(Some(&project), list(None, 1)).await.unwrap();
        assert_eq!(page.entries.len(), names.len());
        for (index, name) in names.iter().enumerate() {
            assert_eq!(ann.client.file_get(&project, name).await.unwrap(), index.to_string());
            let entry = page.entries.iter().find(|entry| entry.path == *name).unwrap();
            assert_eq!(entry.r#type, FileEntryType::File);
            let plain = index < 3;
            assert_eq!(entry.shown.is_none(), plain, "{entry:?}");
        }
    })
    .await;
}
