//! What has to be true once something went wrong: the log tells it in order, and nothing is left over.

use std::path::{Path, PathBuf};

use iris_actors::supervision::RecordFilter;
use iris_actors::supervision::faults::START;
use iris_protocol::{ExitKind, SupervisionKind, SupervisionRecord};
use iris_testkit::{TestApp, moment, patiently};

/// The id of the last record so far.
pub(crate) fn mark(app: &TestApp) -> u64 {
    let last = records_since(app, 0).pop();
    last.map_or(0, |record| record.id)
}

/// The records after a mark.
pub(crate) fn records_since(app: &TestApp, mark: u64) -> Vec<SupervisionRecord> {
    let filter = RecordFilter { since: Some(mark), ..RecordFilter::default() };
    app.supervision().log().records(&filter)
}

/// Waits until the log since the mark tells of a panic and of what became of the actor. There has to be
/// one panic, over `message`; the children of the actor have to end before it goes on. Gives the record
/// of the panic.
pub(crate) async fn told_of_one_panic(
    app: &TestApp,
    since: u64,
    kind: &str,
    message: &str,
) -> SupervisionRecord {
    let (records, panic, next) = what_became(app, since).await;
    let is_panic = |record: &&SupervisionRecord| record.kind == SupervisionKind::Panicked;
    assert_eq!(records.iter().filter(is_panic).count(), 1, "{records:#?}");
    assert_eq!(panic.actor_kind, kind);
    assert_eq!(panic.message.as_deref(), (message != START).then_some(message), "{panic:?}");
    assert_eq!(panic.error.as_deref(), Some("a test wanted this panic"));
    assert!(panic.location.as_ref().is_some_and(|at| at.contains("faults.rs:")), "{panic:?}");
    let is_temporary = matches!(kind, "orchestrator" | "title" | "connection" | "archiver");
    let is_right = match (next.kind, next.reason) {
        (SupervisionKind::Stopped, Some(ExitKind::Panic)) => is_temporary,
        (SupervisionKind::Restarted, Some(ExitKind::Panic)) => !is_temporary,
        // Nobody had any more use for it; whoever retires a sub-agent ends itself next.
        (SupervisionKind::Stopped, Some(ExitKind::Parent)) => {
            matches!(message, "IsIdle" | "Retire")
        }
        // It was told to end; or nobody waits for that message, and what the actor stands for was deleted
        // meanwhile.
        (SupervisionKind::Stopped, Some(ExitKind::Normal)) => {
            matches!(message, "CloseProject" | "CloseToReturn" | "Wake" | "Write<TellFileAgents>")
        }
        _ => false,
    };
    assert!(is_right, "{next:?} in {records:#?}");
    if !matches!(kind, "directory" | "backups") {
        let alive = children_alive(&records, next.id, &panic.path);
        assert!(alive.is_empty(), "{alive:?} outlived the panic: {records:#?}");
    }
    panic
}

/// The records since the mark, the first panic among them and what followed it for the same actor.
async fn what_became(
    app: &TestApp,
    since: u64,
) -> (Vec<SupervisionRecord>, SupervisionRecord, SupervisionRecord) {
    let told = async {
        loop {
            let records = records_since(app, since);
            let panic = records.iter().position(|r| r.kind == SupervisionKind::Panicked);
            let next = panic.and_then(|panic| {
                let path = &records[panic].path;
                let after = records.iter().skip(panic + 1).find(|record| record.path == *path);
                after.map(|next| (records[panic].clone(), next.clone()))
            });
            match next {
                Some((panic, next)) => return (records, panic, next),
                None => moment().await,
            }
        }
    };
    patiently("the log to tell of a panic", told).await
}

/// The actors under `path` that were started in these records and not ended before `id`.
fn children_alive(records: &[SupervisionRecord], id: u64, path: &str) -> Vec<String> {
    let mut alive = Vec::new();
    let below = format!("{path}/");
    for record in records.iter().filter(|record| record.id < id && record.path.starts_with(&below))
    {
        match record.kind {
            SupervisionKind::Started => alive.push(record.path.clone()),
            SupervisionKind::Stopped | SupervisionKind::Passivated | SupervisionKind::GaveUp => {
                alive.retain(|path| *path != record.path);
            }
            _ => {}
        }
    }
    alive
}

/// Waits until only the actors that are always there and those that are spared are left, idle, and
/// only their files are open.
pub(crate) async fn nothing_is_left(app: &TestApp, spared: &[String]) {
    let stays = |path: &str| {
        ["node/root", "node/directory", "node/recorder", "node/backups"].contains(&path)
            || spared.iter().any(|spared| path.starts_with(spared))
    };
    app.wait_for_actors("what is left over to end", |actors| {
        actors
            .iter()
            .all(|actor| stays(&actor.path) && actor.mailbox_depth == 0 && actor.current.is_empty())
    })
    .await;
    let projects = app.data_dir().join("projects");
    let is_theirs = |file: &Path| {
        spared.iter().any(|path| file.starts_with(projects.join(path.rsplit('/').next().unwrap())))
    };
    let closed = async {
        while open_files(&projects).iter().any(|file| !is_theirs(file)) {
            moment().await;
        }
    };
    patiently("files to be closed", closed).await;
}

/// The files of this process under a directory.
fn open_files(under: &Path) -> Vec<PathBuf> {
    let all = std::fs::read_dir("/proc/self/fd").unwrap();
    // One that was closed meanwhile cannot be read.
    let targets = all.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    targets.filter(|target| target.starts_with(under)).collect()
}
