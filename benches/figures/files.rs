//! What versions of files cost: a write, a snapshot of a large tree, a difference, a page of a directory.
//! With `--quick` the tree and the directory are a tenth as large.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::ensure;
use iris_protocol::{FileDiff, FileList, FileWrite, ProjectId, ProjectType, SnapshotCreate};

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

pub(crate) async fn figures() -> anyhow::Result<Vec<Figure>> {
    let is_quick = std::env::args().any(|argument| argument == "--quick");
    let part = if is_quick { 10 } else { 1 };
    let data_dir = data_dir()?;
    let server = Server::start(data_dir.path())?;
    let owner = Owner::of(&server).await?;
    let root = data_dir.path().join("projects").join(owner.project.as_str()).join("files");
    let stored = new_project_of(&owner.client, ProjectType::Remote).await?;
    let beside = data_dir.path();
    let mut figures = vec![
        writes(&owner, &owner.project, beside, "write of a file with its version").await?,
        writes(&owner, &stored, beside, "write of a file into a database").await?,
    ];
    figures.push(differences(&owner).await?);
    figures.push(pages(&owner, &root, LIST_ENTRIES / part).await?);
    figures.extend(snapshots(&owner, &root, TREE_FILES / part).await?);
    server.stop()?;
    Ok(figures)
}

/// A small write with its version, beside a plain file that is written and synced as durably.
async fn writes(
    owner: &Owner,
    project: &ProjectId,
    beside: &Path,
    name: &'static str,
) -> anyhow::Result<Figure> {
    let (mut samples, mut plain) = (Vec::new(), Vec::new());
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
        let request =
            FileWrite { path: "written.txt".to_owned(), content, encoding: None, version: None };
        let began = Instant::now();
        owner.client.call(Some(project), request).await?;
        samples.push(ms(began.elapsed()));
    }
    let comparison = format!("a plain file, synced and renamed {:.2} ms", median(&plain));
    Ok(Figure { name, target: None, unit: "ms", samples, comparison })
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
        target: None,
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
    Ok(Figure { name: "page of a large directory", target: None, unit: "ms", samples, comparison })
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
    let figure =
        |name, samples, comparison| Figure { name, target: None, unit: "ms", samples, comparison };
    Ok([
        figure("snapshot of an unchanged tree", unchanged, comparison),
        figure("snapshot of a tree with 10 changed files", changed, format!("{files} files")),
    ])
}
