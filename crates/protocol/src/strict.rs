//! JSON in which no object names a field twice. Readers differ in which of the two they take, so what one
//! of them checked another one might not use (RFC 8259 section 4).

use std::fmt;

use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserializer, de};
use serde_json::{Map, Number, Value};

/// Reads a JSON text whole.
///
/// # Errors
/// When it is no JSON, has something behind it, is nested more than 128 deep, or names a field twice; the
/// error has line and column.
pub fn from_slice_strict(text: &[u8]) -> serde_json::Result<Value> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = Strict.deserialize(&mut reader)?;
    reader.end()?;
    Ok(value)
}

struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Self)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = fields.next_key::<String>()? {
            let value = fields.next_value_seed(Self)?;
            if object.contains_key(&name) {
                let shown: String = name.chars().take(64).collect();
                return Err(de::Error::custom(format_args!("the field `{shown}` stands twice")));
            }
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_field_that_stands_twice_is_refused_wherever_it_is() {
        for text in [r#"{"a":1,"a":1}"#, r#"{"b":[{"a":1,"\u0061":2}]}"#, r#"[{"":0,"":0}]"#] {
            let error = from_slice_strict(text.as_bytes()).unwrap_err();
            assert!(error.to_string().contains("stands twice"), "{error}");
        }
        let good = r#"{"a":{"a":1},"b":[{"a":2},{"a":3}]}"#;
        assert_eq!(
            from_slice_strict(good.as_bytes()).unwrap(),
            json!({ "a": { "a": 1 }, "b": [{ "a": 2 }, { "a": 3 }] })
        );
    }

    #[test]
    fn what_is_no_json_or_too_deep_is_refused() {
        let deep = "[".repeat(10_000);
        for text in ["", "{", "[1]x", "{} {}", "NaN", "1e400", "\u{feff}{}", deep.as_str()] {
            assert!(from_slice_strict(text.as_bytes()).is_err(), "{text:.20}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_as_by_everybody_else_or_refused(text in ".{0,80}") {
            if let Ok(strict) = from_slice_strict(text.as_bytes()) {
                prop_assert_eq!(strict, serde_json::from_slice::<Value>(text.as_bytes()).unwrap());
            }
        }

        #[test]
        fn numbers_are_read_as_by_everybody_else(number in any::<f64>(), whole in any::<i64>()) {
            for text in [format!("{number}"), format!("{number:e}"), whole.to_string()] {
                let theirs = serde_json::from_slice::<Value>(text.as_bytes()).ok();
                prop_assert_eq!(from_slice_strict(text.as_bytes()).ok(), theirs);
            }
        }
    }
}
