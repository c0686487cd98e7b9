//! The patterns of permission rules.
//!
//! A glob: `*` and `?` match any text and any character, `[ab]` one of some characters, `{a,b}` one of
//! some texts; a backslash takes the meaning from the character behind it. In a path `*` and `?` stop at
//! `/` and `**` does not; a pattern without `/` names files and directories at any depth, and one that
//! matches a directory matches everything in it. In all other text `/` is a character like any other.

mod signature;

use std::borrow::Cow;

use fast_glob::{glob_match, validate};

use super::Target;
use signature::Signature;

/// Longest pattern, in bytes.
pub const PATTERN_BYTES_MAX: usize = 1024;
/// Longest permission, in bytes.
pub const PERMISSION_BYTES_MAX: usize = 128;
/// Most `{` in a pattern: each multiplies what has to be tried.
const BRACES_MAX: usize = 4;
/// Most texts that the braces of a pattern may stand for: each of them is tried.
const ALTERNATIVES_MAX: usize = 32;
/// Stands for `/` where `/` is a character like any other. No pattern and no checked text holds it.
const NO_SLASH: &str = "\u{1}";
/// Characters that may mean something in a pattern.
const SPECIAL: [char; 10] = ['*', '?', '[', ']', '{', '}', ',', '\\', '!', '^'];

/// Why something is no permission rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRule {
    /// The permission is empty, too long or has other characters than those of names.
    #[error(
        "`permission` must be 1 to {PERMISSION_BYTES_MAX} letters, digits, `_`, `-`, `.` and `:`, or `*`"
    )]
    Permission,
    /// The pattern is empty or too long.
    #[error("`pattern` must have 1 to {PATTERN_BYTES_MAX} bytes")]
    PatternLength,
    /// The pattern has a character that nothing shown to a person may have.
    #[error("`pattern` must not have control characters")]
    PatternCharacter,
    /// A pattern that begins with `!` would match what it does not name.
    #[error("`pattern` must not begin with `!`: write what it matches")]
    PatternNegated,
    /// The pattern has too many braces, or too many alternatives in them.
    #[error(
        "`pattern` must have at most {BRACES_MAX} `{{` that stand for at most {ALTERNATIVES_MAX} texts"
    )]
    PatternBraces,
    /// The pattern has a backslash before a character that means nothing.
    #[error(
        "`pattern` must not have `\\` before a letter or a digit: they mean nothing by themselves"
    )]
    PatternEscape,
    /// The pattern is no glob.
    #[error("`pattern` is no glob: {0}")]
    PatternSyntax(String),
}

/// Checks the name of a tool or of a group of tools.
///
/// # Errors
/// [`InvalidRule::Permission`].
pub fn check_permission(permission: &str) -> Result<(), InvalidRule> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':');
    let is_short = (1..=PERMISSION_BYTES_MAX).contains(&permission.len());
    if permission == "*" || is_short && permission.chars().all(is_name) {
        return Ok(());
    }
    Err(InvalidRule::Permission)
}

/// A pattern that can be compared with what a call touches.
#[derive(Debug, Clone)]
pub struct Glob {
    /// How it is compared with paths.
    kind: Kind,
    /// What every name or path begins with that the pattern matches.
    prefix: String,
    /// Of what is in everything that the pattern matches.
    signature: Signature,
    /// The pattern for text in which `/` is a character like any other.
    text: String,
    /// The pattern for paths.
    path: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It matches everything.
    All,
    /// It names files and directories at any depth.
    Name,
    /// It names a path from the project's directory on.
    Path,
}

/// What a pattern is compared with.
#[derive(Debug)]
pub(super) struct Subject<'a> {
    kind: SubjectKind<'a>,
    signature: Signature,
}

#[derive(Debug)]
enum SubjectKind<'a> {
    Path(&'a str),
    Text(Cow<'a, str>),
}

impl<'a> Subject<'a> {
    pub(super) fn of(target: &'a Target) -> Self {
        let kind = match target {
            Target::Path(path) => SubjectKind::Path(path),
            Target::Outside(text) | Target::Text(text) | Target::Opaque(text) => {
                SubjectKind::Text(without_slashes(text))
            }
        };
        Self { kind, signature: Signature::of_text(target.as_str()) }
    }
}

/// A pattern that matches `text` alone.
pub(super) fn escaped(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for character in text.chars() {
        if SPECIAL.contains(&character) {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}

fn without_slashes(text: &str) -> Cow<'_, str> {
    if text.contains('/') { text.replace('/', NO_SLASH).into() } else { text.into() }
}

impl Glob {
    /// Checks a pattern.
    ///
    /// # Errors
    /// [`InvalidRule`].
    pub fn new(pattern: &str) -> Result<Self, InvalidRule> {
        if pattern.is_empty() || pattern.len() > PATTERN_BYTES_MAX {
            return Err(InvalidRule::PatternLength);
        }
        if pattern.contains(char::is_control) {
            return Err(InvalidRule::PatternCharacter);
        }
        if pattern.starts_with('!') {
            return Err(InvalidRule::PatternNegated);
        }
        if has_meaningless_escape(pattern) {
            return Err(InvalidRule::PatternEscape);
        }
        let (braces, commas) = (unescaped(pattern, '{'), unescaped(pattern, ','));
        if braces > BRACES_MAX || alternatives(braces, commas) > ALTERNATIVES_MAX {
            return Err(InvalidRule::PatternBraces);
        }
        validate(pattern).map_err(|error| InvalidRule::PatternSyntax(error.to_string()))?;
        let path = pattern.trim_start_matches("./").trim_end_matches('/');
        let (kind, path) = match path {
            "*" | "**" | "" => (Kind::All, path),
            _ => match path.strip_prefix('/') {
                Some(anchored) => (Kind::Path, anchored),
                None if path.contains('/') => (Kind::Path, path),
                None => (Kind::Name, path),
            },
        };
        if path.starts_with('!') {
            return Err(InvalidRule::PatternNegated);
        }
        let prefix = path.split(SPECIAL).next().unwrap_or_default();
        Ok(Self {
            kind,
            prefix: prefix.to_owned(),
            signature: Signature::of_pattern(path),
            text: without_slashes(pattern).into_owned(),
            path: path.to_owned(),
        })
    }

    /// Whether it is worth to compare it with all of the subject, at little cost.
    pub(super) fn may_match(&self, subject: &Subject<'_>) -> bool {
        self.signature.is_within(subject.signature)
    }

    pub(super) fn matches(&self, subject: &Subject<'_>) -> bool {
        self.may_match(subject) && self.matches_all(&subject.kind)
    }

    /// Compares all of the pattern with all of the subject.
    fn matches_all(&self, subject: &SubjectKind<'_>) -> bool {
        match (self.kind, subject) {
            (_, SubjectKind::Text(text)) => {
                matches!(self.text.as_str(), "*" | "**") || glob_match(&self.text, text.as_ref())
            }
            (Kind::All, SubjectKind::Path(_)) => true,
            (Kind::Name, SubjectKind::Path(path)) => path
                .split('/')
                .any(|name| name.starts_with(&self.prefix) && glob_match(&self.path, name)),
            (Kind::Path, SubjectKind::Path(path)) => {
                path.starts_with(&self.prefix)
                    && (glob_match(&self.path, path)
                        || directories_of(path).any(|it| glob_match(&self.path, it)))
            }
        }
    }
}

/// The characters of a pattern, each with whether a backslash stands before it.
fn characters(pattern: &str) -> impl Iterator<Item = (char, bool)> {
    let mut characters = pattern.chars();
    std::iter::from_fn(move || match characters.next()? {
        '\\' => characters.next().map(|character| (character, true)),
        character => Some((character, false)),
    })
}

/// The library takes some escaped letters for control characters, which nothing here is.
fn has_meaningless_escape(pattern: &str) -> bool {
    characters(pattern).any(|(character, is_escaped)| is_escaped && character.is_alphanumeric())
}

fn unescaped(pattern: &str, wanted: char) -> usize {
    characters(pattern).filter(|&it| it == (wanted, false)).count()
}

/// No fewer than the texts that so many groups with so many commas stand for: they are most when the commas
/// are spread evenly over the groups.
fn alternatives(braces: usize, commas: usize) -> usize {
    let of_group = commas.div_ceil(braces.max(1)) + 1;
    (0..braces).fold(1, |texts: usize, _| texts.saturating_mul(of_group))
}

/// The directories that a path is in, without the project's own.
fn directories_of(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').filter_map(|(end, _)| path.get(..end))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn signatures_change_no_answer(
            pattern in r"[ab/*?.,!^\\\[\]{}-]{1,12}",
            text in "[ab/.,!^-]{1,12}",
            is_path in any::<bool>(),
        ) {
            let target = if is_path { Target::Path(text) } else { Target::Text(text) };
            if let Ok(glob) = Glob::new(&pattern) {
                let subject = Subject::of(&target);
                prop_assert_eq!(glob.matches(&subject), glob.matches_all(&subject.kind));
            }
        }
    }

    fn matches(pattern: &str, target: &Target) -> bool {
        Glob::new(pattern).unwrap().matches(&Subject::of(target))
    }

    fn path(pattern: &str, path: &str) -> bool {
        matches(pattern, &Target::Path(path.to_owned()))
    }

    fn text(pattern: &str, text: &str) -> bool {
        matches(pattern, &Target::Text(text.to_owned()))
    }

    #[test]
    fn a_name_is_meant_at_any_depth_and_a_path_from_the_top() {
        for inside in [".env", "a/.env", "a/b/prod.env", "a/x.env/b"] {
            assert!(path("*.env", inside), "{inside}");
        }
        assert!(!path("*.env", "a/env") && !path("*.env", "environment.rs"));
        assert!(path("src/*.rs", "src/a.rs") && !path("src/*.rs", "src/a/b.rs"));
        assert!(path("src/**/*.rs", "src/a/b.rs") && path("src/**/*.rs", "src/b.rs"));
        assert!(!path("src/*.rs", "other/src/a.rs"));
        assert!(path("/build", "build/x") && !path("/build", "a/build"));
        assert!(path("./src/", "a/src/x") && path("src/{a,b}", "src/b"));
    }

    #[test]
    fn a_directory_means_everything_in_it() {
        assert!(path("secrets", "a/secrets/deep/key") && path("a/secrets", "a/secrets/deep/key"));
        assert!(!path("secrets", "a/secrets.txt") && !path("a/secrets", "a/secrets.txt"));
    }

    #[test]
    fn in_text_a_slash_is_a_character_like_any_other() {
        assert!(text("git add *", "git add src/a.rs") && !text("git add *", "git add"));
        assert!(text("git *", "git diff -- a/b c/d") && !text("git *", "gitk x"));
        assert!(text("cat src/?.rs", "cat src/a.rs") && !text("cat src/?.rs", "cat src/ab.rs"));
        assert!(text(r"rm \*", "rm *") && !text(r"rm \*", "rm x"));
        assert!(text("*.example.com", "a.b.example.com") && !text("*.example.com", "example.com"));
    }

    #[test]
    fn a_star_is_everything() {
        for everything in ["*", "**"] {
            assert!(path(everything, ".") && path(everything, "a/b") && text(everything, "a/b c"));
        }
        for top in ["/", "./"] {
            assert!(path(top, "a/b") && text(top, top) && !text(top, "rm"));
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        let refused = |pattern: &str| Glob::new(pattern).unwrap_err();
        assert_eq!(refused(""), InvalidRule::PatternLength);
        assert_eq!(refused(&"x".repeat(PATTERN_BYTES_MAX + 1)), InvalidRule::PatternLength);
        assert_eq!(refused("a\nb"), InvalidRule::PatternCharacter);
        for negated in ["!src", "/!src", "./!src"] {
            assert_eq!(refused(negated), InvalidRule::PatternNegated, "{negated}");
        }
        assert_eq!(refused("{a}{b}{c}{d}{e}"), InvalidRule::PatternBraces);
        // Each of the alternatives of each group would be tried with each of the others.
        let group = format!("{{{}}}", ",".repeat(252));
        assert_eq!(refused(&group), InvalidRule::PatternBraces);
        assert_eq!(refused(&format!("{}x", group.repeat(4))), InvalidRule::PatternBraces);
        assert_eq!(refused("{a,{b,{c,{d,e,f,g,h}}}}"), InvalidRule::PatternBraces);
        assert_eq!(refused(r"\rm *"), InvalidRule::PatternEscape);
        assert!(text(r"\\rm", r"\rm") && text("a,b,c,{d,e}", "a,b,c,e"));
        Glob::new(&format!("*.{{{}}}", ["x"; ALTERNATIVES_MAX].join(","))).unwrap();
        Glob::new("{a,b}{c,d}{e,f}{g,h}").unwrap();
        for syntax in ["a[", "a{b", "a\\"] {
            assert!(matches!(refused(syntax), InvalidRule::PatternSyntax(_)), "{syntax}");
        }
        Glob::new(&"x".repeat(PATTERN_BYTES_MAX)).unwrap();
        for name in ["read", "mcp:files", "files__read_file", "*"] {
            check_permission(name).unwrap();
        }
        for name in ["", "a b", "re*", "ä", &"x".repeat(PERMISSION_BYTES_MAX + 1)] {
            assert_eq!(check_permission(name), Err(InvalidRule::Permission), "{name}");
        }
    }
}
