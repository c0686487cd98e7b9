//! An answer in a form that can be compared, and as the conversation keeps it.

use std::collections::BTreeMap;

use iris_agent::{PromptBlock, PromptCall};
use iris_llm::{ErrorClass, Finish, ModelEvent, parse_arguments};
use iris_protocol::Usage;

use crate::Answer;

/// What came out of a stream.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Said {
    pub(crate) text: String,
    pub(crate) reasoning: String,
    /// Tool, arguments, whether it is complete.
    pub(crate) calls: Vec<(String, String, bool)>,
    /// Tool, arguments, output, whether it failed.
    pub(crate) provider_tools: Vec<(String, String, String, bool)>,
    /// JSON of everything that the provider wants back, in order.
    pub(crate) opaque: Vec<String>,
    pub(crate) usage: Option<Usage>,
    pub(crate) finish: Option<Finish>,
    pub(crate) error: Option<ErrorClass>,
}

/// Collects it, and checks what holds for every stream of every wire.
pub(crate) fn said(answer: &Answer) -> Said {
    let mut said = Said::default();
    let mut open_block = None;
    let mut open_calls: BTreeMap<&str, String> = BTreeMap::new();
    let mut began = Vec::new();
    for (at, event) in answer.iter().enumerate() {
        assert!(said.finish.is_none() && said.error.is_none(), "something after the end");
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                assert!(error.message.len() < 400, "{error}");
                said.error = Some(error.class);
                continue;
            }
        };
        assert_eq!(at == 0, matches!(event, ModelEvent::Start { .. }), "start first, once");
        match event {
            ModelEvent::Start { .. } => {}
            ModelEvent::TextStart { index } | ModelEvent::ReasoningStart { index } => {
                assert_eq!(open_block, None, "two blocks at once");
                assert_eq!(*index, u32::try_from(began.len()).unwrap());
                began.push(*index);
                open_block = Some(*index);
            }
            ModelEvent::TextDelta { index, text } => {
                assert!(!text.is_empty() && open_block == Some(*index));
                said.text.push_str(text);
            }
            ModelEvent::ReasoningDelta { index, text } => {
                assert!(!text.is_empty() && open_block == Some(*index));
                said.reasoning.push_str(text);
            }
            ModelEvent::TextEnd { index } | ModelEvent::ReasoningEnd { index } => {
                assert_eq!(open_block.take(), Some(*index));
            }
            ModelEvent::TextOpaque { index, opaque }
            | ModelEvent::ReasoningOpaque { index, opaque } => {
                assert!(began.contains(index));
                said.opaque.push(opaque.json.to_string());
            }
            ModelEvent::ToolInputStart { call_id, .. } => {
                assert_eq!(open_calls.insert(call_id, String::new()), None, "{call_id} twice");
            }
            ModelEvent::ToolInputDelta { call_id, fragment } => {
                open_calls.get_mut(call_id.as_str()).unwrap().push_str(fragment);
            }
            ModelEvent::ToolCall { call_id, name, arguments, is_complete, opaque } => {
                open_calls.remove(call_id.as_str()).unwrap();
                said.calls.push((name.clone(), arguments.clone(), *is_complete));
                said.opaque.extend(opaque.iter().map(|opaque| opaque.json.to_string()));
            }
            ModelEvent::ProviderTool { name, arguments, output, is_error, opaque } => {
                said.provider_tools.push((
                    name.clone(),
                    arguments.clone(),
                    output.clone(),
                    *is_error,
                ));
                said.opaque.extend(opaque.iter().map(|opaque| opaque.json.to_string()));
            }
            ModelEvent::UsageSoFar(usage) => {
                assert!(said.usage.is_none() && usage.raw.is_none());
            }
            ModelEvent::Usage(usage) => {
                assert_eq!(said.usage.replace(usage.tokens), None, "usage twice");
            }
            ModelEvent::Finish { reason, .. } => said.finish = Some(*reason),
        }
    }
    assert_ne!(said.finish.is_some(), said.error.is_some(), "neither whole nor an error");
    if said.finish.is_some() {
        assert_eq!(open_block, None, "a block without an end");
        assert!(open_calls.is_empty(), "{open_calls:?} without an end");
    }
    said
}

/// The blocks that the conversation keeps of an answer, in the order in which they began; calls have the
/// ids of the wire.
pub(crate) fn blocks(answer: &Answer) -> Vec<PromptBlock> {
    let mut blocks: Vec<(Option<u32>, PromptBlock)> = Vec::new();
    for event in answer.iter().flatten().cloned() {
        match event {
            ModelEvent::TextStart { index } => {
                blocks.push((Some(index), PromptBlock::Text { text: String::new(), opaque: None }));
            }
            ModelEvent::ReasoningStart { index } => {
                let (text, opaque) = (String::new(), None);
                blocks.push((Some(index), PromptBlock::Reasoning { text, opaque }));
            }
            ModelEvent::TextDelta { index, text: piece }
            | ModelEvent::ReasoningDelta { index, text: piece } => {
                let (text, _) = block(&mut blocks, index);
                text.push_str(&piece);
            }
            ModelEvent::TextOpaque { index, opaque: new }
            | ModelEvent::ReasoningOpaque { index, opaque: new } => {
                let (_, opaque) = block(&mut blocks, index);
                *opaque = Some(new);
            }
            ModelEvent::ToolCall { call_id, name: tool_name, arguments, opaque, .. } => {
                let arguments = parse_arguments(&arguments).unwrap();
                let call = PromptCall { call_id, tool_name, arguments, opaque };
                blocks.push((None, PromptBlock::Call(call)));
            }
            ModelEvent::ProviderTool { name: tool_name, opaque, .. } => {
                blocks.push((None, PromptBlock::ProviderTool { tool_name, opaque }));
            }
            ModelEvent::Start { .. }
            | ModelEvent::TextEnd { .. }
            | ModelEvent::ReasoningEnd { .. }
            | ModelEvent::ToolInputStart { .. }
            | ModelEvent::ToolInputDelta { .. }
            | ModelEvent::UsageSoFar(_)
            | ModelEvent::Usage(_)
            | ModelEvent::Finish { .. } => {}
        }
    }
    blocks.into_iter().map(|(_, block)| block).collect()
}

fn block(
    blocks: &mut [(Option<u32>, PromptBlock)],
    index: u32,
) -> (&mut String, &mut Option<iris_agent::Opaque>) {
    let (_, found) = blocks.iter_mut().find(|(at, _)| *at == Some(index)).unwrap();
    match found {
        PromptBlock::Text { text, opaque } | PromptBlock::Reasoning { text, opaque } => {
            (text, opaque)
        }
        PromptBlock::Call(_) | PromptBlock::ProviderTool { .. } => unreachable!(),
    }
}
