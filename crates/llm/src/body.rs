//! Writes JSON bodies in which foreign JSON stands as it came, byte for byte.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::{RawValue, to_raw_value};

/// An object, written field by field in the order in which they are set.
#[derive(Debug, Default)]
pub(crate) struct Object(Vec<(&'static str, Box<RawValue>)>);

impl Object {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Sets a field. What cannot be JSON, which nothing of ours is, is left out.
    pub(crate) fn with(mut self, key: &'static str, value: impl Serialize) -> Self {
        if let Ok(value) = to_raw_value(&value) {
            self.0.push((key, value));
        }
        self
    }

    /// Sets a field if there is a value for it.
    pub(crate) fn with_some(self, key: &'static str, value: Option<impl Serialize>) -> Self {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }

    /// The JSON text of it.
    pub(crate) fn into_text(self) -> String {
        self.raw().get().to_owned()
    }

    /// The same as a value that can stand in a list beside foreign ones.
    pub(crate) fn raw(&self) -> Box<RawValue> {
        // Everything in it is JSON already.
        to_raw_value(self).unwrap_or_else(|_| RawValue::NULL.to_owned())
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// A text that is JSON, to stand in a body as it is; none when it is no JSON.
pub(crate) fn foreign(json: &str) -> Option<Box<RawValue>> {
    RawValue::from_string(json.to_owned()).ok()
}

/// The fields of a foreign object, each as it came.
pub(crate) struct RawFields(Vec<(String, Box<RawValue>)>);

impl RawFields {
    /// The object `json` with the field `key` set to the JSON text `value`, the rest of it as it came. The
    /// same object again when either is no JSON.
    pub(crate) fn with(json: &str, key: &str, value: &str) -> String {
        let (Ok(Self(mut fields)), Some(value)) = (serde_json::from_str(json), foreign(value))
        else {
            return json.to_owned();
        };
        match fields.iter_mut().find(|(name, _)| name == key) {
            Some((_, field)) => *field = value,
            None => fields.push((key.to_owned(), value)),
        }
        let written = fields.iter().filter_map(|(name, value)| {
            let name = serde_json::to_string(name).ok()?;
            Some(format!("{name}:{}", value.get()))
        });
        format!("{{{}}}", written.collect::<Vec<_>>().join(","))
    }
}

impl<'de> Deserialize<'de> for RawFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = RawFields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawFields, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(RawFields(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_json_is_written_as_it_came() {
        // Parsed and written again, the numbers, the escapes and the spaces would be others.
        let odd = r#"{"b": 1.50, "a":1e2 ,"s":"\u00e9\/"}"#;
        let inner = Object::new().with("own", "é").with_some("none", None::<u8>);
        let list = [inner.raw(), foreign(odd).unwrap()];
        let body = Object::new().with("list", list).into_text();

        assert_eq!(body, format!(r#"{{"list":[{{"own":"é"}},{odd}]}}"#));
        assert!(foreign("{").is_none());
    }

    #[test]
    fn one_field_is_set_and_the_others_stay_as_they_came() {
        let block = r#"{"n": 1.50, "input": {} ,"s":"\u00e9"}"#;
        let expected = r#"{"n":1.50,"input":{"q": 1},"s":"\u00e9"}"#;
        assert_eq!(RawFields::with(block, "input", r#"{"q": 1}"#), expected);
        assert_eq!(RawFields::with(block, "input", r#"{"q": "#), block);
        assert_eq!(RawFields::with("{}", "input", "[]"), r#"{"input":[]}"#);
    }
}
