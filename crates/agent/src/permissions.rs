//! What tool calls may do: rules in layers, and the verdict on what a call touches.
//!
//! A tool says what a call touches ([`Access`]); a [`Judge`] says for each access whether it is
//! allowed, asked about or denied, and which rule says so. The worst verdict counts for the call.
//!
//! For one access: a `deny` in any layer is final. Otherwise the most specific layer in which a rule
//! matches decides, inside it the last rule that matches. Where none matches a person is asked.

mod builtin;
mod pattern;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use iris_protocol::{JudgedAccess, PermissionAction, PermissionLayer, PermissionRule, SessionMode};

pub use pattern::{Glob, InvalidRule, PATTERN_BYTES_MAX, PERMISSION_BYTES_MAX, check_permission};

/// How long rules are compared with a call. Ten thousand of them take a millisecond; some can be written
/// so that each takes as long as this.
const JUDGING_MAX: Duration = Duration::from_secs(1);

/// What one tool call touches in one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// The permission that it needs: the name of the tool, or of what the tool uses.
    pub permission: Cow<'static, str>,
    /// The group that the permission is in, when it is in one.
    pub group: Option<Cow<'static, str>>,
    /// What it touches.
    pub target: Target,
}

/// What an access touches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A path in the project's directory, normalised, with `/`; `.` is the directory itself.
    Path(String),
    /// A path that leaves the project's directory, or that is none: always denied.
    Outside(String),
    /// A line of text: a command, a host, the name of an agent.
    Text(String),
    /// A command that is not literally what will happen, so that no rule can allow it.
    Opaque(String),
}

impl Target {
    /// What it touches, as people read it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Path(text) | Self::Outside(text) | Self::Text(text) | Self::Opaque(text) => text,
        }
    }
}

impl Target {
    /// The pattern that matches this and nothing else, but for what is in it when it is a directory; none
    /// for what no rule can allow or no pattern can hold.
    pub fn exact_pattern(&self) -> Option<String> {
        let pattern = match self {
            // From the top: without a `/` it would be a name at any depth.
            Self::Path(path) => format!("/{}", pattern::escaped(path)),
            Self::Text(text) => pattern::escaped(text),
            Self::Outside(_) | Self::Opaque(_) => return None,
        };
        Glob::new(&pattern).is_ok().then_some(pattern)
    }
}

impl Access {
    /// Reading of a path by the tool `permission`.
    pub fn read(permission: impl Into<Cow<'static, str>>, target: Target) -> Self {
        Self { permission: permission.into(), group: Some("read".into()), target }
    }

    /// Changing of a path by the tool `permission`.
    pub fn edit(permission: impl Into<Cow<'static, str>>, target: Target) -> Self {
        Self { permission: permission.into(), group: Some("edit".into()), target }
    }

    /// Use of what has a permission of its own name.
    pub fn of(permission: impl Into<Cow<'static, str>>, target: Target) -> Self {
        Self { permission: permission.into(), group: None, target }
    }

    /// The same in a group, such as `mcp:<server>`, that rules can name instead of the permission.
    #[must_use]
    pub fn in_group(self, group: impl Into<Cow<'static, str>>) -> Self {
        Self { group: Some(group.into()), ..self }
    }

    /// Whether a rule about `name`, a permission or a group of them, is about this.
    pub fn is(&self, name: &str) -> bool {
        self.permission == name || self.group.as_deref() == Some(name)
    }
}

/// A rule that can be compared with accesses.
#[derive(Debug, Clone)]
pub struct Rule {
    wire: PermissionRule,
    glob: Glob,
}

impl Rule {
    /// Takes a rule apart.
    ///
    /// # Errors
    /// [`InvalidRule`] for a permission or a pattern that is none.
    pub fn new(wire: PermissionRule) -> Result<Self, InvalidRule> {
        check_permission(&wire.permission)?;
        let glob = Glob::new(&wire.pattern)?;
        Ok(Self { wire, glob })
    }

    /// The rule as clients see it.
    pub fn as_wire(&self) -> &PermissionRule {
        &self.wire
    }

    fn may_match(&self, access: &Access, subject: &pattern::Subject<'_>) -> bool {
        let permission = self.wire.permission.as_str();
        (permission == "*" || access.is(permission)) && self.glob.may_match(subject)
    }
}

/// The rules could not be compared with a call in time.
struct OutOfTime;

/// Rules of one or several layers.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// From the most general layer to the most specific one; inside a layer in the order of the rules.
    rules: Vec<Rule>,
}

impl Rules {
    /// Rules in the order of their layers; rules of one layer stay in the order in which they came.
    pub fn new(mut rules: Vec<Rule>) -> Self {
        rules.sort_by_key(|rule| rule.wire.layer);
        Self { rules }
    }

    /// The rules, from the most general one on.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }
}

/// Says what may become of tool calls: those of one agent in one session.
#[derive(Debug, Clone)]
pub struct Judge {
    mode: SessionMode,
    /// Each is sorted by layer. Of two with rules of one layer the later one is the more specific.
    rules: Vec<Arc<Rules>>,
    /// Of the session that spawned this one, which may do no more.
    parent: Option<Arc<Judge>>,
}

/// What may become of a tool call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// The worst of what the rules say of its accesses; `Ask` when there are none.
    pub action: PermissionAction,
    /// What the rules say of each of them.
    pub accesses: Vec<JudgedAccess>,
}

impl Judgement {
    /// Why a call is denied: one sentence for the model; none when it is not.
    pub fn denial(&self) -> Option<String> {
        let denied = self.accesses.iter().find(|it| it.action == PermissionAction::Deny)?;
        Some(format!(
            "`{}` of `{}` is not allowed: {}",
            denied.permission, denied.target, denied.reason
        ))
    }
}

impl Judge {
    /// A judge with the rules of the server, the project and whoever else has some. The built-in rules
    /// and those of the mode need not be among them.
    pub fn new(mode: SessionMode, rules: Vec<Arc<Rules>>) -> Self {
        Self { mode, rules, parent: None }
    }

    /// A judge for a session that `parent` spawned: nothing is allowed that the parent may not do.
    #[must_use]
    pub fn within(mut self, parent: Arc<Judge>) -> Self {
        self.parent = Some(parent);
        self
    }

    /// Says what may become of a call that touches all of `accesses`. Blocks, for a second at most: what
    /// could not be compared with the rules until then is denied.
    pub fn judge(&self, accesses: &[Access]) -> Judgement {
        let until = Instant::now() + JUDGING_MAX;
        let accesses: Vec<JudgedAccess> =
            accesses.iter().map(|it| self.judge_until(it, until)).collect();
        let worst = accesses.iter().map(|it| it.action).max();
        Judgement { action: worst.unwrap_or(PermissionAction::Ask), accesses }
    }

    /// Says what may become of one access. The most severe verdict counts: that of this session, or that
    /// of the sessions that it came from. Blocks as [`judge`](Self::judge).
    pub fn judge_one(&self, access: &Access) -> JudgedAccess {
        self.judge_until(access, Instant::now() + JUDGING_MAX)
    }

    fn judge_until(&self, access: &Access, until: Instant) -> JudgedAccess {
        let own = self.judge_alone(access, until);
        let parent = self.parent.as_ref().map(|parent| parent.judge_until(access, until));
        match parent {
            Some(parent) if parent.action > own.action => {
                let reason = format!("the session that began this one: {}", parent.reason);
                JudgedAccess { reason, ..parent }
            }
            Some(_) | None => own,
        }
    }

    fn judge_alone(&self, access: &Access, until: Instant) -> JudgedAccess {
        let judged = |action, rule: Option<&Rule>, reason: &str| JudgedAccess {
            permission: access.permission.to_string(),
            target: access.target.as_str().to_owned(),
            action,
            rule: rule.map(|rule| rule.wire.clone()),
            reason: reason.to_owned(),
        };
        if let Target::Outside(_) = access.target {
            let reason = "it is outside of the project's directory";
            return judged(PermissionAction::Deny, None, reason);
        }
        if self.mode == SessionMode::Plan && !builtin::changes_nothing(access) {
            let reason = "the session is in the mode `plan`, in which nothing is changed";
            return judged(PermissionAction::Deny, None, reason);
        }
        let rule = match self.deciding_rule(access, until) {
            Ok(Some(rule)) => rule,
            Ok(None) => return judged(PermissionAction::Ask, None, "no rule names it"),
            Err(OutOfTime) => {
                let reason = "its rules take too long to compare: make them simpler";
                return judged(PermissionAction::Deny, None, reason);
            }
        };
        let is_opaque = matches!(access.target, Target::Opaque(_));
        if is_opaque && rule.wire.action == PermissionAction::Allow {
            let reason = "what it will do cannot be read off its text, so no rule can allow it";
            return judged(PermissionAction::Ask, None, reason);
        }
        judged(rule.wire.action, Some(rule), &sentence(rule))
    }

    /// The rule that decides about an access by itself: the first `deny`, or the last match of the most
    /// specific layer.
    fn deciding_rule(&self, access: &Access, until: Instant) -> Result<Option<&Rule>, OutOfTime> {
        let subject = pattern::Subject::of(&access.target);
        let layers = [builtin::rules(), builtin::mode_rules(self.mode)];
        let sets = layers.into_iter().chain(self.rules.iter().map(Arc::as_ref));
        let mut deciding: Option<&Rule> = None;
        for rule in sets.flat_map(|rules| &rules.rules) {
            let is_as_specific = deciding.is_none_or(|it| rule.wire.layer >= it.wire.layer);
            let denies = rule.wire.action == PermissionAction::Deny;
            if !(is_as_specific || denies) || !rule.may_match(access, &subject) {
                continue;
            }
            if Instant::now() >= until {
                return Err(OutOfTime);
            }
            if rule.glob.matches(&subject) {
                if denies {
                    return Ok(Some(rule));
                }
                deciding = Some(rule);
            }
        }
        Ok(deciding)
    }
}

fn sentence(rule: &Rule) -> String {
    let PermissionRule { layer, permission, pattern, action, .. } = &rule.wire;
    let verb = match action {
        PermissionAction::Allow => "allows",
        PermissionAction::Ask => "asks about",
        PermissionAction::Deny => "denies",
    };
    let whose = match layer {
        PermissionLayer::Builtin => "a built-in rule",
        PermissionLayer::Mode => "the session's mode",
        PermissionLayer::Server => "a rule of the server",
        PermissionLayer::Project => "a rule of the project",
        PermissionLayer::Agent => "a rule of the agent",
        PermissionLayer::Session => "a rule of the session",
        PermissionLayer::Remembered => "a remembered answer",
    };
    format!("{whose} {verb} `{permission}` of `{pattern}`")
}

#[cfg(test)]
mod tests;
