//! What reading costs in a project that has grown: `cargo run --release -p iris-store --example growth`.
//!
//! Prints one line for each figure: the median and the slowest of its repeats.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement")]

#[path = "../../testkit/src/fill.rs"]
#[expect(unreachable_pub, reason = "it is a file of the kit")]
mod fill;

use std::future::Future;
use std::time::Instant;

use fill::Fill;
use iris_protocol::{ProjectId, Room};
use iris_store::project::{IndexParts, Replay};
use iris_store::{ProjectDatabase, WriteContext};

const REPEATS: usize = 50;

async fn measure<T, F: Future<Output = T>>(what: &str, mut run: impl FnMut() -> F) {
    let mut times = Vec::new();
    for _ in 0..REPEATS {
        let started = Instant::now();
        drop(run().await);
        times.push(started.elapsed());
    }
    times.sort();
    let (median, slowest) = (times.get(REPEATS / 2).unwrap(), times.last().unwrap());
    println!("{what:<60} {median:>10.1?} median {slowest:>10.1?} slowest");
}

fn database(directory: &std::path::Path, name: &str) -> ProjectDatabase {
    let (path, id) = (directory.join(name), ProjectId::from_bits(1));
    ProjectDatabase::create(&path, &id, "epoch", 0).unwrap();
    ProjectDatabase::open(&path, &id, |_| {}).unwrap()
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let directory = tempfile::tempdir().unwrap();
    let started = Instant::now();
    let talk = database(directory.path(), "talk.db");
    Fill { sessions: 100, runs: 500, at: 0 }.run(&talk).await;
    println!("100 sessions with 100,000 messages written in {:.1?}", started.elapsed());
    let indexing = Instant::now();
    let writer = talk.writer();
    while writer.submit(IndexParts, WriteContext::default()).await.unwrap().output.more {}
    println!("100,000 parts brought into the index in {:.1?}", indexing.elapsed());
    let reader = talk.reader();
    let session = Fill::session_id(50);

    measure("page of 50 messages of 1,000", || reader.messages(session.clone(), 50, None)).await;
    let searches = [
        ("a word of one message", "rare777 "),
        ("a word of few messages", "word4900 "),
        ("a word of every message", "message "),
        ("three common words", "message word1 word2 "),
        ("a word that is nowhere", "nowhere "),
    ];
    for (what, query) in searches {
        measure(&format!("search of 100,000 messages: {what}"), || {
            reader.search(query.to_owned(), None, 20, None)
        })
        .await;
    }
    for query in ["message", "word1 word2", "rare50001"] {
        measure(&format!("search of one session among 100: `{query}`"), || {
            reader.search(query.to_owned(), Some(session.clone()), 20, None)
        })
        .await;
    }
    let room = Room::Session(session.clone());
    let head = reader.room_head(room.clone()).await.unwrap();
    let all = reader.events(room.clone(), 0, head, 100_000, usize::MAX).await.unwrap();
    let Replay::Events(all) = all else { unreachable!() };
    let since = all.get(all.len() - 300).unwrap().prev;
    measure("replay of 300 events from SQLite", || {
        reader.events(room.clone(), since, head, 1_000, 512 * 1024)
    })
    .await;

    let many = database(directory.path(), "many.db");
    Fill { sessions: 10_000, runs: 0, at: 0 }.run(&many).await;
    let reader = many.reader();
    measure("page of 50 sessions of 10,000", || reader.sessions(50, None, false, None)).await;
    measure("page of 200 sessions of 10,000", || reader.sessions(200, None, false, None)).await;
}
