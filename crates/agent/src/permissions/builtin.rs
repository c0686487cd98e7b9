//! The rules that the server brings along, and what the modes of a session mean.

use std::sync::LazyLock;

use iris_protocol::{PermissionAction, PermissionLayer, PermissionRule, SessionMode};

use super::{Access, Rule, Rules};
use PermissionAction::{Allow, Ask, Deny};

/// Files that hold secrets by custom.
const SECRETS: [&str; 6] = ["*.env", ".env.*", "*.pem", "*.key", ".netrc", "id_rsa"];
/// What runs commands by itself, or belongs to Iris.
const PROTECTED: [&str; 2] = [".git", ".iris"];
/// Permissions that change nothing outside of the conversation.
// What a sub-agent does is judged when it does it.
const HARMLESS: [&str; 5] = ["read", "todoRead", "todoWrite", "question", "task"];

/// The most general rules.
pub(super) fn rules() -> &'static Rules {
    static RULES: LazyLock<Rules> = LazyLock::new(|| {
        let allowed = HARMLESS.map(|name| (name, "*", Allow));
        let secrets = SECRETS.map(|pattern| ("read", pattern, Ask));
        let protected = PROTECTED.map(|pattern| ("edit", pattern, Deny));
        layer(PermissionLayer::Builtin, allowed.into_iter().chain(secrets).chain(protected))
    });
    &RULES
}

/// What the mode of a session adds to them. What `plan` means is no matter of rules.
pub(super) fn mode_rules(mode: SessionMode) -> &'static Rules {
    static NONE: Rules = Rules { rules: Vec::new() };
    static ACCEPT_EDITS: LazyLock<Rules> = LazyLock::new(|| mode_layer("edit"));
    static AUTO: LazyLock<Rules> = LazyLock::new(|| mode_layer("*"));
    match mode {
        SessionMode::Default | SessionMode::Plan => &NONE,
        SessionMode::AcceptEdits => &ACCEPT_EDITS,
        SessionMode::Auto => &AUTO,
    }
}

/// Allows all of `permission`, secrets excepted.
fn mode_layer(permission: &'static str) -> Rules {
    let secrets = SECRETS.map(|pattern| (permission, pattern, Ask));
    layer(PermissionLayer::Mode, [(permission, "*", Allow)].into_iter().chain(secrets))
}

/// Whether an access leaves everything as it is.
pub(super) fn changes_nothing(access: &Access) -> bool {
    HARMLESS.iter().any(|name| access.is(name))
}

fn layer(
    layer: PermissionLayer,
    rules: impl Iterator<Item = (&'static str, &'static str, PermissionAction)>,
) -> Rules {
    let rules = rules.filter_map(|(permission, pattern, action)| {
        let rule = PermissionRule {
            id: None,
            layer,
            session_id: None,
            permission: permission.to_owned(),
            pattern: pattern.to_owned(),
            action,
            created_by: None,
            created_at: None,
            updated_at: None,
        };
        Rule::new(rule).ok()
    });
    Rules { rules: rules.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_of_the_tables_is_valid() {
        assert_eq!(rules().len(), HARMLESS.len() + SECRETS.len() + PROTECTED.len());
        assert_eq!(mode_rules(SessionMode::AcceptEdits).len(), 1 + SECRETS.len());
        assert_eq!(mode_rules(SessionMode::Auto).len(), 1 + SECRETS.len());
        assert!(mode_rules(SessionMode::Default).is_empty());
    }
}
