//! JSON of providers, read leniently: whatever is asked for and is not there, or is something else, is
//! absent.
//!
//! Strings and keys are borrowed from the text where it has no escapes. Streams are many small values
//! of which little is looked at, and a tree that owns them would cost more than everything else.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Json<'a> {
    Null,
    Bool(bool),
    Number(Number),
    Text(Cow<'a, str>),
    List(Vec<Json<'a>>),
    Object(Vec<(Key<'a>, Json<'a>)>),
}

/// The name of a field.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Key<'a>(Cow<'a, str>);

static NULL: Json<'static> = Json::Null;

impl<'a> Json<'a> {
    /// Reads a text; none when it is no JSON.
    pub(crate) fn read(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// A field of an object, the last of that name; null for any other value.
    pub(crate) fn get(&self, key: &str) -> &Self {
        if let Self::Object(fields) = self
            && let Some((_, value)) = fields.iter().rev().find(|(name, _)| name.0 == key)
        {
            return value;
        }
        &NULL
    }

    /// A field of a field and so on.
    pub(crate) fn at(&self, path: &[&str]) -> &Self {
        path.iter().fold(self, |value, key| value.get(key))
    }

    pub(crate) fn is_null(&self) -> bool {
        *self == Self::Null
    }

    /// A string; empty for any other value.
    pub(crate) fn text(&self) -> &str {
        self.as_text().unwrap_or_default()
    }

    pub(crate) fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    pub(crate) fn is_true(&self) -> bool {
        *self == Self::Bool(true)
    }

    /// Whether an object has a field with something in it, besides the one of that name.
    pub(crate) fn has_more_than(&self, name: &str) -> bool {
        let Self::Object(fields) = self else { return false };
        fields.iter().any(|(key, value)| {
            let is_empty = match value {
                Self::Null => true,
                Self::Text(text) => text.is_empty(),
                Self::List(values) => values.is_empty(),
                Self::Object(fields) => fields.is_empty(),
                Self::Bool(_) | Self::Number(_) => false,
            };
            !is_empty && key.0 != name
        })
    }

    /// The elements of a list; none for any other value.
    pub(crate) fn list(&self) -> &[Self] {
        if let Self::List(values) = self { values } else { &[] }
    }

    /// A number that counts something.
    pub(crate) fn count(&self) -> Option<u64> {
        if let Self::Number(number) = self { number.as_u64() } else { None }
    }

    /// A count of tokens; a number that is none counts as 0.
    pub(crate) fn tokens(&self) -> Option<u64> {
        if let Self::Number(number) = self { Some(number.as_u64().unwrap_or(0)) } else { None }
    }

    /// The same without borrowing.
    pub(crate) fn to_value(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(*value),
            Self::Number(number) => Value::Number(number.clone()),
            Self::Text(text) => Value::String(text.clone().into_owned()),
            Self::List(values) => values.iter().map(Self::to_value).collect(),
            Self::Object(fields) => {
                let fields =
                    fields.iter().map(|(key, value)| (key.0.to_string(), value.to_value()));
                Value::Object(fields.collect::<Map<_, _>>())
            }
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Json<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Key<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Json::Text(text) = Json::deserialize(deserializer)? else {
            return Err(serde::de::Error::custom("a key that is no text"));
        };
        Ok(Self(text))
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Number::from_f64(value).map_or(Json::Null, Json::Number))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(Json::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Json::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Json::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element()? {
            values.push(value);
        }
        Ok(Json::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::with_capacity(8);
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Json::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_there_or_is_something_else_is_absent() {
        let json = Json::read(r#"{"a":{"b":"\n"},"n":-3,"f":1.5,"l":[1],"a2":1,"a2":2}"#).unwrap();
        assert_eq!(json.at(&["a", "b"]).text(), "\n");
        assert_eq!(json.at(&["a", "b", "c"]), &Json::Null);
        assert_eq!((json.get("n").count(), json.get("n").tokens()), (None, Some(0)));
        assert_eq!((json.get("l").text(), json.get("l").list().len()), ("", 1));
        assert_eq!(json.get("a2").count(), Some(2));
        assert!(Json::read("{").is_none() && Json::read("{} {}").is_none());
    }

    proptest! {
        #[test]
        fn it_reads_what_serde_json_reads(text in r#"[\[\]{},:"a0-9\\ue.tru]{0,40}"#) {
            let expected = serde_json::from_str::<Value>(&text).ok();
            prop_assert_eq!(Json::read(&text).map(|json| json.to_value()), expected);
        }
    }

    #[test]
    fn it_becomes_the_value_that_serde_json_reads() {
        let value = json!({"z": [1, -2, 1.5, "é\u{1}\"", null, true, {}], "a": {"b": []}});
        let text = value.to_string();
        assert_eq!(Json::read(&text).unwrap().to_value().to_string(), text);
    }
}
