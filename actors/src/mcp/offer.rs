//! What a server offers, beside what people approved: pure.

use std::collections::HashSet;
use std::fmt::Write as _;

use iris_mcp::{Definition, hash_of_all, with_hidden_shown};
use iris_protocol::{McpState, McpToolState, McpToolStatus};
use iris_redact::Redactor;
use iris_tools::check_parameters;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Longest name that models may call a tool by, in bytes; more is refused by some providers.
const MODEL_NAME_BYTES_MAX: usize = 64;
/// Hex digits that tell names apart that had to be changed.
const MARK_DIGITS: usize = 8;

/// What a server offers now.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Offer {
    pub(crate) definitions: Vec<Definition>,
    pub(crate) hash: String,
}

impl Offer {
    pub(crate) fn new(definitions: Vec<Definition>) -> Self {
        let hash = hash_of_all(&definitions);
        Self { definitions, hash }
    }

    /// Whether the server offers exactly this.
    pub(crate) fn holds(&self, definition: &Definition) -> bool {
        self.definitions.contains(definition)
    }

    /// How a server is that offers this: whether somebody has approved all of it that can be used.
    pub(crate) fn state(&self, approved: &[Definition]) -> McpState {
        let is_settled = |definition: &Definition| {
            approved.contains(definition) || problem(definition).is_some()
        };
        if self.definitions.iter().all(is_settled) {
            McpState::Ready
        } else {
            McpState::NeedsApproval
        }
    }
}

/// What a server says of its tools, without the secrets that it was given. With what others know besides it would read
/// differently from one time to the next, and not be what was approved.
pub(crate) fn without_secrets(definitions: Vec<Definition>, given: &Redactor) -> Vec<Definition> {
    let masked = definitions.into_iter().filter_map(|mut definition| {
        // By another name it could not be called.
        if given.mask(&definition.name) != definition.name {
            return None;
        }
        if let Some(title) = &mut definition.title {
            given.mask_in(title);
        }
        given.mask_in(&mut definition.description);
        given.mask_value(&mut definition.input_schema);
        if let Some(annotations) = &mut definition.annotations {
            given.mask_value(annotations);
        }
        Some(definition)
    });
    masked.collect()
}

/// What keeps a tool from being used, whoever approves it.
pub(crate) fn problem(definition: &Definition) -> Option<String> {
    let is_object = definition.input_schema.get("type").and_then(Value::as_str) == Some("object");
    if !is_object {
        return Some("its schema is not one of an object".to_owned());
    }
    check_parameters(&definition.input_schema).err()
}

/// What models call the tools of a server: `server__tool`, with what providers refuse taken out and cut at
/// their limit. A name that had to be changed carries a mark of the original, so that no two are the same.
pub(crate) fn model_names(server: &str, definitions: &[Definition]) -> Vec<String> {
    let mut taken = HashSet::new();
    let mut names = Vec::new();
    for definition in definitions {
        let mut name = model_name(server, &definition.name, false);
        if taken.contains(&name) {
            name = model_name(server, &definition.name, true);
        }
        taken.insert(name.clone());
        names.push(name);
    }
    names
}

fn model_name(server: &str, tool: &str, is_marked: bool) -> String {
    let whole = format!("{server}__{tool}");
    let plain: String =
        whole.chars().map(|c| if matches!(c, '.' | '/') { '_' } else { c }).collect();
    if plain == whole && whole.len() <= MODEL_NAME_BYTES_MAX && !is_marked {
        return whole;
    }
    let mark = Sha256::digest(&whole).iter().fold(String::new(), |mut mark, byte| {
        // Writing to a string does not fail.
        write!(mark, "{byte:02x}").unwrap_or_default();
        mark
    });
    let mark = mark.get(..MARK_DIGITS).unwrap_or_default();
    // Only ASCII stands in it.
    let room = MODEL_NAME_BYTES_MAX - MARK_DIGITS - 1;
    let kept = plain.get(..room.min(plain.len())).unwrap_or_default();
    format!("{kept}_{mark}")
}

/// Each tool that a server offers or that was approved, in the order of the offer, for people to read.
pub(crate) fn statuses(
    server: &str,
    approved: &[Definition],
    offer: Option<&Offer>,
) -> Vec<McpToolStatus> {
    let offered = offer.map_or(&[][..], |offer| offer.definitions.as_slice());
    let names = model_names(server, offered);
    let mut statuses = Vec::new();
    for (definition, tool_name) in offered.iter().zip(names) {
        let before = approved.iter().find(|it| it.name == definition.name);
        let problem = problem(definition);
        let state = match before {
            _ if problem.is_some() => McpToolState::Unusable,
            Some(before) if before == definition => McpToolState::Approved,
            Some(_) => McpToolState::Changed,
            None => McpToolState::New,
        };
        statuses.push(status(definition, tool_name, state, problem));
    }
    let names = model_names(server, approved);
    for (definition, tool_name) in approved.iter().zip(names) {
        if offered.iter().any(|it| it.name == definition.name) {
            continue;
        }
        let is_gone = offer.is_some();
        let state = if is_gone { McpToolState::Removed } else { McpToolState::Unknown };
        statuses.push(status(definition, tool_name, state, None));
    }
    statuses
}

fn status(
    definition: &Definition,
    tool_name: String,
    state: McpToolState,
    problem: Option<String>,
) -> McpToolStatus {
    McpToolStatus {
        name: definition.name.clone(),
        tool_name,
        state,
        title: definition.title.as_deref().map(with_hidden_shown),
        description: with_hidden_shown(&definition.description),
        input_schema: shown(&definition.input_schema),
        annotations: definition.annotations.as_ref().map(shown),
        problem,
    }
}

/// JSON in whose texts nothing is hidden.
fn shown(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(with_hidden_shown(text)),
        Value::Array(items) => Value::Array(items.iter().map(shown).collect()),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| (with_hidden_shown(name), shown(value)));
            Value::Object(fields.collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tool(name: &str, description: &str) -> Definition {
        Definition {
            name: name.to_owned(),
            title: None,
            description: description.to_owned(),
            input_schema: json!({"type": "object"}),
            annotations: None,
        }
    }

    fn states(approved: &[Definition], offered: &[Definition]) -> Vec<(String, McpToolState)> {
        let offer = Offer::new(offered.to_vec());
        let statuses = statuses("s", approved, Some(&offer)).into_iter();
        statuses.map(|it| (it.name, it.state)).collect()
    }

    #[test]
    fn m1_what_is_new_or_changed_is_told_apart_from_what_was_approved() {
        let approved = [tool("same", "a"), tool("other", "b"), tool("gone", "c")];
        let offered = [tool("other", "b!"), tool("same", "a"), tool("fresh", "d")];
        let expected = [
            ("other", McpToolState::Changed),
            ("same", McpToolState::Approved),
            ("fresh", McpToolState::New),
            ("gone", McpToolState::Removed),
        ];
        let expected: Vec<_> = expected.map(|(name, state)| (name.to_owned(), state)).into();
        assert_eq!(states(&approved, &offered), expected);
        let offer = Offer::new(offered.to_vec());
        assert_eq!(offer.state(&approved), McpState::NeedsApproval);
        assert_eq!(offer.state(&offered), McpState::Ready);
        assert!(offer.holds(&approved[0]) && !offer.holds(&approved[1]));
        assert_eq!(Offer::new(Vec::new()).state(&[]), McpState::Ready);
        let unknown = statuses("s", &approved, None);
        assert!(unknown.iter().all(|it| it.state == McpToolState::Unknown));
    }

    #[test]
    fn m1_hidden_text_is_shown_wherever_it_stands() {
        let mut hidden = tool("a", "read\u{200b} this");
        hidden.title = Some("\u{202e}x".to_owned());
        hidden.input_schema =
            json!({"type": "object", "properties": {"a\u{feff}": {"description": "\u{e0041}"}}});
        let status = statuses("s", &[], Some(&Offer::new(vec![hidden]))).remove(0);
        assert_eq!(status.description, "read\\u{200b} this");
        assert_eq!(status.title.as_deref(), Some("\\u{202e}x"));
        let expected = json!({"a\\u{feff}": {"description": "\\u{e0041}"}});
        assert_eq!(status.input_schema["properties"], expected);
    }

    #[test]
    fn a_secret_that_a_server_repeats_is_in_nothing_that_it_offers() {
        const SECRET: &str = "given-0f1e2d3c4b5a";
        let given = Redactor::within_shared();
        given.learn_chosen(SECRET);
        let mut told = tool("told", &format!("{SECRET} works"));
        told.title = Some(SECRET.to_owned());
        told.annotations = Some(json!({ SECRET: [SECRET] }));
        told.input_schema = json!({"type": "object", "properties": {SECRET: {"default": SECRET}}});
        let plain = tool("plain", "of nothing");
        let offered = without_secrets(vec![told, tool(SECRET, "a name"), plain.clone()], &given);
        let names: Vec<&str> = offered.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["told", "plain"]);
        assert_eq!(
            (&offered[0].description, &offered[1]),
            (&"[redacted secret] works".to_owned(), &plain)
        );
        assert!(!format!("{offered:?}").contains(SECRET), "{offered:?}");
    }

    #[test]
    fn tools_that_cannot_be_used_need_no_approval() {
        let mut list = tool("list", "");
        list.input_schema = json!({"type": "array"});
        let mut broken = tool("broken", "");
        broken.input_schema =
            json!({"type": "object", "properties": {"a": {"type": "no such type"}}});
        let mut far = tool("far", "");
        far.input_schema =
            json!({"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1/x"}}});
        let offer = Offer::new(vec![list, broken, far]);
        assert_eq!(offer.state(&[]), McpState::Ready);
        for status in statuses("s", &[], Some(&offer)) {
            assert!(
                status.state == McpToolState::Unusable && status.problem.is_some(),
                "{status:?}"
            );
        }
    }

    #[test]
    fn m2_names_are_of_their_server_short_and_never_the_same() {
        let long = "x".repeat(128);
        let definitions = [
            tool("read", ""),
            tool("a.b", ""),
            tool("a/b", ""),
            tool("a_b", ""),
            tool(&long, ""),
            tool(&format!("{long}y")[1..], ""),
        ];
        let names = model_names("files", &definitions);
        assert_eq!((names[0].as_str(), names[3].as_str()), ("files__read", "files__a_b"));
        let unique: HashSet<_> = names.iter().collect();
        assert_eq!(unique.len(), names.len());
        for name in &names {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
            assert!(name.len() <= 64 && name.chars().all(is_plain) && name.starts_with("files__"));
        }
        assert_eq!(model_names("files", &definitions), names);
    }
}
