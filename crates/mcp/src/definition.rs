//! What a server says of one of its tools, and the hash by which people approve it.

use std::fmt::Write as _;

use rmcp::model::Tool;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::error::{McpError, bounded};

/// Longest name of a tool, in bytes (as the protocol recommends, "Tool Names").
const NAME_BYTES_MAX: usize = 128;
/// Longest description of a tool, in bytes.
const DESCRIPTION_BYTES_MAX: usize = 16 * 1024;
/// Deepest nesting of a schema.
const SCHEMA_DEPTH_MAX: usize = 32;

/// One tool of a server, as the server describes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Definition {
    /// Letters, digits, `_`, `-`, `.` and `/`; 1 to 128 bytes.
    pub name: String,
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What it does, in the server's words; may be empty.
    pub description: String,
    /// JSON Schema of the arguments, an object.
    pub input_schema: Value,
    /// What the server says of its behaviour; nothing relies on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Value>,
}

impl Definition {
    /// Takes over what a server said.
    ///
    /// # Errors
    ///
    /// `BadTool` for a name, a description or a schema that is out of bounds.
    pub(crate) fn of(tool: Tool) -> Result<Self, McpError> {
        let name = tool.name.into_owned();
        let bad = |problem: &str| McpError::BadTool {
            tool: with_hidden_shown(&bounded(&name)),
            problem: problem.to_owned(),
        };
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(is_plain) {
            return Err(bad(
                "its name is not made of at most 128 letters, digits, `_`, `-`, `.`, `/`",
            ));
        }
        let description = tool.description.unwrap_or_default().into_owned();
        let title_bytes = tool.title.as_ref().map_or(0, String::len);
        if description.len() + title_bytes > DESCRIPTION_BYTES_MAX {
            return Err(bad("its description is too long"));
        }
        let input_schema = Value::Object(tool.input_schema.as_ref().clone());
        if depth(&input_schema) > SCHEMA_DEPTH_MAX {
            return Err(bad("its schema is nested too deeply"));
        }
        let annotations = tool.annotations.and_then(|it| serde_json::to_value(it).ok());
        Ok(Self { name, title: tool.title, description, input_schema, annotations })
    }

    /// SHA-256 of everything that is said of the tool, 64 hex digits.
    pub fn hash(&self) -> String {
        let mut fields = Map::new();
        fields.insert("name".to_owned(), Value::String(self.name.clone()));
        fields.insert("title".to_owned(), self.title.clone().map_or(Value::Null, Value::String));
        fields.insert("description".to_owned(), Value::String(self.description.clone()));
        fields.insert("inputSchema".to_owned(), self.input_schema.clone());
        fields.insert("annotations".to_owned(), self.annotations.clone().unwrap_or_default());
        hex(Sha256::digest(canonical_json(&Value::Object(fields))).as_slice())
    }
}

/// SHA-256 over the hashes of all definitions, in whatever order they are; 64 hex digits.
pub fn hash_of_all(definitions: &[Definition]) -> String {
    let mut hashes: Vec<String> = definitions.iter().map(Definition::hash).collect();
    hashes.sort_unstable();
    hex(Sha256::digest(hashes.join("\n")).as_slice())
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string does not fail.
        write!(text, "{byte:02x}").unwrap_or_default();
    }
    text
}

/// JSON in which the order of fields does not count: they are sorted, and there is no white space (like
/// RFC 8785, which also says how numbers are written; here they stay as they came).
pub fn canonical_json(value: &Value) -> String {
    let mut text = String::new();
    write_canonical(value, &mut text);
    text
}

fn write_canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut sorted: Vec<(&String, &Value)> = fields.iter().collect();
            sorted.sort_unstable_by_key(|(name, _)| *name);
            text.push('{');
            for (index, (name, value)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                text.push_str(&Value::String(name.clone()).to_string());
                text.push(':');
                write_canonical(value, text);
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_canonical(item, text);
            }
            text.push(']');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            text.push_str(&value.to_string());
        }
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or_default(),
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or_default(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// A text in which what people cannot see is written out: control characters, characters without width,
/// those that turn the direction of writing, tags and variation selectors stand as `\u{..}`. Line feeds and
/// tabs stay.
///
/// ```
/// assert_eq!(iris_mcp::with_hidden_shown("a\u{200b}b\u{e0041}"), "a\\u{200b}b\\u{e0041}");
/// ```
pub fn with_hidden_shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hidden(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Characters of Unicode that take no place of their own, or look like nothing.
fn is_hidden(c: char) -> bool {
    if matches!(c, '\n' | '\t') {
        return false;
    }
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{2000}'..='\u{200f}' | '\u{2028}'..='\u{202f}'
            | '\u{205f}'..='\u{206f}' | '\u{2800}' | '\u{3000}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{e000}'..='\u{f8ff}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}'
            | '\u{f0000}'..='\u{10ffff}')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn definition(value: Value) -> Result<Definition, McpError> {
        Definition::of(serde_json::from_value(value).unwrap())
    }

    fn plain() -> Value {
        json!({"name": "add", "description": "Adds.",
            "inputSchema": {"type": "object", "properties": {"a": {"type": "number"}, "b": {}}},
            "annotations": {"readOnlyHint": true}})
    }

    #[test]
    fn m1_the_hash_changes_with_all_that_is_said_and_not_with_the_order_of_fields() {
        let hash = definition(plain()).unwrap().hash();
        let reordered = json!({"annotations": {"readOnlyHint": true}, "description": "Adds.",
            "inputSchema": {"properties": {"b": {}, "a": {"type": "number"}}, "type": "object"},
            "name": "add"});
        assert_eq!(definition(reordered).unwrap().hash(), hash);
        let others = [
            ("/name", json!("add2")),
            ("/description", json!("Adds.\u{200b}")),
            ("/title", json!("Add")),
            ("/inputSchema/properties/a/type", json!("string")),
            ("/annotations/readOnlyHint", json!(false)),
        ];
        for (pointer, value) in others {
            let mut changed = plain();
            match changed.pointer_mut(pointer) {
                Some(field) => *field = value,
                None => changed["title"] = value,
            }
            assert_ne!(definition(changed).unwrap().hash(), hash, "{pointer}");
        }
    }

    #[test]
    fn the_hash_of_a_list_is_that_of_the_set() {
        let one = definition(plain()).unwrap();
        let two = Definition { name: "sub".to_owned(), ..one.clone() };
        let all = hash_of_all(&[one.clone(), two.clone()]);
        assert_eq!(hash_of_all(&[two, one.clone()]), all);
        assert_ne!(hash_of_all(&[one]), all);
    }

    #[test]
    fn definitions_out_of_bounds_are_refused() {
        let bad = |pointer: &str, value: Value| {
            let mut changed = plain();
            *changed.pointer_mut(pointer).unwrap() = value;
            definition(changed).unwrap_err().to_string()
        };
        assert!(bad("/name", json!("")).contains("its name"));
        assert!(bad("/name", json!("a b")).contains("its name"));
        assert!(bad("/name", json!("a\u{202e}b")).contains("\\u{202e}"));
        assert!(bad("/name", json!("x".repeat(129))).contains("its name"));
        assert!(bad("/description", json!("x".repeat(16_385))).contains("description"));
        let deep = (0..40).fold(json!({}), |inner, _| json!({"properties": {"x": inner}}));
        assert!(bad("/inputSchema", deep).contains("deeply"));
    }

    #[test]
    fn m1_hidden_characters_are_shown() {
        for hidden in [
            "\u{200b}",
            "\u{202e}",
            "\u{e0061}",
            "\u{feff}",
            "\u{2066}",
            "\u{fe0f}",
            "\r",
            "\u{1b}",
        ] {
            let shown = with_hidden_shown(&format!("a{hidden}b"));
            assert!(shown.starts_with("a\\u{") && shown.ends_with("}b"), "{shown}");
        }
        let plain = "plain text\nwith\ttabs, Grüße, 漢字, emoji 🎉";
        assert_eq!(with_hidden_shown(plain), plain);
    }
}
