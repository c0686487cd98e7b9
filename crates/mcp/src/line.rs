//! Lines of a stream, of which none is longer than allowed.

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Bytes that are read at once.
const READ_BYTES: usize = 64 * 1024;

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// A line without its end.
    Whole(Vec<u8>),
    /// A line that was longer than allowed and is forgotten.
    TooLong,
    /// The stream ended; what stood after the last line end is no line.
    End,
}

pub(crate) struct Lines<R> {
    from: R,
    bytes_max: usize,
    /// What was read and is not handed out.
    buffer: Vec<u8>,
    /// How much of `buffer` holds no line end.
    searched: usize,
    is_skipping: bool,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(crate) fn new(from: R, bytes_max: usize) -> Self {
        Self { from, bytes_max, buffer: Vec::new(), searched: 0, is_skipping: false }
    }

    /// Waits for a line. Nothing is lost when the wait is given up.
    pub(crate) async fn next(&mut self) -> Line {
        loop {
            if let Some(line) = self.take_line() {
                return line;
            }
            self.buffer.reserve(READ_BYTES);
            match self.from.read_buf(&mut self.buffer).await {
                // A pipe that breaks has ended.
                Ok(0) | Err(_) => return Line::End,
                Ok(_) => {}
            }
        }
    }

    fn take_line(&mut self) -> Option<Line> {
        let new = self.buffer.get(self.searched..).unwrap_or_default();
        let Some(found) = new.iter().position(|byte| *byte == b'\n') else {
            self.searched = self.buffer.len();
            if self.buffer.len() > self.bytes_max {
                self.is_skipping = true;
                self.buffer = Vec::new();
                self.searched = 0;
            }
            return None;
        };
        let end = self.searched + found;
        let rest = self.buffer.split_off(end + 1);
        let mut line = std::mem::replace(&mut self.buffer, rest);
        self.searched = 0;
        if std::mem::take(&mut self.is_skipping) || end > self.bytes_max {
            return Some(Line::TooLong);
        }
        line.truncate(end);
        Some(Line::Whole(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(text: &[u8], bytes_max: usize) -> Vec<Line> {
        let mut lines = Lines::new(text, bytes_max);
        let mut all = Vec::new();
        loop {
            let line = lines.next().await;
            if line == Line::End {
                return all;
            }
            all.push(line);
        }
    }

    fn whole(text: &str) -> Line {
        Line::Whole(text.as_bytes().to_vec())
    }

    #[tokio::test]
    async fn lines_are_cut_at_their_ends_and_the_rest_is_none() {
        assert_eq!(lines(b"a\n\nbc\nrest", 9).await, [whole("a"), whole(""), whole("bc")]);
    }

    #[tokio::test]
    async fn m3_a_line_that_is_too_long_is_forgotten_and_the_next_is_read() {
        assert_eq!(
            lines(b"123\n1234\n12345\n1\n", 4).await,
            [whole("123"), whole("1234"), Line::TooLong, whole("1")]
        );
        let mut text = vec![b'x'; 64 * 1024 * 1024];
        text.extend_from_slice(b"\nnext\n");
        assert_eq!(lines(&text, 1024).await, [Line::TooLong, whole("next")]);
    }

    #[tokio::test]
    async fn memory_does_not_grow_with_a_line() {
        let text = vec![b'x'; 16 * 1024 * 1024];
        let mut lines = Lines::new(text.as_slice(), 1024);
        assert_eq!(lines.next().await, Line::End);
        assert!(lines.buffer.capacity() < 1024 * 1024);
    }
}
