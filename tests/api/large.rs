//! Projects with 50,000 files, in a server of its own whose memory is measured.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use iris_protocol::{
    ChangedFile, CloneState, FileChange, FileVersions, GitStatus, Project, ProjectExport,
    ProjectId, ProjectType, Snapshot, SnapshotCreate, SnapshotDiff,
};
use iris_sandbox::Tier;
use iris_testkit::{Person, ServerProcess, moment};
use tempfile::TempDir;

use crate::bash::sandbox;
use crate::git::{Origin, clone, from, git, open, state};
use crate::is_held;

const FILES: usize = 50_000;
const FILES_IN_DIRECTORY: usize = 500;
const CHANGED: usize = 10;
/// Megabytes by which the server may grow, however many files there are: a few hundred bytes for each.
const GROWTH_MAX: u64 = 256;
const IN_MEMORY: &str = "/dev/shm";
const BYTES_NEEDED: u64 = 2 * 1024 * 1024 * 1024;
/// How long the clone may take without optimisation, on a machine that is busy.
const CLONE_MAX: Duration = Duration::from_mins(2);

fn path(n: usize) -> String {
    format!("tree/{}/{n}.txt", n / FILES_IN_DIRECTORY)
}

/// Has a repository have one commit with that many files, without any of them on the disk.
fn fill(origin: &Origin) {
    let head = "commit refs/heads/large\ncommitter Eve <eve@example.com> 1700000000 +0000\ndata 5\nLarge\n";
    let mut stream = head.to_owned();
    for n in 0..FILES {
        let content = format!("file {n}\n");
        let (path, length) = (path(n), content.len());
        writeln!(stream, "M 100644 inline {path}\ndata {length}\n{content}").unwrap();
    }
    let mut import = Command::new("git")
        .args(["fast-import", "--quiet"])
        .env("GIT_CONFIG_GLOBAL", origin.top().join("gitconfig"))
        .current_dir(origin.bare())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    import.stdin.take().unwrap().write_all(stream.as_bytes()).unwrap();
    assert!(import.wait().unwrap().success());
    git(&origin.bare(), &["symbolic-ref", "HEAD", "refs/heads/large"]);
    if let Some(uid) = sandbox().uid {
        iris_sandbox::share_directory(&origin.bare(), uid, uid).unwrap();
    }
}

/// Where so many files come and go quickly: in memory, where there is enough, since some disks take minutes to remove
/// them.
fn place() -> TempDir {
    let free = Command::new("df").args(["--output=avail", "-B1", IN_MEMORY]).output();
    let free = free.ok().and_then(|said| String::from_utf8(said.stdout).ok());
    let free = free.and_then(|said| said.lines().last()?.trim().parse::<u64>().ok());
    match free {
        Some(BYTES_NEEDED..) => tempfile::tempdir_in(IN_MEMORY).unwrap(),
        _ => tempfile::tempdir().unwrap(),
    }
}

/// Megabytes of a process: the most that it ever had, or what it has.
pub(crate) fn memory(server: &ServerProcess, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
    let found = status.lines().find_map(|it| it.strip_prefix(line)).unwrap();
    found.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

async fn snapshot(person: &Person, project: &ProjectId) -> Snapshot {
    person.client.call(Some(project), SnapshotCreate {}).await.unwrap().snapshot
}

/// The history is that of 50,000 files, and what changes is found among them.
async fn has_all(person: &Person, project: &ProjectId, files: &Path) {
    let first = snapshot(person, project).await;
    assert_eq!((first.file_count, first.complete), (FILES as u64, true));
    let changed: BTreeSet<String> = (0..CHANGED).map(|n| path(n * FILES / CHANGED)).collect();
    for path in &changed {
        std::fs::write(files.join(path), "changed from outside\n").unwrap();
    }
    let second = snapshot(person, project).await;
    assert_eq!(second.file_count, FILES as u64);
    let diff = SnapshotDiff { snapshot_id: first.id, to: Some(second.id) };
    let differs = person.client.call(Some(project), diff).await.unwrap().files;
    assert!(differs.iter().all(|it: &ChangedFile| it.change == FileChange::Updated));
    assert_eq!(differs.into_iter().map(|it| it.path).collect::<BTreeSet<_>>(), changed);
    for n in [1, FILES - 1] {
        let request = FileVersions { path: path(n), limit: None, cursor: None };
        let versions = person.client.call(Some(project), request).await.unwrap().versions;
        assert!(versions.len() == 1 && versions[0].kept, "{versions:?}");
        let held = person.client.file_get(project, &path(n)).await.unwrap();
        assert_eq!(held, format!("file {n}\n"));
    }
}

#[tokio::test]
async fn a_repository_with_50_000_files_is_cloned_and_its_archive_imported() {
    if !is_held(sandbox(), Tier::S3).await {
        return;
    }
    let origin = Origin::new();
    fill(&origin);
    let dir = place();
    let data = dir.path().join("data");
    let mut command = crate::iris(&data);
    command.env("IRIS_PROJECT_ROOTS", origin.top());
    if let Some(uid) = sandbox().uid {
        command.env("IRIS_SANDBOX_UID", uid.to_string());
    }
    let server = ServerProcess::start(command).await;
    open(dir.path());
    open(&data);
    let admin = crate::root(&server).await;
    let before = memory(&server, "VmRSS");
    let mut began = Instant::now();
    let mut took = |what: &str| {
        let (taken, peak) = (began.elapsed(), memory(&server, "VmHWM"));
        eprintln!("{what}: {:.1} s, at most {} MB more", taken.as_secs_f64(), peak - before);
        assert!(peak - before < GROWTH_MAX, "{what}: {} MB more", peak - before);
        began = Instant::now();
    };
    let files_of = |id: &ProjectId| data.join("projects").join(id.as_str()).join("files");

    let project = clone(&admin, from(origin.bare().display().to_string())).await.id;
    let cloned = async {
        while state(&admin, &project).await.state == CloneState::Cloning {
            moment().await;
        }
    };
    tokio::time::timeout(CLONE_MAX, cloned).await.unwrap();
    assert_eq!(state(&admin, &project).await.error, None);
    took("clone");
    let status = admin.client.call(Some(&project), GitStatus {}).await.unwrap();
    assert!(status.files.is_empty() && status.branch.as_deref() == Some("large"), "{status:?}");
    let backup = admin.client.call(Some(&project), ProjectExport {}).await.unwrap().backup;
    took("export");
    let route = format!("/v1/projects/{project}/backups/{}/content", backup.id);
    let archive = admin.get(&route).await.body;
    let (route, token) = ("/v1/projects/import", Some(admin.token()));
    let imported = admin.client.raw("POST", route, token, &[], archive).await.unwrap();
    let imported: Project = imported.data().unwrap();
    assert_eq!(imported.r#type, ProjectType::Git);
    took("import");
    has_all(&admin, &imported.id, &files_of(&imported.id)).await;
    took("snapshots of the import");
    has_all(&admin, &project, &files_of(&project)).await;
    took("snapshots of the clone");
    server.kill();
}
