//! Log lines without secrets.

use std::io::{self, Write};

use crate::shared;

/// Writes text that comes in whole lines, as log lines do, without its secrets.
#[derive(Debug, Clone, Copy)]
pub struct Masked<W>(pub W);

impl<W: Write> Write for Masked<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match std::str::from_utf8(bytes) {
            Ok(line) => self.0.write_all(shared().mask(line).as_bytes()),
            Err(_) => self.0.write_all(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MARK;

    #[test]
    fn lines_are_written_without_their_secrets() {
        shared().learn("canary-of-the-lines");
        let mut written = Masked(Vec::new());
        written.write_all(b"INFO it is canary-of-the-lines\n").unwrap();
        assert_eq!(written.write(b"next\n").unwrap(), 5);
        // What is no text is left as it is.
        written.write_all(&[0xff, b'\n']).unwrap();
        let expected = format!("INFO it is {MARK}\nnext\n");
        assert_eq!(written.0, [expected.as_bytes(), &[0xff, b'\n']].concat());
    }
}
