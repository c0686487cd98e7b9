//! Tools that a provider runs itself, as people are shown them.

use iris_agent::Opaque;
use serde_json::Value;

use crate::json::Json;
use crate::{ErrorClass, ModelError, ModelEvent};

/// Most of them in one answer.
const PROVIDER_TOOLS_MAX: usize = 64;
/// Most bytes of what one answered that people are shown.
const SHOWN_BYTES_MAX: usize = 16 * 1024;
/// Most bytes of the name of one.
const NAME_BYTES_MAX: usize = 128;
/// Fields that say nothing to people.
const UNREADABLE: &[&str] =
    &["encrypted_content", "encrypted_index", "encrypted_stdout", "signature"];

/// Counts one more.
///
/// # Errors
///
/// [`ErrorClass::Protocol`] for one too many.
pub(crate) fn count(so_far: &mut usize) -> Result<(), ModelError> {
    *so_far += 1;
    if *so_far <= PROVIDER_TOOLS_MAX {
        return Ok(());
    }
    let message = format!("the provider ran more than `{PROVIDER_TOOLS_MAX}` tools in one answer");
    Err(ModelError::new(ErrorClass::Protocol, message))
}

/// What people are shown of a tool that ran.
pub(crate) fn ran(
    name: &str,
    arguments: String,
    output: String,
    is_error: bool,
    opaque: Option<Opaque>,
) -> ModelEvent {
    let mut name = if name.is_empty() { "provider_tool" } else { name }.to_owned();
    name.truncate(name.floor_char_boundary(NAME_BYTES_MAX));
    let (arguments, output) = (cut(arguments), cut(output));
    ModelEvent::ProviderTool { name, arguments, output, is_error, opaque }
}

fn cut(mut text: String) -> String {
    if text.len() > SHOWN_BYTES_MAX {
        text.truncate(text.floor_char_boundary(SHOWN_BYTES_MAX));
        text.push('\u{2026}');
    }
    text
}

/// What a tool answered, for people: a text as it is, anything else as JSON, without what is encrypted
/// and not longer than people read.
pub(crate) fn shown(output: &Json<'_>) -> String {
    let text = match output {
        Json::Text(text) => text.clone().into_owned(),
        Json::Null => String::new(),
        Json::Bool(_) | Json::Number(_) | Json::List(_) | Json::Object(_) => {
            let mut value = output.to_value();
            drop_unreadable(&mut value);
            value.to_string()
        }
    };
    cut(text)
}

fn drop_unreadable(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|key, _| !UNREADABLE.contains(&key.as_str()));
            fields.values_mut().for_each(drop_unreadable);
        }
        Value::Array(values) => values.iter_mut().for_each(drop_unreadable),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_shown_what_they_can_read() {
        let text = r#"[{"title":"T","encrypted_content":"xyz","page":{"signature":"s","n":1}}]"#;
        let shown_list = shown(&Json::read(text).unwrap());
        assert_eq!(shown_list, r#"[{"title":"T","page":{"n":1}}]"#);
        assert_eq!(shown(&Json::Text("plain".into())), "plain");
        let long = shown(&Json::Text("é".repeat(SHOWN_BYTES_MAX).into()));
        assert!(long.len() <= SHOWN_BYTES_MAX + 3 && long.ends_with('\u{2026}'));
    }

    #[test]
    fn one_tool_too_many_is_refused() {
        let mut so_far = 0;
        for _ in 0..PROVIDER_TOOLS_MAX {
            count(&mut so_far).unwrap();
        }
        assert_eq!(count(&mut so_far).unwrap_err().class, ErrorClass::Protocol);
    }
}
