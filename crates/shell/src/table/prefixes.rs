//! Programs that run the rest of their words as a command.

use super::{Call, environment};
use crate::flat::is_assignment;
use crate::piece::{Piece, Reason};

/// How to find the command behind one of them.
struct Prefix {
    name: &'static str,
    /// Options that stand alone.
    flags: &'static [&'static str],
    /// Options whose value is the next word.
    valued: &'static [&'static str],
    /// Beginnings of options whose value is in the same word.
    attached: &'static [&'static str],
    /// Words between the options and the command.
    operands: usize,
    /// Whether assignments may stand before the command.
    assigns: bool,
    /// Why the command is asked about whatever it is.
    always: Option<Reason>,
}

const PLAIN: Prefix = Prefix {
    name: "",
    flags: &[],
    valued: &[],
    attached: &[],
    operands: 0,
    assigns: false,
    always: None,
};

const PREFIXES: &[Prefix] = &[
    Prefix { name: "builtin", ..PLAIN },
    Prefix { name: "busybox", ..PLAIN },
    Prefix { name: "command", ..PLAIN },
    Prefix { name: "doas", always: Some(Reason::OtherUser), ..PLAIN },
    Prefix { name: "env", assigns: true, ..PLAIN },
    Prefix { name: "exec", ..PLAIN },
    Prefix {
        name: "ionice",
        flags: &["-t"],
        valued: &["-c", "-n"],
        attached: &["-c", "-n"],
        ..PLAIN
    },
    Prefix {
        name: "nice",
        valued: &["-n", "--adjustment"],
        attached: &["-n", "--adjustment="],
        ..PLAIN
    },
    Prefix { name: "nohup", ..PLAIN },
    Prefix { name: "setsid", flags: &["-w", "--wait"], ..PLAIN },
    Prefix {
        name: "stdbuf",
        valued: &["-i", "-o", "-e"],
        attached: &["-i", "-o", "-e", "--input=", "--output=", "--error="],
        ..PLAIN
    },
    Prefix { name: "sudo", always: Some(Reason::OtherUser), flags: &["-n", "-E"], ..PLAIN },
    Prefix { name: "time", flags: &["-p"], ..PLAIN },
    Prefix {
        name: "timeout",
        flags: &["-v", "--verbose", "--foreground", "--preserve-status"],
        valued: &["-s", "-k", "--signal", "--kill-after"],
        attached: &["-s", "-k", "--signal=", "--kill-after="],
        operands: 1,
        ..PLAIN
    },
    Prefix { name: "toybox", ..PLAIN },
    Prefix {
        name: "xargs",
        flags: &["-0", "-r", "-t", "-x", "--null", "--no-run-if-empty", "--verbose"],
        valued: &["-n", "-P", "-L", "-d", "-I", "-s"],
        attached: &["-n", "-P", "-L", "-d", "-I", "-s"],
        always: Some(Reason::UnknownArguments),
        ..PLAIN
    },
];

/// The pieces of such a program: those of the command behind it.
pub(super) fn pieces(call: &Call<'_>) -> Option<Vec<Piece>> {
    let prefix = PREFIXES.iter().find(|prefix| prefix.name == call.name)?;
    let first = call.arguments.first().map(String::as_str);
    let is_question = prefix.name == "command" && matches!(first, Some("-v" | "-V"));
    let prints = matches!(prefix.name, "env" | "time" | "nice" | "ionice") && first.is_none();
    if is_question || prints {
        return Some(vec![call.command()]);
    }
    let mut pieces = Vec::new();
    pieces.extend(prefix.always.map(|why| call.opaque(why)));
    let Some(mut rest) = behind_options(prefix, call.arguments) else {
        pieces.push(call.opaque(Reason::UnknownOption));
        return Some(pieces);
    };
    while let Some((assignment, after)) = rest.split_first().filter(|_| prefix.assigns) {
        if !is_assignment(assignment) {
            break;
        }
        if !environment::is_harmless(assignment) {
            pieces.push(call.opaque(Reason::Assignment));
        }
        rest = after;
    }
    if rest.is_empty() {
        pieces.push(call.opaque(Reason::ShellState));
        return Some(pieces);
    }
    if prefix.name == "nohup" {
        // Only where its output is a terminal, which nobody can tell from here.
        pieces.push(Piece::Write { path: "nohup.out".to_owned(), append: true });
    }
    pieces.extend(call.inner(rest));
    Some(pieces)
}

/// What follows the options and operands of `prefix`; `None` when one of them is not known.
fn behind_options<'a>(prefix: &Prefix, arguments: &'a [String]) -> Option<&'a [String]> {
    let mut rest = arguments;
    while let Some((argument, after)) = rest.split_first() {
        let argument = argument.as_str();
        if argument == "--" {
            rest = after;
            break;
        }
        if !argument.starts_with('-') {
            break;
        }
        let is_attached = |begin: &str| argument.len() > begin.len() && argument.starts_with(begin);
        if prefix.valued.contains(&argument) {
            rest = after.split_first()?.1;
        } else if prefix.flags.contains(&argument)
            || prefix.attached.iter().any(|begin| is_attached(begin))
        {
            rest = after;
        } else {
            return None;
        }
    }
    let operands = rest.get(..prefix.operands)?;
    // A duration; anything else is an option that came after all.
    let is_operand = |word: &String| word.starts_with(|c: char| c.is_ascii_digit());
    operands.iter().all(is_operand).then_some(())?;
    rest.get(prefix.operands..)
}
