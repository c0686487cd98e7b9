//! What a typed line asks for.

use iris_protocol::Remember;

/// What `/help` prints.
pub(super) const HELP: &str = "\
/sessions           the sessions of the project
/open N or ID       go on in one of them
/new                begin another one
/history            show this one again
/rename TITLE       call it something else
/who                who is in the project
/cancel             cancel the run (Ctrl-C)
/retry              ask for another answer to the last message
/approve [once|session|project]
/deny [WHY]         answer what waits
/quit               leave (Ctrl-D, or Ctrl-C twice)
Alt-Enter begins a new line, the arrows call lines back, `//` sends a text that begins with `/`.";

/// A line, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    Nothing,
    Help,
    Sessions,
    Open(String),
    New,
    History,
    Rename(String),
    Who,
    Cancel,
    Retry,
    Approve(Remember),
    Deny(Option<String>),
    Quit,
    /// Something to say, or to answer.
    Say(String),
    /// What is wrong with it.
    Wrong(String),
}

impl Command {
    pub(super) fn parse(line: &str) -> Self {
        let text = line.trim();
        if text.is_empty() {
            return Self::Nothing;
        }
        if let Some(said) = text.strip_prefix("//") {
            return Self::Say(format!("/{said}"));
        }
        let Some(command) = text.strip_prefix('/') else { return Self::Say(text.to_owned()) };
        let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let rest = rest.trim();
        let needs = |what: &str| Self::Wrong(format!("`/{name}` needs {what}"));
        match name {
            "help" | "?" => Self::Help,
            "sessions" | "list" => Self::Sessions,
            "open" if rest.is_empty() => needs("the number or the id of a session"),
            "open" => Self::Open(rest.to_owned()),
            "new" => Self::New,
            "history" => Self::History,
            "rename" if rest.is_empty() => needs("a title"),
            "rename" => Self::Rename(rest.to_owned()),
            "who" => Self::Who,
            "cancel" => Self::Cancel,
            "retry" => Self::Retry,
            "approve" => match rest {
                "" | "once" => Self::Approve(Remember::Once),
                "session" => Self::Approve(Remember::Session),
                "project" => Self::Approve(Remember::Project),
                _ => needs("`once`, `session` or `project`"),
            },
            "deny" => Self::Deny(Some(rest.to_owned()).filter(|why| !why.is_empty())),
            "quit" | "exit" => Self::Quit,
            _ => Self::Wrong(format!("`/{name}` is no command: see `/help`")),
        }
    }

    /// A line in answer to a tool call that waits; none when it is no answer.
    pub(super) fn verdict(text: &str) -> Option<Self> {
        let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        Some(match word.to_lowercase().as_str() {
            "y" | "yes" | "once" => Self::Approve(Remember::Once),
            "s" | "session" => Self::Approve(Remember::Session),
            "p" | "project" => Self::Approve(Remember::Project),
            "n" | "no" => Self::Deny(Some(rest.trim().to_owned()).filter(|why| !why.is_empty())),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_commands_or_said() {
        for (line, expected) in [
            ("  ", Command::Nothing),
            (" hello /quit ", Command::Say("hello /quit".to_owned())),
            ("//etc is a path", Command::Say("/etc is a path".to_owned())),
            ("/open 2", Command::Open("2".to_owned())),
            ("/approve session", Command::Approve(Remember::Session)),
            ("/deny  too much ", Command::Deny(Some("too much".to_owned()))),
            ("/deny", Command::Deny(None)),
            ("/rename", Command::Wrong("`/rename` needs a title".to_owned())),
            ("/fly", Command::Wrong("`/fly` is no command: see `/help`".to_owned())),
        ] {
            assert_eq!(Command::parse(line), expected, "{line}");
        }
    }

    #[test]
    fn an_answer_is_a_letter_or_a_word() {
        assert_eq!(Command::verdict("Y"), Some(Command::Approve(Remember::Once)));
        assert_eq!(Command::verdict("p"), Some(Command::Approve(Remember::Project)));
        assert_eq!(
            Command::verdict("no not that"),
            Some(Command::Deny(Some("not that".to_owned())))
        );
        assert_eq!(Command::verdict("n"), Some(Command::Deny(None)));
        assert_eq!(Command::verdict("yesterday"), None);
    }
}
