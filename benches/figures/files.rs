//! What versions of files cost: a write, a snapshot of a large tree, a difference, a page of a directory.
//! With `--quick` the tree and the directory are a tenth as large.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::ensure;
use iris_protocol::{FileDiff, FileList, FileWrite, ProjectId, ProjectType, SnapshotCreate};

use crate::commit::PlainDatabase;
use crate::conversation::{Owner, new_project_of};
use crate::server::{Server, data_dir};
use crate::table::{Figure, median, ms};

const WRITES: usize = 200;
const SNAPSHOTS: usize = 7;
const TREE_FILES: usize = 50_000;
const FILES_IN_DIRECTORY: usize = 500;
const CHANGED: usize = 10;
const LIST_ENTRIES: usize = 10_000;
const TEXT_BYTES: usize = 1024 * 1024;
/// Milliseconds that each of them may take, at the median.
const WRITE_ABOVE_MAX: f64 = 2.0;
const DIFFERENCE_MAX: f64 = 50.0;
const PAGE_MAX: f64 = 10.0;
const SNAPSHOT_MAX: f64 = 300.0;
const CHANGED_SNAPSHOT_MAX: f64 = 350.0;

pub(crate) async fn figures() -> anyhow::Result<Vec<Figure>> {
    let is_quick = std::env::args().any(|argument| argument == "--quick");
    let part = if is_quick { 10 } else { 1 };
    let data_dir = data_dir()?;
    let server = Server::start(data_dir.path())?;
    let owner = Owner::of(&server).await?;
    let root = data_dir.path().join("projects").join(owner.project.as_str()).join("files");
    let stored = new_project_of(&owner.client, ProjectType::Remote).await?;
    let beside = data_dir.path();
    let plain = PlainDatabase::create(beside)?;
    let mut figures = vec![
        above(&writes(&owner, &owner.project, beside, &plain).await?),
        whole(writes(&owner, &stored, beside, &plain).await?),
    ];
    figures.push(differences(&owner).await?);
    figures.push(pages(&owner, &root, LIST_ENTRIES / part).await?);
    figures.extend(snapshots(&owner, &root, TREE_FILES / part).await?);
    server.stop()?;
    Ok(figures)
}

/// Milliseconds of small writes, each with what the disk takes for the same at that moment.
struct Writes {
    /// Of a file with its version.
    own: Vec<f64>,
    /// Of a plain file that is written, synced and renamed as durably.
    plain: Vec<f64>,
    /// Of a commit of a database with nothing around it.
    commits: Vec<f64>,
}

/// What a write takes besides the file and the commit, which nothing could do without.
fn above(writes: &Writes) -> Figure {
    let Writes { own, plain, commits } = writes;
    let parts = own.iter().zip(plain).zip(commits);
    Figure {
        name: "write with its version, above file and commit",
        target: Some(WRITE_ABOVE_MAX),
        unit: "ms",
        samples: parts.map(|((own, plain), commit)| own - plain - commit).collect(),
        comparison: format!(
            "all of it {:.2} ms, a plain file, synced and renamed {:.2} ms, a commit {:.2} ms",
            median(own),
            median(plain),
            median(commits)
        ),
    }
}

fn whole(writes: Writes) -> Figure {
    let comparison = format!("a plain file, synced and renamed {:.2} ms", median(&writes.plain));
    let (name, samples) = ("write of a file into a database", writes.own);
    Figure { name, target: None, unit: "ms", samples, comparison }
}

async fn writes(
    owner: &Owner,
    project: &ProjectId,
    beside: &Path,
    database: &PlainDatabase,
) -> anyhow::Result<Writes> {
    let (mut own, mut plain, mut commits) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..WRITES {
        let content = format!("{n}\n").repeat(100);
        let began = Instant::now();
        let (target, temp) = (beside.join("plain"), beside.join("plain.new"));
        let mut file = File::create(&temp)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temp, &target)?;
        File::open(beside)?.sync_all()?;
        plain.push(ms(began.elapsed()));
        commits.push(database.commit_ms()?);
        let request =
            FileWrite { path: "written.txt".to_owned(), content, encoding: None, version: None };
        let began = Instant::now();
        owner.client.call(Some(project), request).await?;
        own.push(ms(began.elapsed()));
    }
    Ok(Writes { own, plain, commits })
}

async fn differences(owner: &Owner) -> anyhow::Result<Figure> {
    let text = |shift: usize| {
        let lines = (0..).map(|n| format!("line {}\n", n + usize::from(n % 50 == 0) * shift));
        let mut text = String::new();
        for line in lines {
            if text.len() + line.len() > TEXT_BYTES {
                return text;
            }
            text.push_str(&line);
        }
        text
    };
    for shift in [0, 1_000_000] {
        owner.client.file_put(&owner.project, "long.txt", text(shift)).await?;
    }
    let mut samples = Vec::new();
    for _ in 0..SNAPSHOTS {
        let request = FileDiff { path: "long.txt".to_owned(), from: Some(1), to: Some(2) };
        let began = Instant::now();
        let found = owner.client.call(Some(&owner.project), request).await?;
        samples.push(ms(began.elapsed()));
        ensure!(found.insertions.is_some_and(|count| count > 0), "no difference");
    }
    let comparison = "every 50th line is another one".to_owned();
    Ok(Figure {
        name: "difference of two texts of 1 MB",
        target: Some(DIFFERENCE_MAX),
        unit: "ms",
        samples,
        comparison,
    })
}

async fn pages(owner: &Owner, root: &Path, entries: usize) -> anyhow::Result<Figure> {
    let directory = root.join("wide");
    fs::create_dir_all(&directory)?;
    for n in 0..entries {
        fs::write(directory.join(format!("{n:06}")), "x")?;
    }
    let (mut samples, mut cursor) = (Vec::new(), None);
    loop {
        let request = FileList {
            path: Some("wide".to_owned()),
            limit: Some(200),
            cursor,
            ..FileList::default()
        };
        let began = Instant::now();
        let page = owner.client.call(Some(&owner.project), request).await?;
        samples.push(ms(began.elapsed()));
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    let comparison = format!("200 of {entries} entries a page");
    let (name, target) = ("page of a large directory", Some(PAGE_MAX));
    Ok(Figure { name, target, unit: "ms", samples, comparison })
}

async fn snapshots(owner: &Owner, root: &Path, files: usize) -> anyhow::Result<[Figure; 2]> {
    let path = |n: usize| format!("tree/{}/{n}", n / FILES_IN_DIRECTORY);
    for n in 0..files {
        let path = root.join(path(n));
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::write(path, format!("{n}"))?;
    }
    let snapshot = async || -> anyhow::Result<f64> {
        let began = Instant::now();
        owner.client.call(Some(&owner.project), SnapshotCreate {}).await?;
        Ok(ms(began.elapsed()))
    };
    let first = snapshot().await?;
    // What was written just now is read again once.
    snapshot().await?;
    let (mut unchanged, mut changed) = (Vec::new(), Vec::new());
    for round in 0..SNAPSHOTS {
        unchanged.push(snapshot().await?);
        for n in 0..CHANGED {
            fs::write(root.join(path(n * files / CHANGED)), format!("{n} {round}"))?;
        }
        changed.push(snapshot().await?);
        snapshot().await?;
    }
    let comparison = format!("{files} files; the first, which reads all, {first:.0} ms");
    Ok([
        Figure {
            name: "snapshot of an unchanged tree",
            target: Some(SNAPSHOT_MAX),
            unit: "ms",
            samples: unchanged,
            comparison,
        },
        Figure {
            name: "snapshot of a tree with 10 changed files",
            target: Some(CHANGED_SNAPSHOT_MAX),
            unit: "ms",
            samples: changed,
            comparison: format!("{files} files"),
        },
    ])
}
