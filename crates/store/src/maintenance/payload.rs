//! Ids in values of columns and inside JSON, found by the names of what holds them.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// How ids stand in a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The value is the id, or a room.
    Word,
    /// The value is JSON of ours, with ids in it.
    Structure,
}

/// Columns that hold what people, models and tools wrote: an id in there is theirs.
const FREE_COLUMNS: &[&str] = &[
    "content",
    "description",
    "input",
    "message",
    "name",
    "path",
    "prompt",
    "reason",
    "text",
    "title",
];

/// How the ids of users and projects begin.
const ID_PREFIXES: &[&str] = &["usr_", "prj_"];

/// Keys of JSON under which stands whatever tools and people put there.
const FREE_KEYS: &[&str] = &["details", "input", "metadata", "output", "settings"];

impl Kind {
    /// What a text column holds by its name; `None` for free text.
    pub(super) fn of_column(name: &str) -> Option<Self> {
        let is_word = matches!(name, "room" | "by" | "user" | "owner");
        if is_word || name.ends_with("_id") || name.ends_with("_by") {
            return Some(Self::Word);
        }
        (!FREE_COLUMNS.contains(&name)).then_some(Self::Structure)
    }
}

/// Whether the text under a key of JSON is an id of somebody.
fn holds_id(key: &str) -> bool {
    key == "by" || key == "room" || key.ends_with("By") || key.ends_with("Id")
}

/// Whether the list under a key of JSON is one of ids.
fn holds_ids(key: &str) -> bool {
    key.ends_with("Ids") || key == "users" || key == "rooms" || key == "members"
}

/// Words, each with the one in its place.
#[derive(Debug)]
pub(super) struct Words {
    words: BTreeMap<String, String>,
}

impl Words {
    pub(super) fn new(words: BTreeMap<String, String>) -> Self {
        Self { words }
    }

    /// The word in place of `word`, if there is one.
    pub(super) fn word(&self, word: &str) -> Option<&str> {
        self.words.get(word).map(String::as_str)
    }

    /// The JSON with the other words, if any of its ids has one. Everything else stays byte by byte.
    pub(super) fn json(&self, text: &str) -> Option<String> {
        // Most values are done after this.
        let may_hold = ID_PREFIXES.iter().any(|prefix| text.contains(prefix));
        if !may_hold || !self.words.keys().any(|word| text.contains(word.as_str())) {
            return None;
        }
        self.value(text, "")
    }

    /// `key` is what the value stands under; empty at the top.
    fn value(&self, text: &str, key: &str) -> Option<String> {
        match text.as_bytes().first()? {
            b'{' => self.object(text),
            b'[' => self.array(text, key),
            b'"' if holds_id(key) || holds_ids(key) => {
                let word: String = serde_json::from_str(text).ok()?;
                self.word(&word).and_then(|word| serde_json::to_string(word).ok())
            }
            _ => None,
        }
    }

    fn object(&self, text: &str) -> Option<String> {
        let Pairs(pairs) = serde_json::from_str(text).ok()?;
        let mut is_changed = false;
        let mut members = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            let is_free = FREE_KEYS.contains(&key.as_str());
            let changed = if is_free { None } else { self.value(value.get(), &key) };
            is_changed |= changed.is_some();
            let key = serde_json::to_string(&key).ok()?;
            members.push(format!("{key}:{}", changed.as_deref().unwrap_or(value.get())));
        }
        is_changed.then(|| format!("{{{}}}", members.join(",")))
    }

    fn array(&self, text: &str, key: &str) -> Option<String> {
        let values: Vec<&RawValue> = serde_json::from_str(text).ok()?;
        let mut is_changed = false;
        let mut elements = Vec::with_capacity(values.len());
        for value in values {
            let changed = self.value(value.get(), key);
            is_changed |= changed.is_some();
            elements.push(changed.unwrap_or_else(|| value.get().to_owned()));
        }
        is_changed.then(|| format!("[{}]", elements.join(",")))
    }
}

/// The members of an object in their order, values as they are written.
struct Pairs<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(pairs)
            }
        }
        deserializer.deserialize_map(Members).map(Pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> Words {
        Words::new(BTreeMap::from([
            ("usr_1".to_owned(), "usr_9".to_owned()),
            ("prj_1".to_owned(), "prj_9".to_owned()),
            ("project:prj_1".to_owned(), "project:prj_9".to_owned()),
        ]))
    }

    #[test]
    fn ids_are_found_by_the_key_that_holds_them() {
        for (before, after) in [
            (r#"{"by":"usr_1"}"#, r#"{"by":"usr_9"}"#),
            (r#"{ "x" : 1e3, "createdBy" : "usr_1" }"#, r#"{"x":1e3,"createdBy":"usr_9"}"#),
            (r#"{"room":"project:prj_1"}"#, r#"{"room":"project:prj_9"}"#),
            (r#"{"member":{"userId":"usr_1"}}"#, r#"{"member":{"userId":"usr_9"}}"#),
            (r#"[{"projectId":"prj_1"},2]"#, r#"[{"projectId":"prj_9"},2]"#),
            (r#"{"userIds":["usr_1","usr_2"]}"#, r#"{"userIds":["usr_9","usr_2"]}"#),
        ] {
            assert_eq!(words().json(before).as_deref(), Some(after), "{before}");
        }
    }

    #[test]
    fn what_was_written_by_people_and_tools_is_left_alone() {
        for json in [
            r#"{"text":"usr_1"}"#,
            r#"{"title":"usr_1","name":"prj_1"}"#,
            r#"{"input":{"userId":"usr_1"},"output":{"by":"usr_1"}}"#,
            r#"{"by":"usr_11"}"#,
            r#"{"text":"{\"by\":\"usr_1\"}"}"#,
            r#"{"by":"usr_1""#,
            "usr_1",
            "",
        ] {
            assert_eq!(words().json(json), None, "{json}");
        }
        assert_eq!(words().word("usr_1"), Some("usr_9"));
        assert_eq!(words().word("about usr_1"), None);
        assert_eq!(Kind::of_column("title"), None);
        assert_eq!(Kind::of_column("started_by"), Some(Kind::Word));
        assert_eq!(Kind::of_column("payload"), Some(Kind::Structure));
    }
}
