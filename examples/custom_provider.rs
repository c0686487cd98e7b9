//! A server with a provider of models of its own: `echo`, which says backwards what it was told.
//!
//! A provider is one type that implements [`Model`]: a request goes in, a stream of [`ModelEvent`]s comes out. A
//! server gets it with one line, in `models` of its [`Dependencies`], under the name that stands before the `/` of a
//! model. Everything else is as with any provider: answers stream, are recorded and counted, failures are asked again
//! as their [`ErrorClass`] says, and a provider that only fails is left alone for a while.
//!
//! `cargo run --example custom_provider` starts the server in a new directory, asks the model and prints what it said.

#![expect(clippy::wildcard_enum_match_arm, reason = "it looks for one kind of part")]

mod common;

use std::sync::Arc;

use actix_rt::System;
use anyhow::Context;
use futures_util::stream::{self, StreamExt};
use iris::app::{App, Dependencies};
use iris::config::Config;
use iris_agent::PromptMessage;
use iris_llm::{
    ErrorClass, Finish, Model, ModelError, ModelEvent, ModelRequest, ModelStream, ReportedUsage,
};
use iris_protocol::{Message, ModelRef, Part, Usage};

/// Says backwards what it was told.
struct Echo;

impl Model for Echo {
    /// Nothing happens before the stream is polled, and dropping it ends the request: so it is with streams that
    /// `async` blocks and `reqwest` make, too.
    fn stream(&self, request: ModelRequest) -> ModelStream {
        let said = request.prompt.messages.iter().rev().find_map(|message| match message {
            PromptMessage::User { text, .. } => Some(text.clone()),
            _ => None,
        });
        let Some(said) = said else {
            let error = ModelError::new(ErrorClass::Invalid, "nobody said anything");
            return stream::iter([Err(error)]).boxed();
        };
        stream::iter(answer(&request.model, &said).into_iter().map(Ok)).boxed()
    }
}

/// The events of one answer, in the order that [`ModelEvent`] asks for.
fn answer(model: &str, said: &str) -> Vec<ModelEvent> {
    let words: Vec<&str> = said.split_whitespace().rev().collect();
    let count = words.len() as u64;
    let pieces = words.iter().zip(0..).map(|(word, number)| {
        let space = if number == 0 { "" } else { " " };
        ModelEvent::TextDelta { index: 0, text: format!("{space}{word}") }
    });
    let start = ModelEvent::Start { model: model.to_owned(), id: String::new() };
    let mut events = vec![start, ModelEvent::TextStart { index: 0 }];
    events.extend(pieces);
    events.push(ModelEvent::TextEnd { index: 0 });
    let used = Usage { input_tokens: count, output_tokens: count, ..Usage::default() };
    events.push(ModelEvent::Usage(ReportedUsage::from(used)));
    events.push(ModelEvent::Finish { reason: Finish::Stop, raw: "stop".to_owned() });
    events
}

fn main() -> anyhow::Result<()> {
    System::new().block_on(async {
        let directory = tempfile::tempdir()?;
        let model = ModelRef { provider_id: "echo".to_owned(), model_id: "backwards".to_owned() };
        let config = common::config(directory.path(), common::SCRIPTED)?;
        let config = Config { default_model: Some(model), ..config };
        // The one line.
        let models: Vec<(String, Arc<dyn Model>)> = vec![("echo".to_owned(), Arc::new(Echo))];
        let app = App::start(config, Dependencies { models, ..Dependencies::default() }).await?;
        let ann = common::Guest::enter(&app).await?;
        let messages = ann.ask("what is said forwards").await?;
        app.stop().await?;
        print(&messages)
    })
}

#[expect(clippy::print_stdout, reason = "this is what the example is for")]
fn print(messages: &[Message]) -> anyhow::Result<()> {
    let parts = &messages.last().context("an answer")?.parts;
    let said = parts.iter().find_map(|part| match part {
        Part::Text { text, .. } => Some(text.as_str()),
        _ => None,
    });
    anyhow::ensure!(said == Some("forwards said is what"), "the model said {said:?}");
    println!("the model answered: {}", said.unwrap_or_default());
    Ok(())
}
