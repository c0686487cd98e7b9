//! How long a prompt is, estimated without the model's own tokenizer and corrected by what its provider
//! counted last.

use iris_protocol::AttachmentGiven;

use crate::prompt::{Conversation, Prompt, PromptAttachment, PromptBlock, PromptMessage};

/// Bytes of plain text to a token, as a rule.
const BYTES_PER_TOKEN: u64 = 4;
/// What each entry, call and tool takes besides its text.
const ENTRY_TOKENS: u64 = 4;
/// What an image takes: about the most that providers count for one that they are shown.
const IMAGE_TOKENS: u64 = 1_600;
/// One, in the parts in which corrections are counted.
const RATIO_ONE: u64 = 1024;
/// How far a provider's count may be from the estimate: beyond that it is of something else.
const RATIO_MIN: u64 = RATIO_ONE / 4;
const RATIO_MAX: u64 = RATIO_ONE * 4;

/// Estimates the tokens of a text. Characters that are not ASCII are mostly one each.
pub fn text_tokens(text: &str) -> u64 {
    if text.is_ascii() {
        return (text.len() as u64).div_ceil(BYTES_PER_TOKEN);
    }
    let plain = text.bytes().filter(u8::is_ascii).count() as u64;
    let other = text.chars().filter(|c| !c.is_ascii()).count() as u64;
    plain.div_ceil(BYTES_PER_TOKEN) + other
}

/// Estimates the tokens of some entries of a conversation.
pub fn entry_tokens(messages: &[PromptMessage]) -> u64 {
    messages.iter().map(of_entry).sum()
}

fn of_entry(message: &PromptMessage) -> u64 {
    let tokens = match message {
        PromptMessage::User { text, attachments } => {
            // Images are counted as what stands around the conversation.
            let attached = attachments.iter().map(|it| text_tokens(it.text()));
            text_tokens(text) + attached.sum::<u64>()
        }
        PromptMessage::Assistant { blocks } => blocks.iter().map(of_block).sum(),
        PromptMessage::ToolResult { output, tool_name, .. } => {
            text_tokens(output) + text_tokens(tool_name)
        }
    };
    tokens + ENTRY_TOKENS
}

/// Estimates what is saved where a file that goes with a message is only named any more.
pub(crate) fn attachment_tokens(attachment: &PromptAttachment) -> u64 {
    if attachment.left_out() {
        return 0;
    }
    match attachment.part().given {
        AttachmentGiven::Image => IMAGE_TOKENS,
        AttachmentGiven::Text => text_tokens(attachment.text()),
        AttachmentGiven::Named => 0,
    }
}

fn of_block(block: &PromptBlock) -> u64 {
    let (text, opaque) = match block {
        PromptBlock::Text { text, opaque } | PromptBlock::Reasoning { text, opaque } => {
            (text_tokens(text), opaque)
        }
        PromptBlock::Call(call) => {
            let arguments = call.arguments.to_string();
            (text_tokens(&call.tool_name) + text_tokens(&arguments) + ENTRY_TOKENS, &call.opaque)
        }
        PromptBlock::ProviderTool { opaque, .. } => (ENTRY_TOKENS, opaque),
    };
    text + opaque.as_ref().map_or(0, |opaque| opaque.json.len() as u64 / BYTES_PER_TOKEN)
}

/// Estimates what stands around the conversation: instructions, tools and images.
pub fn frame_tokens(prompt: &Prompt) -> u64 {
    let tools = prompt.tools.iter().map(|tool| {
        text_tokens(&tool.name)
            + text_tokens(&tool.description)
            + text_tokens(tool.parameters.raw().get())
            + ENTRY_TOKENS
    });
    text_tokens(&prompt.system)
        + tools.sum::<u64>()
        + IMAGE_TOKENS.saturating_mul(prompt.images.len() as u64)
}

/// What estimates are multiplied with, because the last step was counted by its provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Correction(u64);

impl Correction {
    /// Estimates as they are.
    pub const NONE: Self = Self(RATIO_ONE);

    /// Compares the count of the last step with the estimate of what it was asked. `frame` is the estimate of
    /// what stands around the conversation.
    pub fn of(conversation: &Conversation, frame: u64) -> Self {
        let Some(counted) = &conversation.counted else { return Self::NONE };
        let asked = conversation.messages.get(..counted.entries).unwrap_or_default();
        let estimated = (frame + entry_tokens(asked)).max(1);
        let ratio = counted.input_tokens.saturating_mul(RATIO_ONE) / estimated;
        Self(ratio.clamp(RATIO_MIN, RATIO_MAX))
    }

    /// The estimate, corrected.
    pub fn apply(self, tokens: u64) -> u64 {
        tokens.saturating_mul(self.0) / RATIO_ONE
    }

    /// Which estimate stands for that many true tokens.
    pub fn invert(self, tokens: u64) -> u64 {
        tokens.saturating_mul(RATIO_ONE) / self.0.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::Counted;

    fn user(text: &str) -> PromptMessage {
        PromptMessage::asked(text)
    }

    #[test]
    fn text_counts_by_its_bytes_and_other_scripts_by_their_characters() {
        assert_eq!(text_tokens(""), 0);
        assert_eq!(text_tokens("four"), 1);
        assert_eq!(text_tokens("fours"), 2);
        assert_eq!(text_tokens("日本語"), 3);
    }

    #[test]
    fn estimates_follow_what_the_provider_counted_within_reason() {
        let messages = vec![user(&"word ".repeat(100)), PromptMessage::said("Yes.")];
        let estimated = entry_tokens(&messages[..1]) + 10;
        let counted = |input_tokens| {
            let counted = Counted { entries: 1, input_tokens, model: None };
            let messages = messages.clone();
            Correction::of(
                &Conversation { messages, counted: Some(counted), ..Default::default() },
                10,
            )
        };
        assert_eq!(counted(estimated), Correction::NONE);
        assert_eq!(counted(estimated * 2).apply(1_000), 2_000);
        assert_eq!(counted(estimated * 2).invert(2_000), 1_000);
        assert!((490..=500).contains(&counted(estimated / 2).apply(1_000)));
        assert_eq!(counted(estimated * 1_000).apply(1_000), 4_000);
        assert_eq!(counted(1).apply(1_000), 250);
        assert_eq!(Correction::of(&Conversation::default(), 10), Correction::NONE);
    }
}
