//! The sources of the configuration, merged key by key. Values stay text here; `parse` types them.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::path::Path;

use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::parse::{self, Parsed};
use super::reference::{self, Key, OAUTH, PROVIDERS, TOP};
use super::{ConfigError, Flags};

/// Begins the name of each environment variable of ours.
pub(super) const ENV_PREFIX: &str = "IRIS_";

/// The table of providers of models.
const TABLE_OF_PROVIDERS: &str = "providers";
/// The table of providers of logins.
const TABLE_OF_OAUTH: &str = "oauth";

/// One value and where it was set. Has no `Debug`: the value may be a secret.
pub(super) struct Setting {
    /// The key in backticks as the operator wrote it, and the file it is in.
    name: String,
    content: Content,
}

#[derive(Hash)]
enum Content {
    /// A single value of the file.
    Single(String),
    /// An array of the file.
    Array(Vec<String>),
    /// A variable or flag: one value, or a list separated by commas.
    Flat(String),
}

impl Setting {
    /// Gives a single value its type.
    pub(super) fn parse<T>(self, parse: impl FnOnce(&str) -> Parsed<T>) -> Result<T, ConfigError> {
        let parsed = match &self.content {
            Content::Single(text) | Content::Flat(text) => parse(text),
            Content::Array(_) => Err("expected one value, not an array".to_owned()),
        };
        parsed.map_err(|problem| ConfigError::BadValue { name: self.name, problem })
    }

    /// Gives each element of a list its type. An empty variable is an empty list.
    fn parse_list<T>(self, parse: impl Fn(&str) -> Parsed<T>) -> Result<Vec<T>, ConfigError> {
        let parsed: Parsed<Vec<T>> = match &self.content {
            Content::Array(elements) => elements.iter().map(|element| parse(element)).collect(),
            Content::Flat(text) if text.trim().is_empty() => Ok(Vec::new()),
            Content::Flat(text) => text.split(',').map(|element| parse(element.trim())).collect(),
            Content::Single(_) => Err("expected an array of strings".to_owned()),
        };
        parsed.map_err(|problem| ConfigError::BadValue { name: self.name, problem })
    }
}

/// The settings of one table, by key.
#[derive(Default)]
pub(super) struct Section(BTreeMap<&'static str, Setting>);

impl Section {
    /// Takes out the setting and gives it its type; `None` when no source has it.
    pub(super) fn parse<T>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&str) -> Parsed<T>,
    ) -> Result<Option<T>, ConfigError> {
        self.0.remove(key).map(|setting| setting.parse(parse)).transpose()
    }

    /// As [`Section::parse`] for a secret, which may be in the file that `KEY_file` names.
    pub(super) fn parse_secret<T>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&str) -> Parsed<T>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(file) = self.0.remove(format!("{key}_file").as_str()) else {
            return self.parse(key, parse);
        };
        let name = file.name.clone();
        let bad = |problem: String| ConfigError::BadValue { name: name.clone(), problem };
        if let Some(other) = self.0.remove(key) {
            return Err(bad(format!("{} is set too: one of them is enough", other.name)));
        }
        let path = file.parse(parse::path)?;
        let read = fs::read_to_string(&path);
        let text = read.map_err(|error| bad(format!("the file cannot be read: {error}")))?;
        let text = text.trim_end_matches(['\r', '\n']).to_owned();
        Setting { name, content: Content::Single(text) }.parse(parse).map(Some)
    }

    /// Takes out the setting and gives its elements their type; empty when no source has it.
    pub(super) fn parse_list<T>(
        &mut self,
        key: &str,
        parse: impl Fn(&str) -> Parsed<T>,
    ) -> Result<Vec<T>, ConfigError> {
        self.0.remove(key).map_or(Ok(Vec::new()), |setting| setting.parse_list(parse))
    }

    /// Adds the table of one provider in the file.
    fn add(
        &mut self,
        table: Table,
        keys: &[Key],
        name_of: impl Fn(&str) -> String,
    ) -> Result<(), ConfigError> {
        for (key, value) in table {
            let name = name_of(&key);
            let known = known(keys, &key, &name)?;
            self.0.insert(known, file_setting(name, value)?);
        }
        Ok(())
    }

    /// Whether a source has it and nobody took it out.
    pub(super) fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// The keys that nobody took out.
    pub(super) fn keys_left(&self) -> Vec<&'static str> {
        self.0.keys().copied().collect()
    }
}

/// What all sources say; what is added later wins.
#[derive(Default)]
pub(super) struct Settings {
    pub(super) top: Section,
    /// Of models, by the provider's name.
    pub(super) providers: BTreeMap<String, Section>,
    /// Of logins, by the provider's name.
    pub(super) oauth: BTreeMap<String, Section>,
}

impl Settings {
    /// Adds the TOML `text` of the file at `path`.
    pub(super) fn add_file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        // The parser's own text would quote the line, which may hold a secret.
        let table: Table = toml::from_str(text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            line: line_of(text, error.span()),
            message: error.message().to_owned(),
        })?;
        let lines = lines_of(text);
        let name_of = |key: &str| {
            let line = lines.get(key).map_or_else(String::new, |line| format!(", line {line}"));
            format!("`{key}` in `{}`{line}", path.display())
        };
        for (key, value) in table {
            let name = name_of(&key);
            let of_providers = match key.as_str() {
                TABLE_OF_PROVIDERS => Some((&mut self.providers, PROVIDERS)),
                TABLE_OF_OAUTH => Some((&mut self.oauth, OAUTH)),
                _ => None,
            };
            if let Some((sections, keys)) = of_providers {
                for (provider, value) in table_of(name, value)? {
                    let key = format!("{key}.{provider}");
                    let table = table_of(name_of(&key), value)?;
                    let section = sections.entry(provider).or_default();
                    section.add(table, keys, |field| name_of(&format!("{key}.{field}")))?;
                }
                continue;
            }
            let known = known(TOP, &key, &name)?;
            self.top.0.insert(known, file_setting(name, value)?);
        }
        Ok(())
    }

    /// Adds variables; those that do not begin with [`ENV_PREFIX`] are not ours. Returns a warning
    /// for each one of ours that means nothing.
    pub(super) fn add_environment(&mut self, variables: BTreeMap<String, String>) -> Vec<String> {
        let mut warnings = Vec::new();
        for (variable, value) in variables {
            let Some(path) = variable.strip_prefix(ENV_PREFIX) else { continue };
            let parts: Vec<&str> = path.split("__").collect();
            let name = format!("`{variable}`");
            let slot = match parts.as_slice() {
                [key] => find_upper(TOP, key).map(|known| (&mut self.top, known)),
                ["PROVIDERS", provider, key] => find_upper(PROVIDERS, key).map(|known| {
                    let provider = provider.to_ascii_lowercase();
                    (self.providers.entry(provider).or_default(), known)
                }),
                ["OAUTH", provider, key] => find_upper(OAUTH, key).map(|known| {
                    let provider = provider.to_ascii_lowercase();
                    (self.oauth.entry(provider).or_default(), known)
                }),
                _ => None,
            };
            if let Some((section, known)) = slot {
                section.0.insert(known, Setting { name, content: Content::Flat(value) });
                continue;
            }
            let meant = reference::nearest(path, TOP).map_or_else(String::new, |key| {
                format!("; did you mean `{ENV_PREFIX}{}`?", key.to_ascii_uppercase())
            });
            warnings.push(format!("the environment variable {name} means nothing{meant}"));
        }
        warnings
    }

    /// Adds what stands on the command line, but for the name of the file.
    pub(super) fn add_flags(&mut self, flags: Flags) {
        let Flags { config: _, data_dir, bind, log, log_format } = flags;
        let flags = [
            ("data_dir", "`--data-dir`", data_dir),
            ("bind", "`--bind`", bind),
            ("log", "`--log`", log),
            ("log_format", "`--log-format`", log_format),
        ];
        for (key, name, value) in flags {
            if let Some(value) = value {
                let setting = Setting { name: name.to_owned(), content: Content::Flat(value) };
                self.top.0.insert(key, setting);
            }
        }
    }
}

impl Settings {
    /// What is given, to compare it with what is given later.
    pub(super) fn given(&self) -> Given {
        let of = |prefix: String, section: &Section| {
            let keys = section.0.iter();
            keys.map(|(key, setting)| (format!("{prefix}{key}"), setting.fingerprint()))
                .collect::<Vec<_>>()
        };
        let mut all = of(String::new(), &self.top);
        for (table, sections) in
            [(TABLE_OF_PROVIDERS, &self.providers), (TABLE_OF_OAUTH, &self.oauth)]
        {
            all.extend(sections.iter().flat_map(|(name, it)| of(format!("{table}.{name}."), it)));
        }
        Given(all.into_iter().collect())
    }
}

impl Setting {
    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.content.hash(&mut hasher);
        hasher.finish()
    }
}

/// What the sources say, as far as it takes to see what changed. Shows no value: some are secret.
#[derive(Clone, Default)]
pub struct Given(BTreeMap<String, u64>);

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Given").finish_non_exhaustive()
    }
}

impl Given {
    /// The same, but for `keys`, which are as in `other`.
    #[must_use]
    pub(crate) fn with(&self, other: &Self, keys: &[String]) -> Self {
        let mut all = self.0.clone();
        for key in keys {
            match other.0.get(key) {
                Some(given) => all.insert(key.clone(), *given),
                None => all.remove(key),
            };
        }
        Self(all)
    }

    /// The keys that only one of both has, or that differ, as in `log` and `providers.local.kind`.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut keys: Vec<&String> = self.0.keys().chain(other.0.keys()).collect();
        keys.sort();
        keys.dedup();
        keys.retain(|key| self.0.get(*key) != other.0.get(*key));
        keys.into_iter().cloned().collect()
    }
}

/// The key of that name.
fn known(keys: &[Key], key: &str, name: &str) -> Result<&'static str, ConfigError> {
    let found = keys.iter().find(|known| known.name == key).map(|known| known.name);
    found.ok_or_else(|| ConfigError::UnknownKey {
        name: name.to_owned(),
        meant: reference::nearest(key, keys),
    })
}

/// The key whose upper-case form is `upper`.
fn find_upper(keys: &[Key], upper: &str) -> Option<&'static str> {
    keys.iter().find(|key| key.name.to_ascii_uppercase() == upper).map(|key| key.name)
}

/// In which line each key of a file is, by its path.
fn lines_of(text: &str) -> BTreeMap<String, usize> {
    let mut lines = BTreeMap::new();
    if let Ok(table) = DeTable::parse(text) {
        note_lines(text, "", table.get_ref(), &mut lines);
    }
    lines
}

fn note_lines(text: &str, prefix: &str, table: &DeTable<'_>, lines: &mut BTreeMap<String, usize>) {
    for (key, value) in table {
        let path = format!("{prefix}{}", key.get_ref());
        lines.insert(path.clone(), line_of(text, Some(key.span())));
        if let DeValue::Table(inner) = value.get_ref() {
            note_lines(text, &format!("{path}."), inner, lines);
        }
    }
}

fn table_of(name: String, value: Value) -> Result<Table, ConfigError> {
    match value {
        Value::Table(table) => Ok(table),
        Value::String(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Boolean(_)
        | Value::Datetime(_)
        | Value::Array(_) => Err(bad_value(name, "expected a table")),
    }
}

fn file_setting(name: String, value: Value) -> Result<Setting, ConfigError> {
    let content = match value {
        Value::String(text) => Content::Single(text),
        Value::Integer(number) => Content::Single(number.to_string()),
        Value::Float(number) => Content::Single(number.to_string()),
        Value::Boolean(truth) => Content::Single(truth.to_string()),
        Value::Datetime(time) => Content::Single(time.to_string()),
        Value::Array(elements) => {
            let Some(elements) = elements.into_iter().map(string_of).collect() else {
                return Err(bad_value(name, "expected only strings in the array"));
            };
            Content::Array(elements)
        }
        Value::Table(_) => return Err(bad_value(name, "expected a value, not a table")),
    };
    Ok(Setting { name, content })
}

fn string_of(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Integer(_)
        | Value::Float(_)
        | Value::Boolean(_)
        | Value::Datetime(_)
        | Value::Array(_)
        | Value::Table(_) => None,
    }
}

fn bad_value(name: String, problem: &str) -> ConfigError {
    ConfigError::BadValue { name, problem: problem.to_owned() }
}

/// The 1-based line in which `span` begins.
fn line_of(text: &str, span: Option<Range<usize>>) -> usize {
    let start = span.map_or(0, |span| span.start);
    text.bytes().take(start).filter(|&byte| byte == b'\n').count() + 1
}
