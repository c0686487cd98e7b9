//! Server-sent events, as far as messages of a server need them (HTML Living Standard, section 9.2.6).

use std::time::Duration;

/// The longest that a server may have us wait before we come back.
const RETRY_MAX: Duration = Duration::from_secs(10);
/// Longest id of an event that is remembered, in bytes.
const ID_BYTES_MAX: usize = 1024;

/// What an event stream says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// The data of an event.
    Message(Vec<u8>),
    /// An event that is longer than allowed and is forgotten.
    TooLong,
}

/// Takes the pieces of a stream apart.
#[derive(Debug)]
pub(crate) struct Events {
    bytes_max: usize,
    /// The beginning of a line.
    line: Vec<u8>,
    /// The data of the event that is read.
    data: Option<Vec<u8>>,
    is_too_long: bool,
    /// Whether the event that is read is of a kind that is no message.
    is_other: bool,
    /// The last byte was a carriage return, which alone ends a line too.
    after_return: bool,
    last_id: Option<String>,
    retry: Option<Duration>,
}

impl Events {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            line: Vec::new(),
            data: None,
            is_too_long: false,
            is_other: false,
            after_return: false,
            last_id: None,
            retry: None,
        }
    }

    /// The id of the last event that had one: from there a server can go on.
    pub(crate) fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    /// How long the server wants us to wait before we come back.
    pub(crate) fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// Another connection goes on: what was half read is forgotten.
    pub(crate) fn reconnected(&mut self) {
        self.line.clear();
        self.forget();
    }

    /// What a further piece says.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Vec<Said> {
        let mut said = Vec::new();
        for &byte in piece {
            let is_second = std::mem::take(&mut self.after_return) && byte == b'\n';
            match byte {
                b'\n' if is_second => {}
                b'\n' | b'\r' => {
                    self.after_return = byte == b'\r';
                    let line = std::mem::take(&mut self.line);
                    said.extend(self.end_line(&line));
                }
                // A little more than the data: the name of the field.
                _ if self.line.len() > self.bytes_max + 64 => self.is_too_long = true,
                _ => self.line.push(byte),
            }
        }
        said
    }

    fn end_line(&mut self, line: &[u8]) -> Option<Said> {
        if line.is_empty() {
            return self.end_event();
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (field, value) = line.split_at(colon);
        let value = value.strip_prefix(b":").unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => self.add_data(value),
            b"event" => self.is_other = !value.is_empty() && value != b"message",
            b"id" => {
                let id = std::str::from_utf8(value).ok();
                let is_plain = |id: &&str| id.len() <= ID_BYTES_MAX && id.bytes().all(is_visible);
                self.last_id = id.filter(is_plain).map(str::to_owned);
            }
            b"retry" => {
                let text = std::str::from_utf8(value).ok();
                let ms = text.and_then(|text| text.parse().ok());
                self.retry = ms.map(|ms| Duration::from_millis(ms).min(RETRY_MAX));
            }
            _ => {}
        }
        None
    }

    fn add_data(&mut self, value: &[u8]) {
        let data = self.data.take();
        if data.as_ref().map_or(0, Vec::len) + value.len() > self.bytes_max {
            self.is_too_long = true;
            return;
        }
        let mut data = data.map_or_else(Vec::new, |mut data| {
            data.push(b'\n');
            data
        });
        data.extend_from_slice(value);
        self.data = Some(data);
    }

    fn end_event(&mut self) -> Option<Said> {
        let data = self.data.take().filter(|data| !data.is_empty());
        let (is_other, is_too_long) = (self.is_other, self.is_too_long);
        self.forget();
        if is_too_long {
            return Some(Said::TooLong);
        }
        // An event without data may only carry an id.
        data.filter(|_| !is_other).map(Said::Message)
    }

    fn forget(&mut self) {
        self.data = None;
        (self.is_other, self.is_too_long) = (false, false);
    }
}

/// What may stand in a header.
fn is_visible(byte: u8) -> bool {
    (b' '..=b'~').contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> Said {
        Said::Message(text.as_bytes().to_vec())
    }

    #[test]
    fn events_are_read_however_they_are_cut() {
        let text = ": hello\r\n\r\nid: 7\nretry: 99999999\ndata: {\"a\":\ndata:1}\n\nevent: ping\ndata: no\n\n\
                    event: message\rdata: two\r\r\n\nid: 8\ndata:\n\ndata: cut";
        for size in [1, 2, 3, 1000] {
            let mut events = Events::new(100);
            let pieces = text.as_bytes().chunks(size);
            let said: Vec<Said> = pieces.flat_map(|piece| events.push(piece)).collect();
            assert_eq!(said, [message("{\"a\":\n1}"), message("two")], "{size}");
            assert_eq!(events.last_id(), Some("8"));
            assert_eq!(events.retry(), Some(RETRY_MAX));
        }
    }

    #[test]
    fn events_that_are_too_long_are_forgotten() {
        let mut events = Events::new(8);
        let long = format!("data: {}\n\ndata: 12345678\n\n", "x".repeat(1 << 20));
        assert_eq!(events.push(long.as_bytes()), [Said::TooLong, message("12345678")]);
        let many = format!("{}\ndata: next\n\n", "data: 123\n".repeat(1000));
        assert_eq!(events.push(many.as_bytes()), [Said::TooLong, message("next")]);
        assert!(events.line.capacity() < 1024);
    }

    #[test]
    fn ids_that_could_break_a_header_are_not_kept() {
        let mut events = Events::new(8);
        events.push("id: a\u{7f}b\n\n".as_bytes());
        assert_eq!(events.last_id(), None);
    }
}
