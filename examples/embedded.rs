//! Iris inside of another program: a server that is started, used through its own door and stopped.
//!
//! [`App::start`] is all that `iris serve` does after it has read its configuration. It wants an actix system, which
//! [`System::new`] makes; clients, in this program or in others, reach it over HTTP and WebSocket as always.
//! What a program may bring of its own (tools, models, a clock, log lines) stands in [`Dependencies`].
//!
//! `cargo run --example embedded` starts it in a new directory with the scripted model, says something and prints
//! what is answered.

#![expect(clippy::wildcard_enum_match_arm, reason = "it looks for one kind of part")]

mod common;

use actix_rt::System;
use iris::app::{App, Dependencies};
use iris_protocol::{Message, Part};

fn main() -> anyhow::Result<()> {
    System::new().block_on(async {
        let directory = tempfile::tempdir()?;
        let config = common::config(directory.path(), common::SCRIPTED)?;
        let app = App::start(config, Dependencies::default()).await?;
        let ann = common::Guest::enter(&app).await?;
        let messages = ann.ask("say I am inside of your program.").await?;
        print(&app.url(), &messages)?;
        // New messages are refused, runs get the configured time, databases are closed.
        app.stop().await?;
        Ok(())
    })
}

#[expect(clippy::print_stdout, reason = "this is what the example is for")]
fn print(url: &str, messages: &[Message]) -> anyhow::Result<()> {
    let parts = messages.iter().flat_map(|message| &message.parts);
    let texts: Vec<&str> = parts
        .filter_map(|part| match part {
            Part::Text { text, .. } => Some(text.as_str()),
            _ => None,
        })
        .collect();
    anyhow::ensure!(texts.last() == Some(&"I am inside of your program."), "{texts:?}");
    for text in texts {
        println!("{url}: {text}");
    }
    Ok(())
}
