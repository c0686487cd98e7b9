//! A part of the server that listens: an actor beside the others that hears each durable event of a project, once, in
//! order and after its commit, and counts what happens.
//!
//! It handles [`ProjectEvent`] and is started with [`spawn`], so that it is watched, named in the tree of actors and
//! caught when it panics, like all of them. [`Node::listen`](iris_actors::Node::listen) has it told of a project. The
//! server never waits for it: one that is too slow is dropped, and hears that as its last word. When a project closes
//! it hears that too, and listens again if it wants to hear on.
//!
//! `cargo run --example subscriber` starts a server in a new directory with the scripted model, has somebody talk
//! and prints what was heard.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use actix::prelude::*;
use anyhow::Context as _;
use iris::app::{App, Dependencies};
use iris_actors::project::{Listener, ProjectEvent};
use iris_actors::supervised;
use iris_actors::supervision::{ChildSpec, Supervise, Vitals, spawn};
use serde_json::{Value, json};
use tokio::sync::watch;

/// Messages that may wait for the counter before it is too slow.
const MAILBOX_LIMIT: u32 = 1_024;

/// How many events of each name there were.
type Counts = BTreeMap<String, u64>;

/// Counts the events of a project. An audit or a bridge to another system would look the same.
struct Counter {
    counts: watch::Sender<Counts>,
}

impl Actor for Counter {
    type Context = Context<Self>;
}

supervised!(Counter);

impl Supervise for Counter {
    /// What `iris top` shows of it.
    fn observe(&self) -> Value {
        json!({ "events": self.counts.borrow().values().sum::<u64>() })
    }
}

impl Handler<ProjectEvent> for Counter {
    type Result = ();

    fn handle(&mut self, event: ProjectEvent, ctx: &mut Context<Self>) {
        match event {
            ProjectEvent::Committed { event, .. } => self.counts.send_modify(|counts| {
                *counts.entry(event.name.clone()).or_default() += 1;
            }),
            // One that has to hear on listens again here, and reads what it missed from the log of events.
            ProjectEvent::Ended { .. } => ctx.stop(),
        }
    }
}

fn main() -> anyhow::Result<()> {
    System::new().block_on(async {
        let directory = tempfile::tempdir()?;
        let config = common::config(directory.path(), common::SCRIPTED)?;
        let app = App::start(config, Dependencies::default()).await?;
        let ann = common::Guest::enter(&app).await?;

        let (tell, mut counts) = watch::channel(Counts::new());
        let spec = ChildSpec { mailbox_limit: MAILBOX_LIMIT, ..ChildSpec::new("counter", "") };
        let create = |_: &mut Context<Counter>, _: &Arc<Vitals>| Counter { counts: tell };
        let counter = spawn(&app.supervision().node(), spec, create, |_| {});
        app.node().listen(&ann.project, Listener::new(&counter)).await?;

        ann.ask("say Somebody listens.").await?;
        let is_over = |counts: &Counts| counts.contains_key("run.completed");
        let heard = counts.wait_for(is_over).await.context("the counter is alive")?.clone();
        app.stop().await?;
        print(&heard)
    })
}

#[expect(clippy::print_stdout, reason = "this is what the example is for")]
fn print(heard: &Counts) -> anyhow::Result<()> {
    let messages = heard.get("message.created");
    anyhow::ensure!(messages == Some(&2), "a question and an answer: {heard:?}");
    for (name, count) in heard {
        println!("{count} {name}");
    }
    Ok(())
}
