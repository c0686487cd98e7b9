//! What a call gives and what a server may ask meanwhile.

use futures_util::future::BoxFuture;
use rmcp::model::{CallToolResult, ContentBlock, ResourceContents};
use serde_json::Value;

/// What a call of a tool gave.
#[derive(Debug, Clone, PartialEq)]
pub struct CallAnswer {
    /// As text for the model; what is no text is named.
    pub text: String,
    /// Whether the tool says that it failed.
    pub is_error: bool,
}

/// What a server asks people while a call of it runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Elicitation {
    /// What it says, in its own words.
    pub message: String,
    /// JSON Schema of the answer, an object of plain values.
    pub schema: Value,
}

/// What people said.
#[derive(Debug, Clone, PartialEq)]
pub enum ElicitationAnswer {
    /// An object that fits the schema.
    Accept(Value),
    /// They do not want to.
    Decline,
    /// Nobody said anything.
    Cancel,
}

/// Answers what a server asks during one call.
pub trait ElicitationSource: Send + Sync {
    /// Asks, and waits for as long as people may take; the time of the call does not go on meanwhile.
    fn ask(&self, elicitation: Elicitation) -> BoxFuture<'static, ElicitationAnswer>;
}

impl CallAnswer {
    pub(crate) fn of(result: CallToolResult) -> Self {
        let mut texts: Vec<String> = result.content.into_iter().map(as_text).collect();
        // What is structured stands in the text as well, unless the server leaves that out.
        if texts.is_empty()
            && let Some(structured) = result.structured_content
        {
            texts.push(structured.to_string());
        }
        Self { text: texts.join("\n"), is_error: result.is_error.unwrap_or_default() }
    }
}

fn as_text(block: ContentBlock) -> String {
    match block {
        ContentBlock::Text(text) => text.text,
        ContentBlock::Image(image) => left_out("image", &image.mime_type, image.data.len()),
        ContentBlock::Audio(audio) => left_out("sound", &audio.mime_type, audio.data.len()),
        ContentBlock::ResourceLink(link) => format!("[link to {}: {}]", link.name, link.uri),
        ContentBlock::Resource(embedded) => match embedded.resource {
            ResourceContents::TextResourceContents { uri, text, .. } => format!("[{uri}]\n{text}"),
            ResourceContents::BlobResourceContents { uri, blob, .. } => {
                left_out("content", &uri, blob.len())
            }
            _ => "[a resource of an unknown kind]".to_owned(),
        },
        _ => "[content of an unknown kind]".to_owned(),
    }
}

/// What stands in place of bytes, which come in Base64.
fn left_out(what: &str, kind: &str, encoded: usize) -> String {
    format!("[{what} left out: {kind}, {} bytes]", encoded / 4 * 3)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(value: Value) -> CallAnswer {
        CallAnswer::of(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn all_kinds_of_content_become_text() {
        let content = json!([
            {"type": "text", "text": "one"},
            {"type": "image", "data": "AAAA", "mimeType": "image/png"},
            {"type": "resource_link", "uri": "file:///a", "name": "a"},
            {"type": "resource", "resource": {"uri": "test:b", "text": "b", "mimeType": "text/plain"}},
            {"type": "resource", "resource": {"uri": "test:c", "blob": "AAAAAAAA"}},
        ]);
        let text = "one\n[image left out: image/png, 3 bytes]\n[link to a: file:///a]\n[test:b]\nb\n\
                    [content left out: test:c, 6 bytes]";
        let expected = CallAnswer { text: text.to_owned(), is_error: false };
        assert_eq!(answer(json!({"content": content})), expected);
    }

    #[test]
    fn errors_are_told_and_structure_alone_is_shown() {
        let failed = answer(json!({"content": [{"type": "text", "text": "no"}], "isError": true}));
        assert_eq!(failed, CallAnswer { text: "no".to_owned(), is_error: true });
        let structured = answer(json!({"content": [], "structuredContent": {"sum": 3}}));
        assert_eq!(structured.text, r#"{"sum":3}"#);
    }
}
