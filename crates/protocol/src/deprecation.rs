//! How operations go out of use (docs/protocol.md, "Versions and deprecation").

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Operation;

/// How long an operation that is deprecated is kept at least, in seconds: half a year.
pub const DEPRECATED_KEPT_SECONDS: i64 = 180 * 24 * 60 * 60;

/// That an operation should not be used any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deprecation {
    /// Since when; seconds since 1970 UTC.
    pub since: i64,
    /// When it goes, where that is known; seconds since 1970 UTC.
    pub sunset: Option<i64>,
    /// What to use in its place.
    pub instead: Option<Operation>,
}

/// The operations that are deprecated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deprecations(&'static [(Operation, Deprecation)]);

impl Deprecations {
    /// Those of this version.
    pub const CURRENT: Self = Self(&[]);

    /// Others, for tests.
    pub const fn new(rows: &'static [(Operation, Deprecation)]) -> Self {
        Self(rows)
    }

    /// That of an operation; none for one that is as good as ever.
    pub fn of(self, operation: Operation) -> Option<Deprecation> {
        self.0.iter().find(|(known, _)| *known == operation).map(|(_, deprecation)| *deprecation)
    }

    /// The first of them that goes sooner than is promised.
    pub fn too_soon(self) -> Option<Operation> {
        let is_early = |row: &&(Operation, Deprecation)| {
            let Deprecation { since, sunset, .. } = row.1;
            sunset.is_some_and(|sunset| sunset.saturating_sub(since) < DEPRECATED_KEPT_SECONDS)
        };
        self.0.iter().find(is_early).map(|(operation, _)| *operation)
    }

    /// What whoever asked for an operation is told beside the answer.
    pub fn warnings(self, operation: Operation) -> Vec<Warning> {
        let warning = self.of(operation).map(|deprecation| deprecation.warning(operation));
        warning.into_iter().collect()
    }
}

impl Deprecation {
    /// As the answer to a request has it.
    fn warning(self, operation: Operation) -> Warning {
        let name = operation.name();
        let message = match self.instead {
            Some(instead) => format!("`{name}` is deprecated: use `{}`", instead.name()),
            None => format!("`{name}` is deprecated"),
        };
        Warning {
            code: WarningCode::Deprecated,
            message,
            since: Some(self.since * 1000),
            sunset: self.sunset.map(|at| at * 1000),
            instead: self.instead.map(|instead| instead.name().to_owned()),
        }
    }
}

/// What a warning is about. There may be more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WarningCode {
    /// The operation should not be used any more.
    #[serde(rename = "DEPRECATED")]
    Deprecated,
    /// A word that this version does not know.
    #[serde(rename = "OTHER", other)]
    Other,
}

/// What a client should know besides the answer to its request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Warning {
    /// What it is about, for programs.
    pub code: WarningCode,
    /// The same for people.
    pub message: String,
    /// Of an operation that is deprecated: since when; milliseconds since 1970 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<i64>,
    /// When it goes, where that is known; milliseconds since 1970 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sunset: Option<i64>,
    /// The operation to use in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;
    const OLD: Deprecations = Deprecations::new(&[
        (
            Operation::SessionList,
            Deprecation {
                since: DAY,
                sunset: Some(181 * DAY),
                instead: Some(Operation::SessionSearch),
            },
        ),
        (Operation::SessionGet, Deprecation { since: DAY, sunset: None, instead: None }),
    ]);

    #[test]
    fn what_is_deprecated_is_kept_for_half_a_year() {
        assert_eq!(Deprecations::CURRENT.too_soon(), None);
        assert_eq!(OLD.too_soon(), None);
        let soon = Deprecation { since: DAY, sunset: Some(180 * DAY), instead: None };
        let rows = Box::leak(Box::new([(Operation::Ping, soon)]));
        assert_eq!(Deprecations::new(rows).too_soon(), Some(Operation::Ping));
    }

    #[test]
    fn a_warning_names_what_to_use_and_until_when() {
        assert_eq!(OLD.warnings(Operation::Ping), []);
        let [warning] = <[Warning; 1]>::try_from(OLD.warnings(Operation::SessionList)).unwrap();
        assert_eq!(warning.message, "`session.list` is deprecated: use `session.search`");
        assert_eq!(warning.instead.as_deref(), Some("session.search"));
        assert_eq!((warning.since, warning.sunset), (Some(86_400_000), Some(181 * 86_400_000)));
        let [other] = <[Warning; 1]>::try_from(OLD.warnings(Operation::SessionGet)).unwrap();
        assert_eq!((other.message.as_str(), other.sunset), ("`session.get` is deprecated", None));
    }
}
