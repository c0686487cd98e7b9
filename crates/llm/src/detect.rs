//! Finds a server of models on this machine, for who has configured none: Ollama or llama.cpp at the port that
//! each takes by itself. Nothing else is asked, and nothing beyond this machine.

use std::time::Duration;

use iris_protocol::ModelRef;
use serde_json::Value;

use crate::{ProviderConfig, ProviderKind};

/// How long each server is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// Largest list of models, in bytes.
const LIST_BYTES_MAX: usize = 1024 * 1024;

/// Where a server may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalServer {
    /// What its provider is called.
    pub name: &'static str,
    /// The wire that it speaks.
    pub kind: ProviderKind,
    /// Without a `/` at its end.
    pub base_url: String,
}

impl LocalServer {
    /// Those that are looked for, in this order.
    pub fn usual() -> Vec<Self> {
        let at = |name, kind, base_url: &str| Self { name, kind, base_url: base_url.to_owned() };
        vec![
            at("ollama", ProviderKind::Ollama, "http://127.0.0.1:11434"),
            at("llamacpp", ProviderKind::OpenAiCompatible, "http://127.0.0.1:8080/v1"),
        ]
    }

    /// Where it lists its models, and where they stand in the list.
    fn list(&self) -> (String, &'static str, &'static str) {
        match self.kind {
            ProviderKind::Ollama => (format!("{}/api/tags", self.base_url), "models", "name"),
            ProviderKind::OpenAiCompatible
            | ProviderKind::OpenAi
            | ProviderKind::Anthropic
            | ProviderKind::Google
            | ProviderKind::Scripted => (format!("{}/models", self.base_url), "data", "id"),
        }
    }
}

/// A server that answers, and the first model that it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detected {
    /// What its provider is called.
    pub provider: String,
    /// How it is reached; its models cost nothing.
    pub config: ProviderConfig,
    /// The model.
    pub model: ModelRef,
}

/// The first of `servers` that answers and has a model. Waits at most a second for each.
pub async fn detect(servers: &[LocalServer]) -> Option<Detected> {
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE);
    let client = client.redirect(reqwest::redirect::Policy::none()).build().ok()?;
    for server in servers {
        if let Some(model_id) = first_model(&client, server).await {
            let provider = server.name.to_owned();
            let config = ProviderConfig {
                base_url: Some(server.base_url.clone()),
                free: Some(true),
                ..ProviderConfig::new(server.kind)
            };
            let model = ModelRef { provider_id: provider.clone(), model_id };
            return Some(Detected { provider, config, model });
        }
    }
    None
}

async fn first_model(client: &reqwest::Client, server: &LocalServer) -> Option<String> {
    let (url, list, name) = server.list();
    let mut answer = client.get(url).send().await.ok()?.error_for_status().ok()?;
    let mut body = Vec::new();
    while let Some(piece) = answer.chunk().await.ok()? {
        if body.len() + piece.len() > LIST_BYTES_MAX {
            return None;
        }
        body.extend_from_slice(&piece);
    }
    let listed: Value = serde_json::from_slice(&body).ok()?;
    let models = listed.get(list)?.as_array()?;
    let names = models.iter().filter_map(|model| model.get(name)?.as_str());
    // One that could not stand in a reference is passed over.
    let is_name =
        |name: &&str| !name.is_empty() && name.len() <= 200 && !name.contains(char::is_control);
    names.filter(|name| is_name(name)).map(str::to_owned).next()
}
