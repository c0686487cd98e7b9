//! What may be the JSON Schema of a tool's arguments.

use iris_protocol::limits::TOOL_SCHEMA_BYTES_MAX;
use serde_json::Value;

use super::{InvalidDefinition, invalid};
use crate::validation::{INPUT_DEPTH_MAX, is_shallow};

/// How many values a schema may have once every reference is written out: each may be looked at for each
/// value of a call.
const UNFOLDED_MAX: usize = 10_000;
/// Keywords that say where a schema is, or that point elsewhere in ways that this module does not follow.
const REFUSED: [&str; 6] =
    ["$id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor"];

/// Refuses what is no schema of an object, is too large, or refers to something outside of itself: nothing is
/// ever fetched for a schema. `what` is the field that holds it, for errors.
///
/// # Errors
/// [`InvalidDefinition`].
pub fn check_schema(what: &str, schema: &Value) -> Result<(), InvalidDefinition> {
    let refused = |problem: String| Err(invalid(format!("`{what}` {problem}")));
    if schema.to_string().len() > TOOL_SCHEMA_BYTES_MAX {
        return refused(format!("has more than {TOOL_SCHEMA_BYTES_MAX} bytes"));
    }
    if !is_shallow(schema) {
        return refused(format!("nests deeper than {INPUT_DEPTH_MAX}"));
    }
    if schema.get("type").and_then(Value::as_str) != Some("object") {
        return refused("must be a JSON Schema with `\"type\": \"object\"`".to_owned());
    }
    if !schema.get("properties").is_none_or(Value::is_object) {
        return Err(invalid(format!("`{what}.properties` must be an object")));
    }
    let mut unfolding = Unfolding { what, root: schema, left: UNFOLDED_MAX };
    unfolding.unfold(schema, 0)?;
    match jsonschema::validator_for(schema) {
        Ok(_) => Ok(()),
        Err(error) => refused(format!("is no JSON Schema: {error}")),
    }
}

/// A walk through a schema as validation may do it, following references, until it was walked through or is
/// too much.
struct Unfolding<'a> {
    what: &'a str,
    root: &'a Value,
    /// Values that it may still have.
    left: usize,
}

impl Unfolding<'_> {
    fn refused(&self, problem: &str) -> InvalidDefinition {
        invalid(format!("`{}` {problem}", self.what))
    }

    fn unfold(&mut self, value: &Value, depth: usize) -> Result<(), InvalidDefinition> {
        if depth > INPUT_DEPTH_MAX {
            return Err(self.refused("has references that lead in a circle, or too deep"));
        }
        self.left = self.left.checked_sub(1).ok_or_else(|| {
            self.refused(&format!("has more than {UNFOLDED_MAX} parts once it is written out"))
        })?;
        match value {
            Value::Object(fields) => {
                for (name, field) in fields {
                    if REFUSED.contains(&name.as_str()) {
                        return Err(self.refused(&format!("must not use `{name}`")));
                    }
                    match (name.as_str(), field) {
                        ("$ref", Value::String(reference)) => {
                            let referred = self.referred(reference)?;
                            self.unfold(referred, depth + 1)?;
                        }
                        _ => self.unfold(field, depth + 1)?,
                    }
                }
                Ok(())
            }
            Value::Array(items) => items.iter().try_for_each(|item| self.unfold(item, depth + 1)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
        }
    }
}

impl<'a> Unfolding<'a> {
    fn referred(&self, reference: &str) -> Result<&'a Value, InvalidDefinition> {
        let pointer = reference
            .strip_prefix('#')
            .ok_or_else(|| self.refused("has a `$ref` to another document: nothing is fetched"))?;
        let referred = self.root.pointer(pointer);
        referred.ok_or_else(|| self.refused("has a `$ref` that leads nowhere"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refusal(schema: &Value) -> String {
        check_schema("parameters", schema).unwrap_err().to_string()
    }

    fn property(value: &Value) -> Value {
        json!({ "type": "object", "properties": { "a": value } })
    }

    #[test]
    fn schemas_of_objects_are_taken() {
        for schema in [
            json!({ "type": "object" }),
            property(&json!({ "type": "string", "pattern": "^a+$" })),
            json!({ "type": "object", "properties": { "a": { "$ref": "#/$defs/x" } },
                    "required": ["a"], "$defs": { "x": { "enum": [1, "b"] } } }),
        ] {
            check_schema("parameters", &schema).unwrap();
        }
    }

    #[test]
    fn what_is_no_schema_of_an_object_is_refused() {
        for schema in [json!(true), json!([]), json!({}), json!({ "type": "array" })] {
            assert!(refusal(&schema).contains("\"type\": \"object\""), "{schema}");
        }
        assert!(refusal(&property(&json!({ "type": "nothing" }))).contains("no JSON Schema"));
        assert!(refusal(&property(&json!({ "pattern": "(" }))).contains("no JSON Schema"));
        assert!(refusal(&json!({ "type": "object", "properties": [] })).contains("properties"));
        let long = property(&json!({ "description": "x".repeat(TOOL_SCHEMA_BYTES_MAX) }));
        assert!(refusal(&long).contains("more than 32768 bytes"));
        let deep = (0..INPUT_DEPTH_MAX).fold(json!({}), |inner, _| json!({ "not": inner }));
        assert!(refusal(&property(&deep)).contains("nests deeper"));
    }

    #[test]
    fn references_stay_inside_and_cost_little() {
        for reference in ["http://127.0.0.1:1/", "file:///etc/passwd", "other.json", "//a.example/"]
        {
            let schema = property(&json!({ "$ref": reference }));
            assert!(refusal(&schema).contains("nothing is fetched"), "{reference}");
        }
        assert!(refusal(&property(&json!({ "$ref": "#/nowhere" }))).contains("leads nowhere"));
        assert!(refusal(&property(&json!({ "$ref": "#" }))).contains("circle"));
        assert!(refusal(&json!({ "type": "object", "$id": "http://a.example" })).contains("$id"));
        // Each definition holds the next one twice.
        let mut definitions = serde_json::Map::new();
        for n in 0..14 {
            let next = json!({ "$ref": format!("#/$defs/d{}", n + 1) });
            definitions.insert(format!("d{n}"), json!({ "allOf": [next, next] }));
        }
        definitions.insert("d14".to_owned(), json!({}));
        let bomb = json!({ "type": "object", "properties": { "a": { "$ref": "#/$defs/d0" } },
                           "$defs": definitions });
        let refused = refusal(&bomb);
        assert!(refused.contains("written out") || refused.contains("too deep"), "{refused}");
    }
}
