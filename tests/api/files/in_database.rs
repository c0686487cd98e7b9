//! Projects of the type `remote`: their files are in their database, and nothing needs a directory.

use iris_protocol::limits::FILE_BYTES_MAX;
use iris_protocol::{
    CommandToolSettings, ErrorCode, Event, FileChange, FileDelete, FileDiff, FileEntryType,
    FileList, FileLockTake, FileMove, FileRestore, FileSearch, FileSource, FileStat, FileType,
    FileUnlock, FileVersion, FileVersions, FileWrite, McpCreate, McpTransport, Project,
    ProjectBackup, ProjectCreate, ProjectExport, ProjectId, ProjectRestore, ProjectType, Role,
    RoomRequest, RunDiff, RunStatus, SessionRevert, SnapshotCreate, SnapshotDiff, SnapshotRestore,
    Subscribe, ToolCreate, ToolList, ToolState,
};
use iris_store::project::Quotas;
use iris_testkit::{
    AppOptions, Conversation, FakeProvider, Person, TestApp, calls_of, chat, patiently, spawn_app,
    spawn_app_with, text_of,
};
use serde_json::{Value, json};

use super::browsing::scene_of;
use super::history::allow;
use super::uploads::{file, form, send, told};
use crate::{code_of, refusal, rest_refusal};

async fn scene() -> (TestApp, Person, ProjectId) {
    let (app, ann, project, _) = scene_of(ProjectType::Remote).await;
    (app, ann, project)
}

async fn put(person: &Person, project: &ProjectId, path: &str, content: &str) {
    person.client.file_put(project, path, content.to_owned()).await.unwrap();
}

/// What a file holds; none where there is none.
async fn read(person: &Person, project: &ProjectId, path: &str) -> Option<String> {
    match person.client.file_get(project, path).await {
        Ok(bytes) => Some(String::from_utf8(bytes.to_vec()).unwrap()),
        Err(error) => {
            assert_eq!(refusal(Err::<(), _>(error)).code, ErrorCode::NotFound, "{path}");
            None
        }
    }
}

async fn versions(person: &Person, project: &ProjectId, path: &str) -> Vec<FileVersion> {
    let request = FileVersions { path: path.to_owned(), limit: None, cursor: None };
    let mut page = person.client.call(Some(project), request).await.unwrap();
    page.versions.reverse();
    page.versions
}

async fn paths(person: &Person, project: &ProjectId, request: FileList) -> Vec<String> {
    let (mut paths, mut request) = (Vec::new(), request);
    loop {
        let page = person.client.call(Some(project), request.clone()).await.unwrap();
        paths.extend(page.entries.into_iter().map(|entry| entry.path));
        let Some(cursor) = page.next_cursor else { return paths };
        request.cursor = Some(cursor);
    }
}

fn list(path: Option<&str>, depth: u32) -> FileList {
    FileList { path: path.map(str::to_owned), depth: Some(depth), ..FileList::default() }
}

/// The only call of a message: its state and what the model reads.
async fn outcome(talk: &mut Conversation, script: &str) -> (ToolState, String) {
    let run = talk.send_message(script).await.run_id;
    assert_eq!(talk.run_ended(&run).await, RunStatus::Completed);
    let answer = talk.answer(&run).await;
    let call = calls_of(&answer)[0].clone();
    (call.state, call.output.or(call.error).unwrap_or_default())
}

#[tokio::test]
async fn a_database_is_listed_moved_and_deleted_as_a_directory_is() {
    let (app, ann, project) = scene().await;
    let names = [".gitignore", "src/deep/x.rs", "src/a.rs", "src.txt", "b.log", "c.txt"];
    for name in names {
        put(&ann, &project, name, if name == ".gitignore" { "*.log\n" } else { name }).await;
    }
    let all = [".gitignore", "c.txt", "src", "src/a.rs", "src/deep", "src/deep/x.rs", "src.txt"];
    assert_eq!(
        paths(&ann, &project, list(None, 1)).await,
        [".gitignore", "c.txt", "src", "src.txt"]
    );
    for limit in [1, 2, 1000] {
        let request = FileList { limit: Some(limit), ..list(None, 9) };
        assert_eq!(paths(&ann, &project, request).await, all);
    }
    assert_eq!(paths(&ann, &project, list(Some("src"), 1)).await, ["src/a.rs", "src/deep"]);
    let ignored = FileList { ignored: Some(true), ..list(None, 1) };
    assert!(paths(&ann, &project, ignored).await.contains(&"b.log".to_owned()));
    let file = refusal(ann.client.call(Some(&project), list(Some("c.txt"), 1)).await);
    assert_eq!(code_of(&file), (ErrorCode::InvalidRequest, "not_directory"));
    let none = refusal(ann.client.call(Some(&project), list(Some("none"), 1)).await);
    assert_eq!(none.code, ErrorCode::NotFound);

    let stat = async |path: &str| {
        ann.client.call(Some(&project), FileStat { path: path.to_owned() }).await
    };
    let facts = stat("src/a.rs").await.unwrap().file;
    assert_eq!((facts.r#type, facts.size, facts.version), (FileType::File, 8, 1));
    assert_eq!(stat("src").await.unwrap().file.r#type, FileType::Directory);
    assert_eq!(refusal(stat("src/none").await).code, ErrorCode::NotFound);

    // What is a directory is no file, and the other way round; some names are nobody's.
    for (path, reason) in [
        ("src", "not_regular_file"),
        (".git/config", "protected_path"),
        (".iris/agents/x.md", "protected_path"),
        ("../x", "invalid_path"),
        (&*"n".repeat(256), "invalid_path"),
    ] {
        let refused = refusal(ann.client.file_put(&project, path, "x").await);
        assert_eq!(code_of(&refused).1, reason, "{path}");
    }
    let below = refusal(ann.client.file_put(&project, "c.txt/below", "x").await);
    assert_eq!(below.code, ErrorCode::NotFound);
    let move_to = async |from: &str, to: &str, overwrite| {
        let (from, to) = (from.to_owned(), to.to_owned());
        ann.client.call(Some(&project), FileMove { from, to, overwrite, version: None }).await
    };
    assert_eq!(code_of(&refusal(move_to("src", "c.txt", None).await)).1, "exists");
    assert_eq!(code_of(&refusal(move_to("c.txt", "src.txt", None).await)).1, "exists");
    assert_eq!(code_of(&refusal(move_to("src", "src/below", None).await)).1, "below_itself");
    assert_eq!(refusal(move_to("none", "x", None).await).code, ErrorCode::NotFound);
    assert_eq!(move_to("src", "new/place", None).await.unwrap().count, 4);
    let moved = versions(&ann, &project, "new/place/deep/x.rs").await.pop().unwrap();
    let expected = (FileChange::Moved, Some("src/deep/x.rs"), true);
    assert_eq!((moved.change, moved.from.as_deref(), moved.kept), expected);
    assert_eq!(read(&ann, &project, "src/a.rs").await, None);
    assert_eq!(read(&ann, &project, "new/place/a.rs").await.as_deref(), Some("src/a.rs"));
    move_to("c.txt", "src.txt", Some(true)).await.unwrap();
    assert_eq!(read(&ann, &project, "src.txt").await.as_deref(), Some("c.txt"));

    let delete = async |path: &str, recursive| {
        let request =
            FileDelete { path: path.to_owned(), recursive, unversioned: None, version: None };
        ann.client.call(Some(&project), request).await
    };
    assert_eq!(code_of(&refusal(delete("new", None).await)).1, "not_empty");
    assert_eq!(delete("new", Some(true)).await.unwrap().count, 2);
    // A directory is there as long as a file is below it.
    assert_eq!(refusal(stat("new").await).code, ErrorCode::NotFound);
    let restore = FileRestore { path: "new/place/a.rs".to_owned(), to: 1, version: None };
    ann.client.call(Some(&project), restore).await.unwrap();
    assert_eq!(read(&ann, &project, "new/place/a.rs").await.as_deref(), Some("src/a.rs"));
    let page = ann.client.call(Some(&project), list(Some("new"), 1)).await.unwrap();
    assert_eq!(page.entries[0].r#type, FileEntryType::Directory);

    let find = FileSearch {
        query: "src".to_owned(),
        kind: None,
        path: None,
        include: Some("*.rs".to_owned()),
        ignore_case: None,
        limit: None,
    };
    let found = ann.client.call(Some(&project), find).await.unwrap().matches;
    assert_eq!(found.iter().map(|it| it.path.as_str()).collect::<Vec<_>>(), ["new/place/a.rs"]);
    // Nothing of it is anywhere but in the database.
    let directory = app.data_dir().join("projects").join(project.as_str()).join("files");
    assert_eq!(std::fs::read_dir(directory).map_or(0, Iterator::count), 0);
}

#[tokio::test]
async fn a_database_goes_back_to_a_snapshot_at_once() {
    let (app, ann, project) = scene().await;
    put(&ann, &project, "a.txt", "a1\n").await;
    put(&ann, &project, "dir/b.txt", "b1").await;
    let first = ann.client.call(Some(&project), SnapshotCreate {}).await.unwrap().snapshot;
    assert_eq!((first.file_count, first.complete), (2, true));
    put(&ann, &project, "a.txt", "a1\na2\n").await;
    let gone = FileDelete {
        path: "dir".to_owned(),
        recursive: Some(true),
        unversioned: None,
        version: None,
    };
    ann.client.call(Some(&project), gone).await.unwrap();
    put(&ann, &project, "new/c.txt", "c").await;
    let diff = SnapshotDiff { snapshot_id: first.id.clone(), to: None };
    let differs = ann.client.call(Some(&project), diff).await.unwrap().files;
    let differs: Vec<_> = differs.iter().map(|it| (it.path.as_str(), it.change)).collect();
    let expected = [
        ("a.txt", FileChange::Updated),
        ("dir/b.txt", FileChange::Deleted),
        ("new/c.txt", FileChange::Created),
    ];
    assert_eq!(differs, expected);
    let diff = FileDiff { path: "a.txt".to_owned(), from: Some(1), to: None };
    let diff = ann.client.call(Some(&project), diff).await.unwrap();
    assert_eq!((diff.insertions, diff.deletions), (Some(1), Some(0)));

    let restore = SnapshotRestore { snapshot_id: first.id, skip_unkept: None };
    assert_eq!(ann.client.call(Some(&project), restore.clone()).await.unwrap().count, 3);
    assert_eq!(paths(&ann, &project, list(None, 9)).await, ["a.txt", "dir", "dir/b.txt"]);
    assert_eq!(read(&ann, &project, "a.txt").await.as_deref(), Some("a1\n"));
    let last = versions(&ann, &project, "a.txt").await.pop().unwrap();
    assert_eq!((last.version, last.source, last.kept), (3, FileSource::Restore, true));
    assert_eq!(ann.client.call(Some(&project), restore).await.unwrap().count, 0);
    // It is all there in the next life.
    let app = app.restart().await;
    let ann = app.again(&ann);
    assert_eq!(read(&ann, &project, "dir/b.txt").await.as_deref(), Some("b1"));
}

#[tokio::test]
async fn an_agent_works_in_a_database_with_all_tools_on_files() {
    let (app, ann, project) = scene().await;
    let bob = app.user("bob").await;
    ann.add_member(&project, &bob, Role::Member).await;
    let mut talk = ann.conversation_in(&project).await;
    allow(&talk, "edit").await;
    let socket = ann.connect().await;
    let rooms = vec![RoomRequest::Live(format!("project:{project}"))];
    socket.call(Some(&project), Subscribe { rooms, deltas: None, presence: None }).await.unwrap();
    let call = |tool: &str, input: Value| format!("call {tool} {input}\nstep\n");
    let patch = "*** Begin Patch\n*** Update File: src/a.rs\n*** Move to: src/b.rs\n@@\n-two\n+2\n\
                 *** Add File: notes.md\n+new\n*** End Patch";
    let script = [
        call("write", json!({ "path": "src/a.rs", "content": "one\ntwo\nthree\n" })),
        call("edit", json!({ "path": "src/a.rs", "oldString": "one", "newString": "1" })),
        call(
            "multiEdit",
            json!({ "path": "src/a.rs",
                "edits": [{ "oldString": "three", "newString": "3" }] }),
        ),
        call("applyPatch", json!({ "patch": patch })),
        call("list", json!({ "path": ".", "depth": 3 })),
        call("glob", json!({ "pattern": "**/*.rs" })),
        call("grep", json!({ "pattern": "^2$" })),
        call("read", json!({ "path": "src/b.rs" })),
        "say done".to_owned(),
    ]
    .concat();
    let sent = talk.send_message(&script).await;
    let run = sent.run_id;
    assert_eq!(talk.run_ended(&run).await, RunStatus::Completed);
    let answer = talk.answer(&run).await;
    let calls = calls_of(&answer);
    let outputs: Vec<_> =
        calls.iter().map(|call| call.output.clone().unwrap_or_default()).collect();
    assert!(calls.iter().all(|call| call.state == ToolState::Completed), "{calls:?}");
    assert!(outputs[4].contains("notes.md") && outputs[4].contains("b.rs"), "{outputs:?}");
    assert!(outputs[5].contains("src/b.rs"), "{outputs:?}");
    assert!(outputs[6].contains("src/b.rs"), "{outputs:?}");
    assert!(outputs[7].contains('3'), "{outputs:?}");
    assert_eq!(read(&ann, &project, "src/b.rs").await.as_deref(), Some("1\n2\n3\n"));
    assert_eq!(read(&ann, &project, "src/a.rs").await, None);
    let made = versions(&ann, &project, "src/a.rs").await;
    assert_eq!(made.len(), 4, "{made:?}");
    let of_run = |it: &FileVersion| {
        (it.source, it.run_id.as_ref()) == (FileSource::Tool, Some(&run))
            && it.message_id.as_ref() == Some(&answer.id)
    };
    assert!(made.iter().all(of_run), "{made:?}");
    let created = async {
        loop {
            let told = socket.next_event().await.unwrap().event;
            if let Event::FileCreated { path, session_id, .. } = told {
                return (path, session_id);
            }
        }
    };
    let created = patiently("file.created", created).await;
    assert_eq!(created, ("src/a.rs".to_owned(), Some(talk.session.clone())));
    let diff = RunDiff { session_id: talk.session.clone(), run_id: run.clone() };
    let diff = talk.call(diff).await.unwrap().files;
    let diff: Vec<_> = diff.iter().map(|it| (it.path.as_str(), it.change)).collect();
    assert_eq!(diff, [("notes.md", FileChange::Created), ("src/b.rs", FileChange::Created)]);

    // A patch of which one part does not fit changes nothing of the others.
    let broken = "*** Begin Patch\n*** Update File: src/b.rs\n@@\n-2\n+two\n\
                  *** Update File: notes.md\n@@\n-none\n+x\n*** End Patch";
    let (state, _) = outcome(&mut talk, &call("applyPatch", json!({ "patch": broken }))).await;
    assert_eq!(state, ToolState::Error);
    assert_eq!(read(&ann, &project, "src/b.rs").await.as_deref(), Some("1\n2\n3\n"));

    // A person has changed it, and another has it locked.
    put(&ann, &project, "notes.md", "changed\n").await;
    let edit = json!({ "path": "notes.md", "oldString": "new", "newString": "x" });
    assert_eq!(outcome(&mut talk, &call("edit", edit)).await.0, ToolState::Error);
    let lock = FileLockTake {
        path: "src".to_owned(),
        scope: Some(iris_protocol::LockScope::Subtree),
        ttl_ms: None,
        take_over: None,
    };
    bob.client.call(Some(&project), lock).await.unwrap();
    let refused = refusal(ann.client.file_put(&project, "src/b.rs", "x").await);
    assert_eq!(refused.code, ErrorCode::Locked);
    bob.client.call(Some(&project), FileUnlock { path: "src".to_owned() }).await.unwrap();

    // What the turn made of the files is undone with it, but not what a person made since.
    let revert = SessionRevert {
        session_id: talk.session.clone(),
        message_id: sent.message_id,
        dry_run: None,
        skip_changed: Some(true),
    };
    let undone = talk.call(revert).await.unwrap();
    assert_eq!(undone.changed_since[0].path, "notes.md");
    assert_eq!(paths(&ann, &project, list(None, 9)).await, ["notes.md"]);
}

/// A server with a tool that runs commands, and its administrator.
async fn with_commands(options: AppOptions) -> (TestApp, Person) {
    let sandbox = Some(crate::bash::broken_sandbox());
    let app = spawn_app_with(AppOptions { sandbox, ..options }).await;
    let admin = app.admin().await;
    (app, admin)
}

#[tokio::test]
async fn no_program_runs_without_a_directory_and_no_model_is_told_of_one() {
    let provider = FakeProvider::start((0..4).map(|_| chat::says("hello"))).await;
    let (_app, ann) = with_commands(AppOptions::with_provider(provider.base_url())).await;
    for (r#type, expected) in [(ProjectType::Local, true), (ProjectType::Remote, false)] {
        let project = ann.project_of("p", r#type).await.id;
        let mut talk = ann.conversation_in(&project).await;
        talk.ask("hi").await;
        let asked = provider.asked();
        let body = asked.iter().map(|it| &it.body).rfind(|body| body["tools"].is_array()).unwrap();
        let tools = body["tools"].as_array().unwrap();
        let has = |name: &str| tools.iter().any(|tool| tool["function"]["name"] == name);
        assert_eq!((has("bash"), has("write")), (expected, true), "{type:?}");
        let told = body["messages"][0]["content"].as_str().unwrap();
        assert_eq!(told.contains("Commands: cannot be run"), !expected, "{told}");
        let tools = talk.call(ToolList {}).await.unwrap().tools;
        assert_eq!(tools.iter().any(|tool| tool.name == "bash"), expected);
    }
}

#[tokio::test]
async fn what_would_run_a_program_without_a_directory_is_refused() {
    let (_app, ann) = with_commands(AppOptions::default()).await;
    let project = ann.project_of("p", ProjectType::Remote).await.id;
    let mut talk = ann.conversation_in(&project).await;
    let (state, error) = outcome(&mut talk, "call bash {\"command\": \"ls\"}\nstep\nsay ok").await;
    assert_eq!(state, ToolState::Error);
    assert_eq!(error, "`bash` runs programs, and this project has no directory for them");
    let tool = ToolCreate {
        name: "deploy".to_owned(),
        description: "Deploys.".to_owned(),
        parameters: json!({ "type": "object", "properties": {} }),
        enabled: None,
        http: None,
        command: Some(CommandToolSettings {
            argv: vec!["deploy".to_owned()],
            workdir: None,
            timeout_ms: None,
        }),
    };
    let refused = refusal(talk.call(tool).await);
    assert_eq!(code_of(&refused), (ErrorCode::InvalidRequest, "no_directory"));
    let server = |transport| McpCreate {
        name: "server".to_owned(),
        transport,
        secret_headers: None,
        oauth: None,
        enabled: Some(false),
        initialize_timeout_ms: None,
        request_timeout_ms: None,
    };
    let program = McpTransport::Stdio {
        command: "server".to_owned(),
        args: Vec::new(),
        env: std::collections::BTreeMap::new(),
    };
    let refused = refusal(talk.call(server(program)).await);
    assert_eq!(code_of(&refused), (ErrorCode::InvalidRequest, "no_directory"));
    let (url, headers) = ("https://example.com/mcp".to_owned(), std::collections::BTreeMap::new());
    talk.call(server(McpTransport::Http { url, headers })).await.unwrap();

    let with_path = ProjectCreate {
        name: "p".to_owned(),
        description: None,
        r#type: ProjectType::Remote,
        path: Some("/srv".to_owned()),
        git: None,
    };
    let refused = refusal(ann.client.call(None, with_path).await);
    assert_eq!(code_of(&refused), (ErrorCode::InvalidRequest, "project_type"));
}

/// The database keeps every content, so a file is as large as a content that is kept.
#[tokio::test]
async fn a_file_in_a_database_has_a_largest_size_whatever_way_it_comes() {
    let (app, ann, project) = scene().await;
    let (largest, large) = (vec![7; FILE_BYTES_MAX], vec![7; FILE_BYTES_MAX + 1]);
    ann.client.file_put(&project, "largest", largest.clone()).await.unwrap();
    let sent = form(&[file("large", &large), file("small", b"s"), file("most", &largest)]);
    let answer = send(&ann, &project, None, sent).await;
    let outcomes = told(&answer);
    let expected = [("large", json!("PAYLOAD_TOO_LARGE")), ("small", json!(1)), ("most", json!(1))];
    assert_eq!(outcomes, expected);
    assert!(answer.json["data"][0]["error"]["message"].as_str().unwrap().contains("16777216"));
    assert_eq!(ann.client.file_get(&project, "most").await.unwrap(), largest);
    assert_eq!(read(&ann, &project, "small").await.as_deref(), Some("s"));
    let range = [("range", "bytes=16777215-")];
    let path = format!("/v1/projects/{project}/files/content?path=most");
    let part = ann.client.raw("GET", &path, Some(ann.token()), &range, Vec::new().into()).await;
    assert_eq!((part.as_ref().unwrap().status, part.unwrap().body.len()), (206, 1));
    let mut upload = super::streams::Talk::new(&app, &ann, &project).await;
    let begin = json!({ "path": "large", "size": large.len(), "sha256": "0".repeat(64) });
    let refused = upload.ask("upload.begin", begin).await;
    assert_eq!(refused["error"]["code"], "PAYLOAD_TOO_LARGE", "{refused}");
}

#[tokio::test]
async fn quotas_count_the_files_that_are_in_a_database() {
    let quotas = Quotas { files_max: 2, file_bytes_max: 10, ..Quotas::default() };
    let app = spawn_app_with(AppOptions { quotas, ..AppOptions::default() }).await;
    let ann = app.user("ann").await;
    let project = ann.project_of("p", ProjectType::Remote).await.id;
    let mut talk = ann.conversation_in(&project).await;
    allow(&talk, "edit").await;
    for content in ["one", "three", "12345678"] {
        put(&ann, &project, "a.txt", content).await;
    }
    let large = refusal(ann.client.file_put(&project, "a.txt", "12345678901").await);
    assert_eq!(code_of(&large), (ErrorCode::QuotaExceeded, "file_bytes_quota"));
    put(&ann, &project, "b.txt", "1").await;
    let many = refusal(ann.client.file_put(&project, "c.txt", "1").await);
    assert_eq!(code_of(&many), (ErrorCode::QuotaExceeded, "files_quota"));
    let answer =
        send(&ann, &project, None, form(&[file("a.txt", b"1"), file("c.txt", b"1")])).await;
    assert_eq!(told(&answer), [("a.txt", json!(4)), ("c.txt", json!("QUOTA_EXCEEDED"))]);
    let script = "call write {\"path\": \"c.txt\", \"content\": \"1\"}\nstep\nsay so be it";
    let (state, error) = outcome(&mut talk, script).await;
    assert!(state == ToolState::Error && error.contains("files_quota"), "{error}");
    let gone =
        FileDelete { path: "b.txt".to_owned(), recursive: None, unversioned: None, version: None };
    ann.client.call(Some(&project), gone).await.unwrap();
    put(&ann, &project, "c.txt", "123456789").await;
    assert_eq!(paths(&ann, &project, list(None, 1)).await, ["a.txt", "c.txt"]);
}

#[tokio::test]
async fn the_files_of_a_database_go_with_it_to_another_server_and_back_to_a_backup() {
    let (app, ann, project) = scene().await;
    put(&ann, &project, "dir/a.txt", "one").await;
    put(&ann, &project, "dir/a.txt", "two").await;
    let made = ann.client.call(Some(&project), ProjectBackup {}).await.unwrap().backup;
    let export = ann.client.call(Some(&project), ProjectExport {}).await.unwrap().backup;
    let path = format!("/v1/projects/{project}/backups/{}/content", export.id);
    let archive = ann.get(&path).await.body.to_vec();
    put(&ann, &project, "dir/a.txt", "three").await;
    put(&ann, &project, "late.txt", "late").await;
    let restore = ProjectRestore { backup_id: made.id };
    assert!(ann.client.call(Some(&project), restore).await.unwrap().files);
    assert_eq!(read(&ann, &project, "dir/a.txt").await.as_deref(), Some("two"));
    assert_eq!(read(&ann, &project, "late.txt").await, None);
    drop(app);

    let there = spawn_app().await;
    let dan = there.user("dan").await;
    let import =
        dan.client.raw("POST", "/v1/projects/import", Some(dan.token()), &[], archive.into());
    let imported: Project = import.await.unwrap().data().unwrap();
    assert_eq!(imported.r#type, ProjectType::Remote);
    assert_eq!(read(&dan, &imported.id, "dir/a.txt").await.as_deref(), Some("two"));
    assert_eq!(versions(&dan, &imported.id, "dir/a.txt").await.len(), 2);
    put(&dan, &imported.id, "dir/a.txt", "mine").await;
    assert_eq!(read(&dan, &imported.id, "dir/a.txt").await.as_deref(), Some("mine"));
}

/// Two people and an agent write the same file: none of it is lost, and none of it is mixed.
#[tokio::test]
async fn writers_of_a_database_take_turns() {
    let (_app, ann, project) = scene().await;
    let (ann, project) = (&ann, &project);
    let write = |number: usize| async move {
        let (path, content) = ("a.txt".to_owned(), number.to_string().repeat(1_000));
        let request = FileWrite { path, content, ..FileWrite::default() };
        ann.client.call(Some(project), request).await.unwrap().file.version
    };
    let mut made = futures_util::future::join_all((0..8).map(write)).await;
    made.sort_unstable();
    assert_eq!(made, (1..=8).collect::<Vec<_>>());
    let stale = FileWrite {
        path: "a.txt".to_owned(),
        content: "stale".to_owned(),
        version: Some(7),
        ..FileWrite::default()
    };
    let stale = refusal(ann.client.call(Some(project), stale).await);
    assert_eq!(stale.code, ErrorCode::VersionConflict);
    assert_eq!(stale.details["currentVersion"], 8);
    let now = read(ann, project, "a.txt").await.unwrap();
    assert!(now.len() == 1_000 && now.bytes().all(|byte| byte == now.as_bytes()[0]));
    let answer = ann.get(&format!("/v1/projects/{project}/files/content?path=none")).await;
    assert_eq!(rest_refusal(&answer).code, ErrorCode::NotFound);
    let talk = &mut ann.conversation_in(project).await;
    assert_eq!(text_of(&talk.ask("call read {\"path\": \"a.txt\"}\nstep\nsay ok").await), "ok");
}
