//! Asking whoever sits at the terminal, beside standard input and output.

use std::io::{self, IsTerminal, Write};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::terminal::{disable_raw_mode, enable_raw_mode};
use zeroize::Zeroizing;

use super::RemoteError;

/// Longest text that is taken, in bytes.
const TYPED_BYTES_MAX: usize = 4_096;

/// Puts the terminal back as it was, however the question ends.
struct Cooked;

impl Drop for Cooked {
    fn drop(&mut self) {
        // Nothing is left to be done about a terminal that is gone.
        disable_raw_mode().ok();
        drop(writeln!(io::stderr()));
    }
}

/// Asks for a line that is shown while it is typed.
///
/// # Errors
/// `Usage` without a terminal; `Terminal`, with the kind `Interrupted` after Ctrl-C.
pub(crate) fn line(question: &str) -> Result<Zeroizing<String>, RemoteError> {
    ask(question, true)
}

/// Asks for a line that nobody sees.
///
/// # Errors
/// As [`line`].
pub(crate) fn secret(question: &str) -> Result<Zeroizing<String>, RemoteError> {
    ask(question, false)
}

fn ask(question: &str, is_shown: bool) -> Result<Zeroizing<String>, RemoteError> {
    let mut terminal = io::stderr();
    if !terminal.is_terminal() {
        let text = "there is no terminal to ask on: set `IRIS_TOKEN`, or give `--email` and \
                    `IRIS_PASSWORD`";
        return Err(RemoteError::Usage(text.to_owned()));
    }
    write!(terminal, "{question}")?;
    terminal.flush()?;
    enable_raw_mode()?;
    let _cooked = Cooked;
    // As long as it can become: a longer buffer would leave a copy of what it held before.
    let mut typed = Zeroizing::new(String::with_capacity(TYPED_BYTES_MAX));
    loop {
        let Event::Key(key) = event::read()? else { continue };
        match step(key, &mut typed) {
            Step::Done => return Ok(typed),
            Step::Interrupted => {
                return Err(io::Error::from(io::ErrorKind::Interrupted).into());
            }
            Step::Changed if is_shown => {
                let shown = super::visible(&typed);
                write!(terminal, "\r\u{1b}[K{question}{shown}")?;
                terminal.flush()?;
            }
            Step::Changed | Step::Same => {}
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Done,
    Interrupted,
    Changed,
    Same,
}

#[expect(clippy::wildcard_enum_match_arm, reason = "all other keys do nothing")]
fn step(key: KeyEvent, typed: &mut String) -> Step {
    let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        _ if key.kind == KeyEventKind::Release => Step::Same,
        KeyCode::Enter => Step::Done,
        KeyCode::Char('c' | 'd') if is_control => Step::Interrupted,
        KeyCode::Char('u') if is_control => {
            typed.clear();
            Step::Changed
        }
        KeyCode::Char(c) if !is_control && typed.len() + c.len_utf8() <= TYPED_BYTES_MAX => {
            typed.push(c);
            Step::Changed
        }
        KeyCode::Backspace if typed.pop().is_some() => Step::Changed,
        _ => Step::Same,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_taken_until_the_end_of_the_line() {
        let mut typed = String::new();
        for c in "wrogn".chars() {
            assert_eq!(step(KeyCode::Char(c).into(), &mut typed), Step::Changed);
        }
        for _ in 0..2 {
            step(KeyCode::Backspace.into(), &mut typed);
        }
        step(KeyCode::Char('ä').into(), &mut typed);
        assert_eq!((step(KeyCode::Enter.into(), &mut typed), typed.as_str()), (Step::Done, "wroä"));
        let control = |c| KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL);
        step(control('u'), &mut typed);
        assert_eq!((step(control('c'), &mut typed), typed.as_str()), (Step::Interrupted, ""));
        typed = "a".repeat(TYPED_BYTES_MAX);
        assert_eq!(step(KeyCode::Char('b').into(), &mut typed), Step::Same);
    }
}
