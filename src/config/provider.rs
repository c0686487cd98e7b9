//! The configuration of one provider of models.

use iris_llm::{ChatSwitches, MaxTokensName, ProviderConfig, ProviderKind, ReasoningReplay};

use super::settings::Section;
use super::{ConfigError, parse};

/// Reads `providers.NAME`. A key that means nothing for its kind is a warning.
pub(super) fn provider(
    name: &str,
    mut section: Section,
    warnings: &mut Vec<String>,
) -> Result<ProviderConfig, ConfigError> {
    if !parse::is_provider_name(name) {
        return Err(ConfigError::ProviderName { name: name.to_owned() });
    }
    let missing = |field| ConfigError::Missing { provider: name.to_owned(), field };
    let kind = section.parse("kind", parse::provider_kind)?.ok_or_else(|| missing("kind"))?;
    let unused = unused(kind, &section);
    let mut settings = ProviderConfig::new(kind);
    settings.base_url = section.parse("base_url", parse::base_url)?;
    settings.api_key = section.parse_secret("api_key", parse::api_key)?;
    settings.script = section.parse("script", parse::path)?;
    settings.images = section.parse("images", parse::switch)?;
    settings.catalog = section.parse("catalog", parse::vendor)?;
    settings.free = section.parse("free", parse::switch)?;
    settings.reasoning = section.parse("reasoning", parse::reasoning)?;
    settings.max_output_tokens = section.parse("max_output_tokens", parse::tokens)?;
    settings.context_tokens = section.parse("context_tokens", parse::tokens)?;
    settings.proxy = section.parse_secret("proxy", parse::proxy)?;
    settings.ca_file = section.parse("ca_file", parse::path)?;
    let first_byte = section.parse("first_byte_seconds", parse::seconds)?;
    settings.limits =
        settings.limits.waiting(first_byte, section.parse("idle_seconds", parse::seconds)?);
    settings.chat = chat(&mut section)?;
    debug_assert!(section.keys_left().is_empty(), "keys not read: {:?}", section.keys_left());

    if kind == ProviderKind::OpenAiCompatible && settings.base_url.is_none() {
        return Err(missing("base_url"));
    }
    let kind = kind.as_str();
    warnings.extend(
        unused
            .into_iter()
            .map(|field| format!("`providers.{name}.{field}` has no effect: its kind is `{kind}`")),
    );
    Ok(settings)
}

/// In what a server that speaks Chat Completions differs from others.
fn chat(section: &mut Section) -> Result<ChatSwitches, ConfigError> {
    let default = ChatSwitches::default();
    let max_tokens_name = section.parse("max_tokens_name", |text| match text {
        "max_tokens" => Ok(MaxTokensName::MaxTokens),
        "max_completion_tokens" => Ok(MaxTokensName::MaxCompletionTokens),
        _ => Err(format!("`{text}` is not `max_tokens` or `max_completion_tokens`")),
    })?;
    let reasoning = section.parse("reasoning_replay", |text| match text {
        "none" => Ok(ReasoningReplay::None),
        "reasoning_content" => Ok(ReasoningReplay::ReasoningContent),
        "reasoning" => Ok(ReasoningReplay::Reasoning),
        "reasoning_details" => Ok(ReasoningReplay::ReasoningDetails),
        _ => Err(format!(
            "`{text}` is not `none`, `reasoning_content`, `reasoning` or `reasoning_details`"
        )),
    })?;
    Ok(ChatSwitches {
        stream_options: section
            .parse("stream_options", parse::switch)?
            .unwrap_or(default.stream_options),
        parallel_tool_calls: section.parse("parallel_tool_calls", parse::switch)?,
        max_tokens_name: max_tokens_name.unwrap_or(default.max_tokens_name),
        reasoning: reasoning.unwrap_or(default.reasoning),
        prompt_cache_key: section
            .parse("prompt_cache_key", parse::switch)?
            .unwrap_or(default.prompt_cache_key),
    })
}

/// The keys that are set and mean nothing for this kind.
fn unused(kind: ProviderKind, section: &Section) -> Vec<&'static str> {
    let of_chat = [
        "stream_options",
        "parallel_tool_calls",
        "max_tokens_name",
        "reasoning_replay",
        "prompt_cache_key",
    ];
    let of_network = [
        "base_url",
        "api_key",
        "api_key_file",
        "images",
        "catalog",
        "free",
        "reasoning",
        "max_output_tokens",
        "proxy",
        "proxy_file",
        "ca_file",
        "first_byte_seconds",
        "idle_seconds",
    ];
    let is_unused = |key: &&'static str| match kind {
        ProviderKind::Scripted => !matches!(*key, "script" | "kind" | "context_tokens"),
        ProviderKind::OpenAiCompatible => *key == "script",
        ProviderKind::Ollama => *key == "script" || of_chat.contains(key),
        ProviderKind::Anthropic | ProviderKind::OpenAi | ProviderKind::Google => {
            *key == "script" || of_chat.contains(key)
        }
    };
    let keys = ["script", "context_tokens"].into_iter().chain(of_chat).chain(of_network);
    keys.filter(|key| section.has(key)).filter(is_unused).collect()
}
