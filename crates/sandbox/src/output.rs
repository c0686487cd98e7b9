//! What is kept of the output of a command.

use std::collections::VecDeque;

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

/// Collects an output, in memory that does not grow beyond what is kept.
#[derive(Debug)]
pub(crate) struct Capture {
    head_max: usize,
    tail_max: usize,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    bytes_total: u64,
}

impl Capture {
    /// Keeps at most `bytes_max`, half of them of the beginning.
    pub(crate) fn new(bytes_max: usize) -> Self {
        let head_max = bytes_max.div_ceil(2);
        Self {
            head_max,
            tail_max: bytes_max - head_max,
            head: Vec::new(),
            tail: VecDeque::new(),
            bytes_total: 0,
        }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes_total = self.bytes_total.saturating_add(bytes.len() as u64);
        let room = self.head_max - self.head.len();
        let (head, rest) = bytes.split_at(room.min(bytes.len()));
        self.head.extend_from_slice(head);
        let rest = rest.get(rest.len().saturating_sub(self.tail_max)..).unwrap_or_default();
        let excess = (self.tail.len() + rest.len()).saturating_sub(self.tail_max);
        self.tail.drain(..excess);
        self.tail.extend(rest);
    }

    pub(crate) fn finish(self) -> Output {
        Output { head: self.head, tail: self.tail.into(), bytes_total: self.bytes_total }
    }
}

/// Bytes as text that can be shown: what is no UTF-8 replaced, the escape sequences of terminals
/// (ECMA-48 section 5: control sequences and control strings) and control characters other than tab and
/// line feed taken out.
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

    fn captured(bytes_max: usize, pieces: &[&[u8]]) -> Output {
        let mut capture = Capture::new(bytes_max);
        for piece in pieces {
            capture.push(piece);
        }
        capture.finish()
    }

    #[test]
    fn what_fits_is_kept_whole() {
        let output = captured(8, &[b"abc", b"defgh"]);
        assert_eq!((output.bytes_left_out(), output.text()), (0, "abcdefgh".to_owned()));
    }

    #[test]
    fn beginning_and_end_are_kept_of_what_does_not_fit() {
        for pieces in [vec![&b"0123456789abcdef"[..]], vec![b"0", b"123456789a", b"b", b"cdef"]] {
            let output = captured(8, &pieces);
            assert_eq!((&output.head[..], &output.tail[..]), (&b"0123"[..], &b"cdef"[..]));
            assert_eq!((output.bytes_total, output.bytes_left_out()), (16, 8));
            assert_eq!(output.text(), "0123\n[8 bytes left out]\ncdef");
        }
    }

    #[test]
    fn memory_does_not_grow_with_the_output() {
        let mut capture = Capture::new(1024);
        for _ in 0..10_000 {
            capture.push(&[b'y'; 4096]);
        }
        assert!(capture.head.capacity() <= 4096 && capture.tail.capacity() <= 4096);
        assert_eq!(capture.finish().bytes_total, 40_960_000);
    }

    #[test]
    fn a_cap_of_nothing_keeps_nothing() {
        let output = captured(0, &[b"abc"]);
        assert_eq!((output.head.len(), output.tail.len(), output.bytes_total), (0, 0, 3));
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
