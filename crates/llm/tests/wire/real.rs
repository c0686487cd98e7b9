//! A model that nobody scripted, where there is one: `IRIS_REAL_MODEL=http://127.0.0.1:8081` names a server
//! like llama.cpp's that speaks Chat Completions, Messages and Responses. Without it nothing is asked.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use iris_agent::{Prompt, PromptMessage, ToolSpec};
use iris_llm::{
    Finish, Model, ModelEvent, ModelRequest, ProviderConfig, ProviderKind, parse_arguments,
};
use serde_json::json;

use crate::answer::{blocks, said};
use crate::{Answer, configured};

/// The address of the server, without a path.
const ADDRESS: &str = "IRIS_REAL_MODEL";

/// The longest that a small model on a busy machine takes.
const PATIENCE: Duration = Duration::from_mins(5);

async fn ask(model: &Arc<dyn Model>, request: ModelRequest) -> Answer {
    tokio::time::timeout(PATIENCE, model.stream(request).collect()).await.unwrap()
}

#[tokio::test]
async fn a_real_model_calls_a_tool_and_reads_its_result_on_every_wire_of_its_server() {
    let Ok(address) = std::env::var(ADDRESS) else { return };
    for (kind, path) in [
        (ProviderKind::OpenAiCompatible, "/v1"),
        (ProviderKind::Anthropic, ""),
        (ProviderKind::OpenAi, "/v1"),
    ] {
        let model = configured(ProviderConfig {
            base_url: Some(format!("{address}{path}")),
            max_output_tokens: Some(200),
            ..ProviderConfig::new(kind)
        });
        // A small model copes with four.
        let tools = [
            ("read", "path", "Reads a file of the project."),
            ("list", "path", "Lists a directory of the project."),
            ("glob", "pattern", "Finds files by a pattern of their names."),
            ("grep", "pattern", "Finds lines by a regular expression."),
        ];
        let tools = tools.map(|(name, argument, description)| {
            let properties = json!({argument: {"type": "string"}});
            let schema =
                json!({"type": "object", "properties": properties, "required": [argument]});
            Arc::new(ToolSpec::new(name, description, &schema))
        });
        let asked = PromptMessage::asked("Use the tool read: README.md");
        let prompt = Prompt { messages: vec![asked], tools: tools.to_vec(), ..Prompt::default() };
        let mut request = ModelRequest {
            model: "smollm2-135m-instruct".into(),
            prompt,
            temperature: Some(0.0),
            ..ModelRequest::default()
        };
        let answer = ask(&model, request.clone()).await;
        let called = said(&answer);
        assert_eq!(called.finish, Some(Finish::ToolCalls), "{kind:?} {called:?}");
        let [(name, arguments, is_complete)] = called.calls.as_slice() else {
            panic!("{kind:?} {called:?}")
        };
        assert!(*is_complete && name == "read", "{kind:?} {called:?}");
        assert_eq!(parse_arguments(arguments).unwrap()["path"], "README.md");
        assert!(called.usage.is_some_and(|usage| usage.input_tokens > 0), "{kind:?} {called:?}");

        let call_id = answer.iter().flatten().find_map(|event| {
            let ModelEvent::ToolCall { call_id, .. } = event else { return None };
            Some(call_id.clone())
        });
        request.prompt.messages.push(PromptMessage::Assistant { blocks: blocks(&answer) });
        request.prompt.messages.push(PromptMessage::ToolResult {
            call_id: call_id.unwrap(),
            tool_name: "read".into(),
            output: "The secret word is heron.".into(),
            is_error: false,
        });
        let closing = said(&ask(&model, request).await);
        assert!(closing.finish.is_some() && !closing.text.is_empty(), "{kind:?} {closing:?}");
        eprintln!("{kind:?}: {arguments} {:?} then `{}`", called.usage, closing.text);
    }
}
