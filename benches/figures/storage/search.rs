//! Full-text search over many messages.

use std::time::Instant;

use anyhow::ensure;
use iris_protocol::ProjectId;
use iris_store::WriteContext;
use iris_store::project::{IndexParts, ProjectDatabase};
use iris_testkit::Fill;

use crate::server::data_dir;
use crate::table::{Figure, ms};

const SEARCH_MS_MAX: f64 = 20.0;
/// Sessions, and runs of each: two messages a run, so 100,000 messages.
const SESSIONS: u32 = 100;
const RUNS: u32 = 500;
const SAMPLES: usize = 101;
const LIMIT: u32 = 50;
/// A time: 2026-09-21 in milliseconds since 1970 UTC.
const NOW: i64 = 1_790_000_000_000;

/// Measures words that are in every message, in many, in one and in none.
pub(crate) async fn figure() -> anyhow::Result<Figure> {
    let directory = data_dir()?;
    let (path, id) = (directory.path().join("project.db"), ProjectId::from_bits(1));
    ProjectDatabase::create(&path, &id, "epoch", NOW)?;
    let database = ProjectDatabase::open(&path, &id, |_| {})?;
    Fill { sessions: SESSIONS, runs: RUNS, at: NOW }.run(&database).await;
    while database.writer().submit(IndexParts, WriteContext::default()).await?.output.more {}
    let reader = database.reader();
    let mut samples = Vec::new();
    for sample in 0..SAMPLES {
        let query = match sample % 4 {
            0 => "message".to_owned(),
            1 => format!("message word{}", sample % 7),
            2 => format!("rare{}", 9_000 + sample),
            _ => "nowhere".to_owned(),
        };
        let began = Instant::now();
        let page = reader.search(query, None, LIMIT, None).await?;
        samples.push(ms(began.elapsed()));
        ensure!(page.hits.is_empty() == (sample % 4 == 3), "the search is wrong");
    }
    database.close();
    Ok(Figure {
        name: "search in 100000 messages",
        target: Some(SEARCH_MS_MAX),
        unit: "ms",
        samples,
        comparison: "words of all, many, one and none of them in turn".to_owned(),
    })
}
