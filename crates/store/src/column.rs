//! Values of the wire in columns: ids and enums are words, structures are JSON, both as serde writes
//! them.

use std::fmt::Write;

use rusqlite::types::Type;
use rusqlite::{Error, Row};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::StoreError;

pub(crate) fn to_json<T: Serialize>(value: &T) -> Result<String, StoreError> {
    Ok(serde_json::to_string(value)?)
}

pub(crate) fn to_optional_json<T: Serialize>(
    value: Option<&T>,
) -> Result<Option<String>, StoreError> {
    value.map(to_json).transpose()
}

/// A value that serialises as a string: an id, or a variant without fields.
pub(crate) fn to_word<T: Serialize>(value: &T) -> Result<String, StoreError> {
    match serde_json::to_value(value)? {
        Value::String(word) => Ok(word),
        other @ (Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::Array(_)
        | Value::Object(_)) => Err(StoreError::internal(format!("`{other}` is not a word"))),
    }
}

/// The value that [`to_word`] made a word of.
pub(crate) fn from_word<T: DeserializeOwned>(word: &str) -> Result<T, StoreError> {
    Ok(serde_json::from_value(Value::String(word.to_owned()))?)
}

pub(crate) fn word<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> rusqlite::Result<T> {
    let word = Value::String(row.get(column)?);
    serde_json::from_value(word).map_err(|error| unreadable(column, &error))
}

pub(crate) fn optional_word<T: DeserializeOwned>(
    row: &Row<'_>,
    column: &str,
) -> rusqlite::Result<Option<T>> {
    let word: Option<String> = row.get(column)?;
    let value = word.map(|word| serde_json::from_value(Value::String(word))).transpose();
    value.map_err(|error| unreadable(column, &error))
}

pub(crate) fn json<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|error| unreadable(column, &error))
}

/// The SHA-256 of the text in a column, 64 hex digits.
pub(crate) fn hash(row: &Row<'_>, column: &str) -> rusqlite::Result<String> {
    let text: String = row.get(column)?;
    Ok(hash_of(&text))
}

/// The SHA-256 of a text, 64 hex digits.
pub(crate) fn hash_of(text: &str) -> String {
    let digest = Sha256::digest(text);
    digest.iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a string cannot fail.
        write!(text, "{byte:02x}").unwrap_or_default();
        text
    })
}

pub(crate) fn optional_json<T: DeserializeOwned>(
    row: &Row<'_>,
    column: &str,
) -> rusqlite::Result<Option<T>> {
    let text: Option<String> = row.get(column)?;
    let value = text.map(|text| serde_json::from_str(&text)).transpose();
    value.map_err(|error| unreadable(column, &error))
}

fn unreadable(column: &str, error: &serde_json::Error) -> Error {
    let source = format!("column `{column}`: {error}");
    Error::FromSqlConversionFailure(usize::MAX, Type::Text, source.into())
}
