//! What Iris is compared with: the adapter, which reads the provider for nobody.
//!
//! With [`ARGUMENT`] it is a process of its own, so that its processor time can be told apart.

use std::io::{self, Write};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::StreamExt;
use futures_util::future::try_join_all;
use iris_agent::{Prompt, PromptMessage};
use iris_llm::{Model, ModelEvent, ModelRequest, Models, ProviderConfig, ProviderKind};
use iris_protocol::ModelRef;

use crate::crowd::{DELAY_MS, SESSIONS, percentile};
use crate::machine::cpu_time;
use crate::provider::{CHUNKS, Plan, STAMP_BYTES, delays};
use crate::table::ms;

/// Makes this program the crowd of clients that read the provider themselves.
pub(crate) const ARGUMENT: &str = "floor";

/// What was read of one answer.
pub(crate) struct Read {
    /// From before the request until the end was read.
    pub(crate) took: Duration,
    /// From before the request until text was read first.
    pub(crate) first: Duration,
    text: String,
    delays: Vec<f64>,
}

/// The adapter for the provider at `url`.
pub(crate) fn model(url: &str) -> anyhow::Result<Arc<dyn Model>> {
    let kind = ProviderKind::OpenAiCompatible;
    let config = ProviderConfig { base_url: Some(url.to_owned()), ..ProviderConfig::new(kind) };
    let models = Models::new([("fake".to_owned(), config)].into())?;
    Ok(models.get(&ModelRef { provider_id: "fake".to_owned(), model_id: "m".to_owned() })?)
}

/// Asks for an answer and reads it to its end.
pub(crate) async fn read(model: &dyn Model, plan: Plan) -> anyhow::Result<Read> {
    let messages = vec![PromptMessage::asked(plan.message())];
    let prompt = Prompt { messages, ..Prompt::default() };
    let request = ModelRequest { model: "m".to_owned(), prompt, ..ModelRequest::default() };
    let began = Instant::now();
    let mut stream = model.stream(request);
    let (mut text, mut first, mut late) = (String::new(), None, Vec::new());
    while let Some(event) = stream.next().await {
        if let ModelEvent::TextDelta { text: piece, .. } = event? {
            first.get_or_insert_with(|| began.elapsed());
            let known = text.len() / STAMP_BYTES;
            text.push_str(&piece);
            late.extend(delays(&text, known));
        }
    }
    let took = began.elapsed();
    Ok(Read { took, first: first.unwrap_or(took), text, delays: late })
}

/// What a crowd of readers needed, in milliseconds.
pub(crate) struct Floor {
    pub(crate) wall: f64,
    pub(crate) processor: f64,
    /// The 99th percentile.
    pub(crate) delay: f64,
}

impl Floor {
    /// Has the process read as many answers at once as there are sessions.
    pub(crate) fn measure(url: &str) -> anyhow::Result<Self> {
        let output = Command::new(std::env::current_exe()?).args([ARGUMENT, url]).output()?;
        let said = String::from_utf8(output.stdout)?;
        let mut numbers = said.split_whitespace().map(str::parse::<f64>);
        let mut next = || numbers.next().context("the readers failed").and_then(|it| Ok(it?));
        Ok(Self { wall: next()?, processor: next()?, delay: next()? })
    }
}

/// Reads with all sessions at once, twice: the connections are there the second time, which is measured.
pub(crate) fn run(url: &str) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let model = model(url)?;
    let plan = Plan::Chunks(DELAY_MS);
    let all = async || {
        let reads = (0..SESSIONS).map(|_| {
            let model = Arc::clone(&model);
            async move { tokio::spawn(async move { read(&*model, plan).await }).await? }
        });
        try_join_all(reads).await
    };
    runtime.block_on(async {
        try_join_all((0..SESSIONS).map(|_| read(&*model, Plan::Closing))).await?;
        let (began, before) = (Instant::now(), cpu_time(std::process::id())?);
        let heard: Vec<Read> = all().await?;
        let wall = began.elapsed();
        let used = cpu_time(std::process::id())?.saturating_sub(before);
        ensure!(heard.iter().all(|it| it.text.len() == CHUNKS * STAMP_BYTES), "text was lost");
        let late = heard.into_iter().flat_map(|it| it.delays).collect();
        let p99 = percentile(late, 0.99);
        writeln!(io::stdout(), "{} {} {p99}", ms(wall), ms(used))?;
        Ok(())
    })
}
