//! The example rules of the corpus: what a project that trusts its agent much might allow.

use globset::{GlobBuilder, GlobMatcher};
use iris_shell::{Piece, Reading};

/// From the mildest to the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    Allow,
    Ask,
    Deny,
}

/// Allowed commands; wide on purpose, so that only what is read of a line holds it back.
const ALLOW: &[&str] = &[
    "git --version",
    "git status*",
    "git log*",
    "git diff*",
    "git show*",
    "git grep*",
    "git branch*",
    "git commit*",
    "git config*",
    "git archive*",
    "git fetch*",
    "git clone*",
    "git help*",
    "ls*",
    "cat*",
    "grep*",
    "rg*",
    "fd*",
    "find*",
    "head*",
    "tail*",
    "wc*",
    "sort*",
    "uniq*",
    "echo*",
    "printf*",
    "pwd*",
    "true",
    "false",
    "test *",
    "[[] *",
    "cd *",
    "cargo check*",
    "cargo test*",
    "npm run*",
    "make*",
    "go test*",
    "sed*",
    "awk*",
    "perl*",
    "python*",
    "node*",
    "bash*",
    "sh*",
    "dash*",
    "zsh*",
    "env*",
    "command*",
    "builtin*",
    "exec*",
    "nohup*",
    "nice*",
    "ionice*",
    "timeout*",
    "stdbuf*",
    "setsid*",
    "time*",
    "xargs*",
    "tar*",
    "zip*",
    "rsync*",
    "curl*",
    "wget*",
    "dd*",
    "tee*",
    "less*",
    "man*",
    "vim*",
    "gdb*",
    "strace*",
    "script*",
    "ed*",
    "ssh*",
    "watch*",
    "parallel*",
    "eval*",
    "source*",
    ". *",
    "trap*",
    "alias*",
    "export*",
    "declare*",
    "unset*",
    "read*",
    "set*",
    "date*",
    "xxd*",
    "file*",
    "tree*",
    "jq*",
    "ldd*",
    "true*",
    "sqlite3*",
    "dc*",
    "busybox*",
];

/// Refused, also where the text of an opaque piece begins so.
const DENY: &[&str] = &["rm", "rm *", "git push*", "sudo *", "shutdown*"];

const ALLOW_WRITE: &[&str] = &["out.txt", "target/*", "*.log"];
const DENY_WRITE: &[&str] = &["/etc/*", "~/*"];
const ALLOW_READ: &[&str] = &["a.txt"];

pub(crate) fn matcher(pattern: &str) -> GlobMatcher {
    GlobBuilder::new(pattern)
        .literal_separator(false)
        .backslash_escape(true)
        .build()
        .unwrap_or_else(|error| panic!("{pattern}: {error}"))
        .compile_matcher()
}

/// Rules made ready once.
pub(crate) struct Rules {
    allow: Vec<GlobMatcher>,
    deny: Vec<GlobMatcher>,
    allow_write: Vec<GlobMatcher>,
    deny_write: Vec<GlobMatcher>,
    allow_read: Vec<GlobMatcher>,
}

impl Rules {
    pub(crate) fn example() -> Self {
        let all = |patterns: &[&str]| patterns.iter().map(|pattern| matcher(pattern)).collect();
        Self {
            allow: all(ALLOW),
            deny: all(DENY),
            allow_write: all(ALLOW_WRITE),
            deny_write: all(DENY_WRITE),
            allow_read: all(ALLOW_READ),
        }
    }

    pub(crate) fn judge(&self, piece: &Piece) -> Verdict {
        let any = |rules: &[GlobMatcher], text: &str| rules.iter().any(|rule| rule.is_match(text));
        let decide = |is_denied: bool, is_allowed: bool| match (is_denied, is_allowed) {
            (true, _) => Verdict::Deny,
            (false, true) => Verdict::Allow,
            (false, false) => Verdict::Ask,
        };
        match piece {
            Piece::Command { text, .. } => decide(any(&self.deny, text), any(&self.allow, text)),
            Piece::Write { path, .. } => {
                decide(any(&self.deny_write, path), any(&self.allow_write, path))
            }
            Piece::Read { path } => decide(false, any(&self.allow_read, path)),
            Piece::Opaque { text, .. } => decide(any(&self.deny, text), false),
        }
    }

    /// The worst of the verdicts on all pieces; nothing to judge is no permission.
    pub(crate) fn verdict(&self, reading: &Reading) -> Verdict {
        let worst = reading.pieces.iter().map(|piece| self.judge(piece)).max();
        worst.unwrap_or(Verdict::Ask)
    }
}

#[test]
fn an_empty_list_is_never_allowed() {
    assert_eq!(Rules::example().verdict(&Reading { pieces: vec![] }), Verdict::Ask);
}

#[test]
fn the_worst_verdict_wins_wherever_it_stands() {
    let rules = Rules::example();
    for line in ["ls; rm x; ls", "rm x; ls", "ls; rm x"] {
        assert_eq!(rules.verdict(&iris_shell::read(line)), Verdict::Deny, "{line}");
    }
}
