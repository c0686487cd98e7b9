//! Texts with arguments of a call in them: `{{name}}`.
//!
//! There is nothing else in the language: no conditions, no functions, no way to write `{{` itself.

use std::borrow::Cow;
use std::fmt::Write;

use serde_json::{Map, Value};

use super::{InvalidDefinition, invalid};
use crate::error::Mistake;

/// Longest name of an argument, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// The arguments of a call.
pub(super) type Arguments = Map<String, Value>;

/// A text with arguments in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Argument(String),
}

impl Template {
    /// Takes a text apart; `field` is what errors call it.
    pub(super) fn parse(field: &str, text: &str) -> Result<Self, InvalidDefinition> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let Some((name, after)) = after.split_once("}}") else {
                return Err(invalid(format!("`{field}` has `{{{{` without `}}}}` behind it")));
            };
            let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
            if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(is_name) {
                let problem = "names an argument that is none: letters, digits, `_` and `-`";
                return Err(invalid(format!("`{field}` {problem}")));
            }
            if !before.is_empty() {
                pieces.push(Piece::Literal(before.to_owned()));
            }
            pieces.push(Piece::Argument(name.to_owned()));
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Literal(rest.to_owned()));
        }
        Ok(Self { pieces })
    }

    /// The arguments in it.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Argument(name) => Some(name.as_str()),
            Piece::Literal(_) => None,
        })
    }

    /// The argument that is all of it.
    pub(super) fn alone(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [Piece::Argument(name)] => Some(name),
            _ => None,
        }
    }

    /// The text with the arguments of a call, each as `encode` writes it; nothing where an argument is absent
    /// that is all of the text.
    pub(super) fn render(
        &self,
        arguments: &Arguments,
        encode: fn(&str) -> Cow<'_, str>,
    ) -> Result<Option<String>, Mistake> {
        if let Some(name) = self.alone() {
            return Ok(scalar(arguments, name)?.map(|text| encode(&text).into_owned()));
        }
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Literal(literal) => text.push_str(literal),
                Piece::Argument(name) => {
                    text.push_str(&encode(&scalar(arguments, name)?.unwrap_or_default()));
                }
            }
        }
        Ok(Some(text))
    }
}

/// An argument as text: only what has one text.
fn scalar<'a>(arguments: &'a Arguments, name: &str) -> Result<Option<Cow<'a, str>>, Mistake> {
    match arguments.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.into())),
        Some(Value::Number(number)) => Ok(Some(number.to_string().into())),
        Some(Value::Bool(value)) => Ok(Some(value.to_string().into())),
        Some(Value::Array(_) | Value::Object(_)) => {
            Err(mistake(name, "must be text, a number or a boolean here"))
        }
    }
}

/// What is wrong with an argument.
pub(super) fn mistake(name: &str, problem: &str) -> Mistake {
    Mistake { pointer: format!("/{name}"), problem: problem.to_owned() }
}

/// Leaves a text as it is.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    text.into()
}

/// Percent-encodes everything but the unreserved characters (RFC 3986 section 2.3): no argument ends a
/// segment of a path or a field of a query.
pub(super) fn percent(text: &str) -> Cow<'_, str> {
    let is_free = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    if text.bytes().all(is_free) {
        return text.into();
    }
    let mut encoded = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        if is_free(byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            write!(encoded, "%{byte:02X}").unwrap_or_default();
        }
    }
    encoded.into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn arguments() -> Arguments {
        let value = json!({ "a": "x y/z", "n": 1.5, "b": true, "none": null, "list": [1] });
        value.as_object().unwrap().clone()
    }

    #[test]
    fn arguments_stand_where_their_names_are() {
        let render =
            |text: &str| Template::parse("f", text).unwrap().render(&arguments(), plain).unwrap();
        assert_eq!(render("n={{n}}, b={{b}}{{a}}"), Some("n=1.5, b=truex y/z".to_owned()));
        assert_eq!(render("none: {{none}}{{missing}}."), Some("none: .".to_owned()));
        assert_eq!(render("{{missing}}"), None);
        assert_eq!(render("{a} }} {"), Some("{a} }} {".to_owned()));
        assert_eq!(render(""), Some(String::new()));
        // What an argument says is never looked at again.
        let nested = json!({ "a": "{{b}}", "b": "c" }).as_object().unwrap().clone();
        let template = Template::parse("f", "{{a}}!").unwrap();
        assert_eq!(template.render(&nested, plain).unwrap(), Some("{{b}}!".to_owned()));
    }

    #[test]
    fn what_has_no_one_text_and_what_is_no_name_are_refused() {
        let list = Template::parse("f", "{{list}}").unwrap();
        assert_eq!(list.render(&arguments(), plain).unwrap_err().pointer, "/list");
        for text in ["{{", "{{a", "{{}}", "{{ a }}", "{{a/b}}", "{{{a}}}", "{{ä}}"] {
            assert!(Template::parse("f", text).is_err(), "{text}");
        }
        assert!(Template::parse("f", &format!("{{{{{}}}}}", "x".repeat(65))).is_err());
    }

    #[test]
    fn nothing_that_means_something_in_a_url_stays_as_it_is() {
        assert_eq!(percent("aZ09-._~"), "aZ09-._~");
        assert_eq!(
            percent("a/../?&=#%\\ é\r\n@:"),
            "a%2F..%2F%3F%26%3D%23%25%5C%20%C3%A9%0D%0A%40%3A"
        );
    }
}
