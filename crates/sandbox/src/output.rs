//! What is kept of the output of a command.

/// The beginning and the end of an output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// The first bytes.
    pub head: Vec<u8>,
    /// The last bytes, as far as they are not in `head`.
    pub tail: Vec<u8>,
    /// How many bytes there were, kept or not.
    pub bytes_total: u64,
}

impl Output {
    /// How many bytes between `head` and `tail` were not kept.
    pub fn bytes_left_out(&self) -> u64 {
        self.bytes_total.saturating_sub((self.head.len() + self.tail.len()) as u64)
    }

    /// The output as text: see [`plain_text`]; a line in the middle says how much is left out.
    pub fn text(&self) -> String {
        let left_out = self.bytes_left_out();
        if left_out == 0 {
            let whole = [self.head.as_slice(), self.tail.as_slice()].concat();
            return plain_text(&whole);
        }
        let (head, tail) = (plain_text(&self.head), plain_text(&self.tail));
        format!("{head}\n[{left_out} bytes left out]\n{tail}")
    }
}

/// Bytes as text that can be shown: what is no UTF-8 replaced, the escape sequences of terminals
/// (ECMA-48 section 5: control sequences and control strings) and control characters other than tab and
/// line feed taken out.
///
/// ```
/// assert_eq!(iris_sandbox::plain_text(b"\x1b[1mbold\x1b[0m\r\n\xff"), "bold\n\u{fffd}");
/// ```
pub fn plain_text(bytes: &[u8]) -> String {
    let decoded = String::from_utf8_lossy(bytes);
    let mut text = String::with_capacity(decoded.len());
    let mut rest = decoded.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' => match rest.next() {
                Some('[') => skip_control_sequence(&mut rest),
                Some(']' | 'P' | 'X' | '^' | '_') => skip_control_string(&mut rest),
                // Intermediate characters, as of a choice of character set, and then a final one.
                Some(' '..='/') => while matches!(rest.next(), Some(' '..='/')) {},
                Some(_) | None => {}
            },
            '\u{9b}' => skip_control_sequence(&mut rest),
            // Windows ends lines with both; one alone goes back to the start of a line.
            '\r' if rest.peek() == Some(&'\n') => {}
            '\r' | '\n' => text.push('\n'),
            '\t' => text.push('\t'),
            c if c.is_control() => {}
            c => text.push(c),
        }
    }
    text
}

type Rest<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// Parameters and intermediate characters, then one final character.
fn skip_control_sequence(rest: &mut Rest<'_>) {
    while rest.next_if(|c| matches!(c, ' '..='?')).is_some() {}
    rest.next_if(|c| matches!(c, '@'..='~'));
}

/// Up to a bell or a string terminator, or to the end of the line: a string that never ends shall not
/// hide what comes after it.
fn skip_control_string(rest: &mut Rest<'_>) {
    while let Some(c) = rest.next_if(|&c| c != '\n') {
        match c {
            '\u{7}' | '\u{9c}' => return,
            '\u{1b}' => {
                rest.next_if_eq(&'\\');
                return;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_said_in_the_middle() {
        let mut output = Output { head: b"ab".to_vec(), tail: b"yz".to_vec(), bytes_total: 4 };
        assert_eq!((output.bytes_left_out(), output.text()), (0, "abyz".to_owned()));
        output.bytes_total = 26;
        assert_eq!(output.text(), "ab\n[22 bytes left out]\nyz");
    }

    #[test]
    fn escapes_and_controls_are_taken_out() {
        let cases: [(&[u8], &str); 10] = [
            (b"\x1b[31mred\x1b[0m", "red"),
            (b"\x1b]0;title\x07shown", "shown"),
            (b"\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
            (b"\x1b]never ends\nnext", "\nnext"),
            (b"a\r\nb\rc", "a\nb\nc"),
            (b"bell\x07 null\x00 back\x08", "bell null back"),
            (b"\xff\xfe", "\u{fffd}\u{fffd}"),
            ("\u{9b}2Jcleared".as_bytes(), "cleared"),
            (b"\x1b(Bset\x1b", "set"),
            (b"\x1b[1;2", ""),
        ];
        for (bytes, expected) in cases {
            assert_eq!(plain_text(bytes), expected, "{bytes:?}");
        }
    }
}
