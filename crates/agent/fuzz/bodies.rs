//! What the fuzz target checks; a test runs the same function over mutations of a corpus.

use std::sync::Arc;

use iris_agent::permissions::{Access, Glob, Judge, PATTERN_BYTES_MAX, Rule, Rules, Target};
use iris_protocol::{PermissionAction, PermissionLayer, PermissionRule, SessionMode};

/// A permission that no built-in rule names.
const PERMISSION: &str = "probe";
/// Stands for `/` inside of patterns; what tools touch does not hold it.
const NO_SLASH: char = '\u{1}';

/// The first line is a pattern and the other two are what calls touch. Whatever they are, nothing panics;
/// a rule means the same whether it allows or denies; and what is remembered of the second line matches it
/// and not the third.
pub(crate) fn rules(data: &[u8]) {
    let input = String::from_utf8_lossy(data);
    let mut lines = input.splitn(3, '\n');
    let mut next = || lines.next().unwrap_or_default();
    let (pattern, text, other) = (next(), next(), next());
    one_pattern(pattern, text);
    exactly(&Target::Text(text.to_owned()), &Target::Text(other.to_owned()));
    exactly(&Target::Path(normalised(text)), &Target::Path(normalised(other)));
}

/// A pattern is a rule or no rule, and decides about what it matches and nothing else.
fn one_pattern(pattern: &str, text: &str) {
    let allows = match (Glob::new(pattern), judge(pattern, PermissionAction::Allow)) {
        (Ok(_), Some(judge)) => judge,
        (Err(_), None) => return,
        (glob, judge) => panic!("{pattern:?} is {glob:?} and {judge:?}"),
    };
    let Some(denies) = judge(pattern, PermissionAction::Deny) else { panic!("{pattern:?}") };
    for target in [Target::Text(text.to_owned()), Target::Path(normalised(text))] {
        let verdicts = (verdict(&allows, &target), verdict(&denies, &target));
        let is_matched = match verdicts {
            (PermissionAction::Allow, PermissionAction::Deny) => true,
            (PermissionAction::Ask, PermissionAction::Ask) => false,
            // What cannot be compared in time is denied by any rule.
            (PermissionAction::Deny, PermissionAction::Deny) => continue,
            other => panic!("{pattern:?} says {other:?} of {target:?}"),
        };
        let again = verdict(&allows, &target) == PermissionAction::Allow;
        assert_eq!(again, is_matched, "{pattern:?} changes its mind on {target:?}");
    }
    let opaque = verdict(&allows, &Target::Opaque(text.to_owned()));
    assert_ne!(opaque, PermissionAction::Allow, "{pattern:?} allows opaque {text:?}");
    let outside = verdict(&allows, &Target::Outside(text.to_owned()));
    assert_eq!(outside, PermissionAction::Deny, "{pattern:?} lets out to {text:?}");
}

/// The exact pattern of a target matches it, what is in it when it is a directory, and nothing else.
fn exactly(target: &Target, other: &Target) {
    let text = target.as_str();
    let Some(pattern) = target.exact_pattern() else {
        let is_long = text.len() * 2 >= PATTERN_BYTES_MAX;
        let has_none = text.is_empty() || is_long || text.contains(char::is_control);
        assert!(has_none, "nothing can be remembered of {target:?}");
        return;
    };
    assert!(pattern.len() <= PATTERN_BYTES_MAX, "{pattern:?}");
    let Some(judge) = judge(&pattern, PermissionAction::Allow) else { panic!("{pattern:?}") };
    assert_eq!(verdict(&judge, target), PermissionAction::Allow, "{pattern:?} for {target:?}");
    if target == other || other.as_str().contains(NO_SLASH) {
        return;
    }
    let rest = other.as_str().strip_prefix(text);
    let is_in_it = matches!(target, Target::Path(_)) && rest.is_some_and(|it| it.starts_with('/'));
    let expected = if is_in_it { PermissionAction::Allow } else { PermissionAction::Ask };
    assert_eq!(verdict(&judge, other), expected, "{pattern:?} for {other:?}");
}

/// Judges by one rule; none for a pattern that is none.
fn judge(pattern: &str, action: PermissionAction) -> Option<Judge> {
    let rule = PermissionRule {
        id: None,
        layer: PermissionLayer::Project,
        session_id: None,
        permission: PERMISSION.to_owned(),
        pattern: pattern.to_owned(),
        action,
        created_by: None,
        created_at: None,
        updated_at: None,
    };
    let rules = Rules::new(vec![Rule::new(rule).ok()?]);
    Some(Judge::new(SessionMode::Default, vec![Arc::new(rules)]))
}

fn verdict(judge: &Judge, target: &Target) -> PermissionAction {
    judge.judge_one(&Access::of(PERMISSION, target.clone())).action
}

/// A path as tools say it.
fn normalised(text: &str) -> String {
    let names = text.split('/').filter(|name| !matches!(*name, "" | "." | ".."));
    let names: Vec<&str> = names.collect();
    if names.is_empty() { ".".to_owned() } else { names.join("/") }
}
