//! Reads scripts.

use crate::{ErrorClass, Finish, ModelError};

/// Most pieces of one `chunks` line.
const CHUNKS_MAX: usize = 100_000;

/// The first words of script lines.
const WORDS: &[&str] =
    &["say", "think", "chunks", "call", "delay", "finish", "fail", "cut", "step", "repeat", "turn"];

/// One instruction that produces something.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Line {
    Say(String),
    Think(String),
    Chunks { count: usize, text: String },
    Call { tool: String, arguments: String },
    Delay { ms: u64 },
    Finish(Finish),
    Fail { class: ErrorClass, message: String },
    Cut,
}

/// A script: turns of steps of lines. There is always a turn, and each has a step.
#[derive(Debug)]
pub(super) struct Script {
    turns: Vec<Turn>,
}

#[derive(Debug)]
struct Turn {
    steps: Vec<Vec<Line>>,
    repeats: bool,
}

impl Turn {
    fn new() -> Self {
        Self { steps: vec![Vec::new()], repeats: false }
    }
}

impl Script {
    /// Whether a message is meant as a script: its first line that is not blank is a script line.
    pub(super) fn is_script(text: &str) -> bool {
        instructions(text).next().is_some_and(|(_, line)| WORDS.contains(&split(line).0))
    }

    /// Reads a file.
    pub(super) fn parse(text: &str) -> Result<Self, ModelError> {
        let mut turns = vec![Turn::new()];
        for (number, line) in instructions(text) {
            let (word, rest) = split(line);
            let Some(turn) = turns.last_mut() else { continue };
            match word {
                "turn" => turns.push(Turn::new()),
                "step" => turn.steps.push(Vec::new()),
                "repeat" => turn.repeats = true,
                _ => {
                    let parsed = parse_line(word, rest).map_err(|why| bad_line(number, &why))?;
                    if let Some(step) = turn.steps.last_mut() {
                        step.push(parsed);
                    }
                }
            }
        }
        Ok(Self { turns })
    }

    /// Reads a message, which is one turn.
    pub(super) fn parse_message(text: &str) -> Result<Self, ModelError> {
        match instructions(text).find(|(_, line)| split(line).0 == "turn") {
            Some((number, _)) => Err(bad_line(number, "`turn` is only for files")),
            None => Self::parse(text),
        }
    }

    pub(super) fn turns(&self) -> usize {
        self.turns.len()
    }

    /// The lines of a step, both counted from 0.
    pub(super) fn step(&self, turn: usize, step: usize) -> Vec<Line> {
        let turn = self.turns.get(turn);
        let last = turn.filter(|turn| turn.repeats).and_then(|turn| turn.steps.last());
        let lines = turn.and_then(|turn| turn.steps.get(step)).or(last);
        lines.cloned().unwrap_or_else(|| vec![Line::Say("Done.".to_owned())])
    }
}

fn parse_line(word: &str, rest: &str) -> Result<Line, String> {
    match word {
        "say" => Ok(Line::Say(rest.to_owned())),
        "think" => Ok(Line::Think(rest.to_owned())),
        "cut" => Ok(Line::Cut),
        "call" => match split(rest) {
            ("", _) => Err("`call` needs a tool".to_owned()),
            (tool, arguments) => {
                Ok(Line::Call { tool: tool.to_owned(), arguments: arguments.to_owned() })
            }
        },
        "chunks" => {
            let (count, text) = split(rest);
            let count = count.parse().ok().filter(|count| (1..=CHUNKS_MAX).contains(count));
            let count = count.ok_or(format!("`chunks` needs a number from 1 to {CHUNKS_MAX}"))?;
            let text = if text.is_empty() { "word" } else { text };
            Ok(Line::Chunks { count, text: text.to_owned() })
        }
        "delay" => match rest.parse() {
            Ok(ms) => Ok(Line::Delay { ms }),
            Err(_) => Err("`delay` needs a number of milliseconds".to_owned()),
        },
        "finish" => match rest {
            "stop" => Ok(Line::Finish(Finish::Stop)),
            "tool_calls" => Ok(Line::Finish(Finish::ToolCalls)),
            "length" => Ok(Line::Finish(Finish::Length)),
            "content_filter" => Ok(Line::Finish(Finish::ContentFilter)),
            _ => Err(format!("there is no reason `{rest}` to finish")),
        },
        "fail" => {
            let (name, message) = split(rest);
            let class = ErrorClass::ALL.iter().find(|class| class.as_str() == name);
            let class = *class.ok_or(format!("there is no class `{name}` of errors"))?;
            let message = if message.is_empty() { "the script says so" } else { message };
            Ok(Line::Fail { class, message: message.to_owned() })
        }
        _ => Err(format!("there is no instruction `{word}`")),
    }
}

/// The lines that say something, with their 1-based numbers.
fn instructions(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// The first word and the rest.
fn split(line: &str) -> (&str, &str) {
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    (word, rest.trim())
}

fn bad_line(number: usize, why: &str) -> ModelError {
    ModelError::new(ErrorClass::Invalid, format!("line {number} of the script: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_line_is_named() {
        for (script, expected) in [
            ("say hi\n\nshout", "line 3 of the script: there is no instruction `shout`"),
            ("chunks many", "line 1 of the script: `chunks` needs a number from 1 to 100000"),
            ("chunks 100001", "line 1 of the script: `chunks` needs a number from 1 to 100000"),
            ("delay x", "line 1 of the script: `delay` needs a number of milliseconds"),
            ("fail badly", "line 1 of the script: there is no class `badly` of errors"),
            ("finish now", "line 1 of the script: there is no reason `now` to finish"),
            ("call", "line 1 of the script: `call` needs a tool"),
            ("say a\nturn", "line 2 of the script: `turn` is only for files"),
        ] {
            let error = Script::parse_message(script).unwrap_err();
            assert_eq!(error, ModelError::new(ErrorClass::Invalid, expected));
        }
    }

    #[test]
    fn steps_follow_each_other_and_repeat_plays_the_last_again() {
        let say = |text: &str| vec![Line::Say(text.into())];
        let script = Script::parse("say a\nstep\nsay b\nturn\n# note\nsay c\nrepeat").unwrap();
        assert_eq!(script.turns(), 2);
        assert_eq!([script.step(0, 0), script.step(0, 1)], [say("a"), say("b")]);
        assert_eq!([script.step(0, 2), script.step(1, 7)], [say("Done."), say("c")]);
    }

    #[test]
    fn only_a_first_line_that_is_an_instruction_makes_a_script() {
        assert!(Script::is_script("\n# note\n  say hi"));
        for text in ["", "hello\nsay hi", "saying hi", "# say hi"] {
            assert!(!Script::is_script(text), "{text}");
        }
    }
}
