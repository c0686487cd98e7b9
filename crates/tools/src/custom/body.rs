//! JSON bodies of which texts hold arguments of a call.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::template::{Arguments, Template, plain};
use super::{InvalidDefinition, invalid};
use crate::error::Mistake;

/// The arguments in the texts of a body. Names of fields are literal.
pub(super) fn names_in(
    body: &Value,
    names: &mut BTreeSet<String>,
) -> Result<(), InvalidDefinition> {
    match body {
        Value::String(text) => {
            names.extend(Template::parse("http.body", text)?.names().map(str::to_owned));
            Ok(())
        }
        Value::Array(items) => items.iter().try_for_each(|item| names_in(item, names)),
        Value::Object(fields) => {
            if fields.keys().any(|name| name.contains("{{")) {
                return Err(invalid("`http.body` must have the names of its fields literally"));
            }
            fields.values().try_for_each(|field| names_in(field, names))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

/// A body with the arguments of a call; nothing for a text that is an argument that the call has not.
pub(super) fn filled(body: &Value, arguments: &Arguments) -> Result<Option<Value>, Mistake> {
    match body {
        Value::String(text) => {
            // It was parsed when the tool was made.
            let Ok(template) = Template::parse("http.body", text) else { return Ok(None) };
            match template.alone() {
                Some(name) => Ok(arguments.get(name).cloned()),
                None => Ok(template.render(arguments, plain)?.map(Value::String)),
            }
        }
        Value::Array(items) => {
            let mut filled_items = Vec::with_capacity(items.len());
            for item in items {
                filled_items.extend(filled(item, arguments)?);
            }
            Ok(Some(Value::Array(filled_items)))
        }
        Value::Object(fields) => {
            let mut filled_fields = Map::new();
            for (name, field) in fields {
                if let Some(value) = filled(field, arguments)? {
                    filled_fields.insert(name.clone(), value);
                }
            }
            Ok(Some(Value::Object(filled_fields)))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(Some(body.clone())),
    }
}
