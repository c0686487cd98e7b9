//! Examples, made from the schemas that they are examples of: each is valid, and says what its fields are
//! called to say.

use serde_json::{Map, Value, json};

/// How many objects and lists an example goes into each other at most; below, only what has to be there is.
const DEPTH_MAX: usize = 6;
/// How deep it can go at most: schemas may lead back to themselves.
const DEPTH_END: usize = 12;

/// What stands where a field of that name is a text.
const TEXTS: &[(&str, &str)] = &[
    ("accessToken", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1c3IifQ.c2lnbmF0dXJl"),
    ("agent", "default"),
    ("avatarUrl", "https://example.com/ann.png"),
    ("baseUrl", "https://models.example"),
    ("content", "Write the plan of the release."),
    ("cursor", "ses_0192f3a45b6c7d8e9f00112233445566"),
    ("data", "YQo="),
    ("description", "What it is for."),
    ("email", "ann@example.com"),
    ("epoch", "5f2a9c"),
    ("hash", "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"),
    ("message", "What happened, for people."),
    ("mimeType", "text/plain"),
    ("modelId", "small-1"),
    ("name", "release"),
    ("newString", "shipped"),
    ("oldString", "planned"),
    ("password", "a long enough password"),
    ("newPassword", "another long password"),
    ("path", "notes/plan.md"),
    ("pattern", "notes/**"),
    ("permission", "edit"),
    ("prompt", "You plan releases."),
    ("provider", "example"),
    ("providerId", "local"),
    ("query", "release"),
    ("reason", "Not now."),
    ("request", "{\"model\":\"small-1\",\"stream\":true}"),
    ("response", "data: {\"type\":\"message_start\"}\n\n"),
    ("text", "The release is planned for Friday."),
    ("title", "Plan the release"),
    ("toolName", "write"),
    ("type", "text"),
    ("url", "https://example.com/"),
    ("username", "ann"),
    ("version", "1.0.0"),
];

/// Fields that may be left out, and are where the other one is there: they exclude each other.
const INSTEAD: &[(&str, &str)] = &[("expiresAt", "minutes"), ("email", "userId")];

/// An example of what a schema describes. `name` is what it is called where it stands.
pub(super) fn example(schema: &Value, definitions: &Map<String, Value>, name: &str) -> Value {
    Maker { definitions }.make(schema, name, 0)
}

struct Maker<'a> {
    definitions: &'a Map<String, Value>,
}

impl Maker<'_> {
    fn make(&self, schema: &Value, name: &str, depth: usize) -> Value {
        let schema = self.flat(schema, depth);
        if let Some(value) = schema.get("const") {
            return value.clone();
        }
        if let Some(first) = schema.get("enum").and_then(|list| list.get(0)) {
            return first.clone();
        }
        match kind(&schema, name) {
            "object" => self.object(&schema, depth),
            "array" => self.array(&schema, name, depth),
            "string" => Value::String(text(&schema, name)),
            "integer" => Value::from(integer(&schema, name)),
            "number" => json!(0.5),
            "boolean" => Value::Bool(false),
            "null" => Value::Null,
            // Anything may stand here.
            _ => json!({}),
        }
    }

    /// The schema with what it refers to, and with the first of its alternatives, in one.
    fn flat(&self, schema: &Value, depth: usize) -> Map<String, Value> {
        let Some(object) = schema.as_object() else { return Map::new() };
        let mut flat = object.clone();
        if depth > DEPTH_END {
            return flat;
        }
        if let Some(Value::String(reference)) = flat.remove("$ref") {
            let name = reference.rsplit('/').next().unwrap_or_default();
            if let Some(found) = self.definitions.get(name) {
                merge(&mut flat, self.flat(found, depth + 1));
            }
        }
        for key in ["oneOf", "anyOf"] {
            if let Some(Value::Array(list)) = flat.remove(key) {
                let first = list.iter().find(|one| one.get("type") != Some(&json!("null")));
                if let Some(first) = first {
                    merge(&mut flat, self.flat(first, depth + 1));
                }
            }
        }
        if let Some(Value::Array(all)) = flat.remove("allOf") {
            for one in &all {
                merge(&mut flat, self.flat(one, depth + 1));
            }
        }
        flat
    }

    fn object(&self, schema: &Map<String, Value>, depth: usize) -> Value {
        let required = schema.get("required").and_then(Value::as_array);
        let is_required = |name: &str| required.is_some_and(|all| all.iter().any(|it| it == name));
        let properties = schema.get("properties").and_then(Value::as_object);
        let mut made = Map::new();
        for (name, property) in properties.into_iter().flatten() {
            // Nobody has made a mistake, and what goes deep goes on without what may be left out.
            let is_wanted = depth < DEPTH_MAX && name != "error" && name != "warnings";
            let has = |other: &str| properties.is_some_and(|all| all.contains_key(other));
            let is_other = INSTEAD.iter().any(|(this, other)| *this == name.as_str() && has(other));
            if is_required(name) || (is_wanted && !is_other) {
                made.insert(name.clone(), self.make(property, name, depth + 1));
            }
        }
        Value::Object(made)
    }

    fn array(&self, schema: &Map<String, Value>, name: &str, depth: usize) -> Value {
        let least = schema.get("minItems").and_then(Value::as_u64).unwrap_or(0);
        let least = usize::try_from(least).unwrap_or(0);
        if let Some(Value::Array(items)) = schema.get("prefixItems") {
            return items.iter().map(|item| self.make(item, name, depth + 1)).collect();
        }
        let count = if depth < DEPTH_MAX { least.max(1) } else { least };
        let Some(items) = schema.get("items") else { return json!([]) };
        let singular = name.strip_suffix('s').unwrap_or(name);
        (0..count).map(|_| self.make(items, singular, depth + 1)).collect()
    }
}

/// Brings what `other` says into a schema that does not say it.
fn merge(schema: &mut Map<String, Value>, other: Map<String, Value>) {
    for (key, value) in other {
        match (schema.get_mut(&key), value) {
            (Some(Value::Object(known)), Value::Object(more)) if key == "properties" => {
                for (name, property) in more {
                    known.entry(name).or_insert(property);
                }
            }
            (Some(Value::Array(known)), Value::Array(more)) if key == "required" => {
                known.extend(more);
            }
            (Some(_), _) => {}
            (None, value) => {
                schema.insert(key, value);
            }
        }
    }
}

/// Which of the types it may have the example has.
fn kind<'a>(schema: &'a Map<String, Value>, name: &str) -> &'a str {
    match schema.get("type") {
        Some(Value::String(kind)) => kind,
        Some(Value::Array(kinds)) => {
            let mut kinds = kinds.iter().filter_map(Value::as_str);
            // The page of an example is the last one.
            if name == "nextCursor" && kinds.clone().any(|kind| kind == "null") {
                return "null";
            }
            kinds.find(|kind| *kind != "null").unwrap_or("null")
        }
        Some(_) | None if schema.contains_key("properties") => "object",
        Some(_) | None => "",
    }
}

fn text(schema: &Map<String, Value>, name: &str) -> String {
    if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
        && let Some(prefix) = pattern.strip_prefix('^').and_then(|rest| rest.split('_').next())
    {
        return format!("{prefix}_0192f3a45b6c7d8e9f00112233445566");
    }
    if schema.get("format").and_then(Value::as_str) == Some("uri") {
        return "https://example.com/".to_owned();
    }
    let known = TEXTS.iter().find(|(known, _)| *known == name).map(|(_, text)| *text);
    let mut text = known.unwrap_or("text").to_owned();
    let most = schema.get("maxLength").and_then(Value::as_u64).unwrap_or(u64::MAX);
    let least = schema.get("minLength").and_then(Value::as_u64).unwrap_or(0);
    text.truncate(usize::try_from(most).unwrap_or(usize::MAX));
    while u64::try_from(text.len()).is_ok_and(|length| length < least) {
        text.push('x');
    }
    text
}

fn integer(schema: &Map<String, Value>, name: &str) -> i64 {
    let wanted = match name {
        "at" | "since" | "until" | "from" | "to" | "sunset" => 1_767_225_600_000,
        _ if name.ends_with("At") => 1_767_225_600_000,
        _ if name.ends_with("Ms") => 1_000,
        "limit" => 50,
        _ => 1,
    };
    let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
    let of_format = match schema.get("format").and_then(Value::as_str) {
        Some("uint8") => Some(255),
        Some("uint16" | "int16") => Some(32_767),
        Some("uint32" | "int32") => Some(i64::from(i32::MAX)),
        Some(_) | None => None,
    };
    #[expect(clippy::cast_possible_truncation, reason = "bounds of schemas are whole numbers")]
    let (least, most) = (bound("minimum").map(|n| n as i64), bound("maximum").map(|n| n as i64));
    let most = most.into_iter().chain(of_format).min().unwrap_or(i64::MAX);
    wanted.min(most).max(least.unwrap_or(i64::MIN))
}
